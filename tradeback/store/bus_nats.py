"""NatsBus: the bus on NATS, core publish and subscribe.

nats-py is asyncio: its loop runs in a thread of its own, so that pings are answered while nobody publishes. It never
reconnects by itself, since what it had pending would be lost unseen: a call that fails closes the connection, and the
caller publishes again from its saved place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client

from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.bus_layout import BusLevel, BusPrice, BusRecord, BusTrade, encode_message

CONNECT_TIMEOUT = 2.0
FLUSH_TIMEOUT = 3.0
CLOSE_TIMEOUT = 1.0
CALL_TIMEOUT = CONNECT_TIMEOUT + FLUSH_TIMEOUT + 2 * CLOSE_TIMEOUT  # of anything that the loop is asked
PENDING_BYTES = 1024 * 1024  # published and not acknowledged; then publishing waits
RECORDS_PER_MESSAGE = 1_000  # 64 kB, a sixteenth of what a server takes by default

T = TypeVar("T")


class NatsBus:
    """Connects at the first call that needs it, and at the first after one that failed. For one thread at a time."""

    def __init__(self, config: NatsConfig) -> None:
        address = urlsplit(config.url)
        self._server = f"NATS at {address.hostname}:{address.port or 4222}"  # without a password
        self._config = config
        self._client: Client | None = None
        self._pending = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bus nats", daemon=True)
        self._thread.start()

    def publish_trades(self, symbol: str, stream_id: int, trades: Sequence[BusTrade]) -> None:
        self._publish(f"trades.{symbol}", stream_id, trades)

    def publish_price(self, symbol: str, stream_id: int, price: BusPrice) -> None:
        self._publish(f"prices.{symbol}", stream_id, [price])

    def publish_enigma(self, symbol: str, stream_id: int, level: BusLevel) -> None:
        self._publish(f"enigma.{symbol}", stream_id, [level])

    def flush(self) -> None:
        self._call(self._flushed())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(CALL_TIMEOUT)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _publish(self, subject: str, stream_id: int, records: Sequence[BusRecord]) -> None:
        messages = [
            encode_message(stream_id, records[first : first + RECORDS_PER_MESSAGE])
            for first in range(0, len(records), RECORDS_PER_MESSAGE)
        ]
        self._call(self._send(subject, messages))

    # ---- in the thread of the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _connected(self) -> Client:
        if self._client is None:
            self._pending = 0
            self._client = client = Client()
            user, password, token = self._config.credentials()
            await client.connect(
                self._config.url,
                name=self._config.client_name,
                # The driver would take them from the address as they stand there, encoded.
                user=user,
                password=password,
                token=token,
                connect_timeout=int(CONNECT_TIMEOUT),
                allow_reconnect=False,
                error_cb=_told_by_the_call,
            )
        return self._client

    async def _send(self, subject: str, messages: list[bytes]) -> None:
        client = await self._connected()
        for message in messages:
            await client.publish(subject, message)
            self._pending += len(message)
            if self._pending >= PENDING_BYTES:
                await self._flushed()

    async def _flushed(self) -> None:
        client = await self._connected()
        # A PONG answers the PING only after all that was sent before it.
        await client.flush(timeout=int(FLUSH_TIMEOUT))
        self._pending = 0

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), CLOSE_TIMEOUT)
        except (TimeoutError, OSError, nats.errors.Error):
            # A server that hangs reads nothing: what is left to send is published again later.
            transport = client._transport
            writer = None if transport is None else getattr(transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()

    # ---- from the caller's thread

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(self._tried(work), self._loop)
        try:
            return future.result(2 * CALL_TIMEOUT)
        except TimeoutError:
            future.cancel()
            raise BusError(f"{self._server} does not answer: what was published is published again") from None

    async def _tried(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wait_for(work, CALL_TIMEOUT)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            await self._drop()
            said = str(error).removeprefix("nats: ") or type(error).__name__
            raise BusError(f"{self._server} took nothing ({said}): see that it runs, and NATS_URL") from error


async def _told_by_the_call(error: Exception) -> None:
    """The call that it failed raises it; here it would be logged twice."""
