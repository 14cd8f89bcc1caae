"""JournalCursor: a reader's place in the journal, of any process; PlaceFile: where a durable one is kept.

A cursor is owned by one thread of the reading process. It maps segments read-only and never holds the writer
up, except that retention waits for durable ones (up to its hard cap). Readers see committed, whole records
only: a record whose checksum is wrong is passed over and counted in `damaged`.
"""

import fcntl
import os
import re
import struct
import time
from collections import namedtuple

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport nanosleep, timespec
from posix.unistd cimport close

from tradeback._fast.clock cimport monotonic_ns, now_ns
from tradeback._fast.record cimport (
    RECORD_BEGIN, RECORD_GAP, RECORD_START, RECORD_TRADE, BeginRecord, GapRecord, JournalRecord,
)
from tradeback._fast.segment cimport Segment, bytes_crc, load_acquire, record_is_whole

from tradeback._fast.segment import folder_error, list_segments
from tradeback.errors import DataFolderError, PlaceLostError

PLACE_MAGIC = b"TBCURSOR"
PLACE_VERSION = 1
PLACE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
CURSORS_FOLDER = "cursors"
WAIT_MAX_SECONDS = 1e8

cdef enum:
    PLACE_BYTES = 4096
    SLOTS_AT = 64
    RUN_RECORDS = 4096              # the most that one peek checks and shows
    POLL_MIN_NS = 1_000_000
    POLL_MAX_NS = 10_000_000

JournalTrade = namedtuple(
    "JournalTrade",
    "seq stream_id trade_id trade_count price qty bid ask ts_event recv_offset_us flags",
)
JournalGap = namedtuple("JournalGap", "seq stream_id first_id last_id trade_count ts_event reason flags")
JournalStart = namedtuple("JournalStart", "seq ts_event")
JournalBegin = namedtuple("JournalBegin", "seq stream_id first_id floor_id ts_event flags")
JournalOther = namedtuple("JournalOther", "seq kind data")
Record = JournalTrade | JournalGap | JournalStart | JournalBegin | JournalOther


cdef object as_tuple(const JournalRecord* record, uint64_t seq):
    cdef const GapRecord* gap
    cdef const BeginRecord* begin
    if record.kind == RECORD_TRADE:
        return JournalTrade(
            seq, record.stream_id, record.trade_id, record.trade_count, record.price, record.qty, record.bid,
            record.ask, record.ts_event, record.recv_offset_us, record.flags,
        )
    if record.kind == RECORD_GAP:
        gap = <const GapRecord*>record
        return JournalGap(
            seq, gap.stream_id, gap.first_id, gap.last_id, gap.trade_count, gap.ts_event, gap.reason, gap.flags,
        )
    if record.kind == RECORD_START:
        return JournalStart(seq, record.ts_event)
    if record.kind == RECORD_BEGIN:
        begin = <const BeginRecord*>record
        return JournalBegin(
            seq, begin.stream_id, begin.first_id, begin.floor_id, begin.ts_event, begin.flags,
        )
    # A newer writer may add kinds; readers pass the bytes on rather than fail.
    return JournalOther(seq, record.kind, (<const char*>record)[:sizeof(JournalRecord)])


@cython.final
cdef class PlaceFile:
    """The saved place of one durable cursor: a page, mapped. Held by a flock while its cursor is open."""

    def __cinit__(self):
        self.fd = -1
        self.map = NULL

    def __dealloc__(self):
        self.close()

    @staticmethod
    def open(path, writable=True):
        """Map the file; `writable` makes it where it is missing, and takes its lock.

        Raises DataFolderError, also where another has the lock.
        """
        cdef PlaceFile self = PlaceFile.__new__(PlaceFile)
        self.path = path
        try:
            if writable:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._lock()
                if os.fstat(self.fd).st_size == 0:
                    os.posix_fallocate(self.fd, 0, PLACE_BYTES)
            else:
                self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            head = os.pread(self.fd, PLACE_BYTES, 0)
        except OSError as error:
            raise folder_error(path, error) from error
        # A kill between making the file and writing its head leaves zeros.
        if writable and len(head) == PLACE_BYTES and not head.strip(b"\0"):
            head = struct.pack("<8sI", PLACE_MAGIC, PLACE_VERSION).ljust(PLACE_BYTES, b"\0")
            os.pwrite(self.fd, head, 0)
        if len(head) != PLACE_BYTES or struct.unpack_from("<8sI", head) != (PLACE_MAGIC, PLACE_VERSION):
            raise DataFolderError(
                f"{path} is no saved place of a cursor, or of another version: delete it, and its reader "
                "starts again from the oldest record"
            )
        if writable:
            os.pwrite(self.fd, struct.pack("<I", os.getpid()), 16)
        cdef int protection = PROT_READ | PROT_WRITE if writable else PROT_READ
        cdef void* map = mmap(NULL, PLACE_BYTES, protection, MAP_SHARED, self.fd, 0)
        if map == MAP_FAILED:
            raise MemoryError(f"{path} cannot be mapped: raise ulimit -v")
        self.map = map
        return self

    def _lock(self):
        while True:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = struct.unpack_from("<I", os.pread(self.fd, 20, 0).ljust(20, b"\0"), 16)[0]
                raise DataFolderError(
                    f"the cursor {self.path} is in use by process {pid}: stop that one, or give this one "
                    "another name"
                ) from None
            # `drop_cursor` may have deleted it between the two calls; then the lock is on nothing.
            try:
                if os.path.samestat(os.fstat(self.fd), os.stat(self.path)):
                    return
            except FileNotFoundError:
                pass
            close(self.fd)

    cdef uint64_t load(self) except? 0:
        """The saved place; 0 where none was saved yet, or neither slot is whole."""
        cdef PlaceSlot slot
        cdef PlaceSlot best
        cdef int i
        best.generation = best.seq = 0
        for i in range(2):
            memcpy(&slot, <char*>self.map + SLOTS_AT * (1 + i), sizeof(slot))
            if slot.generation > best.generation and slot.crc == bytes_crc(&slot, 24):
                best = slot
        return best.seq

    cdef void store(self, uint64_t seq, int64_t now_ns) noexcept:
        cdef PlaceSlot* slots[2]
        cdef PlaceSlot slot
        cdef int i, target = 0
        cdef uint64_t generation = 0
        for i in range(2):
            slots[i] = <PlaceSlot*>(<char*>self.map + SLOTS_AT * (1 + i))
            if slots[i].crc == bytes_crc(slots[i], 24) and slots[i].generation > generation:
                generation = slots[i].generation
                target = 1 - i
        slot.generation = generation + 1
        slot.seq = seq
        slot.saved_ns = now_ns
        slot.reserved = 0
        slot.crc = bytes_crc(&slot, 24)
        memcpy(slots[target], &slot, sizeof(slot))

    def saved(self) -> int:
        """The place as a number; 0 where none was saved."""
        return self.load()

    def close(self):
        if self.map != NULL:
            munmap(self.map, PLACE_BYTES)
            self.map = NULL
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1


def durable_places(folder) -> dict:
    """The saved place of every durable cursor of the journal in `folder`, by name; 0 holds everything.

    A file that is no cursor's, or is damaged, counts as 0: retention then waits for a person to look at it.
    """
    places = {}
    try:
        names = sorted(os.listdir(os.path.join(folder, CURSORS_FOLDER)))
    except FileNotFoundError:
        return places
    for name in names:
        if not PLACE_NAME.fullmatch(name):
            continue
        try:
            place = PlaceFile.open(os.path.join(folder, CURSORS_FOLDER, name), writable=False)
        except DataFolderError:
            places[name] = 0
            continue
        places[name] = place.saved()
        place.close()
    return places


def drop_cursor(folder, name) -> bool:
    """Forget a durable cursor, so that retention no longer waits for it; False where there is none.

    Raises DataFolderError where a process has it open. On a full disk too: nothing is written.
    """
    cdef PlaceFile place = PlaceFile.__new__(PlaceFile)
    place.path = os.path.join(folder, CURSORS_FOLDER, name)
    if not os.path.exists(place.path):
        return False
    try:
        place._lock()
        os.unlink(place.path)
    except OSError as error:
        raise folder_error(place.path, error) from error
    finally:
        place.close()
    return True


@cython.final
cdef class JournalCursor:
    """A reader's place. It may be opened before the journal exists, and follows the writer over restarts.

    `for record in cursor` gives what is there now and ends; go on with `wait`.
    """

    @staticmethod
    def open(folder, name=None, start="oldest"):
        """A cursor at `start`: "oldest", "newest", or a sequence number.

        With a name it is durable: `save` keeps its place over restarts, a saved place goes before `start`, and
        retention waits for it. Raises DataFolderError, also where the name is in use.
        """
        cdef JournalCursor self = JournalCursor.__new__(JournalCursor)
        self.folder = os.fspath(folder)
        self.name = name
        if name is not None:
            if not PLACE_NAME.fullmatch(name):
                raise DataFolderError(
                    f"{name!r} cannot name a cursor: take letters, digits, _ . and -, at most 64"
                )
            self.place = PlaceFile.open(os.path.join(self.folder, CURSORS_FOLDER, name))
            self.seq = self.place.load()
        if self.seq == 0:
            self.seek(start)
            self.save()
        return self

    def seek(self, start):
        """Go to "oldest", "newest", or a sequence number, which may lie ahead. Durable only after `save`."""
        cdef Segment segment
        self.segment = None
        self.checked_to = 0
        self.seq = 0
        if start == "oldest":
            segments = list_segments(self.folder)
            if segments:
                self.seq = segments[0][0]
        elif start == "newest":
            for first_seq, path in reversed(list_segments(self.folder)):
                segment = Segment.open(path)
                self.seq = segment.first_seq + segment.committed()
                # The next segment is made ahead of need: while it is empty, the end may lie before it.
                if segment.committed() > 0:
                    break
        elif isinstance(start, int) and start > 0:
            self.seq = start
        else:
            raise ValueError(f"a cursor cannot start at {start!r}: give oldest, newest or a number above 0")

    cdef const JournalRecord* peek(self, Py_ssize_t* count) except? NULL:
        cdef uint64_t committed, index, run, good
        cdef Segment segment
        count[0] = 0
        while True:
            segment = self.segment
            if segment is None:
                if not self._move():
                    return NULL
                continue
            committed = segment.committed()
            index = self.seq - segment.first_seq
            if index >= committed:
                if index < segment.capacity and not load_acquire(&segment.header.sealed):
                    return NULL
                # The count may have grown before the seal was set.
                if index < segment.committed():
                    continue
                if not self._move():
                    return NULL
                continue
            run = min(committed - index, <uint64_t>RUN_RECORDS)
            good = min(run, self.checked_to - self.seq) if self.checked_to > self.seq else 0
            while good < run and record_is_whole(&segment.records[index + good], self.seq + good):
                good += 1
            if good:
                self.checked_to = self.seq + good
                count[0] = <Py_ssize_t>good
                return &segment.records[index]
            self.damaged += 1
            self.seq += 1

    cdef void advance(self, Py_ssize_t n) noexcept nogil:
        self.seq += <uint64_t>n

    cdef bint _move(self) except -1:
        """Map the segment that holds `seq`, or the one after a jump in the numbers; False: none yet."""
        cdef Segment segment
        cdef uint64_t end
        while True:
            segments = list_segments(self.folder)
            if not segments:
                return False
            if self.seq == 0:
                self.seq = segments[0][0]
            at = len(segments) - 1
            while at > 0 and segments[at][0] > self.seq:
                at -= 1
            try:
                segment = Segment.open(segments[at][1])
                if self.seq < segment.first_seq:
                    if self.seq < segment.previous_end:
                        raise PlaceLostError(
                            f"record {self.seq} is no longer in the journal {self.folder}, the oldest is "
                            f"{segment.first_seq}: go on from there, and raise JOURNAL_RETENTION_BYTES if this "
                            "reader may be away for so long",
                            segment.first_seq,
                        )
                else:
                    end = segment.end
                    if load_acquire(&segment.header.sealed):
                        end = segment.first_seq + segment.committed()
                    if self.seq < end:
                        self.segment = segment
                        return True
                    if at + 1 == len(segments):
                        return False
                    segment = Segment.open(segments[at + 1][1])
            except FileNotFoundError:
                # Retention deleted it since the folder was listed.
                continue
            self.skipped += segment.first_seq - self.seq
            self.seq = segment.first_seq
            self.segment = segment
            return True

    def available(self) -> int:
        """How many records can be read at once: a run in one segment, at most 4096; 0 for nothing new."""
        cdef Py_ssize_t count
        self.peek(&count)
        return count

    def read(self, limit: int = 1000) -> list:
        """Up to `limit` records as JournalTrade, JournalGap, JournalBegin, JournalStart or JournalOther; go past them.

        Empty where there is nothing new. Raises PlaceLostError where retention has deleted the place.
        """
        cdef Py_ssize_t count, i
        cdef Py_ssize_t left = limit
        cdef const JournalRecord* records
        found = []
        while left > 0:
            try:
                records = self.peek(&count)
            except (PlaceLostError, DataFolderError):
                # What was read before comes first; the next call raises again, as the place has not moved.
                if found:
                    break
                raise
            if count == 0:
                break
            count = min(count, left)
            for i in range(count):
                found.append(as_tuple(&records[i], self.seq + <uint64_t>i))
            self.advance(count)
            left -= count
        return found

    def read_bytes(self, limit: int = 1000) -> tuple:
        """`(seq, bytes)`: a run of up to `limit` records as they lie in the file, the first numbered `seq`."""
        cdef Py_ssize_t count
        cdef const JournalRecord* records = self.peek(&count)
        seq = self.seq
        count = min(count, <Py_ssize_t>limit)
        data = (<const char*>records)[:count * <Py_ssize_t>sizeof(JournalRecord)] if count else b""
        self.advance(count)
        return seq, data

    def __iter__(self):
        while records := self.read():
            yield from records

    def wait(self, timeout: float) -> bool:
        """Wait until there is something to read, at most `timeout` seconds; False when the time is up.

        Polls after 1 ms, then ever later up to 10 ms, with the GIL released. Signal handlers run.
        """
        cdef int64_t deadline = monotonic_ns() + <int64_t>(min(timeout, WAIT_MAX_SECONDS) * 1e9)
        cdef int64_t pause = POLL_MIN_NS
        cdef int64_t left
        cdef timespec t
        cdef Py_ssize_t count
        while True:
            self.peek(&count)
            if count:
                return True
            left = deadline - monotonic_ns()
            if left <= 0:
                return False
            t.tv_sec = 0
            t.tv_nsec = min(pause, left)
            with nogil:
                nanosleep(&t, NULL)
            PyErr_CheckSignals()
            pause = min(pause * 3 // 2, <int64_t>POLL_MAX_NS)

    def save(self):
        """Keep the place of a durable cursor: everything before it is done with.

        A memory write: it survives the process, and a machine crash as far as the kernel has written it. So a
        reader may see records again after a crash: what it does with them must be idempotent by number.
        """
        if self.place is not None:
            self.place.store(self.seq, now_ns())

    def close(self):
        """Unmap, and let go of the name. Does not save. Idempotent."""
        self.segment = None
        if self.place is not None:
            self.place.close()
            self.place = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
