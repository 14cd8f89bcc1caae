"""What goes wrong with the services beside it all, from a seed: they are killed, hang and are emptied, alone or two
together, while server and recorder have troubles of their own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tests.servers.redis import RedisServer
from tests.servers.server import RealServer

LONGEST_AWAY_S = 4.0


class DisturbedServices:
    """The servers, and what is done to them. `done` tells it, in order."""

    def __init__(self, servers: list[RealServer], chance: random.Random) -> None:
        self.servers = servers
        self.chance = chance
        self.done: list[str] = []

    def disturb(self, seconds: float, ended: threading.Event) -> None:
        """One thing after the other for so long, or until `ended`; then all of them answer."""
        began = time.monotonic()
        actions: list[tuple[int, Callable[[], str]]] = [
            (4, self.kill_one),
            (4, self.hang_one),
            (2, self.kill_two),
            (1, self.empty_the_cache),
        ]
        weights, doings = zip(*actions, strict=True)
        while (passed := time.monotonic() - began) < seconds:
            if ended.wait(self.chance.uniform(0.0, 3.0)):
                return
            self.done.append(f"{passed:.1f} s: {self.chance.choices(doings, weights)[0]()}")

    def kill_one(self) -> str:
        return self._kill(self.chance.sample(self.servers, 1))

    def kill_two(self) -> str:
        return self._kill(self.chance.sample(self.servers, 2))

    def hang_one(self) -> str:
        server = self.chance.choice(self.servers)
        server.halt()
        seconds = self._away()
        server.go_on()
        return f"{server.PROGRAM} stood still for {seconds:.1f} s"

    def empty_the_cache(self) -> str:
        (redis,) = (server for server in self.servers if isinstance(server, RedisServer))
        redis.empty()
        return "Redis was emptied"

    def _kill(self, killed: list[RealServer]) -> str:
        for server in killed:
            server.kill()
        seconds = self._away()
        for server in killed:
            server.start()
        return f"{' and '.join(server.PROGRAM for server in killed)} killed, away for {seconds:.1f} s"

    def _away(self) -> float:
        seconds = self.chance.uniform(0.2, LONGEST_AWAY_S)
        time.sleep(seconds)
        return seconds
