from typing import Final

LAYOUT: Final[dict[str, int]]
JOURNAL_FORMAT: Final[str]
GAP_FORMAT: Final[str]
WIRE_FORMAT: Final[str]
