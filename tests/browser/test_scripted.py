"""What the page draws and takes, on a server whose every answer is written here and by a clock that only tests move."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.stage import BEGIN_S, MINUTE_S, NOON_S, Query, Stage, Told

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
    assert len(stage.sockets) == 1


def test_a_price_flashes_and_its_age_is_that_of_the_last_trade(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    charted(stage)
    price = row(stage.page, BTC).locator(".row-price")
    stage.trade(104.0, 0.5, at_s=BEGIN_S)
    stage.await_text(price, "104.00")
    assert stage.flashes() == []  # the first price is no change
    # Two trades at the new price within a frame.
    stage.send_prices((105.0, 0.5), (105.0, 0.5))
    stage.await_text(price, "105.00")
    expect(price).to_have_attribute("data-moved", "up")
    assert stage.flashes() == [BTC]
    stage.pass_time(1000)
    stage.send_prices((104.0, 0.5))
    stage.await_text(price, "104.00")
    expect(price).to_have_attribute("data-moved", "down")
    assert stage.flashes() == [BTC, BTC]
    # What follows a subscription is no trade.
    age = stage.page.locator("#stale")
    stage.await_text(age, r"3\.\d s")
    stage.send_prices((104.5, 0.0))
    stage.await_text(price, "104.50")
    stage.pass_time(1_000)  # the panel is painted twice a second
    assert re.fullmatch(r"[4-9]\.\d s", age.inner_text()), age.inner_text()


def test_levels_are_lines_in_the_chart(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    stage.answers[f"GET /symbols/{BTC}/enigma"] = lambda _: (200, enigma(50.0, at_ms=1))
    charted(stage)
    stage.await_text(stage.page.locator("#enigma-level"), "50.00")
    expect(stage.page.locator("#levels tr")).to_have_count(3)
    assert stage.drawn()["levels"] == []
    stage.page.keyboard.press("f")
    lines = [{"title": "0%", "price": 90}, {"title": "50%", "price": 100}, {"title": "100%", "price": 110}]
    in_order = sorted(stage.drawn()["levels"], key=lambda line: float(line["price"]))
    assert in_order == lines
    # They stay at another resolution.
    stage.page.keyboard.press("2")
    assert sorted(stage.drawn()["levels"], key=lambda line: float(line["price"])) == lines
    assert [key for key, _ in stage.asked].count(f"GET /symbols/{BTC}/enigma") == 1
    stage.page.keyboard.press("f")
    assert stage.drawn()["levels"] == []


def enigma(level: float, *, at_ms: int) -> dict[str, object]:
    levels = {"0": 90.0, "50": 100.0, "100": 110.0}
    return {"symbol": BTC, "level": level, "fib_levels": levels, "timestamp": at_ms}


def test_an_older_level_does_not_replace_a_newer_one(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    stage.answers[f"GET /symbols/{BTC}/enigma"] = lambda _: None
    charted(stage)
    assert len(stage.held) == 1
    level = stage.page.locator("#enigma-level")
    stage.send({"type": "enigma", "data": enigma(60.0, at_ms=2_000)})
    stage.await_text(level, "60.00")
    with stage.page.expect_response("**/enigma") as answer:
        stage.release(stage.held.pop(), 200, enigma(40.0, at_ms=1_000))
    answer.value.finished()
    # Another answer that comes after it is shown.
    stage.page.keyboard.press("/")
    stage.pass_time(200)
    expect(stage.page.locator("#found [aria-selected=true]")).to_be_visible()
    stage.pass_time()
    expect(level).to_have_text("60.00")
    stage.send({"type": "enigma", "data": enigma(61.0, at_ms=2_500)})
    stage.await_text(level, "61.00")


@pytest.mark.parametrize("seen", [True, False], ids=["a list is shown", "an answer is under way"])
def test_enter_takes_what_was_typed(open_stage: OpenStage, seen: bool) -> None:
    """Before the list of what was typed is there."""
    stage = open_stage()
    stage.log_in()
    page = stage.page
    page.keyboard.press("/")
    page.keyboard.type("b")
    stage.pass_time(200)
    expect(page.locator("#found [aria-selected=true]")).to_have_attribute("data-symbol", BTC)
    page.keyboard.press("Backspace")
    page.keyboard.type("et")
    if not seen:
        stage.answers["GET /symbols"] = lambda _: None
        stage.pass_time(200)
        stage.until(lambda: len(stage.held) == 1, lambda: stage.asked)
        del stage.answers["GET /symbols"]
    expect(page.locator("#found [aria-selected=true]")).to_have_count(0)
    page.keyboard.type("h")
    page.keyboard.press("Enter")
    expect(row(page, "ETHUSDT")).to_have_attribute("aria-selected", "true")
    assert stage.watched == ["ETHUSDT"]
    # Lists are as long as the page shows them.
    assert {query.get("limit") for key, query in stage.asked if key == "GET /symbols"} == {"50"}


def test_what_is_typed_after_enter_is_no_choice(open_stage: OpenStage) -> None:
    stage = open_stage()
    stage.log_in()
    stage.answers["GET /symbols"] = lambda _: None
    page = stage.page
    page.keyboard.press("/")
    page.keyboard.type("e")
    page.keyboard.press("Enter")
    del stage.answers["GET /symbols"]
    page.keyboard.type("x")
    stage.pass_time(200)
    expect(page.locator("#found")).to_contain_text("No symbol has this in its name.")
    page.keyboard.press("Enter")
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.keyboard.type("bn")
    page.keyboard.press("Enter")
    expect(row(page, "BNBUSDT")).to_have_attribute("aria-selected", "true")
    assert stage.watched == ["BNBUSDT"]


def test_bars_that_could_not_be_had_are_asked_for_again(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    stage.trades.append((NOON_S, 103.0, 1.5))
    failures = 3

    def fails(query: Query) -> Told:
        nonlocal failures
        if query["resolution"] == "1h":  # the line beside the price
            return 200, {"bars": []}
        failures -= 1
        if failures == 0:
            del stage.answers[f"GET /symbols/{BTC}/bars"]
        return 500, {"error": {"code": "internal", "message": "The history is away"}}

    stage.answers[f"GET /symbols/{BTC}/bars"] = fails
    stage.log_in()
    note = stage.page.locator("#chart-note")
    expect(note).to_have_text("No bars yet, trying again: The history is away")
    stage.await_bars(stage.bars())
    expect(note).to_be_hidden()
    assert failures == 0


def test_bars_that_could_not_be_had_come_with_the_connection(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    stage.trades.append((NOON_S, 103.0, 1.5))
    busy = {"error": {"code": "busy", "message": "Too many ask"}}
    stage.answers[f"GET /symbols/{BTC}/bars"] = lambda _: (503, busy, {"Retry-After": "600"})
    stage.log_in()
    expect(stage.page.locator("#chart-note")).to_contain_text("Too many ask")
    del stage.answers[f"GET /symbols/{BTC}/bars"]
    stage.pass_time(3_000)
    assert stage.drawn()["bars"] == []
    stage.sockets[-1].close()
    expect(stage.page.locator("#pill")).to_have_attribute("data-state", "waiting")
    stage.await_bars(stage.bars())
    assert len(stage.sockets) == 2


def test_what_one_may_not_watch_is_told_and_not_asked_for(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    charted(stage)
    refusal = {
        "error": {
            "code": "symbol_not_allowed",
            "message": "ETHUSDT is none of the symbols that you may watch.",
        }
    }
    stage.answers["POST /marketwatch/ETHUSDT"] = lambda _: (403, refusal)
    page = stage.page
    page.keyboard.press("/")
    page.keyboard.type("eth")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("ETHUSDT is none of the symbols")
    expect(page.get_by_role("heading", name="BTC / USDT")).to_be_visible()
    # The next one is asked for after it, and is the first that the server hears of.
    page.keyboard.press("/")
    page.keyboard.type("bnb")
    page.keyboard.press("Enter")
    expect(row(page, "BNBUSDT")).to_have_attribute("aria-selected", "true")
    assert all("ETHUSDT" not in message["symbols"] for message in stage.said)
    # What the WebSocket refuses is named.
    refused = {
        "type": "error",
        "code": "symbol_not_allowed",
        "message": "no",
        "symbols": ["SOLUSDT", "XRPUSDT"],
    }
    stage.send(refused)
    expect(page.locator("#notices")).to_contain_text("no: SOLUSDT, XRPUSDT")


def test_nothing_of_a_user_is_left_for_the_next_one(open_stage: OpenStage) -> None:
    stage = open_stage(BTC)
    stage.answers[f"GET /symbols/{BTC}/enigma"] = lambda _: (200, enigma(50.0, at_ms=1))
    charted(stage)
    page = stage.page
    page.keyboard.press("f")
    stage.trade(104.0, 0.5, at_s=BEGIN_S)
    stage.await_text(page.locator("#enigma-level"), "50.00")
    stage.await_text(page.locator("#price"), "104.00")
    page.keyboard.press("/")
    page.keyboard.type("secret")
    # A list that was asked for before the end arrives after it.
    stage.answers["GET /marketwatch"] = lambda _: None
    stage.send({"type": "auto_subscribe", "data": {"symbol": BTC, "id": 1}})
    stage.until(lambda: len(stage.held) == 1, lambda: stage.asked)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Username")).to_be_visible()
    stage.watched = []
    del stage.answers["GET /marketwatch"]
    stage.release(stage.held.pop(), 200, {"symbols": [BTC]})
    stage.log_in("another")
    expect(page.get_by_text("Nothing is watched yet")).to_be_visible()
    stage.pass_time(1_000)
    assert page.locator("#symbol").inner_text().strip() == ""
    for figure in ("price", "high", "low", "volume", "enigma-level", "stale"):
        expect(page.locator(f"#{figure}")).to_have_text("\N{EN DASH}")
    expect(page.locator("#levels tr")).to_have_count(0)
    expect(page.get_by_role("combobox")).to_have_value("")
    expect(page).to_have_title("Trade-Back")
    assert stage.drawn() == {"bars": [], "levels": []}
