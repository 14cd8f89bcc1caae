"""`python -m bench.peers.websockets_server CLIENTS`: the `websockets` library's own broadcast, on uvloop.

Prints {"port":N}; once CLIENTS are connected it sends without end, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.picows_server import batch


async def run(wanted: int) -> None:
    everybody: set[ServerConnection] = set()
    complete, over = asyncio.Event(), asyncio.Event()

    async def client(connection: ServerConnection) -> None:
        everybody.add(connection)
        if len(everybody) == wanted:
            complete.set()
        await over.wait()

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    # No compression and no keepalive: the least work that it can do.
    async with serve(client, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        waits = [asyncio.ensure_future(event.wait()) for event in (complete, over)]
        await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        while not over.is_set():
            broadcast(everybody, batch())
            await asyncio.sleep(0)


if __name__ == "__main__":
    logging.disable()
    uvloop.run(run(int(sys.argv[1])))
