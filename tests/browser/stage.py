"""The page in Chromium, on a server whose every answer a test writes and a clock that only the test moves: for what a
real server is too quick, too right or too polite to do. Nothing listens anywhere; Playwright answers for it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import PASSWORD, PATIENCE_MS
from tradeback.api.page import DIST

ORIGIN = "http://tradeback.test"
API = "/api/v1"
MINUTE_S = 60
NOON_S = 1_749_988_800  # of a day in June
LONG_S = 3600
BEGIN_S = NOON_S + 30  # what the clock shows at first
FRAME_MS = 20  # longer than an animation frame
SIGN_OF_LIFE_MS = 1000
FLASHES = """
  window.flashes = [];
  const animate = Element.prototype.animate;
  Element.prototype.animate = function (...given) {
    window.flashes.push(this.closest("[data-symbol]").dataset.symbol);
    return animate.apply(this, given);
  };
"""

Query = dict[str, str]
# A status and a body; a third for headers.
Told = tuple[int, Any] | tuple[int, Any, dict[str, str]]
Answer = Callable[[Query], Told | None]


class Stage:
    """`answers` go before what the stage would answer by itself, by method and path without `/api/v1`; one that returns
    None is kept in `held`. What was asked is in `asked`, what the page said over its WebSocket in `said`."""

    def __init__(self, page: Page, *watched: str, symbols: tuple[str, ...]) -> None:
        self.page = page
        self.symbols = symbols
        self.watched = list(watched)
        self.trades: list[tuple[float, float, float]] = []
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Query]] = []
        self.held: list[Route] = []
        self.said: list[dict[str, Any]] = []
        self.sockets: list[WebSocketRoute] = []
        page.add_init_script(FLASHES)
        page.clock.install(time=BEGIN_S - LONG_S)  # until it is paused it goes on by itself
        page.clock.pause_at(BEGIN_S)
        page.route(f"{ORIGIN}/**", self._answer)
        page.route_web_socket(lambda url: url.endswith(f"{API}/ws"), self._connected)
        page.goto(ORIGIN)

    # ---- what a person and time do ----

    def log_in(self, name: str = "trader") -> None:
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#pill")).to_have_attribute("data-state", "connected")

    def pass_time(self, ms: float = FRAME_MS) -> None:
        """Of a long time the page hears in between that the server lives: it would take it for dead otherwise."""
        left = int(ms)
        while left > SIGN_OF_LIFE_MS:
            self.send({"type": "pong"})
            self.page.clock.run_for(SIGN_OF_LIFE_MS)
            left -= SIGN_OF_LIFE_MS
        self.page.clock.run_for(left)

    def until(self, fits: Callable[[], bool], what: Callable[[], object]) -> None:
        """Let time pass by frames until it is so."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not fits():
            assert time.monotonic() < deadline, what()
            self.pass_time()

    def await_bars(self, bars: list[dict[str, float]]) -> None:
        """Let time pass until the chart has drawn these."""
        self.until(lambda: self.drawn()["bars"] == bars, lambda: f"{self.drawn()['bars']}, not {bars}")

    def await_text(self, locator: Locator, text: str) -> None:
        """Let time pass until it has this text, as a regular expression."""
        self.until(
            lambda: re.fullmatch(text, locator.inner_text()) is not None,
            lambda: f"{locator.inner_text()!r} in place of {text}",
        )

    def drawn(self) -> Any:
        """What the chart has drawn, as docs/page.md tells."""
        return self.page.evaluate("document.getElementById('chart').drawn")

    def flashes(self) -> list[str]:
        """Symbols whose price flashed."""
        found: list[str] = self.page.evaluate("window.flashes")
        return found

    # ---- what the server does ----

    def trade(self, price: float, volume: float, *, at_s: float) -> None:
        """A trade of the first symbol, stored and sent."""
        self.trades.append((at_s, price, volume))
        self.send_prices((price, volume))

    def send_prices(self, *rows: tuple[float, float]) -> None:
        """Prices and volumes of the first symbol, in one message."""
        data = [{"symbol": self.symbols[0], "price": price, "volume": volume} for price, volume in rows]
        self.send({"type": "prices", "data": data})

    def send(self, message: dict[str, Any]) -> None:
        self.sockets[-1].send(json.dumps(message))

    def bars(self, length_s: int = MINUTE_S) -> list[dict[str, float]]:
        """What all trades make, as `GET /symbols/{symbol}/bars` tells them."""
        found: dict[int, dict[str, float]] = {}
        for at_s, price, volume in sorted(self.trades, key=lambda trade: trade[0]):
            opening = int(at_s // length_s * length_s)
            new = {"time": opening, "open": price, "high": price, "low": price, "close": price, "volume": 0.0}
            bar = found.setdefault(opening, new)
            bar |= {"high": max(bar["high"], price), "low": min(bar["low"], price), "close": price}
            bar["volume"] += volume
        return list(found.values())

    def entry(self, symbol: str) -> dict[str, Any]:
        base, counter = symbol[:-4], symbol[-4:]
        return {
            "symbol": symbol,
            "name": f"{base}/{counter}",
            "base_currency": base,
            "quote_currency": counter,
            "price_precision": 2,
            "quantity_precision": 5,
        }

    def release(self, route: Route, *told: Any) -> None:
        """Answer what was held."""
        status, body, headers = (*told, {})[:3]
        text = "" if body is None else json.dumps(body)
        route.fulfill(status=status, body=text, content_type="application/json", headers=headers)

    def _answer(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        if not url.path.startswith(API):
            route.fulfill(path=DIST / (url.path.strip("/") or "index.html"))
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        key = f"{route.request.method} {url.path.removeprefix(API)}"
        self.asked.append((key, query))
        own = self.answers.get(key)
        told = self._by_itself(key, query) if own is None else own(query)
        if told is None:
            self.held.append(route)
        else:
            self.release(route, *told)

    def _by_itself(self, key: str, query: Query) -> Told:
        match key.replace("/", " ").split():
            case ["POST", "auth", "login"] | ["GET", "auth", "session"]:
                return 200, {"user": {"username": "trader"}}
            case ["POST", "auth", "logout"]:
                return 204, None
            case ["GET", "marketwatch"]:
                return 200, {"symbols": self.watched}
            case ["POST", "marketwatch", symbol]:
                self.watched.append(symbol)
                return 200, {"symbols": self.watched}
            case ["GET", "symbols"]:
                found = [symbol for symbol in self.symbols if query.get("q", "").upper() in symbol]
                return 200, [self.entry(symbol) for symbol in found]
            case ["GET", "symbols", symbol]:
                return 200, self.entry(symbol)
            case ["GET", "symbols", _, "bars"]:
                length = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}
                bars = self.bars(length[query["resolution"]])
                since, until = int(query.get("from", 0)), int(query.get("to", 1 << 40))
                bars = [bar for bar in bars if since <= bar["time"] < until]
                return 200, {"bars": bars[-int(query.get("limit", 5000)) :]}
            case ["GET", "tradingview", "quotes"]:
                return 200, {"s": "ok", "d": []}
        return 404, {"error": {"code": "not_found", "message": "There is none"}}

    def _connected(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)

        def heard(text: str | bytes) -> None:
            message = json.loads(text)
            if message["type"] == "ping":
                socket.send(json.dumps({"type": "pong"}))
                return
            self.said.append(message)
            pairs = [{"symbol": one, "id": self.symbols.index(one) + 1} for one in message["symbols"]]
            socket.send(json.dumps({"type": f"{message['type']}d", "symbols": pairs}))

        socket.on_message(heard)
