"""The Python client and `tradeback watch` with a login, every process real: API, server, recorder, exchange."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import CHECKOUT
from tests.e2e.accounts import PASSWORD
from tests.e2e.api import ApiProcess
from tests.e2e.running import SimProcess
from tests.e2e.test_sessions import Running
from tests.waiting import until
from tradeback.cli import main
from tradeback.client import AutoSubscribed, AutoUnsubscribed, Client, Credentials, Event, Refused, Update
from tradeback.client import client as client_module
from tradeback.errors import ServerRefusedError, UnknownSymbolError
from tradeback.passwords import hash_password

PATIENCE = 60.0
# `python -m tradeback`, as patient as `_patient` makes the clients of this process.
TRADEBACK = f"""
from tradeback.client import client
client.LOGOUT_PATIENCE_S = {PATIENCE}
import tradeback.__main__
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving waits until the logout is answered, however busy the machine is."""
    monkeypatch.setattr(client_module, "LOGOUT_PATIENCE_S", PATIENCE)


class Site:
    """All of it, and users who can log in with PASSWORD."""

    def __init__(self, running: Running, api: ApiProcess) -> None:
        self.running, self.api = running, api

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.running.server.ws_port}/api/v1/ws"

    def user(self, name: str, *watchlist: str, patterns: tuple[str, ...] = ("*",)) -> Credentials:
        accounts = self.running.logins.accounts
        user = accounts.add_user(name, hash_password(PASSWORD), patterns)
        accounts.set_watchlist(user.id, watchlist)
        return Credentials(self.api.address, name, PASSWORD)

    def sessions(self, name: str) -> int:
        """How many sessions of the user go on."""
        accounts = self.running.logins.accounts
        found = accounts.user(name)
        assert found is not None
        return sum(session.user_id == found[0].id for session in accounts.active_sessions())

    def change(self, name: str, method: str, *symbols: str) -> None:
        """The user's watchlist, by REST."""
        found = self.running.logins.accounts.user(name)
        assert found is not None
        token = self.running.logins.login(found[0])
        for symbol in symbols:
            answer = self.api.ask(f"/api/v1/marketwatch/{symbol}", method, Authorization=f"Bearer {token}")
            assert answer.status == 200, answer
        self.running.logins.logout(token)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    with (
        SimProcess("--symbols", "5", "--rate", "300") as sim,
        Running(folder, sim, EXCHANGE_SYMBOLS="BTCUSDT", EXCHANGE_LINGER="0s") as running,
        ApiProcess(folder, WS_PORT=str(running.server.ws_port)) as api,
    ):
        yield Site(running, api)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


async def next_of(events: AsyncIterator[Event], kind: type[Event], symbol: str | None = None) -> Event:
    """The next event of a kind, of a symbol where that is given."""
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if isinstance(event, kind) and (symbol is None or getattr(event, "symbol", None) == symbol):
                return event
    raise AssertionError(f"the events ended before a {kind.__name__}")


async def to_the_end(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        async for _ in client:
            pass


async def until_connected(client: Client, connections: int) -> None:
    await until(lambda: client.connections >= connections and client.round_trip_s is not None)


def test_a_watchlist_comes_and_follows_its_changes(there: Site) -> None:
    ann = there.user("ann", "ETHUSDT", "BTCUSDT")

    async def scenario() -> None:
        async with Client(there.url, credentials=ann) as client:
            events = client.events()
            assert await next_of(events, AutoSubscribed) == AutoSubscribed("ETHUSDT")
            assert await next_of(events, AutoSubscribed) == AutoSubscribed("BTCUSDT")
            await next_of(events, Update, "ETHUSDT")
            await asyncio.to_thread(there.change, "ann", "POST", "SOLUSDT")
            assert await next_of(events, AutoSubscribed) == AutoSubscribed("SOLUSDT")
            await next_of(events, Update, "SOLUSDT")
            assert client.symbols == ["ETHUSDT", "BTCUSDT", "SOLUSDT"]
            await asyncio.to_thread(there.change, "ann", "DELETE", "ETHUSDT")
            assert await next_of(events, AutoUnsubscribed) == AutoUnsubscribed("ETHUSDT")
            assert client.symbols == ["BTCUSDT", "SOLUSDT"]
            assert client.login is not None
            assert client.login.username == "ann"
            assert there.sessions("ann") == 1
        assert there.sessions("ann") == 0

    asyncio.run(scenario())


def test_subscriptions_of_its_own_change_while_it_runs(there: Site) -> None:
    bob = there.user("bob")

    async def scenario() -> None:
        async with Client(there.url, ["BTCUSDT"], credentials=bob) as client:
            events = client.events()
            await next_of(events, Update, "BTCUSDT")
            for _ in range(300):  # more than the server would let it say
                client.subscribe("ethusdt")
                client.unsubscribe("ETHUSDT")
                client.subscribe("ETHUSDT", "NONSENSE")
                await asyncio.sleep(0)
            refused = await next_of(events, Refused)
            assert refused == Refused("unknown_symbols", refused.message, ("NONSENSE",))
            await next_of(events, Update, "ETHUSDT")
            client.unsubscribe("BTCUSDT")
            await until_connected(client, 1)
            assert client.connections == 1
            assert set(client.symbols) == {"ETHUSDT", "NONSENSE"}

    asyncio.run(scenario())


def test_a_session_that_is_ended_is_made_again(there: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_S", 0.01)
    cid = there.user("cid", "BTCUSDT")
    notices: list[str] = []

    async def scenario() -> None:
        async with Client(there.url, credentials=cid, on_notice=notices.append) as client:
            await until_connected(client, 1)
            accounts = there.running.logins.accounts
            found = accounts.user("cid")
            assert found is not None
            assert accounts.end_sessions(found[0].id) == 1
            await until_connected(client, 2)
            await next_of(client.events(), Update, "BTCUSDT")
            # And where the password is another by now, that is the end.
            accounts.set_password(found[0].id, hash_password("another password"))
            with pytest.raises(ServerRefusedError, match="refused the login of cid"):
                await to_the_end(client)

    asyncio.run(scenario())
    assert any("closed with 4401" in notice for notice in notices)


def test_a_token_of_somebody_elses_login(there: Site) -> None:
    accounts = there.running.logins.accounts
    there.user("dora", "BTCUSDT")
    found = accounts.user("dora")
    assert found is not None
    token = there.running.logins.login(found[0])

    async def scenario() -> None:
        async with Client(there.url, token=token) as client:
            await next_of(client.events(), Update, "BTCUSDT")
            assert client.login is None
        assert there.sessions("dora") == 1
        async with Client(there.url, token=token) as client:
            await until_connected(client, 1)
            there.running.logins.logout(token)
            with pytest.raises(ServerRefusedError, match="the token has expired or was revoked"):
                await to_the_end(client)
        for bad in (token, token[:-1] + ("A" if token[-1] != "A" else "B"), "nonsense"):
            async with Client(there.url, ["BTCUSDT"], token=bad) as client:
                with pytest.raises(ServerRefusedError, match="the token has expired or was revoked"):
                    await to_the_end(client)

    asyncio.run(scenario())


def test_wrong_passwords_and_missing_ones(there: Site) -> None:
    there.user("emil")

    async def scenario() -> None:
        for credentials, said in (
            (Credentials(there.api.address, "emil", "wrong"), "refused the login of emil"),
            (Credentials(there.api.address, "nobody", PASSWORD), "refused the login of nobody"),
            (Credentials(there.api.address, "emil", ""), "answered 400"),
            (Credentials(there.url.replace("ws:", "http:"), "emil", PASSWORD), "answered 4"),
            (None, "give credentials or a token"),
        ):
            async with Client(there.url, ["BTCUSDT"], credentials=credentials) as client:
                with pytest.raises(ServerRefusedError, match=said):
                    await to_the_end(client)

    asyncio.run(scenario())


def test_a_symbol_that_the_user_may_not_watch(there: Site) -> None:
    finn = there.user("finn", patterns=("BTC*",))

    async def scenario() -> None:
        async with Client(there.url, ["ETHUSDT", "BTCUSDT"], credentials=finn) as client:
            events = client.events()
            refused = await next_of(events, Refused)
            assert refused == Refused("symbol_not_allowed", refused.message, ("ETHUSDT",))
            await next_of(events, Update, "BTCUSDT")
        async with Client(there.url, ["ETHUSDT"], credentials=finn) as client:
            with pytest.raises(UnknownSymbolError, match="symbol_not_allowed"):
                await to_the_end(client)

    asyncio.run(scenario())


def test_logging_out_ends_the_iteration(there: Site) -> None:
    gwen = there.user("gwen", "BTCUSDT")

    async def scenario() -> None:
        async with Client(there.url, credentials=gwen) as client:
            await until_connected(client, 1)
            await client.log_out()
            assert there.sessions("gwen") == 0
            await to_the_end(client)

    asyncio.run(scenario())


def test_a_server_that_is_killed_and_one_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: low / 10)
    with site(tmp_path) as there:
        ann = there.user("ann", "BTCUSDT")

        async def scenario() -> None:
            async with Client(there.url, ["ETHUSDT"], credentials=ann) as client:
                events = client.events()
                await next_of(events, Update, "BTCUSDT")
                await asyncio.to_thread(there.running.restart_server)
                await until_connected(client, 2)
                assert await next_of(events, AutoSubscribed) == AutoSubscribed("BTCUSDT")
                await next_of(events, Update, "ETHUSDT")
                assert there.sessions("ann") == 1
            # The recorder away: the server cannot know a new login, and says 1012 until it is back.
            there.running.recorder.kill()
            async with Client(there.url, credentials=ann) as client:
                async with asyncio.timeout(PATIENCE):
                    while "1012" not in str(client.last_failure):
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(there.running.restart_recorder)
                await next_of(client.events(), AutoSubscribed)
                assert there.sessions("ann") == 1

        asyncio.run(scenario())


def watch(there: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tradeback watch` against the site, in a process of its own and without a terminal."""
    places = {"SERVER_PORT": str(there.api.port), "WS_PORT": str(there.running.server.ws_port)}
    return subprocess.run(
        [sys.executable, "-c", TRADEBACK, "watch", *arguments],
        env={**os.environ, **places, "DATA_DIR": str(there.running.folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class TestWatch:
    def test_the_watchlist_of_a_user(self, there: Site, tmp_path: Path) -> None:
        there.user("hugo", "BTCUSDT", "ETHUSDT")
        file = tmp_path / "password"
        file.write_text(f"{PASSWORD}\nand nothing of this\n")
        for arguments, environment in (
            (("--password-file", str(file)), {}),
            ((), {"TRADEBACK_PASSWORD": PASSWORD}),
        ):
            done = watch(there, "--user", "hugo", "--count", "20", *arguments, **environment)
            assert (done.returncode, done.stderr) == (0, "")
            lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
            assert lines[:2] == ["BTCUSDT is on the watchlist", "ETHUSDT is on the watchlist"]
            assert {line.split()[0] for line in lines[2:]} <= {"BTCUSDT", "ETHUSDT"}
            assert len(lines) == 22
            assert there.sessions("hugo") == 0
            assert PASSWORD not in done.stdout + done.stderr

    def test_what_cannot_be_done_is_a_sentence(self, there: Site, tmp_path: Path) -> None:
        binary = tmp_path / "binary"
        binary.write_bytes(b"\xff\xfe\n")
        for arguments, environment, said in (
            ((), {}, "Name symbols, or log in with --user"),
            (("--user", "nobody"), {}, "There is no terminal to ask for a password"),
            (("--user", "nobody"), {"TRADEBACK_PASSWORD": "wrong"}, "refused the login of nobody"),
            (("--user", "nobody", "--password-file", str(binary)), {}, "cannot be read as text"),
            (("--user", "nobody", "--password", "x"), {}, "No such option"),
            (("BTCUSDT",), {}, "the server wants a login"),
            (("--user", "x", "--rest", "ftp://x"), {"TRADEBACK_PASSWORD": "x"}, "is no address"),
        ):
            places = {"SERVER_PORT": str(there.api.port), "WS_PORT": str(there.running.server.ws_port)}
            done = CliRunner().invoke(main, ["watch", *arguments], env={**places, **environment})
            assert done.exit_code != 0
            assert said in done.stderr
            assert isinstance(done.exception, SystemExit)


EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$", (CHECKOUT / "docs/client-python.md").read_text(), re.M | re.S
)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_manual_print_prices(there: Site, example: str, tmp_path: Path) -> None:
    """Each runs as it stands, but for addresses and the name."""
    name = f"reader{abs(hash(example)) % 1_000_000}"
    credentials = there.user(name, "BTCUSDT", "ETHUSDT")
    token = there.running.logins.login(there.running.logins.accounts.user(name)[0])  # type: ignore[index]
    script = (
        example.replace("ws://127.0.0.1:8081/api/v1/ws", there.url)
        .replace("http://127.0.0.1:8080", credentials.rest)
        .replace('"ann"', f'"{name}"')
        .replace('"correct horse battery"', f'"{PASSWORD}"')
    )
    if "credentials" not in script:
        script = script.replace('["BTCUSDT", "ETHUSDT"])', f'["BTCUSDT", "ETHUSDT"], token="{token}")')
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        seen: list[str] = []
        while not any(re.fullmatch(r"(BTC|ETH)USDT [\d.e+-]+ [\d.e+-]+\n", line) for line in seen):
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr is not None else ""
            assert time.monotonic() < deadline
            seen.append(line)
    finally:
        process.kill()
        process.communicate()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
