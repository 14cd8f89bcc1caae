"""NatsChannel: announcements of changed accounts on the subject `accounts.changed`, without a payload."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from nats.aio.msg import Msg

from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.nats_connection import CONNECT_TIMEOUT, NatsConnection

SUBJECT = "accounts.changed"
FLUSH_TIMEOUT = 1.0
CALL_TIMEOUT = CONNECT_TIMEOUT + FLUSH_TIMEOUT
LOOK_EVERY = 0.25  # seconds, whether the connection still stands
PENDING = 64  # announcements that wait in the driver; the rest of a flood is dropped there
PENDING_BYTES = 64 * 1024  # of what others may have put into them


class NatsChannel:
    """A Channel: a connection for telling and one for hearing, each made when it is needed."""

    def __init__(self, config: NatsConfig) -> None:
        self._config = config
        self._telling: NatsConnection | None = None
        self._hearing: NatsConnection | None = None
        self._making = threading.Lock()
        self._closed = threading.Event()

    def publish(self) -> None:
        with self._making:
            if self._closed.is_set():
                return
            if self._telling is None:
                self._telling = NatsConnection(self._config, "announce nats")
            telling = self._telling
        telling.call(partial(self._publish, telling), CALL_TIMEOUT)

    def listen(self, wake: Callable[[], None]) -> None:
        with self._making:
            if self._closed.is_set():
                return
            if self._hearing is None:
                self._hearing = NatsConnection(self._config, "announcements nats")
            hearing = self._hearing
        hearing.call(partial(self._subscribe, hearing, wake), CALL_TIMEOUT)
        wake()
        while not self._closed.wait(LOOK_EVERY):
            if not hearing.is_connected:
                hearing.call(hearing.drop, CALL_TIMEOUT)
                raise BusError(f"{hearing.server} closed the connection: see that it runs")

    def close(self) -> None:
        with self._making:
            self._closed.set()
            connections = [one for one in (self._telling, self._hearing) if one is not None]
        for connection in connections:
            connection.close()

    # ---- in the threads of the connections' loops

    @staticmethod
    async def _publish(telling: NatsConnection) -> None:
        client = await telling.client()
        await client.publish(SUBJECT, b"")
        await telling.flush(FLUSH_TIMEOUT)

    @staticmethod
    async def _subscribe(hearing: NatsConnection, wake: Callable[[], None]) -> None:
        async def heard(_: Msg) -> None:
            wake()

        client = await hearing.client()
        await client.subscribe(
            SUBJECT, cb=heard, pending_msgs_limit=PENDING, pending_bytes_limit=PENDING_BYTES
        )
        await hearing.flush(FLUSH_TIMEOUT)
