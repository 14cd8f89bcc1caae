"""The bytes of the stream messages, laid out as the exchange lays them out. Prices are in units of 1e-8."""

from __future__ import annotations

from tradeback.exchange.sim.market import UNIT


def text(units: int) -> str:
    """Units of 1e-8 as the exchange prints them: eight decimals."""
    return f"{units // UNIT}.{units % UNIT:08d}"


def to_units(text: str) -> int:
    """Units of 1e-8 of a plain decimal number; further decimals are cut off."""
    whole, _, fraction = text.partition(".")
    return int(whole) * UNIT + int(fraction[:8].ljust(8, "0"))


class Template:
    """The messages of one symbol, with everything but the numbers filled in. Times are whatever is passed."""

    __slots__ = ("agg_trade", "book_ticker", "trade")

    def __init__(self, symbol: str) -> None:
        name = symbol.encode()
        self.trade = (
            b'{"e":"trade","E":%d,"s":"'
            + name
            + b'","t":%d,"p":"%d.%08d","q":"%d.%08d","T":%d,"m":%b,"M":true}'
        )
        self.agg_trade = (
            b'{"e":"aggTrade","E":%d,"s":"' + name + b'","a":%d,"p":"%d.%08d","q":"%d.%08d",'
            b'"f":%d,"l":%d,"T":%d,"m":%b,"M":true}'
        )
        self.book_ticker = (
            b'{"u":%d,"s":"' + name + b'","b":"%d.%08d","B":"%d.%08d","a":"%d.%08d","A":"%d.%08d"}'
        )
