"""How gunicorn runs the application: one process that answers, with threads; several where Redis counts for all.

Its own control socket is off: nothing needs it. It believes no proxy itself, for the application knows which to trust.
"""

from __future__ import annotations

import gc
import logging
import mmap
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import ceil
from typing import Any

from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from tradeback.api.worker import BoundedWorker

THREADS = 8
CONNECTIONS = 1_000
KEEP_ALIVE_S = 15
GRACE_S = 10


class Log(Logger):  # type: ignore[misc]
    """gunicorn's logger, without handlers of its own: its lines go where those of all libraries go."""

    def setup(self, cfg: Any) -> None:
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's main process. It tells systemd that it lives and that it ends; a process that answers, that it is
    ready."""

    def start(self) -> None:
        with self.app.unheard():  # gunicorn says READY=1 here, when nobody answers yet
            super().start()

    def murder_workers(self) -> None:
        # The main loop comes here once a second at least.
        self.app.alive()
        super().murder_workers()

    def stop(self, graceful: bool = True) -> None:
        systemd.sd_notify("STOPPING=1", self.log)
        self.app.ending[0] = 1
        super().stop(graceful)


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """gunicorn on a socket that is bound already. `load_app` is called in the process that answers, and `ready` once
    it does. `alive` is called by the main process, once a second at least, and what it tells systemd at its start is
    `unheard`. Told to end, it answers for `drain` seconds more, and then what is under way."""

    def __init__(
        self,
        listener: socket.socket,
        load_app: Callable[[], Any],
        ready: Callable[[], None],
        request_seconds: float,
        workers: int = 1,
        reload_config: Callable[[], None] | None = None,
        *,
        drain: float = 0.0,
        alive: Callable[[], None] = lambda: None,
        unheard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.drain = drain
        self.alive = alive
        self.unheard = unheard
        # Shared with the processes that answer. One that ends because others take its place is told by nothing here.
        self.ending = mmap.mmap(-1, 1)
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
            "graceful_timeout": ceil(self.drain) + GRACE_S,
            "timeout": 60,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "logger_class": Log,
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

    @property
    def ends(self) -> bool:
        """Whether it was told to end, as a whole; the same in all of its processes."""
        return bool(self.ending[0])

    def run(self) -> None:
        """Answer until SIGTERM or SIGINT; leaves by SystemExit."""
        _Arbiter(self).run()

    def load(self) -> Any:
        return self._load_app()
