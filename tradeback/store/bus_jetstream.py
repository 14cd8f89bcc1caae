"""JetStreamBus: the bus on NATS where a stream of JetStream keeps the trades, so that who comes later reads them too.

A message of trades is published with an id made of its content, by which the stream drops what it has already, and
counts as published once the stream has acknowledged it. Prices and levels go out as without a stream.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PubAck, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.bus_nats import FLUSH_TIMEOUT, NatsBus

SUBJECTS = "trades.>"
DUPLICATE_WINDOW = 120.0  # seconds in which the stream knows an id again
ID_BYTES = 16


class JetStreamBus(NatsBus):
    """The stream is made, or looked at, on each new connection. BusError where there can be none, or one of other
    settings is there."""

    def __init__(self, config: NatsConfig) -> None:
        super().__init__(config)
        age = config.stream_age
        self._wanted = StreamConfig(
            name=config.stream,
            subjects=[SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_age=age,
            max_bytes=config.stream_bytes,
            max_msgs=-1,
            duplicate_window=min(DUPLICATE_WINDOW, age),
        )
        self._client: Client | None = None  # the connection on which the stream was looked at
        self._stream: JetStreamContext | None = None
        self._acks: list[asyncio.Future[PubAck]] = []

    # ---- in the thread of the connection's loop

    async def _put(self, client: Client, subject: str, message: bytes) -> None:
        if not subject.startswith("trades."):
            await super()._put(client, subject, message)
            return
        if self._stream is None or self._client is not client:
            self._acks = []
            self._stream, self._client = await self._looked_at(client), client
        name = blake2b(subject.encode() + b" " + message, digest_size=ID_BYTES).hexdigest()
        ack = await self._stream.publish_async(
            subject,
            message,
            wait_stall=FLUSH_TIMEOUT,
            stream=self._wanted.name,
            headers={"Nats-Msg-Id": name},
        )
        ack.add_done_callback(_seen)
        self._acks.append(ack)

    async def _flushed(self) -> None:
        acks, self._acks = self._acks, []
        await super()._flushed()
        if not acks:
            return
        done, waiting = await asyncio.wait(acks, timeout=FLUSH_TIMEOUT)
        for ack in done:
            ack.result()
        if waiting:
            raise TimeoutError(f"the stream {self._wanted.name} acknowledges nothing")

    async def _looked_at(self, client: Client) -> JetStreamContext:
        stream = client.jetstream(timeout=FLUSH_TIMEOUT)
        name = str(self._wanted.name)
        try:
            found = (await stream.stream_info(name)).config
        except NotFoundError:
            await self._make(stream, name)
            return stream
        except (ServiceUnavailableError, nats.errors.NoRespondersError) as error:
            raise BusError(
                f"{self._nats.server} has no JetStream at the moment: start it with -js, or set NATS_JETSTREAM=false"
            ) from error
        except APIError as error:
            raise BusError(
                f"{self._nats.server} tells nothing of the stream {name} ({error.description}): see what its user may"
            ) from error
        differing = [
            f"{key} is {_shown(getattr(found, key))} and not {_shown(getattr(self._wanted, key))}"
            for key in ("subjects", "retention", "discard", "storage", "max_age", "max_bytes", "max_msgs")
            if getattr(found, key) != getattr(self._wanted, key)
        ]
        if found.sealed or found.no_ack:
            differing.append("it takes nothing, or does not acknowledge it")
        if differing:
            raise BusError(
                f"the stream {name} of {self._nats.server} is not ours: {'; '.join(differing)}. Change it, or the "
                "settings (NATS_STREAM, NATS_STREAM_AGE, NATS_STREAM_BYTES)"
            )
        return stream

    async def _make(self, stream: JetStreamContext, name: str) -> None:
        try:
            await stream.add_stream(self._wanted)
        except APIError as error:
            raise BusError(
                f"{self._nats.server} makes no stream {name} of {SUBJECTS} ({error.description}): make room, take the "
                "subjects from the other stream, or choose other settings (NATS_STREAM, NATS_STREAM_BYTES)"
            ) from error


def _seen(ack: asyncio.Future[PubAck]) -> None:
    """Who waits for it raises it; where nobody does any more, since something failed before it, it is known already."""
    if not ack.cancelled():
        ack.exception()


def _shown(value: Any) -> str:
    return str(getattr(value, "value", value))
