"""What a client that is logged in is subscribed to, against a plain model, and against what it is told: whatever the
order of its own commands, changes of its watchlist and changes of its rights."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.e2e.hubs import RawClient, served
from tests.e2e.logins import cookie
from tests.e2e.test_client_sessions import SECRET, Told
from tradeback.model import symbol_allowed
from tradeback.tokens import new_token

COUNT = 3
NUMBERS = st.lists(st.integers(0, COUNT), max_size=COUNT, unique=True)  # the last is no symbol
PATTERNS = st.sampled_from([("*",), ("*",), ("*",), ("*1*", "*2*"), ("NONE",)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), NUMBERS.filter(bool)),
        st.tuples(st.just("unsubscribe"), NUMBERS.filter(bool)),
        st.tuples(st.just("account"), NUMBERS, PATTERNS),
    ),
    min_size=4,
    max_size=20,
)


@dataclass
class Model:
    known: list[str]
    patterns: tuple[str, ...] = ("*",)
    subscribed: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    def allows(self, symbol: str) -> bool:
        return symbol in self.known and symbol_allowed(self.patterns, symbol)

    def subscribe(self, symbols: list[str]) -> None:
        taken = {symbol for symbol in symbols if self.allows(symbol)}
        self.subscribed |= taken
        self.own |= taken

    def unsubscribe(self, symbols: list[str]) -> None:
        self.subscribed -= set(symbols)
        self.own -= set(symbols)

    def account(self, watchlist: list[str], patterns: tuple[str, ...]) -> None:
        self.patterns = patterns
        wanted = {symbol for symbol in watchlist if self.allows(symbol)}
        forbidden = {symbol for symbol in self.subscribed if not self.allows(symbol)}
        self.own -= forbidden
        self.subscribed -= forbidden | ((self.listed - wanted) - self.own)
        self.subscribed |= wanted - self.listed
        self.listed = wanted


class Listener:
    """What a client knows by what it is told alone."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.subscribed: set[str] = set()
        self.listed: set[str] = set()

    async def hear(self) -> None:
        """All that was said up to now."""
        self.client.send({"type": "ping"})
        while (message := await self.client.text())["type"] != "pong":
            self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribed":
                self.subscribed |= {row["symbol"] for row in message["symbols"]}
            case "unsubscribed":
                self.subscribed -= {row["symbol"] for row in message["symbols"]}
            case "auto_subscribe":
                self.subscribed.add(message["data"]["symbol"])
                self.listed.add(message["data"]["symbol"])
            case "auto_unsubscribe":
                self.listed.discard(message["data"]["symbol"])
                if not message["data"].get("subscribed"):
                    self.subscribed.discard(message["data"]["symbol"])


@examples(max_examples=100, deadline=None)
@given(STEPS)
def test_a_client_is_subscribed_as_the_model_and_as_it_was_told(steps: list[tuple[Any, ...]]) -> None:
    async def scenario() -> None:
        async with served(
            COUNT, secret=SECRET, anonymous=False, malformed_limit=1000, messages_per_second=1000
        ) as serving:
            telling = Told(serving)
            telling.everything()
            names = [*serving.market.symbols, "NOSUCH"]
            model, token = Model(serving.market.symbols), new_token(SECRET, 1000)
            telling.account([token])
            client = await RawClient.connect(serving.port, headers=cookie(token))
            listener = Listener(client)
            await listener.hear()
            (inside,) = serving.hub.clients
            for kind, numbers, *patterns in steps:
                symbols = [names[number] for number in numbers]
                if kind == "account":
                    telling.account([token], symbols, patterns[0])
                    model.account(symbols, patterns[0])
                else:
                    client.send({"type": kind, "symbols": symbols})
                    getattr(model, kind)(symbols)
                await listener.hear()
                slots = serving.hub.fanout.slots_of(inside.listener.handle)
                assert {serving.hub.interest.at(slot).symbol for slot in slots} == model.subscribed
                assert listener.subscribed == model.subscribed
                assert listener.listed == model.listed
            await client.leave()

    asyncio.run(scenario())
