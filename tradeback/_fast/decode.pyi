from typing import Final, TypedDict

DECODED_EVENT: Final = 0
DECODED_OTHER: Final = 1
DECODED_UNUSUAL: Final = 2
DECODED_MALFORMED: Final = 3
DECODED_SHUTDOWN: Final = 4

class DecodedEvent(TypedDict):
    """The fields of `Event` in record.pxd. Times are unix ns; `symbol` is text."""

    kind: int
    flags: int
    symbol: str
    id: int
    first_id: int
    last_id: int
    ts_event: int
    ts_sent: int
    price: float
    qty: float
    qty_mantissa: int
    qty_scale: int
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float

def decode(data: bytes, padding: bytes = b"") -> DecodedEvent | int:
    """One message decoded by `decode_event`: its event, or one of the DECODED_ codes.

    `padding` is what lies behind the message in memory: at most 64 bytes are taken, zeros fill the rest.
    It must never change the answer; tests pass what would tempt a careless reader.
    """
