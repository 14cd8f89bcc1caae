"""The mapped file of the table: made, checked and locked by its one writer, read by any process.

    TableFile       the writer's mapping; owned by SymbolTable, on the server's one thread
    TableReader     a read-only mapping; any process, not to be shared between threads
    TableRow        what a reader got: a copy, lives as long as one likes

`tablefile.pxd` shows the layout. A file is never believed blindly: a foreign, torn or cut one is refused with what
to do about it; a row that was half-written when its writer was killed, or that cannot be, is emptied and left to the
replay of the journal; so is every row where the machine itself went down while the file was open.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy, memset, strncpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, MS_SYNC, PROT_READ, PROT_WRITE, mmap, msync, munmap
from posix.unistd cimport usleep

from tradeback._fast.arbitrate cimport ID_MAX, PRECISION_MAX

import errno
import fcntl
import os

from tradeback.errors import DataFolderError, StaleRowError

cdef enum:
    QUICK_TRIES = 50            # a writer that runs is done long before them
    PAUSE_US = 5000             # between the further ones, READ_TRIES in all

cdef bytes MAGIC = b"TBTABLE\x01"
cdef Py_ssize_t RANGES_OFFSET = HEADER_BYTES + ROW_COUNT * <Py_ssize_t>sizeof(Row)
cdef Py_ssize_t FILE_BYTES = RANGES_OFFSET + ROW_COUNT * <Py_ssize_t>sizeof(MappedRanges)

cdef Header _layout
# For tests, tools and docs; the structs stand in tablefile.pxd.
LAYOUT = {
    "version": TABLE_VERSION,
    "header_bytes": HEADER_BYTES,
    "row_bytes": sizeof(Row),
    "ranges_bytes": sizeof(MappedRanges),
    "row_count": ROW_COUNT,
    "file_bytes": FILE_BYTES,
    "version_offset": <char*>&_layout.version - <char*>&_layout,
    "boot_id_offset": <char*>_layout.boot_id - <char*>&_layout,
    "writer_pid_offset": <char*>&_layout.writer_pid - <char*>&_layout,
    "applied_seq_offset": <char*>&_layout.applied_seq - <char*>&_layout,
}

if sizeof(Row) != ROW_BYTES or sizeof(Header) > HEADER_BYTES:
    raise ImportError("tradeback._fast.tablefile was compiled with other struct sizes than it was written for")


def _boot_id() -> bytes:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(63).strip()
    except FileNotFoundError:
        # Without it every unclean end counts as a crash of the machine, and the rows are rebuilt.
        return b""


cdef object _os_error(str doing, object path, object error):
    if error.errno == errno.ENOSPC:
        remedy = "free some space on its disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "give this user the right to write there, or choose another data folder with DATA_DIR"
    else:
        remedy = "see to it, or choose another data folder with DATA_DIR"
    return DataFolderError(f"cannot {doing} the table {path}: {error.strerror}; {remedy}")


cdef object _refused(object path, str what, str remedy):
    return DataFolderError(f"the file {path} {what}; {remedy}")


cdef int _check(const char* base, Py_ssize_t size, object path) except -1:
    """Refuses what is no whole table of this version. `base` holds at least a header, if `size` does."""
    cdef const Header* header = <const Header*>base
    cdef str move = "move it away: the server makes a new one and fills it from the journal"
    if size < HEADER_BYTES or memcmp(header.magic, <const char*>MAGIC, 8) != 0:
        raise _refused(path, "is no table of Trade-Back", move)
    if header.version != TABLE_VERSION:
        raise _refused(path, f"is a table of version {header.version}, and this program knows {TABLE_VERSION}", move)
    if (header.row_bytes != sizeof(Row) or header.row_count != ROW_COUNT or header.open_max != OPEN_MAX
            or header.exchange[sizeof(header.exchange) - 1] != 0 or header.boot_id[sizeof(header.boot_id) - 1] != 0):
        raise _refused(path, "has a header that cannot be", move)
    if size != FILE_BYTES:
        raise _refused(path, f"has {size} bytes instead of {FILE_BYTES}", move)
    return 0


cdef bint _is_possible(const Row* row, const MappedRanges* ranges, uint32_t stream_id) noexcept nogil:
    cdef uint64_t floor = 0
    cdef int open_count = row.state & ROW_OPEN_COUNT
    cdef int i
    if row.seq & 1 or row.stream_id != stream_id or row.quantity_precision > PRECISION_MAX:
        return False
    if open_count > OPEN_MAX or row.next_id > ID_MAX + 1:
        return False
    for i in range(open_count):
        if ranges.ranges[i].first < floor or ranges.ranges[i].last < ranges.ranges[i].first:
            return False
        # Ranges never touch: an id that is covered lies between two, and above the last.
        floor = ranges.ranges[i].last + 2
    return open_count == 0 or floor <= row.next_id


@cython.final
@cython.auto_pickle(False)
cdef class TableFile:
    """The writer's mapping. `torn_stream_ids` and `rebuild` say what was found at open and emptied."""

    def __cinit__(self):
        self._fd = -1

    def __init__(self, path: str, exchange: str) -> None:
        self.path = path
        self.torn_stream_ids = []
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _os_error("open", path, error) from error
        try:
            self._lock()
            self._prepare(exchange.encode())
            self._map()
            self._begin(exchange)
        except BaseException:
            self._release()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = int.from_bytes(os.pread(self._fd, 8, LAYOUT["writer_pid_offset"]), "little")
            raise DataFolderError(
                f"the table {self.path} is written by another server (process {pid}); stop that one, or give this one "
                "another data folder with DATA_DIR"
            ) from error
        except OSError as error:
            raise _os_error("lock", self.path, error) from error

    def _prepare(self, exchange: bytes) -> None:
        """Makes the file where there is none, or where its making was cut short."""
        cdef Header header
        size = os.fstat(self._fd).st_size
        head = os.pread(self._fd, HEADER_BYTES, 0)
        if not (size == 0 or (size == FILE_BYTES and head == bytes(HEADER_BYTES))):
            _check(head, size, self.path)
            return
        if len(exchange) >= <Py_ssize_t>sizeof(header.exchange):
            raise DataFolderError(
                f"the exchange's name {exchange.decode()!r} has {len(exchange)} bytes; choose one of at most 63"
            )
        memset(&header, 0, sizeof(Header))
        memcpy(header.magic, <const char*>MAGIC, 8)
        header.version = TABLE_VERSION
        header.row_bytes = sizeof(Row)
        header.row_count = ROW_COUNT
        header.open_max = OPEN_MAX
        memcpy(header.exchange, <const char*>exchange, len(exchange))
        header.clean = 1
        try:
            os.ftruncate(self._fd, FILE_BYTES)
            os.posix_fallocate(self._fd, 0, HEADER_BYTES)
            # One write, and the magic in it: a kill before it leaves an empty header, which is made anew.
            os.pwrite(self._fd, PyBytes_FromStringAndSize(<char*>&header, sizeof(Header)), 0)
        except OSError as error:
            raise _os_error("make", self.path, error) from error

    def _map(self) -> None:
        cdef void* base = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, self._fd, 0)
        if base == MAP_FAILED:
            raise DataFolderError(f"cannot map the {FILE_BYTES} bytes of the table {self.path}: raise the memory limit")
        self._base = <char*>base
        self.header = <Header*>self._base
        self.rows = <Row*>(self._base + HEADER_BYTES)
        self.ranges = <MappedRanges*>(self._base + RANGES_OFFSET)

    def _begin(self, exchange: str) -> None:
        """Takes the file over: empties what cannot be believed, and marks it as being written."""
        cdef uint32_t i
        cdef bytes boot = _boot_id()
        found = (<bytes>self.header.exchange).decode(errors="replace")
        if found != exchange:
            raise DataFolderError(
                f"the table {self.path} is of the exchange {found!r}, not of {exchange!r}; give each exchange a data "
                "folder of its own"
            )
        self.rebuild = not self.header.clean and (not boot or (<bytes>self.header.boot_id) != boot)
        self.header.clean = 0
        self.header.writer_pid = os.getpid()
        memset(self.header.boot_id, 0, sizeof(self.header.boot_id))
        strncpy(self.header.boot_id, <const char*>boot, sizeof(self.header.boot_id) - 1)
        if self.rebuild:
            self.header.applied_seq = 0
        # On the disk before the first row changes: after a crash the file must not pass for a clean one.
        self._sync(HEADER_BYTES)
        for start, end in self._data_rows():
            for i in range(start, end):
                if self.rows[i].stream_id == 0 and not self.rows[i].seq & 1:
                    continue
                if self.rebuild or not _is_possible(&self.rows[i], &self.ranges[i], i):
                    self.torn_stream_ids.append(i)
                    self.reset_row(i)
        if self.torn_stream_ids:
            # Or an end before the replay, and the next start would take the empty rows for whole ones.
            self.header.applied_seq = 0

    def _data_rows(self) -> list[tuple[int, int]]:
        """Ranges of rows that are on the disk at all: reading a hole would fill the page cache with zeros."""
        found = []
        end = HEADER_BYTES
        while end < RANGES_OFFSET:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
                end = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                return [(1, ROW_COUNT)]
            first = (start - HEADER_BYTES) // ROW_BYTES
            last = (min(end, RANGES_OFFSET) - HEADER_BYTES + ROW_BYTES - 1) // ROW_BYTES
            if last > first:
                found.append((max(first, 1), last))
        return found

    cdef void reset_row(self, uint32_t stream_id) noexcept nogil:
        """Empties a row and keeps what was written once, if that can be believed."""
        cdef Row* row = &self.rows[stream_id]
        cdef bint known = row.stream_id == stream_id and row.quantity_precision <= PRECISION_MAX
        cdef uint8_t precision = row.quantity_precision
        cdef uint32_t name_hash = row.name_hash
        if not row.seq & 1:
            seq_begin(&row.seq)
        memset(<char*>row + sizeof(row.seq), 0, sizeof(Row) - sizeof(row.seq))
        memset(&self.ranges[stream_id], 0, sizeof(MappedRanges))
        if known:
            row.stream_id = <uint16_t>stream_id
            row.quantity_precision = precision
            row.name_hash = name_hash
        seq_end(&row.seq)

    def reserve(self, stream_id: int) -> None:
        """Reserves the disk space of a row and its ranges: a write into a hole of a full disk would end the process.

        DataFolderError where the disk has no room.
        """
        cdef Py_ssize_t row = HEADER_BYTES + <Py_ssize_t>sizeof(Row) * <int>stream_id
        cdef Py_ssize_t ranges = RANGES_OFFSET + <Py_ssize_t>sizeof(MappedRanges) * <int>stream_id
        try:
            os.posix_fallocate(self._fd, row, sizeof(Row))
            os.posix_fallocate(self._fd, ranges, sizeof(MappedRanges))
        except OSError as error:
            raise _os_error(f"reserve the row of stream id {stream_id} in", self.path, error) from error

    def _sync(self, size: int) -> None:
        if msync(self._base, size, MS_SYNC) != 0:
            raise DataFolderError(f"cannot write the table {self.path} to its disk; check the disk")

    def close(self) -> None:
        """Writes everything to the disk, marks the file as closed and unlocks it. Twice is no error.

        The mapping stays as long as the object, so that no pointer into it dangles.
        """
        if self._fd < 0:
            return
        try:
            self._sync(FILE_BYTES)
            self.header.writer_pid = 0
            self.header.clean = 1
            self._sync(HEADER_BYTES)
        finally:
            self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            # The mapping keeps the open file alive, and with it the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __dealloc__(self):
        # Without close(), as after a kill: the file stays marked as open.
        if self._base != NULL:
            munmap(self._base, FILE_BYTES)
        if self._fd >= 0:
            os.close(self._fd)


@cython.final
@cython.auto_pickle(False)
@cython.freelist(64)
cdef class TableRow:
    """A copy of one symbol's row. Prices and sizes are 0 where none was yet; times are unix ns, 0 likewise."""

    cdef readonly int stream_id
    cdef readonly double price
    cdef readonly double quantity
    cdef readonly object last_id
    cdef readonly int quantity_precision
    cdef readonly long long cum_units
    cdef readonly long long day_units
    cdef readonly int day
    cdef readonly long long ts_event
    cdef readonly long long ts_recv
    cdef readonly double bid
    cdef readonly double bid_quantity
    cdef readonly double ask
    cdef readonly double ask_quantity
    cdef readonly object quote_id
    cdef readonly long long quote_ts_recv
    cdef readonly int open_ranges
    cdef readonly bint dropped          # the feeds stopped to carry it, as nobody wanted it

    def __init__(self) -> None:
        raise TypeError("rows are made by TableReader.read()")

    @property
    def day_volume(self) -> float:
        """Base asset traded on the UTC day `day` (days since 1970)."""
        return self.day_units / 10**self.quantity_precision

    def __repr__(self) -> str:
        return f"TableRow(stream_id={self.stream_id}, price={self.price}, last_id={self.last_id})"


@cython.final
@cython.auto_pickle(False)
cdef class TableReader:
    """Reads the table of a server on this machine. Opened with `TableReader.open(path)`; close it."""

    cdef const char* _base
    cdef readonly object path
    cdef readonly str exchange
    cdef object _identity

    def __init__(self) -> None:
        raise TypeError("open a table with TableReader.open(path)")

    @staticmethod
    def open(path: str) -> TableReader:
        """Maps the table. DataFolderError where there is none, or it is foreign, cut or of another version."""
        cdef TableReader self = TableReader.__new__(TableReader)
        cdef void* base
        self.path = path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DataFolderError(f"there is no table {path}; start the server of this data folder first") from error
        except OSError as error:
            raise _os_error("open", path, error) from error
        try:
            stat = os.fstat(fd)
            head = os.pread(fd, HEADER_BYTES, 0)
            _check(head, stat.st_size, path)
            base = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0)
        finally:
            os.close(fd)
        if base == MAP_FAILED:
            raise DataFolderError(f"cannot map the {FILE_BYTES} bytes of the table {path}: raise the memory limit")
        self._base = <const char*>base
        self._identity = (stat.st_dev, stat.st_ino)
        self.exchange = (<bytes>(<const Header*>self._base).exchange).decode(errors="replace")
        return self

    def read(self, stream_id: int) -> TableRow | None:
        """The row of a stream id; None where no symbol was ever added under it.

        StaleRowError where the row was being written READ_TRIES times over, which takes a tenth of a second: its
        writer was killed in the middle, and the next start of the server mends it.
        """
        cdef Row row
        cdef TableRow copy
        cdef unsigned int place
        if self._base == NULL:
            raise DataFolderError(f"the reader of the table {self.path} is closed; open it anew")
        if not 0 <= stream_id < ROW_COUNT:
            return None
        place = stream_id
        if not (_read(<const Row*>(self._base + HEADER_BYTES) + place, &row)
                or self._read_patiently(place, &row)):
            raise StaleRowError(
                f"the row of stream id {stream_id} in {self.path} is being written for too long: is the server running?"
            )
        if row.stream_id == 0:
            return None
        copy = TableRow.__new__(TableRow)
        copy.stream_id = row.stream_id
        copy.price = row.price
        copy.quantity = row.qty
        copy.last_id = row.next_id - 1 if row.next_id else None
        copy.quantity_precision = row.quantity_precision
        copy.cum_units = row.cum_units
        copy.day_units = row.day_units
        copy.day = row.day
        copy.ts_event = row.ts_event
        copy.ts_recv = row.ts_recv
        copy.bid = row.bid
        copy.bid_quantity = row.bid_qty
        copy.ask = row.ask
        copy.ask_quantity = row.ask_qty
        copy.quote_id = row.quote_id
        copy.quote_ts_recv = row.quote_recv
        copy.open_ranges = row.state & ROW_OPEN_COUNT
        copy.dropped = row.state & ROW_DROPPED != 0
        return copy

    cdef bint _read_patiently(self, unsigned int place, Row* row) noexcept:
        """The writer may have lost its core between two stores: it is given the time to get it back."""
        cdef const Row* from_row = <const Row*>(self._base + HEADER_BYTES) + place
        cdef int tries
        with nogil:
            for tries in range(1, READ_TRIES // QUICK_TRIES):
                usleep(PAUSE_US)
                if _read(from_row, row):
                    return True
        return False

    @property
    def writer_pid(self) -> int:
        """The process that writes the table; 0: it was closed. After a kill the number of the dead one stays."""
        return 0 if self._base == NULL else (<const Header*>self._base).writer_pid

    @property
    def replaced(self) -> bool:
        """Whether another file stands at the path now: somebody moved this one away. Open it anew then."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return True
        return (stat.st_dev, stat.st_ino) != self._identity

    def close(self) -> None:
        """Unmaps the table. Twice is no error."""
        if self._base != NULL:
            munmap(<void*>self._base, FILE_BYTES)
            self._base = NULL

    def __dealloc__(self):
        if self._base != NULL:
            munmap(<void*>self._base, FILE_BYTES)


cdef bint _read(const Row* place, Row* row) noexcept nogil:
    cdef uint32_t before
    cdef int tries
    for tries in range(QUICK_TRIES):
        before = seq_load(&place.seq)
        if before & 1:
            continue
        memcpy(row, place, sizeof(Row))
        if seq_unchanged(&place.seq, before):
            return True
    return False
