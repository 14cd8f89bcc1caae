"""Client: what a program holds. One asyncio task logs in, connects, and does both again when it must."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from tradeback.client.connection import Connection, HandshakeFailedError, open_connection
from tradeback.client.events import AutoSubscribed, AutoUnsubscribed, Backlog, Event, Refused, Update
from tradeback.client.login import Credentials, Login, LoginLaterError, log_in, log_out
from tradeback.errors import (
    CLOSE_REASONS,
    CloseCode,
    ServerRefusedError,
    TokenError,
    TradebackError,
    UnknownSymbolError,
)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
SYMBOL_BYTES_MAX = 50
LOGOUT_PATIENCE_S = 3.0  # of leaving: a REST interface that does not answer keeps nobody
LOGINS_IN_VAIN = 3  # new logins in a row that the event server refuses, until it is given up
_UNAUTHORIZED = 401
_UNKNOWN_CODES = frozenset(
    {"unknown_symbols", "symbol_not_allowed"}
)  # asked for again, they are refused again
_PERMANENT_STATUSES = range(300, 429)  # 429 and 5xx: the server is busy, or not yet there


class Client:
    """Updates of some symbols from one server, over as many connections as it takes.

    Iterate over it for `Update`s, or over `events()` for everything. Both end with ServerRefusedError where
    connecting again would be of no use, and with UnknownSymbolError where the server refused every symbol.

    A session comes with `credentials`, of which the client makes one, again where it ended, and logs it out on
    leaving; or with a `token` of somebody else's login, which it leaves alone. With a session the server subscribes
    the client to the user's watchlist. `on_notice` gets sentences for people: what is refused, and why it connects
    again.

    Everything here belongs to the loop that entered the `async with`.

    `connected`, `connections` (how many were made), `round_trip_s` (of the last ping; None without a connection),
    `last_failure`, `login` (the last of its own making), `watched` (symbols that the server subscribed it to, in
    their order) and `conflated` (how many updates were merged for a program that lags) are for reading.
    """

    def __init__(
        self,
        url: str,
        symbols: Iterable[str] = (),
        *,
        credentials: Credentials | None = None,
        token: str | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        if token is not None and not (token.isascii() and token.isprintable() and token):
            raise TokenError("The token has characters that no token has: give one that a login answered")
        self.url = url
        self.wanted: dict[str, None] = dict.fromkeys(
            _names([symbols] if isinstance(symbols, str) else symbols)
        )
        self.watched: dict[str, None] = {}
        self.connected = False
        self.connections = 0
        self.round_trip_s: float | None = None
        self.last_failure: str | None = None
        self.login: Login | None = None
        self._credentials = credentials
        self._token = token
        self._refused_logins = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._on_notice = on_notice or (lambda _: None)
        self._backlog = Backlog()
        self._news = asyncio.Event()
        self._unknown: set[str] = set()
        self._end: Exception | None = None
        self._left = False
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()
        if self.login is not None and self._token == self.login.token:
            try:
                async with asyncio.timeout(LOGOUT_PATIENCE_S):
                    await self._log_out()
            except (TradebackError, TimeoutError) as failure:
                self._on_notice(
                    f"The session goes on until it expires: {str(failure) or 'the logout was not answered'}"
                )

    async def __aiter__(self) -> AsyncIterator[Update]:
        async for event in self.events():
            if isinstance(event, Update):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """Everything that comes: updates, Enigma levels, changes of the watchlist, refusals.

        It ends when the client is left, or logged out.
        """
        while True:
            while (event := self._backlog.take()) is not None:
                yield event
            if self._end is not None:
                raise self._end
            if self._left:
                return
            self._news.clear()
            await self._news.wait()

    @property
    def symbols(self) -> list[str]:
        """Those asked for, and then those of the watchlist."""
        return list(self.wanted | self.watched)

    @property
    def conflated(self) -> int:
        """How many updates were merged with one before them, for a program that lags."""
        return self._backlog.conflated

    def subscribe(self, *symbols: str) -> None:
        """Ask for more symbols, on this connection and those to come. What the server refuses comes as a notice
        and as `Refused`."""
        self.wanted.update(dict.fromkeys(_names(symbols)))
        if self._connection is not None:
            self._connection.tell()

    def unsubscribe(self, *symbols: str) -> None:
        """Ask for them no more. A symbol of the watchlist comes again with the next connection: the watchlist is
        changed by REST."""
        names = _names(symbols)
        for name in names:
            self.wanted.pop(name, None)
            self.watched.pop(name, None)
        if self._connection is not None:
            self._connection.drop(names)

    async def log_out(self) -> None:
        """End the session, whoever began it, and the client with it. TradebackError where it could not be ended."""
        await self._leave()
        await self._log_out()

    # ---- called by the connection ----

    def opened(self, connection: Connection) -> None:
        self._unknown.clear()
        self._connection = connection
        self.connected = True
        self.connections += 1

    def updated(self, updates: Sequence[Update]) -> None:
        self._backlog.extend(updates)
        self._news.set()

    def received(self, event: Event) -> None:
        if isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, AutoSubscribed):
            self.watched[event.symbol] = None
        elif isinstance(event, AutoUnsubscribed):
            self.watched.pop(event.symbol, None)
        self._backlog.put(event)
        self._news.set()

    def answered(self, round_trip_s: float) -> None:
        self.round_trip_s = round_trip_s
        self._backoff_s = FIRST_BACKOFF_S
        self._refused_logins = 0

    def _refused(self, refused: Refused) -> None:
        sentence = f"The server says {refused.code}: {refused.message}"
        self._on_notice(sentence)
        if refused.code in _UNKNOWN_CODES:
            self._unknown.update(symbol for symbol in refused.symbols if symbol in self.wanted)
        if self._unknown and self._unknown.issuperset(self.wanted) and not self.watched:
            self._finish(UnknownSymbolError(sentence))

    def _finish(self, error: Exception) -> None:
        self._end = error
        self._news.set()

    # ---- connecting, and connecting again ----

    async def _run(self) -> None:
        try:
            while self._end is None:
                wait_s = await self._one_round()
                if wait_s is None:
                    wait_s = self._backoff_s * random.uniform(0.5, 1)
                    self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)
                if self._end is None:
                    self._on_notice(f"{self.last_failure}: connecting again in {wait_s:.1f} s")
                    await asyncio.sleep(wait_s)
        except Exception as error:  # noqa: BLE001  a fault of ours must reach whoever iterates
            self._finish(error)

    async def _one_round(self) -> float | None:
        """Log in where that is due, and serve one connection to its end. How long to wait before the next; None: by
        the back-off."""
        try:
            if self._token is None and self._credentials is not None:
                self.login = await log_in(self._credentials)
                self._token = self.login.token
            connection = await open_connection(self, self._token)
        except LoginLaterError as error:
            self.last_failure = str(error)
            return error.wait_s
        except HandshakeFailedError as error:
            self.last_failure = str(error)
            if error.status == _UNAUTHORIZED:
                return self._not_logged_in()
            if error.status in _PERMANENT_STATUSES:
                self._finish(ServerRefusedError(f"{error}: see that this is the event server's address"))
            return None
        try:
            await connection.serve()
        finally:
            self._connection = None
            self.connected = False
            self.round_trip_s = None
            self.watched.clear()
        return self._judge(connection)

    def _judge(self, connection: Connection) -> float | None:
        """What the end of a connection means: how long to wait, None for the back-off, or the end of all."""
        if connection.close_code is None:
            self.last_failure = connection.failure or f"{self.url} broke off"
            return None
        told = f" ({connection.close_reason})" if connection.close_reason else ""
        self.last_failure = f"{self.url} closed with {connection.close_code}{told}"
        if connection.close_code == CloseCode.UNAUTHENTICATED:
            return self._not_logged_in()
        known = connection.close_code in CloseCode.__members__.values()
        reason = CLOSE_REASONS.get(CloseCode(connection.close_code)) if known else None
        if reason is None:
            return None
        if reason.wait_s is None:
            self._finish(
                ServerRefusedError(f"{self.last_failure}: {reason.when}; connect again: {reason.reconnect}")
            )
            return None
        return random.uniform(*reason.wait_s)

    def _not_logged_in(self) -> float | None:
        """The event server wants a session, or another one: log in again where that can be done."""
        if self._credentials is None:
            remedy = (
                "give credentials or a token"
                if self._token is None
                else "the token has expired or was revoked, log in again for another"
            )
            self._finish(ServerRefusedError(f"{self.last_failure}: the server wants a login: {remedy}"))
            return None
        if self.login is not None and self._token == self.login.token:
            self._refused_logins += 1
        if self._refused_logins >= LOGINS_IN_VAIN:
            self._finish(
                ServerRefusedError(
                    f"{self.last_failure}: {self._refused_logins} new logins in a row were refused; see that the event "
                    "server and the REST interface belong to the same installation, and that its recorder runs"
                )
            )
        self._token = None
        return None

    # ---- leaving ----

    async def _leave(self) -> None:
        self._left = True
        self._news.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._connection = None
        self.connected = False

    async def _log_out(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        if self._credentials is None:
            raise ServerRefusedError(
                "The client knows no REST interface to log out at: give it credentials, or log out by REST"
            )
        await log_out(self._credentials.rest, token)


def _names(symbols: Iterable[str]) -> list[str]:
    """As the server has them. UnknownSymbolError for what no symbol is called: it would refuse the whole command."""
    names = [symbol.upper() for symbol in symbols]
    for name in names:
        if not name.isprintable() or not 1 <= len(name.encode()) <= SYMBOL_BYTES_MAX:
            raise UnknownSymbolError(f"{name!r} is no symbol: give names of 1 to {SYMBOL_BYTES_MAX} bytes")
    return names
