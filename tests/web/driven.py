"""Scripts of the page in a Node of their own, driven from here."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from types import TracebackType
from typing import Any, Self

from tests.web.node import HERE, PATIENCE_S, node_command


class Driven:
    """A script that takes commands and tells events, both as JSON lines."""

    def __init__(self, script: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*node_command(), str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def do(self, what: str, **more: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.process.stdin.flush()

    def await_event(self, event: str, **fields: object) -> Any:
        """What the next event of that name told, where it has these fields; others are passed over."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            happened = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            if happened is None:
                raise AssertionError(f"the script ended with {self.process.wait()} before {event} {fields}")
            told = happened["told"]
            if happened["event"] == event and all(told[name] == value for name, value in fields.items()):
                return told

    def ask(self, what: str) -> Any:
        """Do it, and wait until it says so."""
        self.do(what)
        return self.await_event(what)

    def stop(self) -> int:
        """Have it close, and return the exit code of its process, which nothing may keep alive."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
