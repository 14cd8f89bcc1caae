"""How gunicorn runs the application: one process that answers, with threads; several where Redis counts for all.

Its own control socket is off: nothing needs it. It believes no proxy itself, for the application knows which to trust.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from tradeback.api.worker import BoundedWorker

THREADS = 8
CONNECTIONS = 1_000
KEEP_ALIVE_S = 15
GRACE_S = 10


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
        reload_config: Callable[[], None] | None = None,
    ) -> None:
        self.request_seconds = request_seconds
        self._listener = listener
        self._load_app = load_app
        self._ready = ready
        self._workers = workers
        self._reload_config = reload_config
        super().__init__()

    def load_config(self) -> None:
        ready = self._ready

        def post_worker_init(worker: Any) -> None:
            # What was loaded stays: reading a page of bars takes a third less where the collector leaves it alone.
            gc.collect()
            gc.freeze()
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
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "loglevel": "warning",
            "proc_name": "tradeback api",
            "limit_request_line": 4094,
            "limit_request_fields": 50,
            "limit_request_field_size": 8190,
            "post_worker_init": post_worker_init,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def reload(self) -> None:
        """On SIGHUP: processes that answer with what the configuration says now take the place of those before."""
        if self._reload_config is not None:
            self._reload_config()
        super().reload()

    def load(self) -> Any:
        return self._load_app()
