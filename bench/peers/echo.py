"""`python -m bench.peers.echo serve LOOP`: a picows echo server on that loop. `... ask PORT`: one client of it.

LOOP is epoll, spinning (epoll that never blocks), asyncio or uvloop. The server prints {"port":N} and answers the
line `cpu` with the CPU seconds it has used; the client answers `measure COUNT` with the times of as many round trips.
Both end with their standard input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable

import picows
import uvloop

from tradeback._fast.epoll import EpollLoop, new_event_loop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "epoll": new_event_loop,
    "spinning": new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
PAYLOAD = bytes(64)
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        transport.send(picows.WSMsgType.BINARY, frame.get_payload_as_bytes())


async def serve(spin: float) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(loop, EpollLoop):
        loop.spin = spin
    over = asyncio.Event()

    def command() -> None:
        if sys.stdin.buffer.readline():
            print(json.dumps({"cpu": time.process_time()}), flush=True)
        else:
            over.set()

    loop.add_reader(sys.stdin.fileno(), command)
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0, enable_auto_ping=False)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await over.wait()
    server.close()


def ask(port: int) -> None:
    """Blocking, so that what differs between two measurements is the server alone."""
    frame = bytes([0x82, 0x80 | len(PAYLOAD), 0, 0, 0, 0]) + PAYLOAD  # masked with zeros
    echoed = 2 + len(PAYLOAD)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(REQUEST)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(4096)
        for line in sys.stdin:
            times = []
            for _ in range(int(line.split()[1])):
                begin = time.perf_counter_ns()
                connection.sendall(frame)
                left = echoed
                while left:
                    left -= len(connection.recv(left))
                times.append(time.perf_counter_ns() - begin)
            times.sort()
            print(
                json.dumps({"p50": statistics.median(times), "p99": times[len(times) * 99 // 100]}),
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
            runner.run(serve(-1 if sys.argv[2] == "spinning" else 0))
    else:
        ask(int(sys.argv[2]))
