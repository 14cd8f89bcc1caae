"""client.js in a Node of its own, driven from here."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from types import TracebackType
from typing import Any, Self

from tests.web.node import HERE, PATIENCE_S, node_command


class DrivenClient:
    """`driven.mjs`: commands in, events out."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [*node_command(), str(HERE / "driven.mjs"), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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
                raise AssertionError(f"the client ended with {self.process.wait()} before {event} {fields}")
            told = happened["told"]
            if happened["event"] == event and all(told[name] == value for name, value in fields.items()):
                return told

    def report(self) -> dict[str, Any]:
        """Sums of volumes and latest prices by symbol, and the statistics."""
        self.do("report")
        told: dict[str, Any] = self.await_event("report")
        return told

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
