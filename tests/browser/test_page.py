"""What a person does with the page: logs in, searches, watches prices, looks at charts, loses the connection."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import PASSWORD, OpenTab, Site
from tests.conftest import private
from tests.e2e.api import ask
from tests.e2e.processes import children_of
from tests.e2e.test_up import is_server
from tests.servers.nginx import NginxServer
from tradeback.api.page import DIST

pytestmark = pytest.mark.timeout(180)
AXE = DIST.parent / "node_modules" / "axe-core" / "axe.min.js"


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    expect(page.locator("#pill")).to_have_attribute("data-state", "connected")


DRAWN = "document.getElementById('chart').drawn"  # docs/page.md
ARE_DRAWN = f"""(bars) => {{
  const drawn = {DRAWN}.bars;
  const same = (one, other) => Object.entries(one).every(([name, value]) => other[name] === value);
  return drawn.length === bars.length && drawn.every((bar, at) => same(bar, bars[at]));
}}"""


def row(page: Page, symbol: str) -> Locator:
    return page.locator(f"#watchlist [data-symbol={symbol}]")


def await_new_price(page: Page, symbol: str) -> None:
    """Wait until the row shows another price than now."""
    price = row(page, symbol).locator(".row-price")
    expect(price).to_have_text(re.compile(r"\d"))
    expect(price).not_to_have_text(price.inner_text())


def add(page: Page, text: str, symbol: str) -> None:
    """Search by the keyboard alone, and add what is found."""
    page.keyboard.press("/")
    page.keyboard.type(text)
    expect(page.locator("#found [aria-selected=true]")).to_have_attribute("data-symbol", symbol)
    page.keyboard.press("Enter")
    expect(row(page, symbol)).to_have_attribute("aria-selected", "true")


def test_what_up_prints_opens_a_page_that_ticks(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    log_in(tab.page, *site.login)
    expect(tab.page.get_by_role("option")).to_have_count(5)
    await_new_price(tab.page, "BTCUSDT")
    expect(tab.page.locator("#legend")).to_contain_text("O ")


def test_from_the_login_to_a_moving_chart(site: Site, open_tab: OpenTab) -> None:
    name = site.user("trader")
    tab = open_tab()
    page = tab.page
    tab.expect_complaint("/auth/login")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill("another one")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("no such user, or the password is another")
    tab.shoot("login-refused")
    log_in(page, name)

    expect(page.get_by_text("Nothing is watched yet")).to_be_visible()
    add(page, "eth", "ETHUSDT")
    add(page, "btc", "BTCUSDT")
    await_new_price(page, "BTCUSDT")
    expect(row(page, "ETHUSDT").locator(".row-price")).to_have_attribute("data-moved", re.compile("up|down"))
    expect(page.get_by_role("heading", name="BTC / USDT")).to_be_visible()
    expect(page.locator("#legend")).to_contain_text("O ")

    # Resolutions by digits: a bar of an hour begins at a full one.
    page.keyboard.press("4")
    expect(page.get_by_role("radio", name="1h")).to_be_checked()
    expect(page.locator("#legend span").first).to_have_text(re.compile(r" \d\d:00$"))
    page.keyboard.press("6")
    expect(page.locator("#legend span").first).to_have_text(re.compile(r" 00:00$"))
    page.get_by_role("radio", name="5m", exact=True).click()
    expect(page.get_by_role("radio", name="1d")).not_to_be_checked()

    # The level and its lines.
    expect(page.locator("#enigma-level")).to_have_text(re.compile(r"^\d+\.\d\d$"))
    expect(page.locator("#levels tr")).to_have_count(7)
    page.keyboard.press("f")
    expect(page.get_by_label("Fibonacci", exact=True)).to_be_checked()
    names = {"0%", "23.6%", "38.2%", "50%", "61.8%", "78.6%", "100%"}
    assert {line["title"] for line in page.evaluate(DRAWN)["levels"]} == names

    # The connection panel.
    for figure in ("round-trip", "updates", "bytes", "stale"):
        expect(page.locator(f"#{figure}")).to_have_text(re.compile(r"\d"))

    # Up, down, and off the list.
    page.keyboard.press("ArrowUp")
    expect(row(page, "ETHUSDT")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("heading", name="ETH / USDT")).to_be_visible()
    page.keyboard.press("Delete")
    expect(row(page, "ETHUSDT")).to_have_count(0)
    expect(row(page, "BTCUSDT")).to_have_attribute("aria-selected", "true")

    # Another visit finds the session and the list.
    page.reload()
    await_new_price(page, "BTCUSDT")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Username")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Username")).to_be_visible()


def test_the_bar_in_progress_is_the_one_of_the_api(site: Site, open_tab: OpenTab) -> None:
    name = site.user("accountant", "BTCUSDT")
    tab = open_tab()
    log_in(tab.page, name)
    tab.page.keyboard.press("6")
    expect(tab.page.locator("#legend span").first).to_have_text(re.compile(r" 00:00$"))
    await_new_price(tab.page, "BTCUSDT")
    site.up.pause_and_drain()
    try:
        site.up.await_stored()
        port = urlsplit(site.address).port or 0
        (bar,) = ask(port, "/api/v1/symbols/BTCUSDT/bars?resolution=1d&limit=1").json["bars"]
        texts = [
            f"{mark} {Decimal(str(bar[field])):,.2f}"
            for mark, field in zip("OHLC", ("open", "high", "low", "close"), strict=True)
        ]
        texts.append(f"V {bar['volume']:.4g}")
        expect(tab.page.locator("#legend")).to_contain_text("".join(texts))
        # So is what is in the canvas, bars that are closed among it.
        for key, resolution in (("6", "1d"), ("1", "1m"), ("2", "5m")):
            path = f"/api/v1/symbols/BTCUSDT/bars?resolution={resolution}&limit=500"
            tab.page.keyboard.press(key)
            tab.page.wait_for_function(ARE_DRAWN, arg=ask(port, path).json["bars"])
    finally:
        site.up.sim("/sim/resume")


def test_a_lost_connection_is_seen_and_comes_back(site: Site, open_tab: OpenTab) -> None:
    name = site.user("patient", "BTCUSDT", "ETHUSDT")
    tab = open_tab()
    page = tab.page
    tab.expect_complaint("/api/v1/ws")  # attempts to connect while nobody listens
    log_in(page, name)
    await_new_price(page, "BTCUSDT")
    (server,) = (pid for pid in children_of(site.up.process.pid) if is_server(pid))
    os.kill(server, signal.SIGKILL)
    expect(page.locator("#banner")).to_contain_text("The connection is lost.")
    tab.shoot("disconnected")
    expect(page.locator("#pill")).to_have_attribute("data-state", "connected", timeout=60_000)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#reconnects")).to_have_text(re.compile(r"^[1-9]"))
    await_new_price(page, "BTCUSDT")


def test_a_session_that_was_ended_leads_to_the_login(site: Site, open_tab: OpenTab) -> None:
    name = site.user("leaver", "BTCUSDT")
    tab = open_tab()
    tab.expect_complaint("401")
    log_in(tab.page, name)
    expect(row(tab.page, "BTCUSDT")).to_be_visible()
    known = site.accounts.user(name)
    assert known is not None
    site.accounts.end_sessions(known[0].id)
    # Nothing was asked for: the server closes the connection with 4401.
    expect(tab.page.get_by_text("Your session has ended")).to_be_visible()
    expect(tab.page.locator("#desk")).to_be_hidden()


def test_a_login_that_the_browser_does_not_keep_says_why(site: Site, open_tab: OpenTab) -> None:
    name = site.user("insecure")
    tab = open_tab()
    tab.expect_complaint("401")

    def without_cookie(route: Route) -> None:
        answer = route.fetch()
        headers = {key: value for key, value in answer.headers.items() if key != "set-cookie"}
        tab.page.context.clear_cookies()
        route.fulfill(status=answer.status, headers=headers, body=answer.body())

    tab.page.route("**/auth/login", without_cookie)
    tab.page.get_by_label("Username").fill(name)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#login-error")).to_contain_text("SESSION_COOKIE_SECURE=false")
    expect(tab.page.locator("#desk")).to_be_hidden()


def test_older_bars_come_as_one_scrolls_there(site: Site, open_tab: OpenTab) -> None:
    name = site.user("historian", "BTCUSDT")
    page = open_tab().page
    log_in(page, name)
    expect(page.locator("#legend")).to_contain_text("O ")
    expect(page.get_by_role("button", name="To now")).to_be_hidden()
    page.locator("#chart").hover()
    with page.expect_response(lambda response: "&to=" in response.url) as older:
        for _ in range(40):
            page.mouse.wheel(-400, 0)
    assert len(older.value.json()["bars"]) > 100
    expect(page.get_by_role("button", name="To now")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("button", name="To now")).to_be_hidden()


def test_light_or_dark_as_the_system_has_it_or_as_one_wants(site: Site, open_tab: OpenTab) -> None:
    name = site.user("reader", "BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT")
    tab = open_tab(theme="light")
    page = tab.page
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    log_in(page, name)
    await_new_price(page, "XRPUSDT")
    expect(page.locator("#legend")).to_contain_text("O ")
    tab.shoot("light")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await_new_price(page, "XRPUSDT")
    expect(page.locator("#legend")).to_contain_text("O ")
    tab.shoot("dark")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Keys")).to_be_hidden()


def test_focus_can_be_seen_wherever_it_goes(site: Site, open_tab: OpenTab) -> None:
    name = site.user("keyboarder", "BTCUSDT")
    page = open_tab().page
    log_in(page, name)
    expect(row(page, "BTCUSDT")).to_be_visible()
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "search":
            # It opens a list a moment later, in which an option has the focus then.
            expect(page.locator("#found [aria-selected=true]")).to_be_visible()
        focused = page.evaluate(
            """() => {
              const focused = document.activeElement;
              const active = document.getElementById(focused.getAttribute("aria-activedescendant"));
              const { outlineStyle, outlineWidth } = getComputedStyle(active ?? focused);
              const name = focused.id || focused.ariaLabel || focused.textContent;
              return [name, outlineStyle, parseFloat(outlineWidth), focused === document.body];
            }"""
        )
        if focused[3]:
            continue  # around the end, to the browser's own buttons
        assert focused[1] == "solid", focused
        assert focused[2] >= 2, focused
        seen.add(focused[0])
    assert len(seen) > 6


def test_nothing_overlaps_at_any_width(site: Site, open_tab: OpenTab) -> None:
    name = site.user("measurer-with-a-long-name", "BTCUSDT")
    page = open_tab().page
    log_in(page, name)
    await_new_price(page, "BTCUSDT")
    parts = [
        page.locator(part) for part in (".brand", ".search", ".pill", ".tools", ".watch", ".market", ".side")
    ]
    for width in (320, 360, 560, 721, 800, 900, 1101, 1440, 2200):
        page.set_viewport_size({"width": width, "height": 800})
        boxes = [box for part in parts if (box := part.bounding_box()) is not None]
        assert len(boxes) == len(parts)
        for one, other in itertools.combinations(boxes, 2):
            beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert beside or above, (width, one, other)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_on_a_phone(site: Site, open_tab: OpenTab, theme: str) -> None:
    name = site.user(f"walker-{theme}", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    tab = open_tab(360, 740, theme, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = tab.page
    log_in(page, name)
    await_new_price(page, "SOLUSDT")
    expect(page.locator("#legend")).to_contain_text("O ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 28, button
    page.get_by_role("option", name="SOL").tap()
    expect(page.get_by_role("heading", name="SOL / USDT")).to_be_in_viewport()
    tab.shoot(f"phone-{theme}")


def test_behind_nginx_all_is_one_origin(site: Site, open_tab: OpenTab, tmp_path: Path) -> None:
    name = site.user("outsider", "BTCUSDT")
    with private(NginxServer, tmp_path, urlsplit(site.address).port or 0, site.up.ws_port) as nginx:
        address = f"http://127.0.0.1:{nginx.port}/"
        page = open_tab(address=address).page
        sockets: list[str] = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        log_in(page, name)
        await_new_price(page, "BTCUSDT")
        assert sockets == [f"ws://{urlsplit(address).netloc}/api/v1/ws"]
        page.goto("about:blank")  # before nginx ends


def test_another_tab_of_the_same_user_follows(site: Site, open_tab: OpenTab) -> None:
    name = site.user("twofold", "BTCUSDT")
    first, second = open_tab().page, open_tab().page
    for page in (first, second):
        log_in(page, name)
        expect(row(page, "BTCUSDT")).to_be_visible()
    add(first, "eth", "ETHUSDT")
    await_new_price(second, "ETHUSDT")
    first.keyboard.press("Delete")
    expect(row(second, "ETHUSDT")).to_have_count(0)
    await_new_price(second, "BTCUSDT")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_keeps_anybody_out(site: Site, open_tab: OpenTab, theme: str) -> None:
    """axe's rules of accessibility: names, roles, contrasts."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `make build` where the packages of npm can be had")
    name = site.user(f"listener-{theme}", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    # Colours in the middle of a flash are no contrast to measure.
    page = open_tab(theme=theme, reduced_motion="reduce").page
    rules = AXE.read_text()

    def broken() -> list[str]:
        page.evaluate(rules)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]

    expect(page.get_by_label("Username")).to_be_visible()
    assert broken() == []
    log_in(page, name)
    await_new_price(page, "BTCUSDT")
    assert broken() == []
    page.keyboard.press("/")
    page.keyboard.type("usd")
    expect(page.locator("#found [role=option]").first).to_be_visible()
    assert broken() == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keys").click()
    assert broken() == []


def test_the_list_is_put_in_order(site: Site, open_tab: OpenTab) -> None:
    name = site.user("orderly", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    page = open_tab().page
    log_in(page, name)
    rows = page.locator("#watchlist .row")
    expect(rows).to_have_text([re.compile(base) for base in ("BTC", "ETH", "SOL")])
    expect(row(page, "BTCUSDT")).to_have_attribute("aria-selected", "true")
    with page.expect_response(lambda response: response.request.method == "PUT") as answer:
        page.keyboard.press("Alt+ArrowDown")
    assert answer.value.json()["symbols"] == ["ETHUSDT", "BTCUSDT", "SOLUSDT"]
    expect(rows).to_have_text([re.compile(base) for base in ("ETH", "BTC", "SOL")])
    expect(row(page, "BTCUSDT")).to_have_attribute("aria-selected", "true")


FLOOD = 40
UPDATES = 2_000
COUNT_CHANGES = """() => {
  const price = document.querySelector("#watchlist [data-symbol=BTCUSDT] .row-price");
  window.counted = { changes: 0, frames: 0 };
  new MutationObserver((records) => { window.counted.changes += records.length; }).observe(price, { childList: true });
  const frame = () => { window.counted.frames += 1; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""


def test_a_flood_costs_one_change_a_frame(site: Site, open_tab: OpenTab) -> None:
    """However many updates arrive, a price is written into the page at most once a frame, and the last one stays."""
    name = site.user("watcher", "BTCUSDT")
    page = open_tab().page
    sockets: list[WebSocketRoute] = []
    held: list[str | bytes] = []
    flooding = False

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        # What the server sends meanwhile comes after the flood: its prices are others.
        server.on_message(lambda message: held.append(message) if flooding else socket.send(message))
        sockets.append(socket)

    page.route_web_socket(re.compile("/api/v1/ws"), between)
    page.reload()
    log_in(page, name)
    await_new_price(page, "BTCUSDT")
    page.evaluate(COUNT_CHANGES)
    flooding = True
    for burst in range(FLOOD):
        rows = [
            {"symbol": "BTCUSDT", "price": 50_000 + burst + number / 10_000, "volume": 0.001}
            for number in range(UPDATES)
        ]
        sockets[-1].send(json.dumps({"type": "prices", "data": rows}))
    expect(row(page, "BTCUSDT").locator(".row-price")).to_have_text(f"{50_000 + FLOOD - 0.8:,.2f}")
    counted = page.evaluate("window.counted")
    assert 1 <= counted["changes"] <= counted["frames"] + 1
    flooding = False
    for message in held:
        sockets[-1].send(message)
    await_new_price(page, "BTCUSDT")
