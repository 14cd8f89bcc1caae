"""LogWriter: whole lines to standard error, by whoever's thread, that never waits for who reads them.

A pipe whose reader hangs takes 64 KiB and then nothing: a write that waited would stop the server's loop, and with it
all clients. So a line that is not taken at once is lost, as one is that a full disk or a closed pipe refuses; how many
were lost is told in the next one that is taken. A file on a disk that hangs is waited for: only there the kernel offers
nothing else.

The descriptor is shared with other processes, so its own mode stays as it is: a socket (journald's) is sent to without
waiting, a pipe or a terminal is opened once more, to be written to without waiting.
"""

from __future__ import annotations

import io
import os
import socket
import stat
import threading
from collections.abc import Callable
from typing import TextIO


class LogWriter:
    """Writes lines to `stream`. `lost` gives the line that tells of so many that were lost."""

    def __init__(self, stream: TextIO, lost: Callable[[int], str]) -> None:
        self._stream = stream
        self._tell_lost = lost
        self._lock = threading.Lock()
        self._lost = 0
        self._rest = b""  # of a line that was taken in part
        self._own = -1
        self._socket: socket.socket | None = None
        try:
            self._fd = stream.fileno()
        except (io.UnsupportedOperation, AttributeError):
            self._fd = -1
            return
        kind = os.fstat(self._fd).st_mode
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(self._fd))
        elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            try:
                self._own = os.open(f"/proc/self/fd/{self._fd}", flags)
            except OSError:
                # It belongs to another user, or there is no /proc: then a write may wait, as it would for anybody.
                self._own = -1

    def write(self, line: str) -> None:
        """Write one line, of any length. Never raises for what the descriptor refuses."""
        if self._fd < 0:
            self._stream.write(line + "\n")
            return
        with self._lock:
            if self._rest:
                self._rest = self._rest[self._put(self._rest) :]
            if self._rest:
                self._lost += 1
                return
            told = self._tell_lost(self._lost) + "\n" if self._lost else ""
            data = f"{told}{line}\n".encode("utf-8", "backslashreplace")
            taken = self._put(data)
            if taken == 0:
                self._lost += 1
                return
            self._lost = 0
            self._rest = data[taken:]

    def close(self) -> None:
        """Give back what was opened; the stream stays."""
        if self._own >= 0:
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()
        self._own, self._socket = -1, None

    def _put(self, data: bytes) -> int:
        """How many bytes were taken at once."""
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return os.write(self._own if self._own >= 0 else self._fd, data)
        except OSError:
            # Full, closed, or no room on the disk: there is nowhere else to say so.
            return 0
