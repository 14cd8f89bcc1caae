"""LoginsCache: sessions and their watchlists into the cache, for other programs; nobody of ours lets anybody in by it.

What it writes expires by itself, counted from when the accounts were looked at last: a session that ended while the
cache could not be told, or while the accounts could not be read, is there no longer than that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog

from tradeback.errors import CacheError
from tradeback.model import Account, symbol_allowed
from tradeback.store.base import Cache, Login

log = structlog.get_logger(__name__)

WRITES_A_TTL = 3  # what does not change is written so often before it would expire
RETRY_MIN = 0.25
RETRY_MAX = 5.0


class LoginsCache:
    """`take` is told what the accounts are, `run` is a service that writes it. One loop; the cache is written to in
    threads of its executor. `ttl`: how long a session stays there after the last look, seconds."""

    def __init__(self, cache: Cache, ttl: float) -> None:
        self._cache = cache
        self._ttl = ttl
        self._wanted: dict[bytes, Login] = {}  # how things are
        self._of_user: dict[int, set[bytes]] = {}
        self._there: dict[bytes, Login | None] = {}  # what the cache may have; None: it is not known what
        self._due: set[bytes] = set()  # where the two may differ
        self._looked_at = 0.0  # unix seconds; 0.0: never
        self._woken = asyncio.Event()
        self._errors = 0
        self._error = ""

    def take(self, everything: bool, changed: Iterable[Account]) -> None:
        """The accounts were looked at: these changed, or with `everything` there are no others."""
        self._looked_at = time.time()
        changed = list(changed)
        if everything:
            for user_id in self._of_user.keys() - {account.user_id for account in changed}:
                self._set(user_id, {})
        for account in changed:
            watched = frozenset(
                symbol for symbol in account.watchlist if symbol_allowed(account.symbol_patterns, symbol)
            )
            logins = {token: Login(account.user_id, end, watched) for token, end in account.sessions.items()}
            self._set(account.user_id, logins)

    async def run(self) -> None:
        """Write for ever: what changed at once, everything now and then, so that it does not expire."""
        pause = RETRY_MIN
        all_due = 0.0
        while True:
            if (now := time.monotonic()) >= all_due:
                self._all_due()
                all_due = now + self._ttl / WRITES_A_TTL
            self._woken.clear()
            try:
                await self._write()
            except CacheError as error:
                # What it took is not known; also, it may come back empty.
                self._all_due()
                self._errors += 1
                if not self._error:
                    log.warning("the cache is not told of logins at the moment", reason=str(error))
                self._error = str(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX)
                continue
            self._error = ""
            pause = RETRY_MIN
            try:
                async with asyncio.timeout(max(0.0, all_due - time.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def state(self) -> dict[str, Any]:
        """For the status."""
        return {"cached": self._cached(), "error": self._error}

    def counts(self) -> dict[str, int]:
        """For the counters."""
        return {"logins_cached": self._cached(), "logins_cache_errors": self._errors}

    def _cached(self) -> int:
        return sum(login is not None for login in self._there.values())

    def _set(self, user_id: int, logins: dict[bytes, Login]) -> None:
        before = self._of_user.pop(user_id, set())
        if logins:
            self._of_user[user_id] = set(logins)
        for token in before - logins.keys():
            del self._wanted[token]
        self._wanted |= logins
        self._due |= before | logins.keys()
        self._woken.set()

    def _all_due(self) -> None:
        """Take nothing for written, and forget what has expired."""
        now = time.time()
        for token, login in list(self._wanted.items()):
            if login.expires_at <= now:
                del self._wanted[token]
                self._of_user[login.user_id].discard(token)
        self._there = dict.fromkeys(self._there)
        self._due |= self._there.keys() | self._wanted.keys()

    async def _write(self) -> None:
        """Write what is due. CacheError."""
        due, self._due = self._due, set()
        wanted = {token: self._wanted[token] for token in due if token in self._wanted}
        ended = [token for token in due if token not in wanted]
        news = {token: login for token, login in wanted.items() if self._there.get(token) != login}
        if ended:
            self._there |= dict.fromkeys(ended)
            await asyncio.to_thread(self._cache.drop_logins, ended)
            for token in ended:
                del self._there[token]
        lasts = self._looked_at + self._ttl - time.time()
        if news and lasts > 0:
            self._there |= dict.fromkeys(news)
            await asyncio.to_thread(self._cache.write_logins, news, lasts, time.time())
            self._there |= news
