from collections.abc import Iterator
from os import PathLike
from types import TracebackType
from typing import Final, NamedTuple, Self

class JournalTrade(NamedTuple):
    seq: int
    stream_id: int
    trade_id: int
    trade_count: int
    price: float
    qty: float
    bid: float
    ask: float
    ts_event: int
    recv_offset_us: int
    flags: int

class JournalGap(NamedTuple):
    seq: int
    stream_id: int
    first_id: int
    last_id: int
    trade_count: int
    ts_event: int
    reason: int
    flags: int

class JournalStart(NamedTuple):
    seq: int
    ts_event: int

class JournalBegin(NamedTuple):
    seq: int
    stream_id: int
    first_id: int
    floor_id: int
    ts_event: int
    flags: int

class JournalOther(NamedTuple):
    seq: int
    kind: int
    data: bytes

Record = JournalTrade | JournalGap | JournalStart | JournalBegin | JournalOther

CURSORS_FOLDER: Final[str]

class PlaceFile:
    path: Final[str]
    @staticmethod
    def open(path: str, writable: bool = True) -> PlaceFile: ...
    def saved(self) -> int: ...
    def close(self) -> None: ...

def durable_places(folder: str | PathLike[str]) -> dict[str, int]: ...
def drop_cursor(folder: str | PathLike[str], name: str) -> bool: ...

class JournalCursor:
    seq: Final[int]
    damaged: Final[int]
    skipped: Final[int]
    folder: Final[str]
    name: Final[str | None]
    @staticmethod
    def open(
        folder: str | PathLike[str], name: str | None = None, start: str | int = "oldest"
    ) -> JournalCursor: ...
    def seek(self, start: str | int) -> None: ...
    def available(self) -> int: ...
    def read(self, limit: int = 1000) -> list[Record]: ...
    def read_bytes(self, limit: int = 1000) -> tuple[int, bytes]: ...
    def wait(self, timeout: float) -> bool: ...
    def save(self) -> None: ...
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Record]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
