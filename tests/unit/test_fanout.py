from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic_ns, time_ns

import pytest

from tests.reference.batch import decode_stream, split_ws_frames
from tests.reference.market import FOREVER_NS, Market, Peer, flush_all
from tradeback._fast.fanout import FanOut, FrameSink
from tradeback._fast.stats import Stats
from tradeback.store.stats import read_stats

TRADE, AGG_TRADE = 1, 2


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    market = Market(tmp_path, 300)
    yield market
    market.close()


@pytest.fixture
def fanout(market: Market) -> FanOut:
    return FanOut(market.table)


def join(fanout: FanOut, market: Market, *indexes: int) -> Peer:
    peer = Peer(market)
    peer.handle = fanout.add(peer)
    for index in indexes:
        assert fanout.subscribe(peer.handle, market.slots[index])
    return peer


def test_a_trade_reaches_those_subscribed_and_nobody_else(market: Market, fanout: FanOut) -> None:
    one, other, none = join(fanout, market, 0, 1), join(fanout, market, 1), join(fanout, market)
    fanout.mark(market.trade(0, 1250, price=101.5))
    flush_all(fanout)
    assert one.records == [(1, 101.5, 1.25)]
    assert (other.writes, none.writes) == ([], [])
    assert not fanout.pending


def test_subscribing_brings_the_current_price_with_volume_0(market: Market, fanout: FanOut) -> None:
    market.trade(0, 7, price=3.0)
    peer = join(fanout, market, 0, 1)  # symbol 1 has no price yet
    assert fanout.pending
    flush_all(fanout)
    assert peer.records == [(1, 3.0, 0.0)]


def test_subscribing_twice_changes_nothing(market: Market, fanout: FanOut) -> None:
    market.trade(0, 7)
    peer = join(fanout, market, 0)
    flush_all(fanout)
    assert not fanout.subscribe(peer.handle, market.slots[0])
    flush_all(fanout)
    assert len(peer.records) == 1
    assert fanout.subscription_count(peer.handle) == 1


def test_trades_between_two_rounds_become_one_record_with_their_sum(market: Market, fanout: FanOut) -> None:
    peer = join(fanout, market, 0)
    for units in (1, 20, 300):
        fanout.mark(market.trade(0, units))
    flush_all(fanout)
    assert peer.records == [(1, 3.0, 0.321)]
    assert fanout.stats.value("conflated") == 2


def test_more_than_50_records_leave_in_several_frames_of_one_write(market: Market, fanout: FanOut) -> None:
    peer = join(fanout, market, *range(130))
    for index in range(130):
        fanout.mark(market.trade(index, index + 1))
    flush_all(fanout)
    assert len(peer.writes) == 1
    frames, _ = split_ws_frames(peer.writes[0])
    assert [(len(payload) - 6) // 18 for _, payload in frames] == [50, 50, 30]
    assert peer.sums == {market.stream_id(i): i + 1 for i in range(130)}
    assert fanout.stats.value("frames_sent") == 3
    assert fanout.stats.value("records_sent") == 130
    assert fanout.stats.value("bytes_sent") == len(peer.writes[0])


def test_what_does_not_fit_a_write_leaves_with_the_next(market: Market) -> None:
    fanout = FanOut(market.table, write_bytes=2000)
    peer = join(fanout, market, *range(130))
    for index in range(130):
        fanout.mark(market.trade(index, 1))
    assert fanout.flush(monotonic_ns(), 0) == 1
    assert len(peer.records) == 100
    assert fanout.flush(monotonic_ns(), 0) == 0
    assert len(peer.records) == 130


@pytest.mark.parametrize("write_bytes", [909, 65537])
def test_a_write_has_a_least_and_a_most(market: Market, write_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"write_bytes is {write_bytes}"):
        FanOut(market.table, write_bytes=write_bytes)


def test_without_budget_one_client_is_served_a_call_the_longest_waiting_first(
    market: Market, fanout: FanOut
) -> None:
    peers = [join(fanout, market, 0, i) for i in range(1, 5)]
    fanout.mark(market.trade(3, 1))  # peers[2] alone
    assert fanout.flush(monotonic_ns(), FOREVER_NS) == 0
    fanout.mark(market.trade(0, 1))
    waiting = [fanout.flush(monotonic_ns(), 0) for _ in range(4)]
    assert waiting == [3, 2, 1, 0]
    assert [len(peer.records) for peer in peers] == [1, 1, 2, 1]


def test_a_blocked_client_gets_the_latest_price_and_the_whole_volume_later(
    market: Market, fanout: FanOut
) -> None:
    slow, quick = join(fanout, market, 0), join(fanout, market, 0)
    fanout.set_blocked(slow.handle, 5)
    fanout.set_blocked(slow.handle, 6)
    assert fanout.blocked_ns(slow.handle) == 5
    for units in range(1, 100):
        fanout.mark(market.trade(0, units))
        flush_all(fanout)
    assert (len(slow.records), len(quick.records)) == (0, 99)
    assert fanout.set_unblocked(slow.handle)
    flush_all(fanout)
    assert slow.records == [(1, 99.0, 4.95)]
    assert fanout.blocked_ns(slow.handle) == 0
    assert not fanout.set_unblocked(slow.handle)


def test_draining_sends_even_to_a_blocked_client(market: Market, fanout: FanOut) -> None:
    peer = join(fanout, market, 0)
    fanout.set_blocked(peer.handle, 1)
    fanout.mark(market.trade(0, 5))
    fanout.drain(peer.handle)
    assert peer.sums == {1: 5}
    assert fanout.unsubscribe(peer.handle, market.slots[0])
    assert not fanout.unsubscribe(peer.handle, market.slots[0])
    fanout.mark(market.trade(0, 5))
    flush_all(fanout)
    assert peer.sums == {1: 5}


def test_an_unsubscription_leaves_what_is_pending_for_the_others(market: Market, fanout: FanOut) -> None:
    for index in range(200):
        market.trade(index, 1)
    peer = join(fanout, market, *range(200))
    for index in range(0, 200, 3):
        fanout.unsubscribe(peer.handle, market.slots[index])
    flush_all(fanout)
    assert sorted(peer.last) == [market.stream_id(i) for i in range(200) if i % 3]


@pytest.mark.parametrize("units", [1, 10**15 + 1, 2**53 - 1])
@pytest.mark.parametrize("precision", [0, 3, 8])
def test_volume_is_the_double_nearest_to_the_decimal(tmp_path: Path, units: int, precision: int) -> None:
    market = Market(tmp_path, 1, precision)
    fanout = FanOut(market.table)
    peer = join(fanout, market, 0)
    fanout.mark(market.trade(0, units))
    flush_all(fanout)
    assert peer.records[0][2] == float(f"{units}e-{precision}")
    market.close()


def test_a_volume_beyond_2_to_the_53_units_is_within_one_unit_in_the_last_place(tmp_path: Path) -> None:
    market = Market(tmp_path, 1, 8)
    fanout = FanOut(market.table)
    peer = join(fanout, market, 0)
    for _ in range(300):
        fanout.mark(market.trade(0, 2**53 - 1))
    flush_all(fanout)
    exact = 300 * (2**53 - 1) / 10**8
    assert peer.records[0][2] == pytest.approx(exact, rel=2**-52)
    market.close()


class Failing(FrameSink):
    def write_bytes(self, data: bytes) -> None:
        raise RuntimeError("cannot write")


def test_a_write_that_raises_ends_that_client_and_no_other(market: Market, fanout: FanOut) -> None:
    before = join(fanout, market, 0)
    sink = Failing()
    handle = fanout.add(sink)
    fanout.subscribe(handle, market.slots[0])
    after = join(fanout, market, 0)
    fanout.mark(market.trade(0, 1))
    assert fanout.flush(monotonic_ns(), FOREVER_NS) == 0
    fanout.mark(market.trade(0, 1))
    flush_all(fanout)
    assert (len(before.records), len(after.records)) == (2, 2)
    [(failed, its_sink, error)] = fanout.take_failed()
    assert (failed, its_sink, str(error)) == (handle, sink, "cannot write")
    assert fanout.take_failed() == []
    assert fanout.remove(handle) == []


class Leaving(Peer):
    """Removes itself and others, and brings many new ones, while it is written to."""

    def __init__(self, market: Market, fanout: FanOut) -> None:
        super().__init__(market)
        self.fanout = fanout
        self.takes_along: list[Peer] = []
        self.new: list[Peer] = []

    def write_bytes(self, data: bytes) -> None:
        super().write_bytes(data)
        self.fanout.remove(self.handle)
        for peer in self.takes_along:
            self.fanout.remove(peer.handle)
        self.new = [join(self.fanout, self.market, *range(200)) for _ in range(100)]


def test_clients_may_come_and_go_in_the_middle_of_a_flush(market: Market, fanout: FanOut) -> None:
    market.trade(0, 1)
    leaving = Leaving(market, fanout)
    leaving.handle = fanout.add(leaving)
    fanout.subscribe(leaving.handle, market.slots[0])
    gone, stays = join(fanout, market, 0), join(fanout, market, 0)
    leaving.takes_along = [gone]
    assert fanout.flush(monotonic_ns(), 0) >= 102
    flush_all(fanout)
    assert len(leaving.records) == len(stays.records) == 1
    assert gone.records == []
    assert all(len(peer.records) == 1 for peer in leaving.new)
    assert fanout.client_count == 101


def test_a_handle_is_not_given_again_while_its_place_waits_in_the_queue(
    market: Market, fanout: FanOut
) -> None:
    market.trade(0, 1)
    first = join(fanout, market, 0)
    assert fanout.remove(first.handle) == [market.slots[0]]
    second = join(fanout, market, 0)
    assert second.handle != first.handle
    flush_all(fanout)
    assert (len(first.records), len(second.records)) == (0, 1)
    assert join(fanout, market).handle == first.handle


@pytest.mark.parametrize(
    "call", ["remove", "drain", "slots_of", "set_unblocked", "blocked_ns", "subscription_count"]
)
def test_a_handle_that_is_none_is_refused(fanout: FanOut, call: str) -> None:
    with pytest.raises(ValueError, match="no client has the handle 7"):
        getattr(fanout, call)(7)


def test_a_slot_that_is_none_is_refused(market: Market, fanout: FanOut) -> None:
    peer = join(fanout, market)
    with pytest.raises(ValueError, match="slot 300 is not in the table"):
        fanout.subscribe(peer.handle, 300)
    fanout.mark(4_000_000_000)
    assert fanout.watcher_count(4_000_000_000) == 0
    assert not fanout.is_subscribed(peer.handle, 300)


def test_removing_answers_the_slots_that_nobody_watches_now(market: Market, fanout: FanOut) -> None:
    one, other = join(fanout, market, 0, 1, 2), join(fanout, market, 1)
    assert sorted(fanout.remove(one.handle)) == [market.slots[0], market.slots[2]]
    assert fanout.remove(other.handle) == [market.slots[1]]


def test_latency_is_observed_for_trades_and_not_for_snapshots(market: Market, fanout: FanOut) -> None:
    market.trade(0, 1)
    join(fanout, market, 0)
    flush_all(fanout)
    assert fanout.stats.histogram_count("recv_to_send") == 0
    fanout.mark(market.trade(0, 1))
    flush_all(fanout)
    assert fanout.stats.histogram_count("recv_to_send") == 1
    assert fanout.stats.histogram_count("event_to_send") == 1


def test_the_age_counts_from_the_exchanges_sending_not_from_the_trade(market: Market, tmp_path: Path) -> None:
    stats = Stats.create(tmp_path / "stats", "server")
    fanout = FanOut(market.table, stats)
    join(fanout, market, 0)
    traded, sent = (
        time_ns() - 10**18,
        time_ns() - 10**12,
    )  # 1000 s ago; what the machine takes beside is nothing

    def observed() -> tuple[int, int]:
        histogram = read_stats(tmp_path / "stats").histograms["event_to_send"]
        return histogram.count, histogram.sum_ns // 10**12

    take = partial(market.table.take, ts_event=traded, ts_sent=sent, recv_ns=time_ns())
    take(TRADE, market.symbols[0], 1, 1, now_ns=10**9)
    fanout.mark(market.slots[0])
    flush_all(fanout)
    assert observed() == (1, 1)
    take(AGG_TRADE, market.symbols[0], 2, 3, now_ns=10**9)  # held, for the trade line is alive
    assert market.table.expired(2 * 10**9)
    fanout.mark(market.slots[0])
    flush_all(fanout)
    assert observed() == (2, 2)
    take(TRADE, market.symbols[0], 4, 4, now_ns=3 * 10**9, ts_sent=0)  # out of the journal: nobody knows
    fanout.mark(market.slots[0])
    flush_all(fanout)
    assert observed() == (2, 2)
    stats.close()


def test_bytes_are_those_of_the_reference(market: Market, fanout: FanOut) -> None:
    peer = join(fanout, market, *range(60))
    for index in range(60):
        fanout.mark(market.trade(index, 5))
    flush_all(fanout)
    assert decode_stream(b"".join(peer.writes)) == [(market.stream_id(i), 1.0, 0.005) for i in range(60)]
