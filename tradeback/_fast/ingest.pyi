from tradeback._fast.fanout import FanOut
from tradeback._fast.journal import JournalWriter
from tradeback._fast.stats import Stats
from tradeback._fast.table import SymbolTable

class Ingest:
    table: SymbolTable
    journal: JournalWriter
    fanout: FanOut
    stats: Stats

    def __init__(self, table: SymbolTable, journal: JournalWriter, fanout: FanOut, stats: Stats) -> None: ...
    def take(self, message: bytes, recv_ns: int | None = ..., now_ns: int | None = ...) -> int: ...
    def tick(self, now_ns: int | None = ...) -> None: ...
    @property
    def unwritten_symbols(self) -> int: ...
