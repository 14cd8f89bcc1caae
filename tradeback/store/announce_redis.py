"""RedisChannel: announcements of changed accounts on the channel `accounts.changed`, without a payload."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis

from tradeback.config import RedisConfig
from tradeback.errors import CacheError
from tradeback.store.cache_redis import connection_pool, remedy_of, trust_of

CHANNEL = "accounts.changed"
PING_EVERY = 2.0  # seconds; a server that does not answer for three times as long hangs
LOOK_EVERY = 0.25  # seconds, whether it was closed


class RedisChannel:
    """A Channel by PUBLISH and SUBSCRIBE."""

    def __init__(self, config: RedisConfig) -> None:
        self._addr = config.addr
        self._trust = trust_of(config)
        self._pool = connection_pool(config)
        self._redis = redis.Redis(connection_pool=self._pool)
        self._closed = threading.Event()

    def publish(self) -> None:
        try:
            self._redis.publish(CHANNEL, b"")
        except redis.RedisError as error:
            raise self._error(error) from error

    def listen(self, wake: Callable[[], None]) -> None:
        try:
            with self._redis.pubsub() as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(CHANNEL)
                answered = pinged = time.monotonic()
                while not self._closed.is_set():
                    message = subscription.get_message(timeout=LOOK_EVERY)
                    now = time.monotonic()
                    if message is not None:
                        answered = now
                        if message["type"] in ("subscribe", "message"):
                            wake()
                    elif now - answered > 3 * PING_EVERY:
                        raise redis.TimeoutError("no answer to a ping")
                    elif now - pinged > PING_EVERY:
                        pinged = now
                        subscription.ping()
        except redis.RedisError as error:
            raise self._error(error) from error

    def close(self) -> None:
        self._closed.set()
        self._redis.close()

    def _error(self, error: Exception) -> CacheError:
        remedy = remedy_of(error, self._trust)
        return CacheError(f"Redis at {self._addr} carries no announcements ({error}): {remedy}")
