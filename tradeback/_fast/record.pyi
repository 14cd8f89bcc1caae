from typing import Final

LAYOUT: Final[dict[str, int]]
EVENTS: Final[dict[str, int]]
FLAGS: Final[dict[str, int]]
REASONS: Final[dict[str, int]]
UNFILLABLE: Final[dict[str, int]]
JOURNAL_FORMAT: Final[str]
GAP_FORMAT: Final[str]
BEGIN_FORMAT: Final[str]
WIRE_FORMAT: Final[str]
