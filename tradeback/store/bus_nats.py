"""NatsBus: the bus on NATS, core publish and subscribe; NATS keeps nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nats.aio.client import Client

from tradeback.config import NatsConfig
from tradeback.store.bus_layout import HEADER_BYTES, BusLevel, BusPrice, BusRecord, BusTrade, encode_message
from tradeback.store.nats_connection import CLOSE_TIMEOUT, CONNECT_TIMEOUT, NatsConnection

FLUSH_TIMEOUT = 3.0
CALL_TIMEOUT = CONNECT_TIMEOUT + FLUSH_TIMEOUT + 2 * CLOSE_TIMEOUT
PENDING_BYTES = 1024 * 1024  # published and not acknowledged; then publishing waits
RECORDS_PER_MESSAGE = 1_000  # 64 kB, a sixteenth of what a server takes by default
TRADE_BYTES = 64
NAMES_BYTES = 400  # of NATS's own headers, which count as payload


class NatsBus:
    """Connects at the first call that needs it, and at the first after one that failed. For one thread at a time."""

    def __init__(self, config: NatsConfig) -> None:
        self._nats = NatsConnection(config, "bus nats")
        self._pending = 0

    def publish_trades(self, symbol: str, stream_id: int, trades: Sequence[BusTrade]) -> None:
        self._publish(f"trades.{symbol}", stream_id, trades)

    def publish_price(self, symbol: str, stream_id: int, price: BusPrice) -> None:
        self._publish(f"prices.{symbol}", stream_id, [price])

    def publish_enigma(self, symbol: str, stream_id: int, level: BusLevel) -> None:
        self._publish(f"enigma.{symbol}", stream_id, [level])

    def flush(self) -> None:
        self._nats.call(self._flushed, CALL_TIMEOUT)

    def close(self) -> None:
        self._nats.close()

    def _publish(self, subject: str, stream_id: int, records: Sequence[BusRecord]) -> None:
        self._nats.call(partial(self._send, subject, stream_id, records), CALL_TIMEOUT)

    # ---- in the thread of the connection's loop

    async def _send(self, subject: str, stream_id: int, records: Sequence[BusRecord]) -> None:
        if not self._nats.is_connected:
            self._pending = 0
        client = await self._nats.client()
        # A server may be told to take less than a message of ours.
        fit = min(
            RECORDS_PER_MESSAGE, max(1, (client.max_payload - NAMES_BYTES - HEADER_BYTES) // TRADE_BYTES)
        )
        for first in range(0, len(records), fit):
            message = encode_message(stream_id, records[first : first + fit])
            await self._put(client, subject, message)
            self._pending += len(message)
            if self._pending >= PENDING_BYTES:
                await self._flushed()

    async def _put(self, client: Client, subject: str, message: bytes) -> None:
        await client.publish(subject, message)

    async def _flushed(self) -> None:
        await self._nats.flush(FLUSH_TIMEOUT)
        self._pending = 0
