"""Processes that `tradeback up` starts: started, waited for until they are ready, started again, ended.

A child is on a lifeline (`lifeline.py`): it ends with this process, whatever happens to that. It is in a process
group of its own, so that Ctrl-C reaches this process alone, which then ends the children in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

import orjson
import structlog

from tradeback.commands.lifeline import GRACE
from tradeback.errors import TradebackError

log = structlog.get_logger(__name__)

START_TIMEOUT = 60.0
RESTARTS_A_MINUTE = 5
RESTART_PAUSE = 1.0


@dataclass(slots=True)
class Child:
    """A process of ours: the command that it runs, and how often it had to be started again.

    The command takes `--ready-fd`, and calls `lifeline.tell_ready` with it once it is ready.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    restarts: list[float] = field(default_factory=list)
    _lifeline: int | None = None

    async def start(self) -> dict[str, str]:
        """Start it and wait until it says that it is ready. Returns its addresses.

        Raises TradebackError where it ends before, or is not ready in time: it is ended then.
        """
        ready, told = os.pipe()
        watched, self._lifeline = os.pipe()
        reading = os.fdopen(ready, "rb")
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # not what lies in the folder where this was started
                "-m",
                "tradeback",
                f"--parent-fd={watched}",
                *self.arguments,
                f"--ready-fd={told}",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(told, watched),
                process_group=0,
            )
        except BaseException:
            reading.close()
            self._let_go()
            raise
        finally:
            os.close(told)
            os.close(watched)
        with reading:
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    line = await _read_line(reading)
            except TimeoutError:
                await self.stop()
                raise TradebackError(
                    f"{self.name} was not ready within {START_TIMEOUT:.0f} s: its messages say what it waits for"
                ) from None
        if not line.endswith(b"\n"):
            code = await self.wait()
            raise TradebackError(f"{self.name} {_how(code)} before it was ready: its messages say why")
        addresses: dict[str, str] = orjson.loads(line)
        return addresses

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.returncode is None

    def kill(self) -> None:
        """End it by force, where it runs; `stop` and `wait` hear of it."""
        if self.running and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def stop(self) -> None:
        """Ask it to end; end it by force where it does not."""
        if self.process is None:
            return
        if self.process.returncode is None:
            # It may have ended without our having heard of it yet.
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE):
                await self.wait()
        except TimeoutError:
            log.error("a process did not end when asked, it is killed", process=self.name)
            self.process.kill()
            await self.wait()

    async def keep_running(self) -> None:
        """Start it again whenever it ends, as long as this is not cancelled. Raises TradebackError where that
        happens too often."""
        reason = _how(await self.wait())
        while True:
            now = time.monotonic()
            self.restarts = [moment for moment in self.restarts if now - moment < 60.0] + [now]
            if len(self.restarts) > RESTARTS_A_MINUTE:
                raise TradebackError(
                    f"{self.name} ended {len(self.restarts)} times within a minute, and is not started again: it "
                    f"{reason}; its messages say why"
                )
            log.error("a process ended by itself, it is started again", process=self.name, reason=reason)
            await asyncio.sleep(RESTART_PAUSE)
            try:
                await self.start()
            except TradebackError as error:
                # Whatever was in its way may be gone at the next try.
                log.error("a process could not be started again", process=self.name, reason=str(error))
                reason = "did not get ready"
            else:
                reason = _how(await self.wait())

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        if self.process is None:
            raise TradebackError(f"{self.name} was never started")
        code = await self.process.wait()
        self._let_go()
        return code

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def hang_up(children: Iterable[Child]) -> None:
    """Pass SIGHUP on to those that run."""
    for child in children:
        if child.running and child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGHUP)


async def keep_all_running(children: Iterable[Child]) -> None:
    """Keep each of them running until one ends too often (TradebackError), or this is cancelled.

    Either way none of them is started again any more when this returns: they can be stopped in any order.
    """
    keeping = [asyncio.create_task(child.keep_running(), name=f"keep {child.name}") for child in children]
    try:
        done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


def _how(code: int) -> str:
    """How a process ended, in words that follow its name."""
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


async def _read_line(pipe: BinaryIO) -> bytes:
    """The line that the child writes when it is ready; empty or without its end where it ended before."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
