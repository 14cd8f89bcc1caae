"""AccountsWatch: follows users, sessions and watchlists, and tells the server who is logged in and what is watched.

The server opens no database after its start, and knows a login only by what it is told here: everything on each
connection, then what changes, and that nothing did once a second. By that it tells a login that is not there from one
that it has not been told of yet.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog

from tradeback.control import ControlClient
from tradeback.errors import ControlError, TradebackError
from tradeback.model import Account, symbol_allowed
from tradeback.store.base import Accounts

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.05
LOOK_SECONDS = 0.02
BEAT_SECONDS = 1.0
RECONNECT_SECONDS = 0.25
RETRY_MIN = 0.5  # after accounts could not be read
RETRY_MAX = 10.0
EXPIRE_EVERY = 60.0
# Each line takes the server's loop less than a millisecond.
TEXTS_PER_LINE = 500  # tokens, patterns and symbols
ACCOUNTS_PER_LINE = 100
SYMBOLS_PER_LINE = 100
ALL = -1  # as a version: everything is newer


class AccountsWatch:
    """Two services: `follow` tells the server, `expire` deletes what has expired. One loop; `accounts` are read in
    threads of its executor.

    Their version is looked at every `poll` seconds, and at once where `wake` says that it may have changed, but no more
    often than every LOOK_SECONDS, whoever says so and how often.
    """

    def __init__(self, accounts: Accounts, server: ControlClient, poll: float = POLL_SECONDS) -> None:
        self._accounts = accounts
        self._server = server
        self._poll = poll
        self._look_at = 0.0
        self._looked_at = -LOOK_SECONDS
        self._known: dict[int, Account] = {}  # of every user
        self._wanted: Counter[str] = Counter()  # symbols by the number of watchlists
        self._version = ALL
        self._connection = 0  # the one on which all was told; 0: none
        self._pinned: set[str] = set()  # as was told on it
        self._woken = threading.Event()
        self._stopping = False
        self._error = ""
        # Called after each look at the accounts: whether these are all of them, and those that changed.
        self.on_look: Callable[[bool, list[Account]], None] | None = None

    def state(self) -> dict[str, Any]:
        """For the status."""
        return {
            "connected": self._server.connected,
            "users": len(self._known),
            "sessions": sum(len(account.sessions) for account in self._known.values()),
            "watched": len(self._wanted),
            "error": self._error,
        }

    def wake(self) -> None:
        """Somebody has changed accounts: look now. From any thread, and cheap."""
        self._woken.set()

    async def expire(self) -> None:
        """Delete what has expired, now and then, for ever."""
        while True:
            await asyncio.to_thread(self._accounts.expire)
            now = time.time()
            for account in self._known.values():
                for token in [token for token, end in account.sessions.items() if end <= now]:
                    del account.sessions[token]
            await asyncio.sleep(EXPIRE_EVERY)

    async def follow(self) -> None:
        """Tell the server, for ever."""
        loop = asyncio.get_running_loop()
        pause = RETRY_MIN
        self._stopping = False
        reading: asyncio.Future[tuple[bool, bool, list[Account]]] | None = None
        try:
            while True:
                reading = loop.run_in_executor(None, self._next_changes)
                try:
                    looked, everything, changed = await reading
                except TradebackError as error:
                    # A database that comes back may have lost what it committed last, or be another one.
                    self._version = ALL
                    self._say(f"accounts cannot be read: {error}")
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, RETRY_MAX)
                    continue
                pause = RETRY_MIN
                self._take(everything, changed)
                if looked and self.on_look is not None:
                    self.on_look(everything, changed)
                try:
                    await self._server.connect()
                    if looked or self._connection != self._server.connects:
                        await self._tell(changed)
                except ControlError as error:
                    # What it took of this is not known, so all is told again.
                    self._connection = 0
                    self._say(str(error))
                    await asyncio.sleep(RECONNECT_SECONDS)
                else:
                    self._say("")
        finally:
            self._stopping = True
            self._woken.set()
            if reading is not None:
                # Whoever closes the accounts next must find nobody reading them.
                await asyncio.wait([reading])

    def _say(self, error: str) -> None:
        if error and error != self._error:
            log.warning("the server is not told of sessions and watchlists at the moment", reason=error)
        self._error = error

    def _next_changes(self) -> tuple[bool, bool, list[Account]]:
        """Wait for changes, for a second at most; in a thread of its own. Whether the accounts were looked at, whether
        these are all of them, and those that changed.

        Raises TradebackError.
        """
        until = time.monotonic() + (BEAT_SECONDS if self._connection else 0.0)
        looked = False
        while self._version != ALL:
            if self._stopping:
                return looked, False, []
            now = time.monotonic()
            # Where the server waits to be told all, that is to be how things stand now.
            if now >= self._look_at or self._woken.is_set() or not self._connection:
                time.sleep(max(0.0, self._looked_at + LOOK_SECONDS - now))
                self._looked_at = time.monotonic()
                self._woken.clear()
                version = self._accounts.version()
                looked = True
                self._look_at = now + self._poll
                if version < self._version:  # these are others, or older ones: a copy was restored
                    self._version = ALL
                    break
                if version > self._version:
                    break
            if now >= until:
                return looked, False, []
            self._woken.wait(max(0.0, min(self._look_at, until) - now))
        everything = self._version == ALL
        self._version, changed = self._accounts.changed_accounts(self._version)
        return True, everything, changed

    def _take(self, everything: bool, changed: Iterable[Account]) -> None:
        if everything:
            self._connection = 0
            self._known.clear()
            self._wanted.clear()
        for account in changed:
            before = self._known.get(account.user_id)
            for symbol in () if before is None else _watched(before):
                self._wanted[symbol] -= 1
                if not self._wanted[symbol]:
                    del self._wanted[symbol]
            self._known[account.user_id] = account
            self._wanted.update(_watched(account))

    async def _tell(self, changed: list[Account]) -> None:
        """Tell what is new since the last time on this connection, or all. Raises ControlError."""
        connection = self._server.connects
        if self._connection != connection:
            now = time.time()
            open_ones = [
                account
                for account in self._known.values()
                if any(end > now for end in account.sessions.values())
            ]
            await self._tell_parts("sessions", "accounts", list(_lines(open_ones)))
            await self._tell_parts("pin", "symbols", list(batched(sorted(self._wanted), SYMBOLS_PER_LINE)))
            self._pinned = set(self._wanted)
            self._connection = connection
            return
        lines = list(_lines(changed)) or [[]]
        for number, line in enumerate(lines, 1):
            await self._server.ask({"type": "sessions", "accounts": line, "more": number < len(lines)})
        wanted = set(self._wanted)
        for add in batched(sorted(wanted - self._pinned), SYMBOLS_PER_LINE):
            await self._server.ask({"type": "pin", "watched": True, "add": add, "drop": []})
        for drop in batched(sorted(self._pinned - wanted), SYMBOLS_PER_LINE):
            await self._server.ask({"type": "pin", "watched": True, "add": [], "drop": drop})
        self._pinned = wanted

    async def _tell_parts(self, kind: str, field: str, lines: list[Any]) -> None:
        parts = lines or [[]]
        for number, line in enumerate(parts, 1):
            await self._server.ask({"type": kind, field: line, "part": number, "parts": len(parts)})


def _watched(account: Account) -> set[str]:
    """What is to be carried for a user."""
    return {symbol for symbol in account.watchlist if symbol_allowed(account.symbol_patterns, symbol)}


def _lines(accounts: Iterable[Account]) -> Iterator[list[dict[str, Any]]]:
    """The accounts as the control socket has them, in lines of bounded length."""
    line: list[dict[str, Any]] = []
    texts = 0
    for account in accounts:
        line.append(_row(account))
        texts += 1 + len(account.symbol_patterns) + len(account.watchlist) + len(account.sessions)
        if texts >= TEXTS_PER_LINE or len(line) >= ACCOUNTS_PER_LINE:
            yield line
            line, texts = [], 0
    if line:
        yield line


def _row(account: Account) -> dict[str, Any]:
    if not account.sessions:
        return {"user": account.user_id, "sessions": {}}
    return {
        "user": account.user_id,
        "patterns": account.symbol_patterns,
        "watchlist": account.watchlist,
        "sessions": {token.hex(): end for token, end in account.sessions.items()},
    }


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    """The names in lists of at most `size`."""
    return (names[start : start + size] for start in range(0, len(names), size))
