"""Stats: a process's counters, gauges and latency histograms in a mapped file.

Owned by the composition root of its process, which creates the file at start; the hot thread adds to it
through the inline methods of `stats.pxd`. Everyone else reads the file: `store/stats.py`, with `struct` only.

The file: magic `TBSTATS1`, u32 version, u32 bytes of JSON, the JSON, zeros up to HEAD_BYTES, then u64 cells,
all little-endian. The JSON says what lies where: process, pid, start time, and for each value and histogram
its name, kind, meaning and offset in bytes. While the process lives it holds an exclusive flock on the file.
"""

import fcntl
import json
import os
import struct
import time
from pathlib import Path

cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap,
)
from posix.unistd cimport close

from tradeback.errors import DataFolderError

MAGIC = b"TBSTATS1"
VERSION = 1
cdef enum:
    PAGE = 4096
    HEAD_BYTES = 32768          # room for magic, version and JSON; the cells start behind it

# The last value of every process, set when its file is made. A restart within one scrape changes nothing else that is
# sure to be seen from outside.
START_TIME = ("start_time_seconds", "gauge", "when the process was started, in unix seconds")

# index, name, kind, meaning. A counter only grows while the process lives; a gauge is a level.
SERVER_VALUES = (
    (C_MESSAGES_TRADE, "messages_trade", "counter", "trade events received, duplicates included"),
    (C_MESSAGES_AGG_TRADE, "messages_agg_trade", "counter", "aggTrade events received, duplicates included"),
    (C_MESSAGES_QUOTE, "messages_quote", "counter", "bookTicker events received"),
    (C_MESSAGES_OTHER, "messages_other", "counter", "other messages from the exchange"),
    (C_DUPLICATES, "duplicates", "counter", "events that the other line had brought before"),
    (C_STALE_QUOTES, "stale_quotes", "counter", "quotes older than the one held"),
    (C_HELD, "held", "counter", "aggTrades that had to wait for their single trades"),
    (C_UNKNOWN_SYMBOL, "unknown_symbol", "counter", "events of a symbol that is not carried"),
    (C_REFUSED, "refused", "counter", "events with values that cannot be"),
    (C_MALFORMED, "malformed", "counter", "messages from the exchange that no event could be had from"),
    (C_UNUSUAL, "unusual", "counter", "messages that took the slow path"),
    (C_LATE_TRADES, "late_trades", "counter", "trades that came after a higher id"),
    (C_ROUNDED, "rounded", "counter", "quantities finer than their symbol's precision"),
    (C_HELD_OVERFLOWS, "held_overflows", "counter", "aggTrades counted before their time, too many were waiting"),
    (C_OPEN_OVERFLOWS, "open_overflows", "counter", "id ranges given up before their time, too many were open"),
    (C_UNKNOWN_QUANTITIES, "unknown_quantities", "counter", "aggTrades whose remaining quantity was unknown"),
    (C_GAPS, "gaps", "counter", "id ranges that neither line brought"),
    (C_GAP_TRADES, "gap_trades", "counter", "trades in those ranges"),
    (C_JOURNAL_RECORDS, "journal_records", "counter", "records appended to the journal"),
    (C_JOURNAL_UNWRITTEN, "journal_unwritten", "counter", "records lost because the journal had no room"),
    (C_FRAMES_SENT, "frames_sent", "counter", "binary frames handed to sockets"),
    (C_RECORDS_SENT, "records_sent", "counter", "records in those frames"),
    (C_BYTES_SENT, "bytes_sent", "counter", "bytes of those frames, headers included"),
    (C_CONFLATED, "conflated", "counter", "updates merged into a later one because a client was busy"),
    (C_FLUSHES, "flushes", "counter", "flushes that sent something"),
    (C_CLIENTS, "clients", "gauge", "clients connected"),
    (C_CLIENTS_TOTAL, "clients_total", "counter", "clients accepted since the start"),
    (C_CLIENTS_BLOCKED, "clients_blocked", "gauge", "clients that take no data at the moment"),
    (C_CLIENTS_REFUSED, "clients_refused", "counter", "connections refused at or before the upgrade"),
    (C_SLOW_CLOSES, "slow_closes", "counter", "clients closed because they took no data for too long"),
    (C_RATE_CLOSES, "rate_closes", "counter", "clients closed for too many messages"),
    (C_MALFORMED_COMMANDS, "malformed_commands", "counter", "messages from clients that made no sense"),
    (C_FEED_CONNECTS, "feed_connects", "counter", "connections to the exchange that were opened"),
    (C_FEED_DISCONNECTS, "feed_disconnects", "counter", "connections to the exchange that ended"),
    (C_LOOP_ITERATIONS, "loop_iterations", "counter", "iterations of EpollLoop; other loops are not counted"),
    (C_FEED_PAUSES, "feed_pauses", "counter", "times that a feed was not read, for messages of the slow path waited"),
    (C_FEED_DROPPED, "feed_dropped", "counter", "messages of the slow path that were dropped, too many waited"),
)

SERVER_HISTOGRAMS = (
    (H_RECV_TO_SEND, "recv_to_send", "from a trade's arrival to its hand-over to a socket"),
    (H_EVENT_TO_SEND, "event_to_send", "from the exchange's event time E to the hand-over of a trade to a socket"),
    (H_LOOP_ITERATION, "loop_iteration", "one iteration of EpollLoop, waiting excluded"),
    (H_FLUSH, "flush", "one flush of the fan-out"),
)

BUCKET_RULE = (
    "cell 0 is the sum in ns; then one cell a bucket: bucket i < 8 holds the value i, "
    "above bucket i starts at (8 + i % 8) << (i // 8 - 1); the last one has no upper end"
)


@cython.final
cdef class Stats:
    """Counters, gauges and histograms of this process. Make one with `create` or `in_memory`.

    Values and histograms are tuples as in SERVER_VALUES and SERVER_HISTOGRAMS; their indexes are 0, 1, 2... START_TIME
    comes behind the values by itself.
    """

    def __cinit__(self):
        self.fd = -1
        self.map = NULL

    def __dealloc__(self):
        if self.map != NULL:
            munmap(self.map, self.map_bytes)
        if self.fd >= 0:
            close(self.fd)

    @staticmethod
    def create(path, process, values=SERVER_VALUES, histograms=SERVER_HISTOGRAMS):
        """Make the file at `path` anew, all zero, in place of an older one, and hold its lock until `close`.

        Raises DataFolderError where it cannot be written.
        """
        cdef Stats self = Stats.__new__(Stats)
        path = Path(path)
        fresh = path.with_name(path.name + ".new")
        head = self._lay_out(process, values, histograms)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            # Reserved, so that a full disk is an error here and not a SIGBUS at the first count.
            os.posix_fallocate(self.fd, 0, self.map_bytes)
            os.pwrite(self.fd, head, 0)
            os.rename(fresh, path)
        except OSError as error:
            raise DataFolderError(
                f"the counters file {path} cannot be made: {error.strerror}; "
                "make the folder writable for this user and free some space"
            ) from error
        self._map(MAP_SHARED)
        return self

    @staticmethod
    def in_memory(values=SERVER_VALUES, histograms=SERVER_HISTOGRAMS):
        """Counters that no other process sees: for tests and benchmarks."""
        cdef Stats self = Stats.__new__(Stats)
        head = self._lay_out("memory", values, histograms)
        self._map(MAP_PRIVATE | MAP_ANONYMOUS)
        memcpy(self.map, <const char*>head, len(head))
        return self

    cdef bytes _lay_out(self, process, values, histograms):
        """Decide where everything lies; returns the head of the file."""
        self.value_index = {}
        self.histogram_index = {}
        offset = HEAD_BYTES
        layout = {
            "process": process,
            "pid": os.getpid(),
            "started_ns": time.time_ns(),
            "bucket_rule": BUCKET_RULE,
            "values": [],
            "histograms": [],
        }
        values = [*values]
        values.append((len(values), *START_TIME))
        for place, (index, name, kind, meaning) in enumerate(values):
            if index != place or kind not in ("counter", "gauge") or name in self.value_index:
                raise ValueError(
                    f"value {name!r} has index {index} and kind {kind!r}: indexes count up from 0, kinds are "
                    "counter and gauge, and no name comes twice"
                )
            self.value_index[name] = index
            layout["values"].append({"name": name, "kind": kind, "meaning": meaning, "offset": offset})
            offset += 8
        # Histograms begin on a cache line of their own.
        offset = (offset + 63) // 64 * 64
        self.layout = layout
        self.histograms_at = offset
        for place, (index, name, meaning) in enumerate(histograms):
            if index != place or name in self.histogram_index:
                raise ValueError(
                    f"histogram {name!r} has index {index}: indexes count up from 0, and no name comes twice"
                )
            self.histogram_index[name] = index
            layout["histograms"].append(
                {
                    "name": name,
                    "unit": "ns",
                    "meaning": meaning,
                    "offset": offset,
                    "buckets": HISTOGRAM_BUCKETS,
                }
            )
            offset += HISTOGRAM_CELLS * 8
        self.map_bytes = (offset + PAGE - 1) // PAGE * PAGE
        text = json.dumps(layout).encode()
        head = MAGIC + struct.pack("<II", VERSION, len(text)) + text
        if len(head) > HEAD_BYTES:
            raise ValueError(f"the counters' names and meanings take {len(head)} bytes: shorten to {HEAD_BYTES}")
        return head

    cdef int _map(self, int flags) except -1:
        cdef void* map = mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE, flags, self.fd, 0)
        if map == MAP_FAILED:
            raise MemoryError(f"{self.map_bytes} bytes of counters cannot be mapped: raise ulimit -v")
        self.map = map
        self.c = <uint64_t*>(<char*>map + HEAD_BYTES)
        self.put(START_TIME[0], self.layout["started_ns"] // 1_000_000_000)
        self.histograms = <uint64_t*>(<char*>map + self.histograms_at)
        return 0

    def close(self):
        """Give up the lock: readers then say that the process ended. Counting stays allowed, and is seen."""
        if self.fd >= 0:
            # Closing is not enough: the mapping keeps the open file, and with it the lock.
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            close(self.fd)
            self.fd = -1

    def value(self, name: str) -> int:
        """The counter or gauge called `name`; KeyError where there is none."""
        return self.c[<int>self.value_index[name]]

    def increase(self, name: str, amount: int = 1) -> None:
        """Add to a counter from Python: for processes that count in Python."""
        self.c[<int>self.value_index[name]] += <uint64_t>amount

    def put(self, name: str, value: int) -> None:
        """Set a gauge from Python."""
        self.c[<int>self.value_index[name]] = <uint64_t>value

    def observe_ns(self, name: str, ns: int) -> None:
        """Add one duration to the histogram called `name`, from Python."""
        self.observe(<int>self.histogram_index[name], ns)

    def histogram_count(self, name: str) -> int:
        """How many durations the histogram called `name` holds."""
        cdef uint64_t* cells = self.histograms + <int>self.histogram_index[name] * HISTOGRAM_CELLS
        cdef uint64_t total = 0
        cdef int i
        for i in range(1, HISTOGRAM_CELLS):
            total += cells[i]
        return total

    def bucket_count(self, name: str, bucket: int) -> int:
        """How many durations lie in one bucket (0 to HISTOGRAM_BUCKETS - 1) of a histogram."""
        if not 0 <= bucket < HISTOGRAM_BUCKETS:
            raise IndexError(f"bucket {bucket} of the histogram {name}: there are {HISTOGRAM_BUCKETS}")
        return (self.histograms + <int>self.histogram_index[name] * HISTOGRAM_CELLS)[1 + <int>bucket]
