from os import PathLike
from types import TracebackType
from typing import Final, NamedTuple, Self

from tradeback._fast.cursor import JournalBegin as JournalBegin
from tradeback._fast.cursor import JournalCursor as JournalCursor
from tradeback._fast.cursor import JournalGap as JournalGap
from tradeback._fast.cursor import JournalOther as JournalOther
from tradeback._fast.cursor import JournalStart as JournalStart
from tradeback._fast.cursor import JournalTrade as JournalTrade
from tradeback._fast.cursor import Record as Record
from tradeback._fast.cursor import drop_cursor as drop_cursor
from tradeback._fast.cursor import durable_places as durable_places

DEFAULT_SEGMENT_BYTES: Final[int]
DEFAULT_RETENTION_BYTES: Final[int]
LOCK_NAME: Final[str]

class PrepareReport(NamedTuple):
    deleted: tuple[str, ...]
    overrun: tuple[str, ...]

class JournalWriter:
    next_seq: Final[int]
    folder: Final[str]
    name: Final[str]
    cut: Final[int]
    damaged: Final[int]
    skipped: Final[int]
    @staticmethod
    def open(
        folder: str | PathLike[str], name: str, segment_bytes: int = ..., retention_bytes: int = ...
    ) -> JournalWriter: ...
    @property
    def needs_prepare(self) -> bool: ...
    def prepare(self) -> PrepareReport: ...
    def append_bytes(self, record: bytes) -> int: ...
    def append_trade(
        self,
        *,
        stream_id: int,
        price: float,
        qty: float,
        trade_id: int,
        ts_event: int,
        trade_count: int = 1,
        bid: float = 0.0,
        ask: float = 0.0,
        recv_offset_us: int = 0,
        flags: int = 0,
    ) -> int: ...
    def append_gap(
        self, *, stream_id: int, first_id: int, last_id: int, ts_event: int, reason: int, flags: int = 0
    ) -> int: ...
    def append_begin(
        self, *, stream_id: int, first_id: int, ts_event: int, floor_id: int = 0, flags: int = 0
    ) -> int: ...
    def append_start(self, now_ns: int) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
