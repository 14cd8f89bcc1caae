"""Sessions against a plain model: whoever is told what, each client stands as the model says."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tradeback.errors import ProtocolError
from tradeback.model import Account
from tradeback.server import sessions as module
from tradeback.server.sessions import Access, Credential, Sessions, Standing

TOKENS = [hashlib.sha256(bytes([n])).digest() for n in range(8)]
# The end that is written in a token is what it is; one of them comes early.
ENDS = {token: 30 if n % 3 == 0 else 1000 for n, token in enumerate(TOKENS)}
USERS = st.integers(1, 3)
PATTERNS = st.sampled_from([("*",), ("B*",), ("B*", "?A")])
LISTS = st.sampled_from([(), ("BA",), ("BA", "CA")])


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """A user's tokens are that user's alone: 1 has the first ones, 2 the next ones."""
    user = draw(USERS)
    own = TOKENS[(user - 1) * 3 : user * 3]
    held = draw(st.dictionaries(st.sampled_from(own), st.integers(1, 100)))
    return Account(user, draw(PATTERNS), draw(LISTS), held)


class SessionsMachine(RuleBasedStateMachine):
    """The model: accounts by user as they were told last, tokens that ended, clients with what they were told."""

    @initialize()
    def begin(self) -> None:
        self.sessions: Sessions[int] = Sessions()
        self.now = 0
        self.complete = False
        self.told: dict[int, Account] = {}
        self.ended: set[bytes] = set()
        self.clients: dict[int, Credential] = {}
        self.waiting: dict[int, int] = {}
        self.next_client = 0
        self.stood: dict[int, object] = {}

    def open_sessions(self) -> dict[bytes, tuple[int, Account]]:
        return {
            token: (end, account)
            for account in self.told.values()
            for token, end in account.sessions.items()
            if token not in self.ended
        }

    def expected(self, client: int) -> object:
        token, end = self.clients[client]
        found = self.open_sessions().get(token)
        if end <= self.now or (found is not None and found[0] <= self.now):
            return Standing.ENDED
        if found is not None:
            return found[1].symbol_patterns, found[1].watchlist
        return Standing.UNKNOWN if client in self.waiting else Standing.ENDED

    def standing(self, client: int) -> object:
        found = self.sessions.standing(self.clients[client], self.now, client)
        return (found._patterns, found.watchlist) if isinstance(found, Access) else found

    def take(self, account: Account) -> None:
        before = self.told.pop(account.user_id, None)
        for token in before.sessions if before is not None else ():
            if token not in account.sessions:
                self.ended.add(token)
        self.ended -= account.sessions.keys()
        if account.sessions:
            self.told[account.user_id] = account
        for client, (token, _) in self.clients.items():
            if token in account.sessions:
                self.waiting.pop(client, None)

    def updated(self) -> None:
        for client in self.waiting:
            self.waiting[client] += 1
        done = {
            self.clients[client].token_hash
            for client, updates in self.waiting.items()
            if updates >= module.ENOUGH_UPDATES
        }
        self.ended |= done
        self.waiting = {
            client: updates
            for client, updates in self.waiting.items()
            if self.clients[client].token_hash not in done
        }

    def settle(self, touched: list[int]) -> None:
        """Whoever stands otherwise now was named, unless the clock alone did it, which `expire` tells."""
        for client in self.clients:
            stands = self.standing(client)
            if stands == self.stood[client] or client in touched:
                self.stood[client] = stands
            else:
                token, end = self.clients[client]
                ends = [end, self.open_sessions()[token][0]] if token in self.open_sessions() else [end]
                assert stands is Standing.ENDED
                assert min(ends) <= self.now

    @precondition(lambda self: self.complete)
    @rule(
        changed=st.lists(accounts(), max_size=3, unique_by=lambda account: account.user_id),
        more=st.booleans(),
    )
    def change(self, changed: list[Account], more: bool) -> None:
        for account in changed:
            self.take(account)
        if not more:
            self.updated()
        self.settle(self.sessions.change(changed, more))

    @precondition(lambda self: not self.complete)
    @rule()
    def change_too_early(self) -> None:
        """A server that was started anew is told what changed, by one who does not know that yet."""
        with pytest.raises(ProtocolError, match="not all sessions were told yet"):
            self.sessions.change([Account(1, ("*",), (), {TOKENS[0]: 1000})])

    @rule(
        everything=st.lists(accounts(), max_size=3, unique_by=lambda account: account.user_id),
        cuts=st.lists(st.integers(0, 3), max_size=3),
    )
    def snapshot(self, everything: list[Account], cuts: list[int]) -> None:
        bounds = [0, *sorted(min(cut, len(everything)) for cut in cuts), len(everything)]
        parts = [everything[a:b] for a, b in pairwise(bounds)]
        touched: list[int] = []
        for number, part in enumerate(parts, 1):
            touched += self.sessions.part(part, number, len(parts))
        for account in everything:
            self.take(account)
        for user in self.told.keys() - {account.user_id for account in everything}:
            self.take(Account(user, (), (), {}))
        self.updated()
        self.complete = True
        self.settle(touched)

    @rule(everything=st.lists(accounts(), min_size=2, max_size=3, unique_by=lambda account: account.user_id))
    def broken_snapshot(self, everything: list[Account]) -> None:
        """The connection ends in the middle; what was told is true all the same, and nothing is ended by it."""
        touched = self.sessions.part(everything[:1], 1, 3)
        self.take(everything[0])
        with pytest.raises(ProtocolError, match="part 3 of the sessions came and 2 was due"):
            self.sessions.part(everything[1:], 3, 3)
        self.settle(touched)

    @rule(token=st.sampled_from(TOKENS))
    def join(self, token: bytes) -> None:
        client, credential = self.next_client, Credential(token, ENDS[token])
        known = self.sessions.standing(credential, self.now)
        if known is Standing.ENDED:
            return  # refused before it is a client
        self.next_client += 1
        self.sessions.join(client, credential)
        self.clients[client] = credential
        if token not in self.open_sessions():
            self.waiting[client] = 0
        self.stood[client] = self.standing(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(sorted(self.clients)))
        self.sessions.leave(client, self.clients.pop(client))
        self.waiting.pop(client, None)
        del self.stood[client]

    @rule(seconds=st.integers(0, 20))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        due = self.sessions.next_expiry()
        touched = self.sessions.expire(self.now)
        assert touched == [] or (due is not None and due <= self.now)
        for token, (end, _) in self.open_sessions().items():
            has_clients = any(credential.token_hash == token for credential in self.clients.values())
            if end <= self.now or (has_clients and ENDS[token] <= self.now):
                self.ended.add(token)
        for client in touched:
            assert self.standing(client) is Standing.ENDED
        for client in self.clients:
            stands = self.standing(client)
            if stands != self.stood[client]:
                assert client in touched or client in self.waiting
            self.stood[client] = stands

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "sessions"):
            return
        for client in self.clients:
            assert self.standing(client) == self.expected(client)
        assert len(self.sessions) == len(self.open_sessions())
        assert self.sessions.waiting == len(self.waiting)
        users = {account.user_id for _, account in self.open_sessions().values()}
        assert self.sessions.users == len(users)

    def teardown(self) -> None:
        for client, credential in self.clients.items():
            self.sessions.leave(client, credential)
        assert not self.sessions._joined
        assert not self.sessions._waiting


TestSessions = SessionsMachine.TestCase
TestSessions.settings = examples(max_examples=150, stateful_step_count=30, deadline=None)


def test_who_comes_and_goes_without_end_fills_no_heap() -> None:
    """A token may end before its session does: each connection notes that end."""
    sessions: Sessions[int] = Sessions()
    sessions.part([Account(1, ("*",), (), {TOKENS[0]: 1000})], 1, 1)
    credential = Credential(TOKENS[0], 30)
    for client in range(10_000):
        sessions.join(client, credential)
        sessions.leave(client, credential)
    assert len(sessions._expiries) <= 2 * module.HEAP_SLACK
    sessions.join(1, credential)
    assert sessions.next_expiry() == 30
    assert sessions.expire(30) == [1]
