"""The control socket: how the other processes of this machine speak to the server.

A Unix stream socket of mode 0600 in the data folder. Each line is a JSON object with a `type`; each is answered by
one line. The recorder sends what the stores tell it, so that the server itself opens no database.

| type      | fields                    | answer                                              |
|-----------|---------------------------|-----------------------------------------------------|
| `status`  |                           | `{"type":"status", ...}`: feeds, symbols, clients   |
| `pin`     | `symbols`: names          | `{"type":"pinned","unknown":[...]}`                 |
| `learn`   | `symbols`: catalog rows   | `{"type":"learned","count":n}`                      |
| `publish` | `symbol`, `message`       | `{"type":"published","clients":n}`                  |

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

from tradeback.errors import DataFolderError, TradebackError

log = structlog.get_logger(__name__)

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_PATH_BYTES = 107  # of sockaddr_un, the zero behind it left out

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
        """Listen. The journal's lock is held by now, so a socket that lies here belongs to no living server."""
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
        for task in self._connections:
            task.cancel()
        for writer in self._writers:
            # What a peer that does not read has not taken would hold the connection open for ever.
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
