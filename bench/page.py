"""What a browser does with 50 updates: a frame with its CRC check beside JSON of the same, in bytes and time."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from bench.build import BenchError
from bench.table import Effort, Goal, Row, Skipped, compare
from tradeback._fast.batch import encode_frames
from tradeback.exchange.sim.market import Market, make_symbols

FRAMES = 100
RECORDS = 50
PASSES = 200_000
UNIT = Decimal(10) ** -8  # of the simulated market's prices and quantities
HEADER = 4  # of a WebSocket frame of this length, in front of the payload
FASTER, SMALLER = Goal(16, at_most=False), Goal(0.28, at_most=True)
CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = "/bench/page.mjs"
ORIGIN = "http://localhost"  # answered here, never asked: a browser trusts it with a finer clock, if isolated
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
TIMEOUT_S = 300
# Nothing that leaves this machine, and no sandbox: benchmarks often run as root.
SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def measure(effort: Effort) -> list[Row]:
    content = _content()
    asked = {"rounds": effort.rounds, "passes": effort.of(PASSES, 20_000)}
    return [*_sizes(content), _in_node(content, asked), _in_chromium(content, asked)]


def _content() -> list[list[tuple[str, Decimal, Decimal]]]:
    """Symbol, price and volume of each record of each frame: what 50 symbols of a simulated market traded last."""
    symbols = make_symbols(RECORDS, 1, 1)
    market = Market(symbols, 1_000, 1)
    frames = []
    for _ in range(FRAMES):
        latest: dict[str, tuple[int, int]] = {}
        while len(latest) < RECORDS:
            _, order = market.next()
            if order.fills:
                name = order.symbol.name
                volume = latest.get(name, (0, 0))[1] + sum(quantity for _, quantity in order.fills)
                latest[name] = order.fills[-1][0], volume
        frames.append([(name, price * UNIT, volume * UNIT) for name, (price, volume) in latest.items()])
    return frames


def _frame(records: list[tuple[str, Decimal, Decimal]]) -> bytes:
    """The payload of the frame."""
    payload = [(i + 1, float(price), float(volume)) for i, (_, price, volume) in enumerate(records)]
    return encode_frames(payload)[HEADER:]


def _as_numbers(records: list[tuple[str, Decimal, Decimal]]) -> bytes:
    """As this server sends it with FEATURE_BINARY_WEBSOCKET=false."""
    data = [
        {"symbol": name, "price": float(price), "volume": float(volume)} for name, price, volume in records
    ]
    return orjson.dumps({"type": "prices", "data": data})


def _as_decimals(records: list[tuple[str, Decimal, Decimal]]) -> bytes:
    """The same, with prices and volumes written as the exchange writes them: as texts of eight decimals."""
    data = [
        {"symbol": name, "price": f"{price:.8f}", "volume": f"{volume:.8f}"}
        for name, price, volume in records
    ]
    return orjson.dumps({"type": "prices", "data": data})


def _sizes(content: list[list[tuple[str, Decimal, Decimal]]]) -> list[Row]:
    ours = [float(len(_frame(records)) + HEADER) for records in content]
    rows: list[Row] = []
    for peer, write in (("JSON, decimals", _as_decimals), ("JSON, numbers", _as_numbers)):
        theirs = [float(len(write(records)) + HEADER) for records in content]
        rows.append(compare(f"{RECORDS} updates beside {peer}", "bytes", ours, peer, theirs, SMALLER))
    return rows


def _given(content: list[list[tuple[str, Decimal, Decimal]]]) -> dict[str, list[str]]:
    return {
        "frames": [base64.b64encode(_frame(records)).decode() for records in content],
        "texts": [_as_numbers(records).decode() for records in content],
    }


def _row(where: str, figures: dict[str, list[float]]) -> Row:
    name = f"{RECORDS} updates decoded in {where}"
    return compare(name, "ns", figures["ours"], "JSON.parse", figures["theirs"], FASTER, speedup=True)


def _in_node(content: list[list[tuple[str, Decimal, Decimal]]], effort: dict[str, int]) -> Row:
    node = shutil.which("node")
    if node is None:
        return Skipped(f"{RECORDS} updates decoded in Node", "no node on PATH: install nodejs")
    done = subprocess.run(
        [node, str(CHECKOUT / SCRIPT[1:]), "--measure"],
        input=json.dumps({"content": _given(content), "effort": effort}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"page.mjs failed in Node: {done.stderr[-2000:]}")
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return _row("Node", figures)


def _in_chromium(content: list[list[tuple[str, Decimal, Decimal]]], effort: dict[str, int]) -> Row:
    name = f"{RECORDS} updates decoded in Chromium"
    try:
        from playwright.sync_api import Error, Route, sync_playwright
    except ImportError:
        return Skipped(name, "no playwright: it comes with the extra `dev`")
    chromium = shutil.which("chromium")
    if chromium is None:
        return Skipped(name, "no chromium: apt-get install -y --no-install-recommends chromium")

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        script = path.endswith("js")
        kind = {"Content-Type": "text/javascript" if script else "text/html"}
        body = (CHECKOUT / path[1:]).read_text() if script else "<!doctype html>"
        route.fulfill(body=body, headers={**kind, **ISOLATED})

    call = f"async ([content, effort]) => (await import('{SCRIPT}')).measure(content, effort)"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
            page = browser.new_page()
            page.route("**/*", answer)
            page.goto(ORIGIN)
            figures: Any = page.evaluate(call, [_given(content), effort])
            browser.close()
    except Error as error:
        raise BenchError(f"page.mjs failed in Chromium: {error.message}") from None
    return _row("Chromium", figures)
