"""Segment: one mapped file of the journal. The writer maps it for writing, cursors of any process read-only.

Owned by the `JournalWriter` or `JournalCursor` that opened it. The writer's hot thread writes records and
`committed`; everything else here runs off it. A mapping stays valid when retention deletes the file.
"""

import errno
import os
import pwd
import re
import struct
import time
from pathlib import Path

cimport cython
from libc.errno cimport EINTR
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close, fdatasync

from tradeback._fast.record cimport JOURNAL_RECORD_BYTES, JournalRecord

from tradeback.errors import DataFolderError

cdef extern from "crc32c.h" nogil:
    void crc32c_prepare() noexcept
    uint32_t crc32c_update(uint32_t crc, const void* data, size_t size) noexcept
    uint32_t crc32c_by_table(uint32_t crc, const void* data, size_t size) noexcept
    uint32_t crc32c_by_instruction(uint32_t crc, const void* data, size_t size) noexcept

cdef extern from "fcntl.h" nogil:
    int posix_fallocate(int fd, long offset, long size) noexcept

cdef extern from *:
    # Faults a page in for writing and changes nothing, even while another thread writes to it.
    """
    #define tb_touch(p) __atomic_fetch_or((unsigned char*)(p), 0, __ATOMIC_RELAXED)
    """
    uint8_t tb_touch(void* place) noexcept nogil

MAGIC = b"TBJOURNL"
NAME_PATTERN = re.compile(r"\d{20}\.segment")
HEADER_FORMAT = "<8sII64sQQQq"

cdef uint32_t START = 0xFFFFFFFF

crc32c_prepare()


cdef int _reserve(int fd, long size) noexcept nogil:
    """0, or the number of the error. A signal may come in between."""
    cdef int failure = EINTR
    while failure == EINTR:
        failure = posix_fallocate(fd, 0, size)
    return failure


cdef uint32_t bytes_crc(const void* data, size_t size) noexcept nogil:
    return ~crc32c_update(START, data, size)


cdef uint32_t record_crc(const JournalRecord* record, uint64_t seq) noexcept nogil:
    """The checksum covers the sequence number too, so that a record in the wrong place is not whole."""
    return ~crc32c_update(crc32c_update(START, record, 60), &seq, 8)


cdef bint record_is_whole(const JournalRecord* record, uint64_t seq) noexcept nogil:
    """An unwritten record is zero, and no kind is 0."""
    return record.kind != 0 and record.crc == record_crc(record, seq)


def checksum(data: bytes) -> int:
    """CRC-32C of `data`, as the journal computes it on this machine."""
    return bytes_crc(<const char*>data, len(data))


def checksum_by_table(data: bytes) -> int:
    """CRC-32C of `data` without the machine's instruction for it."""
    return <uint32_t>~crc32c_by_table(START, <const char*>data, len(data))


def folder_error(path, error: OSError) -> DataFolderError:
    """What a person can do about a system call that failed on a file of the data folder."""
    try:
        status = os.stat(path if os.path.exists(path) else os.path.dirname(path))
        owner = pwd.getpwuid(status.st_uid).pw_name
    except (OSError, KeyError):
        owner = "another user"
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = (
            f"it belongs to {owner} and this process runs as user {os.geteuid()}: "
            "give it to that user (chown -R)"
        )
    elif error.errno == errno.EROFS:
        remedy = "it lies on a read-only file system: mount it writable, or choose another data folder"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space, or lower JOURNAL_RETENTION_BYTES and JOURNAL_SEGMENT_BYTES"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on file sizes (ulimit -f), or lower JOURNAL_SEGMENT_BYTES"
    else:
        remedy = "see to the file system, or choose another data folder"
    return DataFolderError(f"{path}: {error.strerror}; {remedy}")


def list_segments(folder) -> list:
    """`(first_seq, path)` of every segment in the folder, oldest first; empty where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = sorted(name for name in names if NAME_PATTERN.fullmatch(name))
    return [(int(name[:20]), os.path.join(folder, name)) for name in found]


def sync_folder(folder) -> None:
    """Make new and deleted names of the folder survive a machine crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@cython.final
cdef class Segment:
    """One mapped segment file. `first_seq`, `capacity` and `previous_end` are the header's."""

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        self.close()

    @staticmethod
    def create(folder, name, first_seq, previous_end, capacity):
        """Reserve and map a new segment, which is whole and synced before it gets its name.

        Releases the GIL while it reserves. Raises DataFolderError; a full disk leaves nothing behind.
        """
        cdef int fd = -1, failure
        cdef long size = SEGMENT_HEADER_BYTES + <long>capacity * JOURNAL_RECORD_BYTES
        path = os.path.join(folder, f"{first_seq:020d}.segment")
        fresh = path + ".new"
        fixed = struct.pack(
            HEADER_FORMAT, MAGIC, SEGMENT_VERSION, SEGMENT_HEADER_BYTES, name.encode(), first_seq, capacity,
            previous_end, time.time_ns(),
        )
        head = fixed + struct.pack("<I", checksum(fixed))
        try:
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with nogil:
                failure = _reserve(fd, size)
            if failure:
                raise OSError(failure, os.strerror(failure), fresh)
            os.pwrite(fd, head, 0)
            os.fsync(fd)
            os.rename(fresh, path)
            sync_folder(folder)
        except OSError as error:
            if fd >= 0:
                close(fd)
            Path(fresh).unlink(missing_ok=True)
            raise folder_error(path, error) from error
        return Segment._map(path, fd, True)

    @staticmethod
    def open(path, writable=False):
        """Map an existing segment. FileNotFoundError where retention has deleted it.

        DataFolderError where the file is foreign, of another version, shorter than its header says, or may not
        be read. A file that someone cuts short later, while it is mapped, kills its readers (SIGBUS).
        """
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise folder_error(path, error) from error
        return Segment._map(path, fd, writable)

    @staticmethod
    cdef Segment _map(str path, int fd, bint writable):
        """Takes over `fd`."""
        cdef Segment self = Segment.__new__(Segment)
        cdef void* map
        self.path = path
        self.fd = fd
        head = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
        remedy = "move it out of the folder, or restore it from a copy"
        if len(head) < SEGMENT_HEADER_BYTES or not head.startswith(MAGIC):
            raise DataFolderError(f"{path} is no segment of a journal: {remedy}")
        _, version, start, name, first_seq, capacity, previous_end, _ = struct.unpack_from(HEADER_FORMAT, head)
        if version != SEGMENT_VERSION:
            raise DataFolderError(
                f"{path} has version {version} of the journal's format, and this program knows "
                f"{SEGMENT_VERSION}: run the program that wrote it, or choose another data folder"
            )
        fixed = struct.calcsize(HEADER_FORMAT)
        crc, = struct.unpack_from("<I", head, fixed)
        if crc != checksum(head[:fixed]) or start != SEGMENT_HEADER_BYTES:
            raise DataFolderError(f"{path} has a damaged header: {remedy}")
        if os.path.basename(path) != f"{first_seq:020d}.segment":
            raise DataFolderError(f"{path} was renamed, it starts with record {first_seq}: name it "
                                  f"{first_seq:020d}.segment")
        self.name = name.rstrip(b"\0").decode()
        self.first_seq, self.capacity, self.previous_end = first_seq, capacity, previous_end
        self.end = self.first_seq + self.capacity
        self.map_bytes = SEGMENT_HEADER_BYTES + self.capacity * JOURNAL_RECORD_BYTES
        size = os.fstat(fd).st_size
        if size < self.map_bytes:
            raise DataFolderError(
                f"{path} was cut to {size} bytes and should have {self.map_bytes}: {remedy}"
            )
        map = mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE if writable else PROT_READ, MAP_SHARED, fd, 0)
        if map == MAP_FAILED:
            raise MemoryError(f"{self.map_bytes} bytes of {path} cannot be mapped: raise ulimit -v")
        self.header = <SegmentHeader*>map
        self.records = <JournalRecord*>(<char*>map + SEGMENT_HEADER_BYTES)
        if not writable:
            close(fd)
            self.fd = -1
        return self

    cdef uint64_t committed(self) noexcept:
        """How many records readers may see. A damaged counter never leads outside the file."""
        return min(load_acquire(&self.header.committed), self.capacity)

    cdef void touch(self, uint64_t first, uint64_t end) noexcept nogil:
        """Fault in the pages of the records at places first..end, so that the hot thread need not."""
        cdef char* page = <char*>self.records + first * JOURNAL_RECORD_BYTES
        cdef char* last = <char*>self.records + min(end, self.capacity) * JOURNAL_RECORD_BYTES
        while page < last:
            tb_touch(page)
            page += 4096

    cdef int sync(self) except -1:
        """Write it to the disk, with the GIL released."""
        cdef int failure
        with nogil:
            failure = fdatasync(self.fd)
        if failure:
            raise DataFolderError(
                f"{self.path} could not be written to the disk: see the kernel's log, and replace the disk"
            )
        return 0

    cdef uint64_t whole_end(self) noexcept nogil:
        """The place after the last whole record, wherever the counter in the header stands."""
        cdef uint64_t place = self.capacity
        while place > 0 and not record_is_whole(&self.records[place - 1], self.first_seq + place - 1):
            place -= 1
        return place

    cdef uint64_t count_damaged(self, uint64_t end) noexcept nogil:
        """How many of the first `end` records are not whole: readers will skip them."""
        cdef uint64_t place, damaged = 0
        for place in range(end):
            if not record_is_whole(&self.records[place], self.first_seq + place):
                damaged += 1
        return damaged

    cdef void clear_from(self, uint64_t place) noexcept nogil:
        """Zero what lies behind the tail, or a later open could take an old leftover for a record."""
        cdef JournalRecord zero
        memset(&zero, 0, sizeof(zero))
        for place in range(place, self.capacity):
            # Only where needed: writing a page makes the disk write it.
            if memcmp(&self.records[place], &zero, sizeof(zero)) != 0:
                memset(&self.records[place], 0, sizeof(zero))

    cdef int reserve(self) except -1:
        """Make sure of its blocks: a copy of a journal may have come without the empty ones."""
        cdef int failure
        with nogil:
            failure = _reserve(self.fd, <long>self.map_bytes)
        if failure:
            raise folder_error(self.path, OSError(failure, os.strerror(failure), self.path))
        return 0

    def close(self):
        """Unmap. Idempotent. Whoever still holds a pointer into it must be done with it."""
        if self.header != NULL:
            with nogil:
                munmap(self.header, self.map_bytes)
            self.header = NULL
            self.records = NULL
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
