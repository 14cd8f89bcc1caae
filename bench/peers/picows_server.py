"""`python -m bench.peers.picows_server CLIENTS`: picows called from Python, on uvloop.

Prints {"port":N}; once CLIENTS are connected it sends without end, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from struct import pack
from zlib import crc32

import picows
import uvloop


class Client(picows.WSListener):
    """One connection; `everybody` is the shared list it joins."""

    def __init__(self, everybody: list[picows.WSTransport], complete: asyncio.Event, wanted: int) -> None:
        self._everybody, self._complete, self._wanted = everybody, complete, wanted

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._everybody.append(transport)
        if len(self._everybody) == self._wanted:
            self._complete.set()


def batch() -> bytes:
    """One v1 batch of one record whose price is the moment of its making."""
    body = pack("<HHdd", 1, 1, time.monotonic(), 1.0)
    return pack("<I", crc32(body)) + body


async def serve(wanted: int) -> None:
    everybody: list[picows.WSTransport] = []
    complete = asyncio.Event()
    server = await picows.ws_create_server(
        lambda request: Client(everybody, complete, wanted), "127.0.0.1", 0, enable_auto_ping=False
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    await asyncio.wait(
        [asyncio.ensure_future(complete.wait()), asyncio.ensure_future(over.wait())],
        return_when="FIRST_COMPLETED",
    )
    while not over.is_set():
        message = batch()
        for transport in everybody:
            transport.send(picows.WSMsgType.BINARY, message)
        await asyncio.sleep(0)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
