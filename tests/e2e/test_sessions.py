"""Logins, rights and watchlists over the WebSocket, with real processes and a real database between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import orjson
import pytest

from tests.e2e.hubs import BINARY, TEXT, Closed, RawClient, request, run
from tests.e2e.logins import Logins, bearer, cookie
from tests.e2e.running import RecorderProcess, ServerProcess, SimProcess, stream_ids
from tradeback.store.stats import read_stats
from tradeback.tokens import new_token

UNAUTHORIZED = 401, "unauthorized"
NO_LEVELS = {"FEATURE_ENIGMA_ENABLED": "false"}  # nothing unasked but what these tests are about
LIFETIMES = 4.0, 20.0, 80.0  # seconds, see in_time


class Running:
    """A server that lets nobody in without a login, its recorder, and the exchange. Entered to be stopped."""

    def __init__(self, folder: Path, sim: SimProcess, **environment: str) -> None:
        self.folder, self.sim = folder, sim
        self.environment = {"WS_ANONYMOUS": "false", "EXCHANGE_LINGER": "100ms", **environment}
        with ExitStack() as stack:
            self.server = stack.enter_context(ServerProcess(folder, sim, **self.environment))
            self.recorder = stack.enter_context(RecorderProcess(folder, sim, **NO_LEVELS))
            self.logins = Logins(folder)
            stack.callback(lambda: self.server.__exit__(None, None, None))
            stack.callback(lambda: self.recorder.__exit__(None, None, None))
            stack.callback(self.logins.close)
            self._stack = stack.pop_all()
        self.ids = stream_ids(folder)

    def restart_server(self) -> None:
        self.server.kill()
        self.server = ServerProcess(
            self.folder, self.sim, **self.environment | {"WS_PORT": str(self.server.ws_port)}
        )

    def restart_recorder(self) -> None:
        self.recorder.kill()
        self.recorder = RecorderProcess(self.folder, self.sim, **NO_LEVELS)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def client(self, token: str) -> RawClient:
        return await RawClient.connect(self.server.ws_port, headers=cookie(token))

    async def refusal(self, headers: dict[str, str]) -> tuple[int, str]:
        """Status and code of the answer to a request that is not upgraded."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.ws_port)
        writer.write(request(headers=headers))
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert (b"WWW-Authenticate: Bearer" in head) == (status == 401)
        return status, orjson.loads(body)["error"]["code"]

    async def until(self, what: str, **expected: int) -> None:
        """Wait until the server's status says so."""
        deadline = time.monotonic() + 90
        while True:
            status = await asyncio.to_thread(self.server.control, type="status")
            if all(status[what].get(key) == value for key, value in expected.items()):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} never was {expected}: {status[what]}")
            await asyncio.sleep(0.01)

    async def announced(self, client: RawClient, kind: str, *symbols: str) -> None:
        """The next text messages say of these symbols, in this order, that they were auto_..."""
        for symbol in symbols:
            data = {"symbol": symbol, "id": self.ids[symbol]}
            assert await client.text() == {"type": kind, "data": data}


@pytest.fixture(scope="module")
def sim() -> Iterator[SimProcess]:
    with SimProcess("--symbols", "10", "--rate", "300") as running:
        yield running


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, sim: SimProcess) -> Iterator[Running]:
    """One for all tests that restart nothing: each has users of its own."""
    with Running(tmp_path_factory.mktemp("up"), sim, EXCHANGE_SYMBOLS="BTCUSDT") as running:
        yield running


@pytest.fixture
def restarted(tmp_path: Path, sim: SimProcess) -> Iterator[Running]:
    with Running(tmp_path, sim, EXCHANGE_SYMBOLS="BTCUSDT") as running:
        yield running


async def first_price(client: RawClient, stream_id: int) -> None:
    """Read on until a price of it came."""
    while stream_id not in client.last:
        await client.frame()


def test_who_is_let_in(up: Running) -> None:
    alice = up.logins.user("alice-1")
    token = up.logins.login(alice)
    forged = new_token(b"another secret", 3600)
    expired = new_token(up.logins.secret, -1)
    turned = token[:-1] + ("A" if token[-1] != "A" else "B")
    refused = [
        ({}, UNAUTHORIZED),
        (cookie(forged), UNAUTHORIZED),
        (bearer(forged), UNAUTHORIZED),
        (cookie(expired), UNAUTHORIZED),
        (bearer(turned), UNAUTHORIZED),
        (bearer(up.logins.hash(token).hex()), UNAUTHORIZED),  # what a thief of the database has
        (cookie("x" * 4000), UNAUTHORIZED),
        (cookie("\xff\u20ac" * 20), UNAUTHORIZED),
        (cookie(""), UNAUTHORIZED),
        ({"Cookie": "session_token"}, UNAUTHORIZED),
        ({"Cookie": ";;=;" * 200}, UNAUTHORIZED),
        ({"Cookie": f"Session_Token={token}"}, UNAUTHORIZED),
        ({"Authorization": "Bearer"}, UNAUTHORIZED),
        ({"Authorization": f"Basic {token}"}, UNAUTHORIZED),
        ({"Authorization": f"Bearer {token} {token}"}, UNAUTHORIZED),
        (cookie(token) | bearer(forged), UNAUTHORIZED),  # what was named on purpose decides
        ({"Authorization": f"Bearer {token}\r\nAuthorization: Bearer {token}"}, UNAUTHORIZED),
        ({"Cookie": "; ".join([f"session_token={forged}"] * 11 + [f"session_token={token}"])}, UNAUTHORIZED),
        (cookie(token) | {"Origin": "http://elsewhere.example"}, (403, "origin_not_allowed")),
    ]  # fmt: skip
    good = [
        cookie(token),
        bearer(token),
        cookie(forged) | bearer(token),
        {"Cookie": f"session_token={forged}; session_token={expired}; session_token={token}"},
        {"Authorization": f"bearer  {token} "},
        {"Cookie": f'session_token="{token}"'},
        {"Cookie": f"a=b;session_token={token};session_token={token}"},
        {"Cookie": f"x=1\r\nCookie: session_token={token}"},  # two headers
        cookie(token) | {"Origin": "http://localhost:8080"},
    ]

    async def scenario() -> None:
        for headers, expected in refused:
            assert await up.refusal(headers) == expected, headers
        for headers in good:
            client = await RawClient.connect(up.server.ws_port, headers=headers)
            answer = await client.subscribe("BTCUSDT")
            assert answer == {
                "type": "subscribed",
                "symbols": [{"symbol": "BTCUSDT", "id": up.ids["BTCUSDT"]}],
            }
            await client.leave()
        await up.until("sessions", clients=0, waiting=0)

    run(scenario())


def ends(up: Running, token: str, user_id: int) -> dict[str, Callable[[], object]]:
    accounts = up.logins.accounts
    return {
        "logged out": lambda: accounts.end_session(up.logins.hash(token)),
        "logged out everywhere": lambda: accounts.end_sessions(user_id),
        "disabled": lambda: accounts.set_active(user_id, False),
        "a new password": lambda: accounts.set_password(user_id, "another hash"),
    }


def test_a_login_that_ends_ends_its_clients_and_no_others(up: Running) -> None:
    bob = up.logins.login(up.logins.user("bob-2"))

    async def scenario() -> None:
        other = await up.client(bob)
        await other.subscribe("BTCUSDT")
        took = {}
        for number, how in enumerate(ends(up, bob, 0)):
            user = up.logins.user(f"many-{number}")
            token = up.logins.login(user)
            clients = [
                await up.client(token),
                await RawClient.connect(up.server.ws_port, headers=bearer(token)),
            ]
            for client in clients:
                await client.subscribe("BTCUSDT")
            ends(up, token, user.id)[how]()
            began = time.monotonic()
            assert [await client.closed() for client in clients] == [4401, 4401]
            took[how] = time.monotonic() - began
            for client in clients:
                await client.leave()
            # Stolen and used afterwards: it is known to have ended, and is not even let in.
            assert await up.refusal(cookie(token)) == UNAUTHORIZED
            assert await up.refusal(bearer(token)) == UNAUTHORIZED
        print("closed after, seconds:", {how: round(seconds, 3) for how, seconds in took.items()})
        await first_price(other, up.ids["BTCUSDT"])
        await other.leave()

    run(scenario())


def test_a_session_that_expires_while_connected(up: Running) -> None:
    alice = up.logins.user("alice-3")

    async def login(lifetime: float, token_lifetime: float) -> tuple[str, RawClient] | None:
        """Of a subscribed client; None where this machine was too slow for that before the login ended."""
        surely_until = time.time() + min(lifetime, token_lifetime) - 1.0  # it ends at a full second
        token = up.logins.login(alice, lifetime, token_lifetime=token_lifetime)
        try:
            client = await up.client(token)
            await client.subscribe("BTCUSDT")
        except (AssertionError, Closed):
            if time.time() < surely_until:
                raise
            return None
        return token, client

    async def expires(lifetime: float, token_lifetime: float) -> bool:
        made = await login(lifetime, token_lifetime)
        if made is None:
            return False
        token, client = made
        assert await client.closed() == 4401
        await client.leave()
        assert await up.refusal(cookie(token)) == UNAUTHORIZED
        return True

    async def is_used(lifetime: float) -> bool:
        began = time.time()
        made = await login(lifetime, 3600)
        if made is None:
            return False
        token, client = made
        up.logins.accounts.renew(up.logins.hash(token), int(time.time()) + 3600)
        renewed = time.time()
        # The recorder has to see it and to tell the server before the login would have ended.
        in_good_time = renewed < began + lifetime / 2
        try:
            while in_good_time and time.time() < renewed + lifetime + 0.5:
                assert (await client.frame())[0] in (BINARY, TEXT)
        except Closed:
            if lifetime == LIFETIMES[-1]:
                raise
            in_good_time = False  # it may have been too slow for that as well
        await client.leave()
        return in_good_time

    async def scenario() -> None:
        # By the note in the database, and by the end that is written in the token.
        await in_time(lambda lifetime: expires(lifetime, 3600))
        await in_time(lambda lifetime: expires(3600, lifetime))
        # One that is used goes on.
        await in_time(is_used)

    run(scenario())


async def in_time(attempt: Callable[[float], Awaitable[bool]]) -> None:
    """Try with a short login, and with longer ones where this machine was too slow for that."""
    for lifetime in LIFETIMES:
        if await attempt(lifetime):
            return
    pytest.fail("no login lasted until its client was subscribed")


def test_a_token_of_ours_that_no_login_has(up: Running) -> None:
    """As after a logout, to a server that was started since: it is not known to have ended, nor to be one."""
    token = new_token(up.logins.secret, 3600)

    async def scenario() -> None:
        clients = [await up.client(token) for _ in range(3)]
        for client in clients:
            client.send({"type": "subscribe", "symbols": ["BTCUSDT"]})
        assert [await client.closed() for client in clients] == [4401] * 3
        assert [client.frames for client in clients] == [0] * 3
        for client in clients:
            await client.leave()
        assert await up.refusal(cookie(token)) == UNAUTHORIZED

    run(scenario())


def test_a_watchlist_reaches_every_connection_of_its_user(up: Running) -> None:
    accounts = up.logins.accounts
    alice, bob = up.logins.user("alice-4"), up.logins.user("bob-5")
    accounts.set_watchlist(alice.id, ["SOLUSDT", "BTCUSDT"])
    one, two, his = up.logins.login(alice), up.logins.login(alice), up.logins.login(bob)

    async def scenario() -> None:
        clients = [await up.client(one), await up.client(one), await up.client(two)]
        stranger = await up.client(his)
        for client in clients:
            await up.announced(client, "auto_subscribe", "SOLUSDT", "BTCUSDT")
            for symbol in ("SOLUSDT", "BTCUSDT"):
                await first_price(client, up.ids[symbol])
        took = []
        for symbol in ("ETHUSDT", "BNBUSDT", "XRPUSDT"):
            accounts.watch(alice.id, symbol)
            began = time.monotonic()
            for client in clients:
                await up.announced(client, "auto_subscribe", symbol)
            took.append(time.monotonic() - began)
        for client in clients:
            for symbol in ("ETHUSDT", "BNBUSDT", "XRPUSDT"):
                await first_price(client, up.ids[symbol])
        for symbol in ("ETHUSDT", "SOLUSDT"):
            accounts.unwatch(alice.id, symbol)
            began = time.monotonic()
            for client in clients:
                await up.announced(client, "auto_unsubscribe", symbol)
            took.append(time.monotonic() - began)
        # Another order is no change; a replaced list is what it takes off and adds.
        accounts.set_watchlist(alice.id, ["XRPUSDT", "BTCUSDT", "BNBUSDT"])
        accounts.set_watchlist(alice.id, ["ADAUSDT", "BTCUSDT"])
        for client in clients:
            gone = [await client.text(), await client.text()]
            assert {message["data"]["symbol"] for message in gone} == {"XRPUSDT", "BNBUSDT"}
            assert {message["type"] for message in gone} == {"auto_unsubscribe"}
            await up.announced(client, "auto_subscribe", "ADAUSDT")
        print(f"told after, seconds: median {median(took):.3f}, most {max(took):.3f}")
        # Of all that the other user heard nothing.
        stranger.send({"type": "ping"})
        assert await stranger.text() == {"type": "pong"}
        assert stranger.frames == 1
        for client in (*clients, stranger):
            await client.leave()

    run(scenario())


def test_what_a_client_subscribed_to_itself_is_its_own(up: Running) -> None:
    accounts = up.logins.accounts
    alice = up.logins.user("alice-6")
    accounts.set_watchlist(alice.id, ["BTCUSDT", "ETHUSDT", "BNBUSDT"])
    token = up.logins.login(alice)

    async def scenario() -> None:
        client = await up.client(token)
        await up.announced(client, "auto_subscribe", "BTCUSDT", "ETHUSDT", "BNBUSDT")
        await client.subscribe("ETHUSDT")  # also itself
        client.send(
            {"type": "unsubscribe", "symbols": ["BNBUSDT"]}
        )  # its word is the last, for this connection
        assert (await client.text())["symbols"][0]["symbol"] == "BNBUSDT"
        accounts.set_watchlist(alice.id, ["SOLUSDT"])
        # ETHUSDT goes on, and BNBUSDT had ended.
        gone = [(await client.text())["data"] for _ in range(3)]
        assert gone == [
            {"symbol": "BTCUSDT", "id": up.ids["BTCUSDT"]},
            {"symbol": "ETHUSDT", "id": up.ids["ETHUSDT"], "subscribed": True},
            {"symbol": "BNBUSDT", "id": up.ids["BNBUSDT"]},
        ]
        await up.announced(client, "auto_subscribe", "SOLUSDT")
        client.last.clear()
        await first_price(client, up.ids["ETHUSDT"])
        # What it subscribed to before it came to the watchlist: it is told, and it stays when that goes.
        accounts.watch(alice.id, "ETHUSDT")
        await up.announced(client, "auto_subscribe", "ETHUSDT")
        accounts.unwatch(alice.id, "ETHUSDT")
        assert (await client.text())["data"]["subscribed"] is True
        accounts.unwatch(alice.id, "SOLUSDT")
        await up.announced(client, "auto_unsubscribe", "SOLUSDT")
        client.last.clear()
        await first_price(client, up.ids["ETHUSDT"])
        # Unsubscribed by itself, on the watchlist anew.
        client.send({"type": "unsubscribe", "symbols": ["ETHUSDT"]})
        assert (await client.text())["type"] == "unsubscribed"
        accounts.watch(alice.id, "ETHUSDT")
        await up.announced(client, "auto_subscribe", "ETHUSDT")
        client.last.clear()
        await first_price(client, up.ids["ETHUSDT"])
        await client.leave()

    run(scenario())


def test_a_user_watches_what_the_patterns_allow(up: Running) -> None:
    accounts = up.logins.accounts
    carol = up.logins.user("carol-7", ("B*", "ETHUSDT"))
    accounts.set_watchlist(carol.id, ["BTCUSDT", "SOLUSDT"])
    token = up.logins.login(carol)
    not_allowed = {"type": "error", "code": "symbol_not_allowed"}

    async def scenario() -> None:
        client = await up.client(token)
        await up.announced(client, "auto_subscribe", "BTCUSDT")  # and not SOLUSDT
        client.send({"type": "subscribe", "symbols": ["ETHUSDT", "SOLUSDT", "NONE", "BNBUSDT"]})
        answers = [await client.text() for _ in range(3)]
        assert [symbol["symbol"] for symbol in answers[0]["symbols"]] == ["ETHUSDT", "BNBUSDT"]
        assert answers[1]["symbols"] == ["NONE"]
        assert {**answers[2], "message": ""} == {**not_allowed, "message": "", "symbols": ["SOLUSDT"]}
        # Rights that are taken away end what they allowed, whoever subscribed to it.
        accounts.set_patterns(carol.id, ["ETH*", "SOL*"])
        gone = [await client.text(), await client.text()]
        assert {message["data"]["symbol"] for message in gone} == {"BTCUSDT", "BNBUSDT"}
        assert {message["type"] for message in gone} == {"auto_unsubscribe"}
        await up.announced(client, "auto_subscribe", "SOLUSDT")
        # Whoever insists is closed.
        for _ in range(5):
            client.send({"type": "subscribe", "symbols": ["BTCUSDT"]})
            assert (await client.text())["code"] == "symbol_not_allowed"
        assert await client.closed() == 4403
        await client.leave()

    run(scenario())


def test_feeds_carry_what_is_on_a_watchlist_while_nobody_is_connected(restarted: Running) -> None:
    up = restarted
    accounts = up.logins.accounts
    alice = up.logins.user("alice-8")

    async def scenario() -> None:
        await up.until("symbols", carried=1, pinned=1)
        accounts.set_watchlist(alice.id, ["BTCUSDT", "ETHUSDT", "NOSUCH"])
        await up.until("symbols", carried=2, pinned=3)
        await asyncio.to_thread(up.server.await_subscribed, 2)
        # They are again after a restart of either, without a login.
        await asyncio.to_thread(up.restart_server)
        await up.until("symbols", carried=2, pinned=3)
        await asyncio.to_thread(up.recorder.kill)
        accounts.set_watchlist(alice.id, ["SOLUSDT"])
        await asyncio.to_thread(up.restart_recorder)
        await up.until("symbols", carried=2, pinned=2)
        # What was configured stays.
        accounts.set_watchlist(alice.id, [])
        await up.until("symbols", carried=1, pinned=1)
        accounts.set_watchlist(alice.id, ["ETHUSDT"])
        await up.until("symbols", carried=2, pinned=2)
        accounts.set_active(alice.id, False)
        await up.until("symbols", carried=1, pinned=1)

    run(scenario())


def test_what_is_pinned_by_hand_stays_whatever_becomes_of_watchlists(restarted: Running) -> None:
    up = restarted
    accounts = up.logins.accounts
    alice = up.logins.user("alice-10")

    def pin(add: list[str], drop: list[str]) -> None:
        up.server.control(type="pin", add=add, drop=drop)

    async def scenario() -> None:
        await up.until("symbols", pinned=1)
        await asyncio.to_thread(pin, ["ETHUSDT", "SOLUSDT"], [])
        accounts.set_watchlist(alice.id, ["ETHUSDT", "BNBUSDT"])
        await up.until("symbols", carried=4, pinned=4)
        accounts.set_watchlist(alice.id, ["BNBUSDT"])
        accounts.set_watchlist(alice.id, [])
        await up.until("symbols", carried=3, pinned=3)
        # The recorder tells all anew.
        accounts.set_watchlist(alice.id, ["ETHUSDT", "BNBUSDT"])
        await up.until("symbols", pinned=4)
        await asyncio.to_thread(up.recorder.kill)
        accounts.set_watchlist(alice.id, ["BNBUSDT"])
        await asyncio.to_thread(up.restart_recorder)
        await up.until("symbols", pinned=4)
        accounts.set_watchlist(alice.id, ["ETHUSDT"])
        await up.until("symbols", pinned=3)
        # Nor does a hand drop what somebody watches, or what is configured.
        await asyncio.to_thread(pin, [], ["ETHUSDT", "SOLUSDT", "BTCUSDT"])
        await up.until("symbols", carried=2, pinned=2)
        accounts.set_watchlist(alice.id, [])
        await up.until("symbols", carried=1, pinned=1)

    run(scenario())


def test_sessions_outlive_a_restart_of_server_and_recorder(restarted: Running) -> None:
    up = restarted
    accounts = up.logins.accounts
    alice = up.logins.user("alice-9")
    accounts.watch(alice.id, "ETHUSDT")
    token, ended = up.logins.login(alice), up.logins.login(alice)

    async def scenario() -> None:
        client, other = await up.client(token), await up.client(ended)
        for one in (client, other):
            await up.announced(one, "auto_subscribe", "ETHUSDT")
        # Without the recorder it goes on; who logs in now is asked to come again.
        await asyncio.to_thread(up.recorder.kill)
        late = await up.client(up.logins.login(alice))
        late.send({"type": "subscribe", "symbols": ["BTCUSDT"]})
        client.last.clear()
        await first_price(client, up.ids["ETHUSDT"])
        assert await late.closed() == 1012
        await late.leave()
        # What happened meanwhile is told by the next one.
        accounts.end_session(up.logins.hash(ended))
        accounts.watch(alice.id, "SOLUSDT")
        await asyncio.to_thread(up.restart_recorder)
        await up.announced(client, "auto_subscribe", "SOLUSDT")
        assert await other.closed() == 4401
        assert await up.refusal(cookie(ended)) == UNAUTHORIZED
        await other.leave()
        await client.leave()
        counted = read_stats(up.folder / "sim" / "stats" / "server").values
        assert counted["session_updates"].value >= 2
        assert counted["sessions"].value == 2
        # A new server knows nobody until the recorder has told it, and lets wait whoever comes before that.
        await asyncio.to_thread(up.restart_server)
        client = await up.client(token)
        await up.announced(client, "auto_subscribe", "ETHUSDT", "SOLUSDT")
        await client.leave()
        client = await up.client(ended)
        assert await client.closed() == 4401
        await client.leave()

    run(scenario())
