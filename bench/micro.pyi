from typing import final

from tradeback._fast.journal import JournalWriter
from tradeback._fast.table import SymbolTable

@final
class Arena:
    count: int
    def __init__(self, messages: list[bytes]) -> None: ...

@final
class Trades:
    def __init__(self, table: SymbolTable, journal: JournalWriter, symbols: int) -> None: ...
    def pass_ns(self) -> float: ...

def decode_ns(arena: Arena, passes: int) -> float: ...
def frame_ns(passes: int) -> float: ...
