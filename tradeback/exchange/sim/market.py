"""The synthetic market: symbols with plausible prices, and a stream of taker orders and quote changes.

Everything is decided by the seed, in virtual time; the clock of the machine appears nowhere here. Prices
and quantities are integers in units of 1e-8 (`UNIT`), as the exchange prints eight decimals. One taker
order makes one or more trades (fills), at possibly several prices; consecutive fills at one price are one
aggTrade.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from itertools import accumulate

UNIT = 100_000_000
MAX_FILLS = 40

# Base assets by trading volume, with a price in USD that was plausible at the time of writing.
KNOWN = {
    "BTC": 96_500.0, "ETH": 3_350.0, "SOL": 188.0, "XRP": 2.31, "BNB": 655.0, "DOGE": 0.327, "ADA": 0.92,
    "TRX": 0.244, "LINK": 22.4, "AVAX": 38.2, "SUI": 4.21, "LTC": 104.5, "PEPE": 0.0000178, "SHIB": 0.0000217,
    "DOT": 6.94, "BCH": 447.0, "UNI": 13.4, "NEAR": 5.08, "APT": 9.12, "ARB": 0.742, "OP": 1.83, "FIL": 5.02,
    "ATOM": 6.41, "ETC": 26.3, "XLM": 0.391, "HBAR": 0.284, "ICP": 10.1, "INJ": 20.6, "AAVE": 312.0,
    "WIF": 1.87, "FET": 1.29, "RENDER": 7.03, "TIA": 4.86, "SEI": 0.412, "MKR": 1_504.0, "GRT": 0.201,
    "ALGO": 0.343, "VET": 0.0451, "SAND": 0.566, "MANA": 0.472, "GALA": 0.0352, "EOS": 0.781, "RUNE": 4.71,
    "FTM": 0.694, "BONK": 0.0000301, "FLOKI": 0.000171, "ORDI": 23.8, "JUP": 0.832, "ENA": 0.934, "WLD": 2.12,
    "STX": 1.53, "IMX": 1.31, "LDO": 1.83, "CRV": 0.901, "SNX": 2.02, "THETA": 2.21, "ZIL": 0.0213,
    "KAVA": 0.452, "CHZ": 0.0842, "APE": 1.12, "DYDX": 1.43, "COMP": 76.2, "ENS": 34.1, "PENDLE": 5.21,
}  # fmt: skip
QUOTES = {"USDT": 1.0, "USDC": 1.0, "FDUSD": 1.0, "BTC": KNOWN["BTC"], "ETH": KNOWN["ETH"],
          "BNB": KNOWN["BNB"], "EUR": 1.05, "TRY": 0.0285}  # fmt: skip


class MarketSymbol:
    """One symbol: its description, and the state of its best bid and ask. Prices in ticks, sizes in steps."""

    __slots__ = (
        "anchor", "ask", "ask_qty", "base", "bid", "bid_qty", "jump", "level", "name", "next_agg",
        "next_trade", "quote", "step", "tick", "typical", "update_id",
    )  # fmt: skip

    def __init__(self, base: str, quote: str, price_usd: float, first_id: int) -> None:
        self.name = base + quote
        self.base = base
        self.quote = quote
        price = price_usd / QUOTES[quote]
        tick_exponent = min(max(math.floor(math.log10(price)) - 4, -8), -2)
        step_exponent = min(max(math.floor(-math.log10(price_usd)), -8), 0)
        self.tick = 10 ** (tick_exponent + 8)
        self.step = 10 ** (step_exponent + 8)
        self.anchor = max(round(price * UNIT / self.tick), 20)
        step_usd = price_usd * self.step / UNIT
        self.typical = max(120.0 / step_usd, 1.0)
        self.level = max(1_500.0 / step_usd, 4.0)
        # The mean distance in ticks from one filled level to the next.
        self.jump = self.anchor * 4e-6
        self.bid = self.anchor
        self.ask = self.anchor + 1
        self.bid_qty = max(int(self.level), 1)
        self.ask_qty = max(int(self.level), 1)
        self.next_trade = first_id
        self.next_agg = first_id
        self.update_id = first_id

    def go_to(self, price: int) -> None:
        """Put the best bid at a price, in units of 1e-8, and the best ask above it."""
        self.bid = price // self.tick
        self.ask = self.bid + 1

    @property
    def price_precision(self) -> int:
        return 8 - round(math.log10(self.tick))

    @property
    def quantity_precision(self) -> int:
        return 8 - round(math.log10(self.step))


class Order:
    """What one taker order, or one change of the book, made. Valid for ever; nothing in it is shared.

    `fills` are (price, quantity) in units of 1e-8, with trade ids from `first_trade` on; `aggs` are
    (aggTrade id, price, quantity, first trade id, last trade id); `quote` is (u, bid, size, ask, size).
    """

    __slots__ = ("aggs", "fills", "first_trade", "maker", "messages", "quote", "symbol")

    def __init__(
        self,
        symbol: MarketSymbol,
        maker: bool,
        fills: list[tuple[int, int]],
        quote: tuple[int, int, int, int, int] | None,
    ) -> None:
        self.symbol = symbol
        self.maker = maker
        self.fills = fills
        self.quote = quote
        self.first_trade = symbol.next_trade
        self.aggs: list[tuple[int, int, int, int, int]] = []
        trade_id = first = symbol.next_trade
        last_price = total = 0
        for price, quantity in fills:
            if price != last_price and total:
                self.aggs.append((symbol.next_agg, last_price, total, first, trade_id - 1))
                symbol.next_agg += 1
                first = trade_id
                total = 0
            last_price = price
            total += quantity
            trade_id += 1
        if total:
            self.aggs.append((symbol.next_agg, last_price, total, first, trade_id - 1))
            symbol.next_agg += 1
        symbol.next_trade = trade_id
        self.messages = len(fills) + len(self.aggs) + (quote is not None)


def make_symbols(count: int, seed: int, first_id: int) -> list[MarketSymbol]:
    """`count` symbols, the best known first; beyond those, names and prices are made up from the seed."""
    names: dict[str, tuple[str, str, float]] = {}

    def add(base: str, quote: str, price_usd: float) -> None:
        if base != quote and len(names) < count:
            names.setdefault(base + quote, (base, quote, price_usd))

    bases = list(KNOWN.items())
    for base, price in bases:
        add(base, "USDT", price)
    for quote, share in (
        ("USDC", 30),
        ("FDUSD", 20),
        ("BTC", 24),
        ("ETH", 12),
        ("BNB", 10),
        ("EUR", 10),
        ("TRY", 20),
    ):
        for base, price in bases[:share]:
            if price / QUOTES[quote] > 2e-7:
                add(base, quote, price)
    rng = random.Random(f"names {seed}")
    while len(names) < count:
        base = "".join(
            rng.choice("BCDFGKLMNPRSTVXZ") + rng.choice("AEIOU") for _ in range(rng.choice((1, 2, 2)))
        )
        base += rng.choice("KLMNRSTX")
        if base not in KNOWN:
            add(base, "USDT", 10 ** rng.uniform(-4.0, 2.0))
    return [MarketSymbol(base, quote, price, first_id) for base, quote, price in names.values()]


def new_symbol(name: str, price_usd: float, first_id: int) -> MarketSymbol:
    """A symbol by its name, which ends with one of QUOTES. ValueError where it does not."""
    quote = next((quote for quote in sorted(QUOTES, key=len, reverse=True) if name.endswith(quote)), "")
    if not quote or name == quote:
        raise ValueError(f"symbol {name!r} must be a currency's name followed by one of {', '.join(QUOTES)}")
    return MarketSymbol(name.removesuffix(quote), quote, price_usd, first_id)


class Market:
    """The endless sequence of orders of a seed.

    `next()` gives the pause in virtual seconds after an order, and the order. On the average it makes `rate`
    messages (trades, aggTrades and quotes together) a virtual second. Activity is clustered twice: regimes
    (calm, busy, burst) change the pace of everything, and an order tends to be followed by one in its symbol.
    """

    # (pace relative to the rate, mean length in seconds, probability of following another regime). The paces,
    # weighted with their share of the time, average 1.
    REGIMES = ((0.65, 1.6, 0.55), (1.6, 0.5, 0.35), (6.0, 0.06, 0.10))

    def __init__(self, symbols: list[MarketSymbol], rate: float, seed: int, *, steady: bool = False) -> None:
        self.symbols = symbols
        self.rate = rate
        self._rng = random.Random(seed)
        self._steady = steady
        self._weigh()
        self._current = symbols[0]
        share = sum(length * chance for _, length, chance in self.REGIMES)
        mean = sum(pace * length * chance for pace, length, chance in self.REGIMES) / share
        self._paces = [pace / mean for pace, _, _ in self.REGIMES]
        self._pace = 1.0
        self._regime_left = 0.0

    def add(self, symbol: MarketSymbol) -> None:
        """Trade one more symbol, the least of all."""
        self.symbols.append(symbol)
        self._weigh()

    def _weigh(self) -> None:
        self._weights = list(accumulate(1.0 / (rank + 2) ** 0.9 for rank in range(len(self.symbols))))

    def next(self) -> tuple[float, Order]:
        rng = self._rng
        if rng.random() < 0.4:
            place = bisect(self._weights, rng.random() * self._weights[-1])
            self._current = self.symbols[min(place, len(self.symbols) - 1)]
        symbol = self._current
        order = self._quote(symbol) if rng.random() < 0.35 else self._take(symbol)
        if self._steady:
            return order.messages / self.rate, order
        if self._regime_left <= 0.0:
            draw = rng.random()
            index = 0 if draw < 0.55 else 1 if draw < 0.90 else 2
            self._pace = self._paces[index]
            self._regime_left = rng.expovariate(1.0 / self.REGIMES[index][1])
        gap = rng.expovariate(1.0) * order.messages / (self.rate * self._pace)
        self._regime_left -= gap
        return gap, order

    def _level(self, symbol: MarketSymbol) -> int:
        return max(1, int(symbol.level * math.exp(self._rng.gauss(0.0, 1.1))))

    def _take(self, symbol: MarketSymbol) -> Order:
        rng = self._rng
        drift = (symbol.anchor - symbol.bid) / symbol.anchor
        buy = rng.random() < 0.5 + max(min(4.0 * drift, 0.45), -0.45)
        left = max(1, int(symbol.typical * math.exp(rng.gauss(0.0, 1.6))))
        price, depth = (symbol.ask, symbol.ask_qty) if buy else (symbol.bid, symbol.bid_qty)
        fills: list[tuple[int, int]] = []
        while True:
            maker_order = max(1, int(depth * rng.random()))
            quantity = min(left, depth, maker_order)
            fills.append((price * symbol.tick, quantity * symbol.step))
            left -= quantity
            depth -= quantity
            if depth == 0:
                step = 1 + int(rng.expovariate(1.0) * symbol.jump)
                price = price + step if buy else max(price - step, 1)
                depth = self._level(symbol)
                if price == 1:
                    break
            if left == 0 or len(fills) == MAX_FILLS:
                break
        if buy:
            symbol.ask, symbol.ask_qty = price, depth
            if symbol.ask - symbol.bid > 1 and rng.random() < 0.7:
                symbol.bid, symbol.bid_qty = symbol.ask - 1, self._level(symbol)
        else:
            symbol.bid, symbol.bid_qty = price, depth
            if symbol.ask - symbol.bid > 1 and rng.random() < 0.7:
                symbol.ask, symbol.ask_qty = symbol.bid + 1, self._level(symbol)
        return Order(symbol, not buy, fills, self._book(symbol))

    def _quote(self, symbol: MarketSymbol) -> Order:
        rng = self._rng
        draw = rng.random()
        wide = symbol.ask - symbol.bid > 1
        if draw < 0.4:
            symbol.bid_qty = self._level(symbol)
        elif draw < 0.8:
            symbol.ask_qty = self._level(symbol)
        elif draw < 0.9:
            symbol.bid += 1 if wide else (-1 if symbol.bid > 2 else 0)
            symbol.bid_qty = self._level(symbol)
        else:
            symbol.ask += -1 if wide else 1
            symbol.ask_qty = self._level(symbol)
        return Order(symbol, False, [], self._book(symbol))

    def _book(self, symbol: MarketSymbol) -> tuple[int, int, int, int, int]:
        symbol.update_id += self._rng.randrange(1, 9)
        return (
            symbol.update_id,
            symbol.bid * symbol.tick,
            symbol.bid_qty * symbol.step,
            symbol.ask * symbol.tick,
            symbol.ask_qty * symbol.step,
        )
