"""The server under test: `tradeback server` as a process of its own, fed by the bench's exchange."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.build import BenchError
from bench.programs import SERVER_CORE, Program, compiled

COMMAND = [str(Path(sys.executable).with_name("tradeback")), "server"]
START_TIMEOUT_S = 120.0
DATA_TIMEOUT_S = 120.0

# Not what is measured: the bench connects everybody at once, and its clients are no users.
SETTINGS = {
    "TRADEBACK_EXCHANGE": "sim",
    "WS_ANONYMOUS": "true",
    "WS_MAX_CLIENTS": "20000",
    "WS_ACCEPTS_PER_SECOND": "100000",
    "SERVER_HOST": "127.0.0.1",
    "LOG_LEVEL": "warning",
}


@contextmanager
def server(exchange_port: int, **settings: str) -> Iterator[tuple[Program, int]]:
    """Runs the server on core 0 with a data folder of its own; yields it and its port when that accepts.

    Args:
        exchange_port: the port of `exchange` or `probe`, which speak the exchange's WebSocket and REST.
        settings: further environment variables.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tradeback-bench-") as folder:
        environment = {
            **os.environ,
            **SETTINGS,
            "EXCHANGE_WS_ENDPOINT": f"ws://127.0.0.1:{exchange_port}",
            "EXCHANGE_REST_ENDPOINT": f"http://127.0.0.1:{exchange_port}",
            "WS_PORT": str(port),
            "DATA_DIR": folder,
            **settings,
        }
        with Program(COMMAND, SERVER_CORE, environment, foreign=True) as process:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not accepts(port):
                if not process.running:
                    raise BenchError(f"tradeback server ended: {process.last_words()}")
                if time.monotonic() > deadline:
                    raise BenchError(f"tradeback server did not listen within {START_TIMEOUT_S:.0f} s.")
                time.sleep(0.02)
            yield process, port


@contextmanager
def exchange(symbols: int) -> Iterator[tuple[Program, int]]:
    """Runs the exchange on the load's core; yields it and its port. It is silent until told a rate."""
    with compiled("exchange", 0, symbols) as process:
        yield process, int(process.hear()["port"])


def wait_for_lines(source: Program, subscriptions: int) -> None:
    """Returns when the feeds carry at least so many streams, counted over all connections of the exchange."""
    deadline = time.monotonic() + DATA_TIMEOUT_S
    while (carried := source.ask("status")["subscriptions"]) < subscriptions:
        if time.monotonic() > deadline:
            raise BenchError(
                f"The server's feeds carry {carried} of {subscriptions} streams after {DATA_TIMEOUT_S:.0f} s."
            )
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
