"""What a process that `tradeback up` started has to do with its parent: tell it that it is ready, and end with it.

A lifeline is a pipe whose other end the parent holds as long as it lives. The kernel closes that end whatever the
parent dies of, SIGKILL included.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping

import orjson

from tradeback.commands.supervisor import tell_supervisor

# As long as `tradeback up` gives a process that it has asked to end.
GRACE = 20.0


def end_with_parent(descriptor: int) -> None:
    """From now on end this process, as SIGTERM does, when the parent's end of the pipe is closed.

    Raises OSError where the descriptor is none. The thread that watches waits in the kernel, where it needs no
    interpreter lock.
    """
    os.fstat(descriptor)
    threading.Thread(target=_watch, args=(descriptor,), name="lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        continue  # nobody writes there
    # Signals, because that is how it is ended otherwise too: before it has handlers, it ends at once.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def tell_ready(descriptor: int | None, addresses: Mapping[str, str]) -> None:
    """Write one line of JSON to the pipe of `--ready-fd`, where there is one, and close it.

    systemd is told too. `addresses` are those that this process listens on, by name. Does nothing where nobody reads
    them any more.
    """
    tell_supervisor("READY=1")
    if descriptor is None:
        return
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
        pipe.write(orjson.dumps(addresses, option=orjson.OPT_APPEND_NEWLINE))
