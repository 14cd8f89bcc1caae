"""EpollLoop: what it does beyond asyncio's own loops. That it is an asyncio loop, tests/stdlib shows."""

from __future__ import annotations

import asyncio

from tradeback._fast.epoll import EpollLoop, new_event_loop


def test_runner_runs_on_it() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EpollLoop)
        await asyncio.sleep(0.0002)
        return await loop.run_in_executor(None, lambda: 5)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == 5
