"""systemd as it starts a service of Type=notify: it is told that the process is ready, that it still works and that it
ends.

The protocol is a datagram of lines to the socket that NOTIFY_SOCKET names (sd_notify(3)); without that variable nothing
happens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


def tell_supervisor(state: str) -> None:
    """Send a state, such as READY=1. Nobody who listens is no reason to end."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    # A name that begins with @ is one of the abstract namespace.
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(state.encode(), address)
    except OSError as error:
        log.warning("systemd could not be told", state=state, reason=str(error))


def still_starting(seconds: float) -> None:
    """Have systemd wait so much longer, from now on, for this process to be ready."""
    tell_supervisor(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


@contextmanager
def unheard() -> Iterator[None]:
    """Whatever is told to systemd in the block is not heard."""
    told = os.environ.pop("NOTIFY_SOCKET", None)
    try:
        yield
    finally:
        if told is not None:
            os.environ["NOTIFY_SOCKET"] = told


def without_supervisor(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child, whose states are none of systemd's business."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in environment.items() if name not in ours}


def on_end(end: Callable[[signal.Signals], None]) -> None:
    """From now on call `end` with SIGTERM or SIGINT in the running loop, each time that one comes; systemd is told."""

    def ask(signum: signal.Signals) -> None:
        tell_supervisor("STOPPING=1")
        end(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, ask, signum)


def watchdog_pause() -> float | None:
    """Seconds between two signs of life, half of what systemd waits for; None where it waits for none of ours."""
    told = os.environ.get("WATCHDOG_USEC", "")
    if not told.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(told) / 2e6


def feed_watchdog() -> None:
    """From now on tell, from the running loop, that it still runs, twice in the time that WATCHDOG_USEC gives: a loop
    that hangs does not, and systemd starts the process anew."""
    pause = watchdog_pause()
    if pause is None:
        return
    loop = asyncio.get_running_loop()

    def feed() -> None:
        tell_supervisor("WATCHDOG=1")
        loop.call_later(pause, feed)

    feed()
