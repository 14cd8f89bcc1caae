"""Clients that are slow, dead, broken or hostile: none costs the others anything, or the server memory."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from time import monotonic, monotonic_ns

import orjson
import pytest

from tests.e2e.hubs import LOOPS, RawClient, Served, mask_frame, request, run, served
from tests.reference.batch import PING, TEXT

SYMBOLS = 300


async def all_symbols(server: Served, client: RawClient) -> None:
    for start in range(0, SYMBOLS, 100):
        answer = await client.subscribe(*server.market.symbols[start : start + 100])
        assert len(answer["symbols"]) == 100


def blocked(server: Served) -> int:
    return server.hub.stats.value("clients_blocked")


async def trade_until(server: Served, reached: int) -> int:
    """Trade everything, round for round, until so many clients are blocked; the rounds."""
    rounds = 0
    while blocked(server) < reached:
        for index in range(SYMBOLS):
            server.trade(index, 1)
        rounds += 1
        await asyncio.sleep(0)
        if rounds > 20_000:
            raise AssertionError("5 million records did not fill the sockets")
    return rounds


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_stops_reading_and_reads_again_misses_no_volume(loop: str) -> None:
    async def scenario() -> None:
        async with served(SYMBOLS) as server:
            slow = await server.client(receive=4096, limit=256)
            await all_symbols(server, slow)
            other = await server.client()
            await other.subscribe("S7USDT")
            rounds = await trade_until(server, 1)
            for units in (10, 200, 3000):
                server.trade(7, units)
                rounds += units
                await other.until_sum(50, rounds)
            sent = server.hub.stats.value("bytes_sent")
            for _ in range(1000):
                for index in range(SYMBOLS):
                    server.trade(index, 1)
                await asyncio.sleep(0)
            rounds += 1000
            await other.until_sum(50, rounds)
            assert blocked(server) == 1
            # Only the other one was written to: a frame of one record has 26 bytes.
            assert server.hub.stats.value("bytes_sent") - sent <= 1001 * 26
            await slow.until_sum(50, rounds)
            assert blocked(server) == 0
            for client in (slow, other):
                await client.leave()

    run(scenario(), loop)


def test_a_client_that_takes_no_data_for_too_long_is_cut_and_no_other() -> None:
    async def scenario() -> None:
        async with served(SYMBOLS, blocked_limit=0.5) as server:
            stuck = await server.client(receive=4096, limit=256)
            await all_symbols(server, stuck)
            other = await server.client()
            await other.subscribe("S0USDT")
            rounds = await trade_until(server, 1)
            await server.until(lambda: len(server.hub.clients) == 1)
            assert server.hub.stats.value("slow_closes") == 1
            assert blocked(server) == 0
            server.trade(0, 5)
            await other.until_sum(1, rounds + 5)
            # What the kernel buffered can still be read; then comes the end, with the code or without.
            assert await stuck.closed() in (4408, None)
            for client in (stuck, other):
                await client.leave()

    run(scenario())


def test_a_slow_client_that_reads_after_its_closing_gets_4408() -> None:
    async def scenario() -> None:
        async with served(SYMBOLS, blocked_limit=0.3) as server:
            slow = await server.client(receive=4096, limit=256)
            await all_symbols(server, slow)
            [listener] = server.hub.clients.values()
            # We look after it ourselves: the sweep cuts it a second after its closing, read or not.
            assert server.hub._sweep_timer is not None
            server.hub._sweep_timer.cancel()
            await trade_until(server, 1)
            await server.until(lambda: bool(listener.check(monotonic_ns())))
            assert server.hub.stats.value("slow_closes") == 1
            assert await slow.closed() == 4408
            await slow.leave()

    run(scenario())


def test_a_flood_without_reading_piles_nothing_up() -> None:
    async def scenario() -> None:
        async with served(SYMBOLS, messages_per_second=1000, message_burst=1_000_000) as server:
            client = await server.client(receive=4096, limit=256)
            command = mask_frame(TEXT, orjson.dumps({"type": "subscribe", "symbols": server.market.symbols}))
            flood = command + mask_frame(PING, b"x" * 100) * 10
            client.writer.transport.set_write_buffer_limits(high=1 << 20)
            for _ in range(2000):
                client.writer.write(flood)
                await asyncio.sleep(0)
                if client.writer.transport.get_write_buffer_size() > 1 << 20:
                    break  # the server reads no more
            else:
                raise AssertionError("the server went on reading from a client that reads nothing")
            await server.until(lambda: blocked(server) == 1)
            [listener] = server.hub.clients.values()
            assert listener.handle >= 0
            client.writer.transport.abort()
            await client.leave()
            await server.until(lambda: not server.hub.clients)

    run(scenario())


GARBAGE = [
    b"\0" * 100,
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /api/v1/ws HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nNoColon\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    request().replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !"),
    request().replace(b"HTTP/1.1", b"HTTP/2"),
    request() + mask_frame(TEXT, b"x", masked=False),
]


def test_garbage_ends_its_own_connection_only() -> None:
    async def scenario() -> None:
        async with served(handshake_timeout=0.3) as server:
            client = await server.client()
            for garbage in [*GARBAGE, *(os.urandom(200) + b"\r\n\r\n" for _ in range(50))]:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                bad = RawClient(reader, writer)
                writer.write(garbage)
                await bad.ended()
                await bad.leave()
            client.send({"type": "ping"})
            assert (await client.text())["type"] == "pong"
            await server.until(lambda: len(server.hub.clients) == 1)
            await client.leave()

    run(scenario())


def test_a_handshake_that_never_ends_is_cut() -> None:
    async def scenario() -> None:
        async with served(handshake_timeout=0.3) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            slow = RawClient(reader, writer)
            began = monotonic()

            async def trickle() -> None:
                for byte in request():
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.05)

            trickling = asyncio.ensure_future(trickle())
            await slow.ended()
            assert monotonic() - began >= 0.2
            trickling.cancel()
            await slow.leave()

    run(scenario())


def test_a_silent_client_is_pinged_and_one_that_does_not_answer_is_cut() -> None:
    async def scenario() -> None:
        async with served(ping_interval=0.2, ping_timeout=3) as server:
            alive, dead = await server.client(), await server.client()
            reading = asyncio.ensure_future(alive.closed())  # answers pings
            await dead.ended()
            assert len(server.hub.clients) == 1
            reading.cancel()
            for client in (alive, dead):
                await client.leave()

    run(scenario())


def test_resets_in_the_middle_of_flushes_leave_the_others_whole() -> None:
    async def scenario() -> None:
        async with served(SYMBOLS) as server:
            other = await server.client()
            await other.subscribe("S0USDT")
            rounds = 0
            for _ in range(10):
                doomed = [await server.client() for _ in range(10)]
                for client in doomed:
                    client.send({"type": "subscribe", "symbols": server.market.symbols})
                await server.until(lambda: server.hub.fanout.watcher_count(server.market.slots[0]) == 11)
                for client in doomed:
                    sock = client.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.writer.transport.abort()
                while server.hub.fanout.client_count > 1:
                    for index in range(SYMBOLS):
                        server.trade(index, 1)
                    rounds += 1
                    await asyncio.sleep(0)
                for client in doomed:
                    await client.leave()
            await other.until_sum(1, rounds)
            assert server.hub.fanout.take_failed() == []
            await other.leave()

    run(scenario())


def test_a_half_closed_connection_ends() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            client.writer.write_eof()
            await client.ended()
            await client.leave()
            await server.until(lambda: not server.hub.clients)

    run(scenario())


def test_connections_are_accepted_at_a_bounded_rate_and_none_is_lost() -> None:
    async def scenario() -> None:
        async with served(accepts_per_second=100) as server:
            began = monotonic()
            clients = await asyncio.gather(*(server.client() for _ in range(60)))
            # 5 at once, then 100 a second.
            assert monotonic() - began >= 0.5
            assert len(server.hub.clients) == 60
            for client in clients:
                await client.leave()

    run(scenario())


def test_out_of_descriptors_the_server_waits_and_then_accepts() -> None:
    async def scenario() -> None:
        async with served() as server:
            waiting = socket.socket()
            waiting.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            # The next descriptor is the lowest that is free: take those below the highest.
            fillers = []
            while (filler := os.dup(0)) < highest:
                fillers.append(filler)
            fillers.append(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (filler + 1, hard))
            try:
                await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", server.port))
                waiting.send(request())
                await server.until(lambda: server.hub._socket._resume is not None)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in fillers:
                    os.close(descriptor)
            await server.until(lambda: len(server.hub.clients) == 1)
            waiting.close()

    run(scenario())


def test_accepted_sockets_inherit_what_bounds_their_memory() -> None:
    async def scenario() -> None:
        async with served() as server:
            client = await server.client()
            [listener] = server.hub.clients.values()
            sock = listener.socket
            assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 16384  # TCP_NOTSENT_LOWAT
            assert (
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 32768
            )  # Linux doubles what was asked for
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await client.leave()

    run(scenario())
