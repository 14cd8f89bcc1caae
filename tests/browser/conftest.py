"""The page in a real Chromium, on a real `tradeback up` with the simulated exchange."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.conftest import CHECKOUT
from tests.e2e.running import Up
from tests.servers.services import config_of
from tradeback.api.page import DIST
from tradeback.passwords import hash_password
from tradeback.store.accounts import SqlAccounts, open_accounts

SCREENSHOTS = CHECKOUT / "build" / "screenshots"
PASSWORD = "correct horse"
PATIENCE_MS = 120_000
HOW_TO_GET = "apt-get install -y --no-install-recommends chromium"
# Nothing that leaves this machine, and no sandbox: tests often run as root.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def needs(there: bool, sentence: str) -> None:
    """Skip what cannot be tried here; under CI that is a failure."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="module")
def chromium() -> str:
    """Its path."""
    path = shutil.which("chromium")
    needs(path is not None, f"no chromium here: {HOW_TO_GET}")
    built = (DIST / "index.html").exists()
    needs(built, "the page was not built: run `make build` where the packages of npm can be had")
    return str(path)


@dataclass(frozen=True)
class Site:
    """A running Trade-Back: `address` is where a browser opens it, `login` the user and password that it made."""

    up: Up
    address: str
    login: tuple[str, str]
    accounts: SqlAccounts

    def user(self, name: str, *symbols: str) -> str:
        """Add a user with PASSWORD and this watchlist; returns the name."""
        user = self.accounts.add_user(name, hash_password(PASSWORD), ("*",))
        self.accounts.set_watchlist(user.id, symbols)
        return name


@pytest.fixture(scope="module")
def site(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("page")
    # Nobody is let in without a session: the browser has to send its cookie to the WebSocket's port too.
    environment = {"RECORDER_HISTORY_DAYS": "1", "WS_ANONYMOUS": "false"}
    with Up(folder, "--sim-rate", "500", "--sim-symbols", "20", environment=environment) as up:
        address, sentence = up.await_login()
        login = re.fullmatch(r"Log in as (\S+) with the password (\S+)", sentence)
        assert login is not None, sentence
        up.await_subscribed(5)
        with closing(open_accounts(config_of(folder))) as accounts:
            yield Site(up, address, (login[1], login[2]), accounts)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(chromium: str, playwright: Playwright) -> Iterator[Browser]:
    """One browser for all; each test has a profile of its own in it, that keeps nothing."""
    browser = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
    yield browser
    browser.close()


@dataclass
class Tab:
    """A page in a profile of its own, and what its console said that it should not have."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def expect_complaint(self, part: str) -> None:
        """What holds this is no fault: browsers write refused requests to the console."""
        self.expected.append(part)

    def unexpected(self) -> list[str]:
        return [one for one in self.complaints if not any(part in one for part in self.expected)]

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[OpenTab]:
    """Opens the page; options are those of a browser context. Each test ends without complaints."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_it(
        width: int = 1440,
        height: int = 900,
        theme: str = "dark",
        address: str = site.address,
        **options: object,
    ) -> Tab:
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=theme, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        tab = Tab(context.new_page())
        tabs.append(tab)

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                tab.complaints.append(f"{message.text} {message.location.get('url')}")

        tab.page.on("console", said)
        tab.page.on("pageerror", lambda error: tab.complaints.append(f"{error}"))
        tab.page.goto(address)
        return tab

    yield open_it
    for number, tab in enumerate(tabs):
        tab.shoot(f"{request.node.name}-{number}")
    for context in contexts:
        context.close()
    assert [tab.unexpected() for tab in tabs] == [[] for _ in tabs]
