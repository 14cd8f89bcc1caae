"""Announcements that accounts changed, over whatever carries them (`Channel`): who changes and who looks run here in
threads of their own, so that neither waits for a broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from tradeback.config import Config
from tradeback.errors import TradebackError
from tradeback.store.base import Announcements

RETRY_MIN = 0.1
RETRY_MAX = 5.0
CLOSE_TIMEOUT = 4.0

log = structlog.get_logger(__name__)


class Channel(Protocol):
    """One way that leads to other machines. Each method is for one thread, `close` for any.

    Errors: TradebackError where the broker cannot be reached, refuses or does not answer in time.
    """

    def publish(self) -> None:
        """Tell once; returns when the broker has it."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` once it is listened, and at each announcement, for as long as that lasts; returns after
        `close`."""
        ...

    def close(self) -> None:
        """End both."""
        ...


class ChannelAnnouncements:
    """The `Announcements` over a channel, which it closes. A thread is made when it is first needed: who opens accounts
    and changes nothing connects to nothing, and a process may fork before."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._turn = threading.Condition()
        self._due = False
        self._closing = False
        self._publisher: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._passed = 0
        self._errors = 0
        self._listening = False
        self._in_the_way: dict[str, str] = {}  # by what it is in the way of

    def announce(self) -> None:
        with self._turn:
            if self._closing:
                return
            self._due = True
            if self._publisher is None:
                self._publisher = threading.Thread(target=self._publish, name="announce", daemon=True)
                self._publisher.start()
            self._turn.notify_all()

    def listen(self, wake: Callable[[], None]) -> None:
        with self._turn:
            if self._closing or self._listener is not None:
                return
            self._listener = threading.Thread(
                target=self._listen, args=(wake,), name="announcements", daemon=True
            )
            self._listener.start()

    def counts(self) -> dict[str, int]:
        return {"announcements": self._passed, "announcement_errors": self._errors}

    def state(self) -> dict[str, Any]:
        return {"listening": self._listening, "error": "; ".join(self._in_the_way.values())}

    def close(self) -> None:
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._publisher is not None:
            self._publisher.join(CLOSE_TIMEOUT)
        self._channel.close()
        for thread in (self._publisher, self._listener):
            if thread is not None:
                thread.join(CLOSE_TIMEOUT)

    # ---- in threads of our own

    def _publish(self) -> None:
        failures = 0
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._due or self._closing)
                if not self._due:
                    return
                self._due = False  # what is announced from here on may come too late for this one
            try:
                self._channel.publish()
            except TradebackError as error:
                self._failed("telling", error)
                failures += 1
                with self._turn:
                    self._due = True
                    if self._closing and failures > 1:
                        return
                # At first at once: a connection that rested may have ended long ago.
                if failures > 1:
                    self._pause(failures - 1)
            else:
                self._passed += 1
                failures = 0
                self._in_the_way.pop("telling", None)

    def _listen(self, wake: Callable[[], None]) -> None:
        failures = 0

        def woken() -> None:
            nonlocal failures
            failures = 0
            self._listening = True
            self._passed += 1
            self._in_the_way.pop("hearing", None)
            wake()

        while not self._closing:
            try:
                self._channel.listen(woken)
            except TradebackError as error:
                self._listening = False
                if self._closing:
                    return
                self._failed("hearing", error)
                failures += 1
                self._pause(failures)

    def _pause(self, failures: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._closing, min(RETRY_MIN * 2 ** min(failures, 10), RETRY_MAX))

    def _failed(self, doing: str, error: TradebackError) -> None:
        self._errors += 1
        if doing not in self._in_the_way:
            log.warning(
                f"{doing} of changed accounts fails; they are found by looking, later", reason=str(error)
            )
        self._in_the_way[doing] = str(error)


def open_announcements(config: Config) -> Announcements | None:
    """How changes of accounts are announced: over NATS where it is configured, else over Redis. None where the accounts
    are in a file, at which one can look all the time, and where neither is configured. The caller closes it."""
    if not config.database.mysql.host:
        return None
    if config.messaging.nats.url:
        from tradeback.store.announce_nats import NatsChannel

        return ChannelAnnouncements(NatsChannel(config.messaging.nats))
    if config.cache.redis.addr:
        from tradeback.store.announce_redis import RedisChannel

        return ChannelAnnouncements(RedisChannel(config.cache.redis))
    return None
