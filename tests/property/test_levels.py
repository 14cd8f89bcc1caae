"""The Enigma level against an oracle in fractions, and the rule by which levels are published."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import enigma
from tests.reference.enigma import Traded
from tradeback._fast.record import FLAGS
from tradeback.model import EnigmaLevel
from tradeback.recorder.levels import Levels, Seed, enigma_level

INTERVAL = 1_000_000_000
NOTHING = Seed(None, None)

# As exchanges print them: eight decimals, from the smallest coin to the largest price.
prices = st.one_of(
    st.integers(1, 10**15).map(lambda units: Decimal(units).scaleb(-8)),
    st.integers(9_650_000, 9_650_100).map(lambda units: Decimal(units).scaleb(-2)),
)
trades = st.builds(Traded, prices, st.integers(1, 2**62), st.booleans())
seeds = st.one_of(st.none(), st.tuples(prices, prices).map(lambda pair: (max(pair), min(pair))))


def seed_of(stored: tuple[Decimal, Decimal] | None) -> Seed:
    return Seed(None if stored is None else (float(stored[0]), float(stored[1])), None)


def take(levels: Levels, trade: Traded, now_ns: int = 0, stream_id: int = 1) -> None:
    flags = FLAGS["repair"] if trade.late else FLAGS["buyer_maker"]
    assert levels.trade(stream_id, float(trade.price), trade.ts_event, flags, now_ns)


@given(prices, prices, prices)
def test_the_level_is_the_exact_one_and_stays_between_0_and_100(
    price: Decimal, one: Decimal, other: Decimal
) -> None:
    ath, atl = max(one, other), min(one, other)
    found = enigma_level(float(price), float(ath), float(atl))
    assert found == enigma.level(price, ath, atl)
    assert (found is None) == (ath == atl)
    if found is not None:
        assert 0.0 <= found <= 100.0


@given(prices, prices)
def test_fibonacci_levels_lie_between_both_and_end_at_them(one: Decimal, other: Decimal) -> None:
    ath, atl = max(one, other), min(one, other)
    found = EnigmaLevel(1, 0, float(atl), None, float(ath), float(atl)).fib_levels
    assert found == enigma.fibonacci(ath, atl)
    assert list(found) == ["0", "23.6", "38.2", "50", "61.8", "78.6", "100"]
    assert found["0"] == float(atl)
    assert found["100"] == float(ath)
    assert sorted(found.values()) == list(found.values())


@given(seeds, st.lists(trades, min_size=1, max_size=30))
def test_levels_after_trades_in_any_order(
    stored: tuple[Decimal, Decimal] | None, history: list[Traded]
) -> None:
    levels = Levels(lambda _: seed_of(stored))
    before: EnigmaLevel | None = None
    for count, trade in enumerate(history, 1):
        take(levels, trade, count * INTERVAL)
        due = levels.due(count * INTERVAL)
        expected = enigma.after(history[:count], stored)
        for level in due:
            assert level == EnigmaLevel(
                1, expected.ts_event, expected.price, expected.level, expected.ath, expected.atl
            )
            # The highest only rises, the lowest only falls.
            assert before is None or (level.ath >= before.ath and level.atl <= before.atl)
            assert level.level is None or 0.0 <= level.level <= 100.0
            before = level
        levels.told(due, count * INTERVAL)
        assert before is not None
        assert (before.price, before.ath, before.atl) == (expected.price, expected.ath, expected.atl)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("trade"), st.integers(1, 3), st.integers(1, 5)),
            st.tuples(st.just("wait"), st.integers(0, 0), st.integers(0, 1_500)),
            st.tuples(st.just("publish"), st.integers(0, 1), st.just(0)),
            st.tuples(st.just("widen"), st.integers(1, 3), st.integers(1, 9)),
        ),
        max_size=60,
    )
)
def test_at_most_once_a_second_and_the_last_change_always(steps: list[tuple[str, int, int]]) -> None:
    levels = Levels(lambda _: NOTHING)
    now = 0
    published: dict[int, list[tuple[int, EnigmaLevel]]] = defaultdict(list)
    last: dict[int, list[float]] = {}

    def publish(works: bool) -> None:
        due = levels.due(now)
        if works:
            for level in due:
                published[level.stream_id].append((now, level))
            levels.told(due, now)

    for step, number, amount in steps:
        if step == "trade":
            take(levels, Traded(Decimal(amount), now + 1, False), now, number)
            state = last.setdefault(number, [0.0, -math.inf, math.inf])
            last[number] = [float(amount), max(state[1], amount), min(state[2], amount)]
        elif step == "wait":
            now += amount * 1_000_000
        elif step == "widen" and number in last:
            levels.widen(number, (float(amount), float(amount)), now)
            last[number] = [last[number][0], max(last[number][1], amount), min(last[number][2], amount)]
        elif step == "publish":
            publish(works=number == 1)

    while (moment := levels.next_due()) is not None or levels.changed():
        now = max(now, moment or 0)
        publish(works=True)
    assert {
        stream_id: list(told[-1][1][2:3] + told[-1][1][4:]) for stream_id, told in published.items()
    } == last
    for told in published.values():
        for (before, one), (after, other) in pairwise(told):
            assert after - before >= INTERVAL
            assert (one.price, one.ath, one.atl) != (other.price, other.ath, other.atl)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_price_changes_nothing(price: float) -> None:
    levels = Levels(lambda _: NOTHING)
    assert not levels.trade(1, price, 1, 0, 0)
    assert len(levels) == 0
    assert levels.trade(1, 5.0, 1, 0, 0)
    assert not levels.trade(1, price, 2, 0, 0)
    assert levels.due(0) == [EnigmaLevel(1, 1, 5.0, None, 5.0, 5.0)]


def test_what_was_published_before_a_restart_is_not_published_again() -> None:
    stored = EnigmaLevel(1, 1_000, 5.0, 50.0, 10.0, 0.1)
    levels = Levels(lambda _: Seed((10.0, 0.1), stored))
    take(levels, Traded(Decimal(5), 2_000, False))
    assert levels.due(0) == []
    assert levels.next_due() is None
    # A repair that is older than the price leaves it, but counts.
    take(levels, Traded(Decimal(11), 500, True))
    assert levels.due(0) == [EnigmaLevel(1, 2_000, 5.0, enigma_level(5.0, 11.0, 0.1), 11.0, 0.1)]


def test_everything_is_due_at_the_end() -> None:
    levels = Levels(lambda _: NOTHING)
    take(levels, Traded(Decimal(5), 1, False))
    levels.told(levels.due(0), 0)
    take(levels, Traded(Decimal(6), 2, False), 10)
    assert levels.due(20) == []
    assert levels.changed() == {1}
    assert [level.price for level in levels.due(20, everything=True)] == [6.0]
