"""Subscriptions against an exchange that refuses streams: the good ones are carried, the refused ones found, in few
messages, whatever is wanted meanwhile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.errors import ExchangeError
from tradeback.server.subscriptions import (
    REFUSED_IN_A_ROW,
    RETRY_CAP,
    RETRY_FIRST,
    Refusals,
    Request,
    Subscriptions,
)

LIMIT, PER_MESSAGE = 64, 16


class Exchange:
    """Answers as the exchange does: a message is carried out as a whole, or not at all."""

    def __init__(self, refused: set[str]) -> None:
        self.refused = refused
        self.carried: set[str] = set()
        self.messages = 0

    def answer(self, subscriptions: Subscriptions, request: Request, now: float) -> dict[str, str]:
        """Carry out one request and tell the outcome; the streams that are left out from now on."""
        self.messages += 1
        assert 0 < len(request.streams) <= PER_MESSAGE
        assert len(set(request.streams)) == len(request.streams)
        streams = set(request.streams)
        if request.method == "UNSUBSCRIBE":
            assert streams <= self.carried
            self.carried -= streams
            return subscriptions.accepted(request, now)[1]
        if streams & self.refused or len(self.carried | streams) > LIMIT:
            return subscriptions.refused(request, "no", now)
        self.carried |= streams
        return subscriptions.accepted(request, now)[1]

    def settle(self, subscriptions: Subscriptions, now: float) -> dict[str, str]:
        left_out: dict[str, str] = {}
        while (request := subscriptions.next_request(now)) is not None:
            left_out |= self.answer(subscriptions, request, now)
        return left_out


def subscriptions_of(wanted: set[str], refusals: Refusals | None = None) -> Subscriptions:
    subscriptions = Subscriptions(refusals or Refusals(), limit=LIMIT, per_message=PER_MESSAGE)
    subscriptions.wanted = wanted
    return subscriptions


NAMES = [f"s{number:02}" for number in range(LIMIT)]
names = st.sets(st.sampled_from(NAMES))
few = st.sets(st.sampled_from(NAMES), max_size=REFUSED_IN_A_ROW - 1)


@given(good=st.sets(st.sampled_from(NAMES), min_size=1), refused=few)
def test_the_refused_are_found_and_the_rest_is_carried(good: set[str], refused: set[str]) -> None:
    good -= refused
    exchange = Exchange(refused)
    subscriptions = subscriptions_of(good | refused)
    if not good:
        if refused:
            with pytest.raises(ExchangeError, match="refuses every stream"):
                exchange.settle(subscriptions, 0.0)
        return
    left_out = exchange.settle(subscriptions, 0.0)
    assert exchange.carried == subscriptions.subscribed == good
    assert left_out == dict.fromkeys(refused, "no")
    assert subscriptions.refusals.reasons(100) == left_out
    halvings = math.ceil(math.log2(PER_MESSAGE))
    assert exchange.messages <= len(NAMES) // PER_MESSAGE + 2 * halvings * len(refused) + len(refused)


@given(changes=st.lists(st.tuples(names, st.integers(0, 20)), max_size=6), refused=few, good=st.just("good"))
def test_what_is_wanted_changes_at_any_moment(
    changes: list[tuple[set[str], int]], refused: set[str], good: str
) -> None:
    exchange = Exchange(refused)
    subscriptions = subscriptions_of({good})
    exchange.settle(subscriptions, 0.0)
    wanted: set[str] = {good}
    for others, steps in changes:
        wanted = {good} | set(sorted(others)[: LIMIT - 1])
        subscriptions.wanted = wanted
        subscriptions.refusals.keep(wanted)
        for _ in range(steps):
            if (request := subscriptions.next_request(0.0)) is not None:
                exchange.answer(subscriptions, request, 0.0)
    exchange.settle(subscriptions, 0.0)
    assert exchange.carried == subscriptions.subscribed == wanted - refused
    assert set(subscriptions.refusals.reasons(100)) == wanted & refused


def test_a_refused_stream_is_tried_again_ever_more_rarely_and_by_the_next_connection_too() -> None:
    exchange = Exchange({"b"})
    subscriptions = subscriptions_of({"a", "b"})
    exchange.settle(subscriptions, 0.0)
    now, delay = 0.0, RETRY_FIRST
    for _ in range(10):
        assert subscriptions.refusals.first_due() == (now + delay, "b")
        assert subscriptions.next_request(now + delay - 1) is None
        now += delay
        assert subscriptions.next_request(now) == Request("SUBSCRIBE", ["b"])
        assert exchange.settle(subscriptions, now) == {}  # no news
        delay = min(delay * 2, RETRY_CAP)
    refusals = subscriptions.refusals
    following = subscriptions_of({"a", "b"}, refusals)
    exchange.carried = set()
    assert following.next_request(now) == Request("SUBSCRIBE", ["a"])
    exchange.settle(following, now)
    exchange.refused = set()
    request = following.next_request(now + delay)
    assert request == Request("SUBSCRIBE", ["b"])
    assert following.accepted(request, now + delay) == (["b"], {})
    assert len(refusals) == 0
    assert following.subscribed == {"a", "b"}


def test_an_exchange_that_refuses_everything_is_not_asked_for_each_stream() -> None:
    exchange = Exchange(set(NAMES))
    with pytest.raises(ExchangeError, match="refuses every stream: no"):
        exchange.settle(subscriptions_of(set(NAMES)), 0.0)
    # With one stream carried it is no fault of the connection; what was not tried is left out as well.
    exchange = Exchange(set(NAMES))
    subscriptions = subscriptions_of({"good"})
    exchange.settle(subscriptions, 0.0)
    subscriptions.wanted = {"good", *NAMES}
    left_out = exchange.settle(subscriptions, 0.0)
    assert set(left_out) == set(NAMES)
    assert exchange.messages < 2 * LIMIT


def test_one_goes_before_another_comes_where_there_is_no_room() -> None:
    exchange = Exchange(set())
    subscriptions = subscriptions_of(set(NAMES))
    exchange.settle(subscriptions, 0.0)
    subscriptions.wanted = {"new", *NAMES[1:]}
    assert subscriptions.next_request(0.0) == Request("UNSUBSCRIBE", [NAMES[0]])
    assert exchange.settle(subscriptions, 0.0) == {}
    assert exchange.carried == subscriptions.wanted


def test_a_refused_unsubscribe_ends_the_connection() -> None:
    subscriptions = subscriptions_of({"a"})
    Exchange(set()).settle(subscriptions, 0.0)
    subscriptions.wanted = set()
    request = subscriptions.next_request(0.0)
    assert request == Request("UNSUBSCRIBE", ["a"])
    with pytest.raises(ExchangeError, match="refused an UNSUBSCRIBE: no"):
        subscriptions.refused(request, "no", 0.0)
