"""Limits of rates: how many requests of a kind a client may make in a window of time, as section `limits` says.

A client is a session, where the request has a token that we signed, else an address: a forged token buys nothing.
Sessions of one address have ADDRESS_SHARES times the limit together, so that logging in again and again buys little.
A window is as long as the limit says and begins at a time of the client's own, or everybody would come back at once.

Counts are kept in memory, of the process that answers; where Redis is configured they are kept there, for all
processes, and in memory for as long as Redis does not answer: a limit never fails a request.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import structlog
from falcon import HTTPError, Request
from limits import parse
from limits.errors import StorageError

from tradeback.api.answers import Answer, Refused
from tradeback.config import LimitsConfig

ADDRESS_SHARES = 10
MEMORY_KEYS = 100_000  # some 20 MB at most
REDIS_PAUSE_S = 5.0  # after a failure, until Redis is asked again
EXEMPT = "/api/v1/health"

log = structlog.get_logger(__name__)


class Counts(Protocol):
    """Where counts are kept: `limits.storage.RedisStorage` is one."""

    def incr(self, key: str, expiry: int) -> int:
        """Count one, and tell how many that makes; forgotten `expiry` seconds after the first."""


class MemoryCounts:
    """Counts of this process, of the MEMORY_KEYS clients that were last seen at most.

    The library's own are kept for every client until their window ends, however many come, and swept by a thread
    every 10 ms. Here the elder half goes when there are too many, so nothing is swept and a key costs two look-ups.
    """

    def __init__(self, keys: int = MEMORY_KEYS) -> None:
        self._half = keys // 2
        self._lock = threading.Lock()
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def incr(self, key: str, expiry: int) -> int:
        with self._lock:
            count = self._young.get(key)
            if count is None:
                count = self._old.pop(key, 0)
                if len(self._young) >= self._half:
                    self._old, self._young = self._young, {}
            self._young[key] = count = count + 1
        return count


class SharedCounts:
    """Counts in Redis, and in memory for REDIS_PAUSE_S after it failed."""

    def __init__(self, redis: Counts, pause: float = REDIS_PAUSE_S) -> None:
        self._redis = redis
        self._memory = MemoryCounts()
        self._pause = pause
        self._ask_again = 0.0
        self._failed = False

    def incr(self, key: str, expiry: int) -> int:
        now = time.monotonic()
        if now < self._ask_again:
            return self._memory.incr(key, expiry)
        if self._failed:
            self._ask_again = now + self._pause  # one request finds out, the others do not wait for it
        try:
            count = self._redis.incr(key, expiry)
        except StorageError as error:
            self._ask_again = now + self._pause
            if not self._failed:
                log.warning("requests are counted in memory, as Redis does not answer", reason=str(error))
            self._failed = True
            return self._memory.incr(key, expiry)
        if self._failed:
            self._failed = False
            self._ask_again = 0.0
            log.info("requests are counted in Redis again")
        return count


class Limit(NamedTuple):
    """One limit: `amount` requests in `seconds`, of the group `name`."""

    name: str
    amount: int
    seconds: int
    text: str


def group_of(template: str) -> str | None:
    """The group of a route, which is a field of the section `limits`; None where nothing is limited."""
    if template == EXEMPT:
        return None
    for beginning, name in _BEGINNINGS:
        if template.startswith(beginning):
            ending = template.rpartition("/")[2]
            return ending if name == "symbols" and ending in ("price", "bars", "enigma") else name
    return "page"


_BEGINNINGS = (
    ("/api/v1/auth/session", "marketwatch"),  # who asks this often enough must still be able to log in
    ("/api/v1/auth/", "auth"),
    ("/api/v1/symbols", "symbols"),
    ("/api/v1/marketwatch", "marketwatch"),
    ("/api/v1/tradingview/", "udf"),
    ("/udf/", "udf"),
    ("/api/v1/health/", "monitoring"),
    ("/api/v1/metrics", "monitoring"),
)


class Limits:
    """Counts each request before it is answered, tells the client where it stands, and refuses with 429.

    `session` names the session of a request, without any I/O, or gives None; `address` tells its client's address.
    """

    def __init__(
        self,
        config: LimitsConfig,
        counts: Counts,
        session: Callable[[Request], bytes | None],
        address: Callable[[Request], str],
    ) -> None:
        self._counts = counts
        self._session = session
        self._address = address
        self._groups = {name: _limit(name, getattr(config, name)) for name in LimitsConfig.model_fields}
        self._routes: dict[str, Limit | None] = {}

    def process_resource(self, request: Request, response: Answer, resource: object, params: Any) -> None:
        template = request.uri_template or ""
        try:
            limit = self._routes[template]
        except KeyError:
            group = group_of(template)
            limit = self._routes[template] = None if group is None else self._groups[group]
        if limit is not None:
            self._count(limit, request, response)

    def count_unknown(self, request: Request, response: Answer, error: HTTPError, params: Any) -> None:
        """An error handler: what is asked at paths that do not exist counts as well."""
        limit = self._groups["page"]
        if limit is not None:
            self._count(limit, request, response)
        raise error

    def _count(self, limit: Limit, request: Request, response: Answer) -> None:
        address = self._address(request)
        told = request.env
        session = None
        # Most requests bring nothing that could name a session, and need not be looked through for it.
        if ("HTTP_AUTHORIZATION" in told or "HTTP_COOKIE" in told) and limit.name != "auth":
            session = self._session(request)
        if session is None:
            self._take(limit, limit.amount, *_client(limit.name, address), response)
        else:
            everybody = _client(f"{limit.name}/all", address)
            self._take(limit, limit.amount * ADDRESS_SHARES, *everybody, response)
            key = f"{limit.name}/session/{session.hex()}"
            self._take(limit, limit.amount, key, crc32(key.encode()), response)

    def _take(self, limit: Limit, amount: int, key: str, shift: int, response: Answer) -> None:
        """Count one of `key`, whose windows begin `shift` seconds before others'."""
        seconds = limit.seconds
        window, passed = divmod(int(time.time()) + shift, seconds)
        reset = seconds - passed
        count = self._counts.incr(f"{key}/{window}", seconds)
        headers = {
            "ratelimit-limit": str(amount),
            "ratelimit-remaining": str(amount - count if count < amount else 0),
            "ratelimit-reset": str(reset),
        }
        if count > amount:
            headers["retry-after"] = str(reset)
            raise Refused(
                429,
                "too_many_requests",
                f"Of this kind {limit.text} requests are answered; ask again in {reset} s.",
                headers=headers,
            )
        response.tell(headers)


def _limit(name: str, text: str) -> Limit | None:
    if text == "off":
        return None
    item = parse(text)
    return Limit(name, item.amount, item.get_expiry(), text)


@lru_cache(maxsize=10_000)
def _client(beginning: str, address: str) -> tuple[str, int]:
    """The key of who asks from there, and by how much its windows are shifted."""
    key = f"{beginning}/{_network(address)}"
    return key, crc32(key.encode())


def _network(address: str) -> str:
    """The address, or of one of IPv6 its network of 64 bits, which is as little as a customer gets."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))
