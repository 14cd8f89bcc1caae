"""A proxy that makes one origin of API and WebSocket server, as in production: by a connection's first line."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WEBSOCKET_PATH = b"GET /api/v1/ws "
CHUNK = 65_536


@contextmanager
def one_origin(api_port: int, ws_port: int) -> Iterator[str]:
    """The address of the proxy, for as long as the block lasts."""
    ended = threading.Event()

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            first = self.request.recv(CHUNK)
            if not first:
                return
            port = ws_port if first.startswith(WEBSOCKET_PATH) else api_port
            with socket.create_connection(("127.0.0.1", port)) as behind, contextlib.suppress(OSError):
                behind.sendall(first)
                pipe(self.request, behind, ended)

    class Server(socketserver.ThreadingTCPServer):
        # Its threads end with `ended`, and are waited for.
        block_on_close = True

    with Server(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def pipe(one: socket.socket, other: socket.socket, ended: threading.Event) -> None:
    """Whatever either side sends, to the other, until one of them is through."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while not ended.is_set():
            for key, _ in selector.select(timeout=0.1):
                source: socket.socket = key.fileobj
                content = source.recv(CHUNK)
                if not content:
                    return
                key.data.sendall(content)
