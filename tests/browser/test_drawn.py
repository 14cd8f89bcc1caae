"""What the page draws and takes, on a server whose every answer is written here and by a clock that only tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from tests.browser.conftest import PATIENCE_MS
from tests.browser.stage import BEGIN_S, MINUTE_S, NOON_S, Stage

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
BTC = SYMBOLS[0]

OpenStage = Callable[..., Stage]


@pytest.fixture
def open_stage(browser: Browser) -> Iterator[OpenStage]:
    """Opens the page with this watchlist. Each test ends without errors that nobody caught."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_it(*watched: str) -> Stage:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        return Stage(page, *watched, symbols=SYMBOLS)

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []


def row(page: Page, symbol: str) -> Locator:
    return page.locator(f"#watchlist [data-symbol={symbol}]")


def charted(stage: Stage) -> None:
    """Log in, and have some bars of a minute drawn."""
    for minute, price in enumerate((100.0, 102.0, 101.0), start=-2):
        stage.trades.append((NOON_S + minute * MINUTE_S, price, 1.0))
    stage.trades.append((NOON_S, 103.0, 1.5))
    stage.log_in()
    stage.await_bars(stage.bars())


def test_a_closed_candle_is_the_one_of_the_api(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    charted(stage)
    stage.trade(104.0, 0.5, at_s=BEGIN_S)
    stage.await_bars(stage.bars())
    # The last trade of the minute arrives in the next one, and one of the next comes with it: no frame is between the
    # last state of the candle and the first one of the candle after it.
    stage.pass_time(1000 * (NOON_S + MINUTE_S - BEGIN_S) + 10)
    stage.trade(99.0, 0.25, at_s=NOON_S + MINUTE_S - 0.01)
    stage.pass_time(150)
    stage.trade(98.0, 2.0, at_s=NOON_S + MINUTE_S + 0.15)
    stage.await_bars(stage.bars())
