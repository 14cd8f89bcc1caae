"""Sessions: who is logged in, as the recorder tells it, and which clients belong to which login.

Pure logic on the loop's thread, without a clock of its own: `now` is in unix seconds. A token is known here by its
SHA-256 alone. What a method returns are the clients that something changed for: ask `standing` of each.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from tradeback.errors import ProtocolError
from tradeback.model import Account, symbol_allowed

ENDED_KEPT = 4096  # tokens of sessions that ended, which need not wait to be refused
ENOUGH_UPDATES = (
    2  # the first may have been read before the client came; what the next one lacks is not there
)
HEAP_SLACK = 64


class Credential(NamedTuple):
    """A token that we signed. `expires_at` is the end that is written in it."""

    token_hash: bytes
    expires_at: int


class Standing(Enum):
    """What is known of a credential that does not let in, or not yet."""

    UNKNOWN = "unknown"  # of a login just now, perhaps: the next updates tell
    ENDED = "ended"


class Access:
    """What the logins of a user may do: `allows` symbols, and has a watchlist. Another object once that changes."""

    __slots__ = ("_known", "_patterns", "watchlist")

    def __init__(self, patterns: tuple[str, ...], watchlist: tuple[str, ...]) -> None:
        self._patterns = patterns
        self._known: dict[str, bool] | None = None if "*" in patterns else {}
        self.watchlist = watchlist

    def allows(self, symbol: str) -> bool:
        """`symbol_allowed`, remembered: asked for symbols of the catalog alone, so that their number is the bound."""
        if self._known is None:
            return True
        allowed = self._known.get(symbol)
        if allowed is None:
            allowed = self._known[symbol] = symbol_allowed(self._patterns, symbol)
        return allowed

    def is_that_of(self, account: Account) -> bool:
        return self._patterns == account.symbol_patterns and self.watchlist == account.watchlist


C = TypeVar("C", bound=Hashable)


@dataclass(slots=True)
class _Session:
    user_id: int
    expires_at: int


@dataclass(slots=True)
class _User:
    access: Access
    sessions: set[bytes]


@dataclass(slots=True)
class _Joined(Generic[C]):
    """The clients that are connected with a token, and the end that is written in it."""

    expires_at: int
    clients: dict[C, None]


class Sessions(Generic[C]):
    """Takes accounts from the recorder: all of them in parts on each connection, then those that change."""

    def __init__(self) -> None:
        self._users: dict[int, _User] = {}
        self._sessions: dict[bytes, _Session] = {}
        self._joined: dict[bytes, _Joined[C]] = {}
        self._waiting: dict[
            C, tuple[bytes, int]
        ] = {}  # the token, and the updates that there were when it came
        self._ended: dict[bytes, None] = {}  # the oldest first
        self._expiries: list[tuple[int, bytes]] = []  # a heap; what is no longer so is passed over
        self._staged: set[int] = set()  # users that came in parts so far
        self._next_part = 1
        self._complete = False  # whether all were told once
        self._updates = 0

    def __len__(self) -> int:
        """How many sessions are known."""
        return len(self._sessions)

    @property
    def users(self) -> int:
        """How many users have one."""
        return len(self._users)

    @property
    def waiting(self) -> int:
        """How many clients wait for what is known of their credential."""
        return len(self._waiting)

    @property
    def updates(self) -> int:
        """How often the recorder has told all that it had to tell."""
        return self._updates

    # ---------------------------------------------------------------- what the recorder tells

    def change(self, accounts: Iterable[Account], more: bool = False) -> list[C]:
        """These users' accounts are so now, and that is all that changed, unless there is `more` to come.

        ProtocolError where not all were told first.
        """
        if not self._complete:
            raise ProtocolError("bad_part", "not all sessions were told yet: begin with part 1 of them")
        touched = self._take(accounts)
        return touched if more else touched + self._updated()

    def part(self, accounts: Iterable[Account], part: int, parts: int) -> list[C]:
        """Part 1 to `parts` of all accounts that have sessions: what is not in them has ended.

        ProtocolError where a part is missing before it.
        """
        if part == 1:
            self._staged = set()
        elif part != self._next_part:
            expected, self._next_part = self._next_part, 1
            raise ProtocolError(
                "bad_part", f"part {part} of the sessions came and {expected} was due: begin with part 1"
            )
        taken = list(accounts)
        self._staged.update(account.user_id for account in taken)
        touched = self._take(taken)
        if part < parts:
            self._next_part = part + 1
            return touched
        self._next_part = 1
        gone = self._users.keys() - self._staged
        touched += self._take(Account(user_id, (), (), {}) for user_id in gone)
        self._staged = set()
        self._complete = True
        return touched + self._updated()

    def expire(self, now: float) -> list[C]:
        """End what has expired; the clients that were logged in with it."""
        touched: list[C] = []
        while self._expiries and self._expiries[0][0] <= now:
            _, token = heappop(self._expiries)
            if token in self._sessions and min(self._ends(token)) <= now:
                touched += self._end(token)
        return touched

    def next_expiry(self) -> int | None:
        """When `expire` may have something to do."""
        return self._expiries[0][0] if self._expiries else None

    # ---------------------------------------------------------------- clients

    def join(self, client: C, credential: Credential) -> None:
        """A client is connected with this credential."""
        token, expires_at = credential
        self._joined.setdefault(token, _Joined(expires_at, {})).clients[client] = None
        if token not in self._sessions:
            self._waiting[client] = (token, self._updates)
        elif expires_at < self._sessions[token].expires_at:
            heappush(self._expiries, (expires_at, token))
            self._trim()

    def leave(self, client: C, credential: Credential) -> None:
        """It is no longer."""
        self._waiting.pop(client, None)
        joined = self._joined[credential.token_hash]
        del joined.clients[client]
        if not joined.clients:
            del self._joined[credential.token_hash]

    def standing(self, credential: Credential, now: float, client: C | None = None) -> Access | Standing:
        """What a credential is worth now; of a `client` that joined with it, UNKNOWN only as long as it waits."""
        token, expires_at = credential
        session = self._sessions.get(token)
        if expires_at <= now or (session is not None and session.expires_at <= now):
            return Standing.ENDED
        if session is not None:
            return self._users[session.user_id].access
        if token in self._ended or (client is not None and client not in self._waiting):
            return Standing.ENDED
        return Standing.UNKNOWN

    # ----------------------------------------------------------------

    def _take(self, accounts: Iterable[Account]) -> list[C]:
        touched: list[C] = []
        for account in accounts:
            touched += self._replace(account)
        self._trim()
        return touched

    def _trim(self) -> None:
        """Leave out of the heap what is no longer so, where that is most of it."""
        if len(self._expiries) > 2 * (len(self._sessions) + len(self._joined)) + HEAP_SLACK:
            self._expiries = [(end, token) for token in self._sessions for end in self._ends(token)]
            heapify(self._expiries)

    def _replace(self, account: Account) -> list[C]:
        touched: list[C] = []
        user = self._users.get(account.user_id)
        if user is None:
            if not account.sessions:
                return touched
            user = self._users[account.user_id] = _User(
                Access(account.symbol_patterns, account.watchlist), set()
            )
        for token in user.sessions - account.sessions.keys():
            touched += self._end(token)
        if not account.sessions:
            return touched
        if not user.access.is_that_of(account):
            user.access = Access(account.symbol_patterns, account.watchlist)
            for token in user.sessions:
                touched += self._clients_of(token)
        self._users[account.user_id] = user  # `_end` of the last session forgot the user
        for token, expires_at in account.sessions.items():
            session = self._sessions.get(token)
            if session is not None and session.user_id == account.user_id:
                if session.expires_at == expires_at:
                    continue
                session.expires_at = expires_at
            else:
                if session is not None:
                    touched += self._end(token)
                self._sessions[token] = _Session(account.user_id, expires_at)
                self._ended.pop(token, None)
                user.sessions.add(token)
                for client in self._clients_of(token):
                    self._waiting.pop(client, None)
                    touched.append(client)
            for end in self._ends(token):
                heappush(self._expiries, (end, token))
        return touched

    def _end(self, token: bytes) -> list[C]:
        """Forget a session, and its user with the last one."""
        session = self._sessions.pop(token)
        user = self._users[session.user_id]
        user.sessions.discard(token)
        if not user.sessions:
            del self._users[session.user_id]
        self._note_ended(token)
        return self._clients_of(token)

    def _updated(self) -> list[C]:
        """All was told once more: who has waited for long enough waits for nothing."""
        self._updates += 1
        done = {token for token, since in self._waiting.values() if self._updates - since >= ENOUGH_UPDATES}
        touched = [client for token in done for client in self._clients_of(token)]
        for client in touched:
            self._waiting.pop(client, None)
        for token in done:
            self._note_ended(token)
        return touched

    def _note_ended(self, token: bytes) -> None:
        self._ended[token] = None
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    def _ends(self, token: bytes) -> tuple[int, ...]:
        """When a session ends: it and its token have an end each."""
        joined = self._joined.get(token)
        ends = (self._sessions[token].expires_at,)
        return ends if joined is None else (*ends, joined.expires_at)

    def _clients_of(self, token: bytes) -> list[C]:
        joined = self._joined.get(token)
        return [] if joined is None else list(joined.clients)
