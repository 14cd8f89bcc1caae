"""JournalWriter: the one writer of a journal; JournalCursor (from cursor.pyx): any reader's place in it.

Who runs what: the hot thread calls `append`, which makes no system call. `prepare` runs in an executor thread of
the same process when `needs_prepare` says so: it reserves the next segment, faults pages in ahead of the hot
thread, syncs full segments and deletes old ones. `open` and `close` are for the composition root.

The folder: `lock`, `<first sequence number, 20 digits>.segment`, `cursors/<name>`. Records are numbered from 1;
a number is a record's place in the log and is never given twice. A process that is killed loses nothing that
`append` took. A machine that crashes loses what the kernel had not written yet, usually the last 30 seconds: the
hot thread never syncs, `prepare` syncs each segment once it is full. After such a crash numbering goes on above
all that any header or durable cursor says was given.
"""

import fcntl
import os
import threading
from collections import namedtuple
from itertools import pairwise

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from tradeback._fast.record cimport (
    JOURNAL_RECORD_BYTES, RECORD_BEGIN, RECORD_GAP, RECORD_START, RECORD_TRADE, BeginRecord, GapRecord, JournalRecord,
)
from tradeback._fast.segment cimport (
    NAME_BYTES, SEGMENT_HEADER_BYTES, Segment, load_acquire, record_crc, store_release,
)

from tradeback._fast.cursor import (
    JournalBegin, JournalCursor, JournalGap, JournalOther, JournalStart, JournalTrade, Record, drop_cursor,
    durable_places,
)
from tradeback._fast.segment import folder_error, list_segments
from tradeback.errors import DataFolderError

cdef enum:
    # Pages are faulted in this many records ahead of the hot thread (4 MiB), and asked for at every half.
    TOUCH_RECORDS = 65536

DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024
DEFAULT_RETENTION_BYTES = 2 * 1024 * 1024 * 1024
HARD_CAP_FACTOR = 2
LOCK_NAME = "lock"

PrepareReport = namedtuple("PrepareReport", "deleted overrun")
PrepareReport.__doc__ = """What `prepare` did: `deleted` segments by path, and in `overrun` a sentence for each
durable cursor that lost its place, which the caller logs as errors and counts."""


@cython.final
cdef class JournalWriter:
    """The writer. Make it with `open`; it holds the folder's lock until `close`."""

    def __cinit__(self):
        self.lock_fd = -1

    def __dealloc__(self):
        if self.lock_fd >= 0:
            close(self.lock_fd)

    @staticmethod
    def open(folder, name, segment_bytes=DEFAULT_SEGMENT_BYTES, retention_bytes=DEFAULT_RETENTION_BYTES):
        """Take the journal in `folder`, made where it is missing, and go on after its last whole record.

        `name` says whose journal it is (exchange/name): another's is refused. A torn tail is cut off; `cut`,
        `damaged` and `skipped` say what was found. Raises DataFolderError where another process holds it, a
        segment is foreign, of another version, cut short or missing in the middle, or the folder cannot be
        written; no segment is deleted or changed then.
        """
        cdef JournalWriter self = JournalWriter.__new__(JournalWriter)
        if len(name.encode()) >= NAME_BYTES:
            raise DataFolderError(f"{name!r} is too long to name a journal: take under {NAME_BYTES} bytes")
        if segment_bytes < SEGMENT_HEADER_BYTES + JOURNAL_RECORD_BYTES:
            raise DataFolderError(
                f"a segment of {segment_bytes} bytes holds no record: raise JOURNAL_SEGMENT_BYTES"
            )
        self.folder, self.name = os.fspath(folder), name
        self.segment_records = (segment_bytes - SEGMENT_HEADER_BYTES) // JOURNAL_RECORD_BYTES
        self.retention_bytes = retention_bytes
        self.retired, self.deleted, self.overrun = [], [], []
        self.busy = threading.Lock()
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._lock()
            self._recover()
        except OSError as error:
            raise folder_error(self.folder, error) from error
        return self

    def _lock(self):
        path = os.path.join(self.folder, LOCK_NAME)
        self.lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self.lock_fd, 20, 0).decode(errors="replace").strip() or "unknown"
            raise DataFolderError(
                f"the journal {self.folder} is being written by process {pid}: stop that one, or choose "
                "another data folder"
            ) from None
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)

    cdef int _recover(self) except -1:
        """Check the chain of segments, find the end, and make it the active place."""
        cdef Segment segment, before, ahead
        cdef uint64_t end, given, count
        for entry in os.listdir(self.folder):
            if entry.endswith(".segment.new"):
                # A segment that was being reserved when the last writer ended: no reader ever sees that name.
                os.unlink(os.path.join(self.folder, entry))
        chain = [Segment.open(path, True) for _, path in list_segments(self.folder)]
        before = None
        for segment in chain:
            if segment.name != self.name:
                raise DataFolderError(
                    f"{segment.path} belongs to the journal of {segment.name!r}, and this is {self.name!r}: "
                    "move it away, or choose another data folder"
                )
            if before is not None and not before.first_seq <= segment.previous_end <= before.end:
                raise DataFolderError(
                    f"the segment that should follow {before.path} is missing, the next one is {segment.path}: "
                    f"restore it, or move {before.path} and all older ones away as well"
                )
            before = segment
        # What follows a segment says where that one ends, even where the machine crashed before its own
        # counter was written. Ending early, it is sealed.
        for before, segment in pairwise(chain):
            early = segment.previous_end < before.end
            if early or segment.header.committed or segment.whole_end():
                store_release(&before.header.committed, segment.previous_end - before.first_seq)
                store_release(&before.header.sealed, early)

        given = 1
        for place in durable_places(self.folder).values():
            given = max(given, <uint64_t>place)
        if not chain:
            segment = Segment.create(self.folder, self.name, given, given, self.segment_records)
            return self._use(segment, 0)

        # The last one with a record is the end; one made ahead of need may follow it.
        ahead = None
        segment = chain.pop()
        count = segment.whole_end()
        if count == 0 and segment.committed() == 0 and chain:
            ahead = segment
            segment = chain.pop()
            count = segment.committed() if segment.header.sealed else segment.whole_end()
        end = segment.first_seq + count
        self.damaged = segment.count_damaged(count)
        self.cut = segment.committed() - count if segment.committed() > count else 0
        given = max(given, segment.first_seq + segment.committed())
        if given <= end and not segment.header.sealed:
            segment.reserve()
            segment.clear_from(count)
            store_release(&segment.header.committed, count)
            if ahead is not None and count == segment.capacity:
                return self._use(ahead, 0)
            self.next = ahead
            return self._use(segment, count)

        # Numbers above the end were given and their records are lost: leave them out, and go on in another
        # segment. In this order, so that a kill in between loses no knowledge of them.
        self.skipped = given - end
        if ahead is not None:
            if segment.header.sealed and given <= ahead.first_seq:
                self.skipped = ahead.first_seq - end
                return self._use(ahead, 0)
            os.unlink(ahead.path)
        ahead = Segment.create(self.folder, self.name, given, end, self.segment_records)
        store_release(&segment.header.committed, count)
        store_release(&segment.header.sealed, 1)
        segment.sync()
        return self._use(ahead, 0)

    cdef int _use(self, Segment segment, uint64_t index) except -1:
        self.active = segment
        self.records = segment.records
        self.committed = &segment.header.committed
        self.capacity = segment.capacity
        self.index = index
        self.next_seq = segment.first_seq + index
        self.touched = min(index + TOUCH_RECORDS, self.capacity)
        segment.touch(index, self.touched)
        self.watch = min(index + TOUCH_RECORDS // 2, self.capacity)
        if self.next is not None:
            self._offer()
        if index == self.capacity:
            # No room at all: wait for it here, or the first records would be refused.
            self._reserve_next()
        self.wants_prepare = 1
        return 0

    def _offer(self):
        """Hand the next segment to the hot thread."""
        self.next_records = self.next.records
        self.next_committed = &self.next.header.committed
        self.next_capacity = self.next.capacity
        with nogil:
            self.next.touch(0, TOUCH_RECORDS)
        store_release(&self.next_ready, 1)

    # ---- the hot thread

    cdef int append(self, JournalRecord* record) noexcept nogil:
        if self.index >= self.watch and self._turn() < 0:
            return -1
        record.crc = record_crc(record, self.next_seq)
        memcpy(&self.records[self.index], record, sizeof(JournalRecord))
        self.index += 1
        self.next_seq += 1
        store_release(self.committed, self.index)
        return 0

    cdef bint has_room(self, uint64_t records) noexcept nogil:
        if self.capacity - self.index >= records:
            return True
        if not load_acquire(&self.next_ready):
            store_release(&self.wants_prepare, 1)
            return False
        return self.capacity - self.index + self.next_capacity >= records

    cdef int _turn(self) noexcept nogil:
        """At a watched place: ask for `prepare`, and take the next segment when this one is full."""
        store_release(&self.wants_prepare, 1)
        if self.index == self.capacity:
            if not load_acquire(&self.next_ready):
                return -1
            self.records = self.next_records
            self.committed = self.next_committed
            self.capacity = self.next_capacity
            self.index = 0
            store_release(&self.next_ready, 0)
        self.watch = min(self.index + TOUCH_RECORDS // 2, self.capacity)
        return 0

    cdef bint needs_prepare_c(self) noexcept nogil:
        return load_acquire(&self.wants_prepare) != 0

    @property
    def needs_prepare(self) -> bool:
        """Whether `prepare` should be called soon. Stays true after a failure: try again in a second."""
        return self.needs_prepare_c()

    # ---- off the hot thread

    def prepare(self):
        """Delete old segments, reserve the next one, fault pages in, sync and unmap full ones: a PrepareReport.

        May block on the disk for seconds, with the GIL released; call it in an executor, while `append` goes
        on. Raises DataFolderError where there is no room: `append` then fills the segments it has and refuses,
        until a later call succeeds.
        """
        cdef uint64_t index, ahead
        with self.busy:
            if self.active is None:
                return PrepareReport((), ())
            store_release(&self.wants_prepare, 0)
            try:
                # First, since it may make the room that the next segment needs.
                self._retain()
                self._reserve_next()
                index = self.active.committed()
                ahead = min(index + TOUCH_RECORDS, self.active.capacity)
                with nogil:
                    self.active.touch(max(self.touched, index), ahead)
                self.touched = max(self.touched, ahead)
                while self.retired:
                    full = self.retired.pop()
                    (<Segment>full).sync()
                    full.close()
            except OSError as error:
                store_release(&self.wants_prepare, 1)
                raise folder_error(self.folder, error) from error
            except DataFolderError:
                store_release(&self.wants_prepare, 1)
                raise
            report = PrepareReport(tuple(self.deleted), tuple(self.overrun))
            # Not before: a call that failed leaves what it deleted to be told by the next.
            self.deleted, self.overrun = [], []
            return report

    cdef int _reserve_next(self) except -1:
        cdef uint64_t first
        if load_acquire(&self.next_ready):
            return 0
        if self.next is not None:
            # The hot thread took it.
            self.retired.append(self.active)
            self.active = self.next
            self.next = None
            self.touched = min(<uint64_t>TOUCH_RECORDS, self.active.capacity)
        first = self.active.end
        self.next = Segment.create(self.folder, self.name, first, first, self.segment_records)
        self._offer()
        return 0

    def _retain(self):
        """Delete the oldest segments until they and the one about to be reserved keep within the retention."""
        segments = list_segments(self.folder)
        sizes = [os.stat(path).st_size for _, path in segments]
        total = sum(sizes)
        if not load_acquire(&self.next_ready):
            total += SEGMENT_HEADER_BYTES + self.segment_records * JOURNAL_RECORD_BYTES
        if total <= self.retention_bytes:
            return
        places = durable_places(self.folder)
        hurt = set()
        for (first, path), (end, _), size in zip(segments, segments[1:], sizes):
            if total <= self.retention_bytes or first >= self.active.first_seq:
                break
            waiting = {name for name, place in places.items() if place < end}
            if waiting and total <= HARD_CAP_FACTOR * self.retention_bytes:
                break
            hurt |= waiting
            os.unlink(path)
            self.deleted.append(path)
            total -= size
        self.overrun += [
            f"the cursor {name} of the journal {self.folder} stands at record {places[name]}, so far behind "
            f"that records it still needed were deleted at {HARD_CAP_FACTOR} times the retention of "
            f"{self.retention_bytes} bytes: see to its reader, drop the cursor, or raise JOURNAL_RETENTION_BYTES"
            for name in sorted(hurt)
        ]

    def close(self):
        """Sync, unmap, and give up the lock. `append` refuses from here on. Idempotent."""
        with self.busy:
            if self.active is None:
                return
            self.index = self.watch = self.capacity = 0
            store_release(&self.next_ready, 0)
            segments = [*self.retired, self.active, *([self.next] if self.next is not None else [])]
            self.retired.clear()
            self.active = self.next = None
            try:
                for segment in segments:
                    (<Segment>segment).sync()
            finally:
                for segment in segments:
                    (<Segment>segment).close()
                close(self.lock_fd)
                self.lock_fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    # ---- appending from Python: the recorder's repairs, and tests

    cdef object _appended(self, JournalRecord* record):
        if self.append(record) < 0:
            raise DataFolderError(f"the journal {self.folder} has no room: call prepare, which says why")
        return self.next_seq - 1

    def append_bytes(self, record: bytes) -> int:
        """Append 64 bytes laid out as JOURNAL_FORMAT or GAP_FORMAT; the crc is filled here. Its number."""
        cdef JournalRecord copy
        if len(record) != sizeof(JournalRecord) or record[58] == 0:
            raise ValueError(
                f"{len(record)} bytes of kind {record[58:59]!r} are no record: give 64 and a kind above 0"
            )
        memcpy(&copy, <const char*>record, sizeof(copy))
        return self._appended(&copy)

    def append_trade(self, *, stream_id, price, qty, trade_id, ts_event, trade_count=1, bid=0.0, ask=0.0,
                     recv_offset_us=0, flags=0) -> int:
        """Append a trade record; the fields are those of JournalRecord. Returns its sequence number."""
        cdef JournalRecord record
        record.price, record.qty, record.bid, record.ask = price, qty, bid, ask
        record.trade_id, record.ts_event, record.recv_offset_us = trade_id, ts_event, recv_offset_us
        record.trade_count, record.stream_id = trade_count, stream_id
        record.kind, record.flags = RECORD_TRADE, flags
        return self._appended(&record)

    def append_gap(self, *, stream_id, first_id, last_id, ts_event, reason, flags=0) -> int:
        """Append a gap record for the ids first_id..last_id. Returns its sequence number."""
        cdef GapRecord gap
        memset(&gap, 0, sizeof(gap))
        gap.first_id, gap.last_id, gap.ts_event, gap.reason = first_id, last_id, ts_event, reason
        gap.trade_count = min(last_id - first_id + 1, 2**32 - 1)
        gap.stream_id, gap.kind, gap.flags = stream_id, RECORD_GAP, flags
        return self._appended(<JournalRecord*>&gap)

    def append_begin(self, *, stream_id, first_id, ts_event, floor_id=0, flags=0) -> int:
        """Append the record that says that a symbol's ids count from first_id on. Returns its sequence number."""
        cdef BeginRecord begin
        memset(&begin, 0, sizeof(begin))
        begin.first_id, begin.floor_id, begin.ts_event = first_id, floor_id, ts_event
        begin.stream_id, begin.kind, begin.flags = stream_id, RECORD_BEGIN, flags
        return self._appended(<JournalRecord*>&begin)

    def append_start(self, now_ns: int) -> int:
        """Append the record that says a writer was opened at unix time `now_ns`. Returns its number."""
        cdef JournalRecord record
        memset(&record, 0, sizeof(record))
        record.ts_event, record.kind = now_ns, RECORD_START
        return self._appended(&record)
