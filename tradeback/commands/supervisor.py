"""systemd as it starts a service of Type=notify: it is told that the process is ready, and that it still works.

The protocol is a datagram of lines to the socket that NOTIFY_SOCKET names (sd_notify(3)); without that variable nothing
happens.
"""

from __future__ import annotations

import asyncio
import os
import socket

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


def feed_watchdog() -> None:
    """From now on tell, from the running loop, that it still runs, twice in the time that WATCHDOG_USEC gives: a loop
    that hangs does not, and systemd starts the process anew."""
    told = os.environ.get("WATCHDOG_USEC", "")
    if not told.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    pause = int(told) / 2e6
    loop = asyncio.get_running_loop()

    def feed() -> None:
        tell_supervisor("WATCHDOG=1")
        loop.call_later(pause, feed)

    feed()
