"""NatsConnection: one connection to NATS, for code that blocks.

nats-py is asyncio: its loop runs in a thread of its own, so that pings are answered while nobody calls. It never
reconnects by itself, since what it had pending would be lost unseen: a call that fails closes the connection, and the
next one connects anew.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client

from tradeback.config import NatsConfig
from tradeback.errors import BusError
from tradeback.store.tls import Trust

CONNECT_TIMEOUT = 2.0
CLOSE_TIMEOUT = 1.0
PING_EVERY = 2  # seconds; a server that hangs is noticed after three of them by who only listens

T = TypeVar("T")


class _Client(Client):
    """Speaks TLS with who is named by tls://. The driver would leave that to the server's word, which comes in the
    clear: whoever stands in between could take it out, and be given the credentials."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._current_server is not None:
            info["tls_required"] = info.get("tls_required") or self._current_server.uri.scheme == "tls"
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.get_extra_info("ssl_object") is not None:
            # The driver hides from its protocol that it is over TLS, and asyncio warns of that at each end.
            writer.transport.get_protocol()._over_ssl = True
        return super()._connect_command()


class NatsConnection:
    """Connects at the first call that needs it, and at the first after one that failed; from any thread.

    In a cluster it begins each time with the server after the last one: one that hangs may take the time of a call, and
    is not the first of the next."""

    def __init__(self, config: NatsConfig, name: str) -> None:
        self._servers = config.servers()
        addresses = map(urlsplit, self._servers)
        # Without passwords.
        self.server = f"NATS at {', '.join(f'{one.hostname}:{one.port or 4222}' for one in addresses)}"
        self._config = config
        self._trust = Trust(config.ca_file, "NATS_CA_FILE", "NATS_URL")
        self._turn = 0  # which server is the next
        self._client: Client | None = None
        self._refused: Exception | None = None  # what the server said about what was sent, in between
        self._connecting = asyncio.Lock()
        self._calls: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ---- in the thread of the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def client(self) -> Client:
        """The connected client. `nats.errors.Error`, OSError or TimeoutError where there is none."""
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect_to_one()
            return self._client

    async def _connect_to_one(self) -> Client:
        """The first server that takes us. Where none does, an error of TLS is told rather than that of the last."""
        failed: list[Exception] = []
        for _ in self._servers:
            server = self._servers[self._turn]
            self._turn = (self._turn + 1) % len(self._servers)
            self._refused = None
            try:
                trusted = self._trust.context() if server.startswith("tls://") else None
                self._client = client = _Client()
                await self._connect(client, server, trusted)
            except (OSError, TimeoutError, nats.errors.Error) as error:
                failed.append(error)
                await self.drop()
            else:
                return client
        raise next((error for error in failed if self._trust.remedy(error)), failed[-1])

    async def _connect(self, client: Client, server: str, trusted: ssl.SSLContext | None) -> None:
        user, password, token = self._config.credentials(server)
        try:
            await client.connect(
                server,
                name=self._config.client_name,
                # The driver would take them from the address as they stand there, encoded.
                user=user,
                password=password,
                token=token,
                connect_timeout=int(CONNECT_TIMEOUT),
                allow_reconnect=False,
                # One address that refuses would be tried every two seconds, for as long as the call may take.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=PING_EVERY,
                error_cb=self._on_error,
                tls=trusted,
            )
        except nats.errors.NoServersError:
            self.check()  # what the driver said about the attempts
            raise

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        if self._client is None or not self._client.is_connected:
            return False
        # A subject that is no UTF-8 ends the driver's reading, and nothing else of it.
        reading = self._client._reading_task
        return reading is not None and not reading.done()

    async def flush(self, timeout: float) -> None:
        """Return once the server has read all that was sent. What it refused of it is raised."""
        client = await self.client()
        # The driver's own flush sends its PING past what waits to be sent: that must be on its way before.
        await client._flush_pending(force_flush=True)
        # A PONG answers the PING only after all that was sent before it, and what is refused is told before it.
        await client.flush(timeout=int(timeout))
        self.check()

    def check(self) -> None:
        """Raise what the server has refused since it was last asked."""
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    async def drop(self) -> None:
        """Close the connection; the next call makes another."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), CLOSE_TIMEOUT)
        except (TimeoutError, OSError, nats.errors.Error):
            # A server that hangs reads nothing: what is left to send is sent again by who needs it.
            transport = client._transport
            writer = None if transport is None else getattr(transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()

    async def _on_error(self, error: Exception) -> None:
        """The driver tells here what failed in between; a call that failed raises it too."""
        if not isinstance(error, nats.errors.SlowConsumerError):
            self._refused = error

    # ---- from the caller's thread

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Do it in the loop, for `timeout` seconds at most. BusError where NATS fails it; the connection is closed
        then."""
        future = asyncio.run_coroutine_threadsafe(self._tried(work, timeout), self._loop)
        try:
            return future.result(timeout + 2 * CLOSE_TIMEOUT + 1)
        except TimeoutError:
            future.cancel()
            raise BusError(f"{self.server} does not answer: see that it runs") from None
        except CancelledError:
            raise BusError(f"the connection to {self.server} was closed meanwhile") from None

    async def _tried(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        try:
            return await asyncio.wait_for(work(), timeout)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            await self.drop()
            said = str(error).removeprefix("nats: ") or type(error).__name__
            remedy = self._trust.remedy(error) or "see that it runs, and NATS_URL"
            raise BusError(f"{self.server} took nothing ({said}): {remedy}") from error

    def close(self) -> None:
        """Close the connection and end the thread, in about a second at most. Twice is no error."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(3 * CLOSE_TIMEOUT)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        await self.drop()
        await asyncio.gather(*calls, return_exceptions=True)
