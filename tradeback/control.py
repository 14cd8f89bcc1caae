"""Control sockets: how the processes of this machine speak to each other.

A Unix stream socket of mode 0600 in the data folder. Each line is a JSON object with a `type`; each is answered by
one line. `control.sock` leads into the server: the recorder sends what the stores tell it, so that the server itself
opens no database. `recorder.sock` leads into the recorder. Both answer `status`, and
`log` with a `level` and a `component`, as `tradeback log`; the server also takes:

| type       | fields                                           | answer                              |
|------------|--------------------------------------------------|-------------------------------------|
| `pin`      | `symbols`: names; `part`, `parts`                | `{"type":"pinned","unknown":[...]}` |
| `pin`      | `add`, `drop`: names                             | the same                            |
| `learn`    | `symbols`: catalog rows                          | `{"type":"learned","count":n}`      |
| `seed`     | `volumes`, see `server/seeding.py`               | `{"type":"seeded","taken":n}`       |
| `publish`  | `messages`: each a `symbol` and a `message`      | `{"type":"published","watched":n}`  |
| `sessions` | `accounts`; `part`, `parts`                      | `{"type":"taken","sessions":n}`     |
| `sessions` | `accounts`; `more`                               | the same                            |

An account is a `user`, its `patterns`, its `watchlist`, and its `sessions`: the expiry in unix seconds by the token's
SHA-256 in hexadecimal digits. It stands for all that is known of the user; without sessions the user is logged in
nowhere. `sessions` with parts 1 to `parts` are all accounts that are logged in: whoever is not among them no longer is.
Without `part` they are those that changed, in one line or, with `more` in all but the last, in several; none where
nothing did. `pin` likewise: `symbols` are all, once the last part came (1 of 1 where no part is named). All is cut in
lines because each holds up the server's loop for as long as it takes.

Anything else is answered `{"type":"error","message"}`, and the connection stays.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from tradeback.errors import ControlError, ControlRefusedError, DataFolderError, TradebackError

log = structlog.get_logger(__name__)

SERVER_SOCKET, RECORDER_SOCKET = "control.sock", "recorder.sock"
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_PATH_BYTES = 107  # of sockaddr_un, the zero behind it left out
ANSWER_TIMEOUT = 10.0

_NO_ANSWER = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, orjson.JSONDecodeError)

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class ControlSocket:
    """Serves the control socket on the running loop. A handler a message type; it raises
    a TradebackError to refuse."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen. The process's lock is held by now, so a socket that lies here belongs to no living process."""
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise DataFolderError(
                f"{self.path} is too long for the path of a Unix socket: choose a data folder whose path has "
                f"at most {MAX_PATH_BYTES - len(self.path.name) - 1 - len(self.path.parent.name) - 1} bytes"
            )
        try:
            self.path.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(
                    self._accept, str(self.path), limit=MAX_LINE_BYTES
                )
            finally:
                os.umask(mask)
        except OSError as error:
            raise DataFolderError(
                f"the control socket {self.path} cannot be made: {error.strerror}; see to what lies there, or "
                "choose another data folder"
            ) from error

    async def stop(self) -> None:
        """Close the socket and every connection on it."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            # Its task ends with it. What a peer that does not read has not taken would hold the connection open for
            # ever; and asyncio logs a task of its streams that is cancelled as an error.
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served outside a task")
        self._connections.add(task)
        self._writers.add(writer)
        try:
            while (line := await _next_line(reader)) != b"":
                writer.write(orjson.dumps(self._answer(line), option=orjson.OPT_APPEND_NEWLINE))
                await writer.drain()
        except ConnectionError as error:
            log.info("control connection lost", reason=str(error))
        finally:
            self._connections.discard(task)
            self._writers.discard(writer)
            writer.close()

    def _answer(self, line: bytes | None) -> dict[str, Any]:
        if line is None:
            return {
                "type": "error",
                "message": f"a line is longer than {MAX_LINE_BYTES} bytes: send less at once",
            }
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return {"type": "error", "message": f"not JSON: {error}"}
        kind = message.get("type") if isinstance(message, dict) else None
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            kinds = ", ".join(sorted(self._handlers))
            return {"type": "error", "message": f"an object with a type among {kinds} is expected"}
        try:
            return handler(message)
        except TradebackError as error:
            return {"type": "error", "message": str(error)}
        except Exception as error:  # a fault of ours must not cost the connection, nor go unnoticed
            log.exception("a request on the control socket raised", kind=kind)
            return {"type": "error", "message": f"a fault of the server, see its log: {error!r}"}


class ControlClient:
    """One connection to a control socket, made when it is needed and again after it was lost.

    Owned by one asyncio loop; several tasks may ask, one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connects = 0  # a change says that the other process may have been started again
        self._asking = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as is known: one that was lost is noticed at the next request."""
        return self._writer is not None and self._reader is not None and not self._reader.at_eof()

    async def connect(self) -> None:
        """Connect where that is not done. Raises ControlError where nobody listens."""
        async with self._asking:
            await self._connect()

    async def ask(self, message: Mapping[str, Any], timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Send one message and return its answer.

        Raises ControlRefusedError where the process refuses, and ControlError where it cannot be reached or does not
        answer in time; whether it took the message is then not known.
        """
        async with self._asking:
            await self._connect()
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._exchange(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
            except BaseException as error:
                # The next answer on this connection might be that of this message.
                self.close()
                if isinstance(error, _NO_ANSWER):
                    raise ControlError(
                        f"{self.path} did not answer: {str(error) or type(error).__name__}; see that its process runs"
                    ) from error
                raise
        if answer.get("type") == "error":
            raise ControlRefusedError(f"{self.path} refused: {answer.get('message')}")
        return answer

    async def _exchange(self, line: bytes) -> dict[str, Any]:
        if self._reader is None or self._writer is None:
            raise RuntimeError("asked without a connection")
        self._writer.write(line)
        await self._writer.drain()
        content = orjson.loads(await self._reader.readuntil(b"\n"))
        if not isinstance(content, dict):
            raise EOFError("the answer is no object")
        return content

    async def _connect(self) -> None:
        if self.connected:
            return
        self.close()
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                str(self.path), limit=MAX_LINE_BYTES
            )
        except OSError as error:
            raise ControlError(
                f"nobody listens at {self.path} ({error.strerror or error}): start the process that it leads into"
            ) from error
        self.connects += 1

    def close(self) -> None:
        """End the connection; the next request makes a new one. Idempotent."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next line; empty at the end, None for one that is too long, of which nothing is kept."""
    too_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            too_long = True
        except asyncio.IncompleteReadError as error:
            return error.partial if not too_long else b""
        else:
            return None if too_long else line
