"""How gunicorn runs the application: one process that answers, with threads, and a limit of time for each request.

One, because limits of rates are counted in its memory. gunicorn's own control socket is off: nothing needs it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import _DEFER, ThreadWorker

THREADS = 8
CONNECTIONS = 1_000
KEEP_ALIVE_S = 15
GRACE_S = 10
FIRST_BYTES_S = 0.05


class BoundedWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threads, but that no client keeps one: a connection that sends nothing waits without a thread, and
    one whose request is not through after `request_seconds` is cut off."""

    def init_process(self) -> None:
        self._deadlines: dict[Any, float] = {}
        super().init_process()

    def handle(self, conn: Any) -> Any:
        if not (conn.initialized or conn.data_ready or conn.wait_for_data(FIRST_BYTES_S)):
            return _DEFER
        self._deadlines[conn] = time.monotonic() + self.app.request_seconds
        try:
            return super().handle(conn)
        finally:
            del self._deadlines[conn]

    def murder_pending(self) -> None:
        # The worker's main thread comes here at least once a second.
        super().murder_pending()
        now = time.monotonic()
        for conn, deadline in list(self._deadlines.items()):
            if now > deadline:
                try:
                    conn.sock.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    self.log.debug("a late connection was gone already: %s", error)


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn on a socket that is bound already. `load_app` is called in the process that answers, and `ready` once
    it does."""

    def __init__(
        self,
        listener: socket.socket,
        load_app: Callable[[], Any],
        ready: Callable[[], None],
        request_seconds: float,
        workers: int = 1,
    ) -> None:
        self.request_seconds = request_seconds
        self._listener = listener
        self._load_app = load_app
        self._ready = ready
        self._workers = workers
        super().__init__()

    def load_config(self) -> None:
        ready = self._ready

        def post_worker_init(worker: Any) -> None:
            ready()

        settings = {
            "bind": f"fd://{self._listener.fileno()}",
            "workers": self._workers,
            "threads": THREADS,
            "worker_class": BoundedWorker,
            "worker_connections": CONNECTIONS,
            "keepalive": KEEP_ALIVE_S,
            "graceful_timeout": GRACE_S,
            "timeout": 60,
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "tradeback api",
            "limit_request_line": 4094,
            "limit_request_fields": 50,
            "limit_request_field_size": 8190,
            "post_worker_init": post_worker_init,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._load_app()
