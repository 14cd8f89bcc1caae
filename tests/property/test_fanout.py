"""Random lives of clients: the volumes that each was sent add up to what was traded, whatever the order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import monotonic_ns

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.reference.market import Market, Peer, flush_all
from tradeback._fast.fanout import FanOut

SYMBOLS = 140  # more than the pending bits that a client holds in itself
symbols = st.one_of(st.integers(0, 5), st.integers(0, SYMBOLS - 1))


class ModelPeer(Peer):
    """A peer, and what it must have been sent: per stream id, the units traded while it was subscribed."""

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        self.handle = -1
        self.subscribed: dict[int, int] = {}  # symbol index -> units traded when it subscribed
        self.due: dict[int, int] = {}  # stream id -> units of subscriptions that ended
        self.blocked = False
        self.block_after = -1

    def write_bytes(self, data: bytes) -> None:
        super().write_bytes(data)
        if self.block_after == 0:
            self.fanout.set_blocked(self.handle, monotonic_ns())
            self.blocked = True
        self.block_after -= 1

    fanout: FanOut


class Lives(RuleBasedStateMachine):
    clients: Bundle[ModelPeer] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.market = Market(Path(self.folder.name), SYMBOLS)
        self.fanout = FanOut(self.market.table, write_bytes=910)  # one frame a write
        self.peers: list[ModelPeer] = []

    def teardown(self) -> None:
        for peer in self.peers:
            peer.blocked = False
            peer.block_after = -1
            self.fanout.set_unblocked(peer.handle)
        flush_all(self.fanout)
        for peer in self.peers:
            for index, start in peer.subscribed.items():
                stream_id = self.market.stream_id(index)
                traded = self.market.traded[index] - start
                peer.due[stream_id] = peer.due.get(stream_id, 0) + traded
                if self.market.price[index]:
                    assert peer.last[stream_id] == self.market.price[index]
            assert {i: units for i, units in peer.sums.items() if units} == {
                i: u for i, u in peer.due.items() if u
            }
            self.fanout.remove(peer.handle)
        assert self.fanout.client_count == 0
        assert self.fanout.take_failed() == []
        assert all(self.fanout.watcher_count(slot) == 0 for slot in self.market.slots)
        del self.fanout
        self.market.close()
        self.folder.cleanup()

    @rule(target=clients)
    def connect(self) -> ModelPeer:
        peer = ModelPeer(self.market)
        peer.fanout = self.fanout
        peer.handle = self.fanout.add(peer)
        self.peers.append(peer)
        return peer

    @rule(peer=clients, first=symbols, count=st.sampled_from([1, 1, 1, 60, 140]))
    def subscribe(self, peer: ModelPeer, first: int, count: int) -> None:
        for index in range(first, min(first + count, SYMBOLS)):
            fresh = self.fanout.subscribe(peer.handle, self.market.slots[index])
            assert fresh == (index not in peer.subscribed)
            peer.subscribed.setdefault(index, self.market.traded[index])

    @rule(peer=clients, first=symbols, count=st.sampled_from([1, 1, 30, 140]))
    def unsubscribe(self, peer: ModelPeer, first: int, count: int) -> None:
        self.fanout.drain(peer.handle)
        for index in range(first, min(first + count, SYMBOLS)):
            ended = self.fanout.unsubscribe(peer.handle, self.market.slots[index])
            assert ended == (index in peer.subscribed)
            if ended:
                stream_id = self.market.stream_id(index)
                traded = self.market.traded[index] - peer.subscribed.pop(index)
                peer.due[stream_id] = peer.due.get(stream_id, 0) + traded

    @rule(index=symbols, units=st.integers(1, 10**9))
    def trade(self, index: int, units: int) -> None:
        self.fanout.mark(self.market.trade(index, units))

    @rule(first=symbols, units=st.integers(1, 5))
    def trade_many(self, first: int, units: int) -> None:
        for index in range(first, SYMBOLS):
            self.fanout.mark(self.market.trade(index, units))

    @rule(peer=clients)
    def block(self, peer: ModelPeer) -> None:
        self.fanout.set_blocked(peer.handle, monotonic_ns())
        peer.blocked = True

    @rule(peer=clients, writes=st.integers(0, 3))
    def block_while_written_to(self, peer: ModelPeer, writes: int) -> None:
        peer.block_after = writes

    @rule(peer=clients)
    def unblock(self, peer: ModelPeer) -> None:
        self.fanout.set_unblocked(peer.handle)
        peer.blocked = False

    @rule()
    def flush_one(self) -> None:
        self.fanout.flush(monotonic_ns(), 0)

    @rule()
    def flush(self) -> None:
        flush_all(self.fanout)

    @rule(peer=consumes(clients))
    def disconnect(self, peer: ModelPeer) -> None:
        self.peers.remove(peer)
        self.fanout.remove(peer.handle)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "fanout"):
            assert self.fanout.client_count == len(self.peers)
            for peer in self.peers:
                expected = sorted(self.market.slots[i] for i in peer.subscribed)
                assert sorted(self.fanout.slots_of(peer.handle)) == expected
                assert (self.fanout.blocked_ns(peer.handle) != 0) == peer.blocked
            assert self.fanout.stats.value("clients_blocked") == sum(peer.blocked for peer in self.peers)


Lives.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestLives = Lives.TestCase
