"""What the hub publishes: JSON texts to those who are subscribed, in one write a client."""

from __future__ import annotations

import time

import pytest

from tests.e2e.hubs import LOOPS, run, served
from tests.reference.batch import TEXT
from tradeback._fast.listener import text_frame


@pytest.mark.parametrize("loop", list(LOOPS))
def test_each_gets_what_it_is_subscribed_to_and_those_who_read_nothing_get_none(loop: str) -> None:
    async def scenario() -> None:
        async with served() as hub:
            one, both, none, deaf = [await hub.client() for _ in range(4)]
            first, second = hub.market.symbols[:2]
            await one.subscribe(first)
            await both.subscribe(second, first)
            await deaf.subscribe(first)
            handle = next(listener.handle for listener in hub.hub.clients.values() if listener.handle == 3)
            hub.hub.fanout.set_blocked(handle, time.monotonic_ns())
            sizes = (1, 200, 70_000)  # each needs another length of the frame's header
            messages = [
                (name, {"type": f"enigma{size}", "data": {"symbol": name, "fill": "x" * size}})
                for size in sizes
                for name in (first, second, "NOTHING")
            ]
            assert hub.hub.publish(messages) == 6
            # Of each symbol and type the latest leaves.
            latest = {"type": "enigma1", "data": {"symbol": first, "fill": "yes"}}
            assert hub.hub.publish([(first, {"type": "enigma1", "data": {}}), (first, latest)]) == 2
            expected = {(name, size): "x" * size for name in (first, second) for size in sizes}
            expected[first, 1] = "yes"
            for client, names in ((one, (first,)), (both, (first, second))):
                got = {}
                for _ in range(len(names) * len(sizes)):
                    message = await client.text()
                    size = int(message["type"].removeprefix("enigma"))
                    got[message["data"]["symbol"], size] = message["data"]["fill"]
                assert got == {key: fill for key, fill in expected.items() if key[0] in names}
            none.send({"type": "ping"})
            assert await none.text() == {"type": "pong"}
            hub.hub.fanout.set_unblocked(handle)
            deaf.send({"type": "ping"})
            assert await deaf.text() == {"type": "pong"}
            assert hub.hub.publish([]) == 0
            for client in (one, both, none, deaf):
                await client.leave()

    run(scenario(), loop)


@pytest.mark.parametrize(
    ("size", "header"), [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (100_000, 10)]
)
def test_a_frame_has_the_shortest_header_that_its_length_allows(size: int, header: int) -> None:
    frame = text_frame(b"x" * size)
    assert len(frame) == header + size
    assert frame[0] == 0x80 | TEXT
    length = frame[1] if header == 2 else int.from_bytes(frame[2:header], "big")
    assert length == size
