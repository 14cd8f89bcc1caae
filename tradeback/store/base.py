"""The interfaces of the stores. Each has an embedded backend that needs no service, and one contract suite
(`tests/store`) that every backend passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tradeback.model import (
    EVERY_SYMBOL,
    Account,
    Bar,
    EnigmaLevel,
    Gap,
    Price,
    Range,
    Session,
    Symbol,
    SymbolInfo,
    Tick,
    User,
)
from tradeback.store.bus_layout import BusLevel, BusPrice, BusTrade


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Names of the symbols that a sync touched, each in one of the three."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deactivated: tuple[str, ...]


class Catalog(Protocol):
    """The symbols and their stream ids. Every method may block on I/O: none is for the event server's loop.

    Errors: DataFolderError where the catalog is locked, full, read-only, foreign or torn.
    """

    def sync_symbols(self, infos: Iterable[SymbolInfo]) -> SyncResult:
        """Take over the exchange's list; safe when several processes do it at once.

        A symbol that is new gets the next stream id, 1 to 65535, which it keeps for ever and which no other
        symbol gets, not even after it was deleted. One that is no longer listed becomes inactive. Where ids
        run out, all else is saved and SymbolLimitError names the symbols that got none. An empty list is an
        ExchangeError, and changes nothing.
        """
        ...

    def symbols(self, *, active_only: bool = False) -> list[Symbol]:
        """All symbols in the order of their stream ids."""
        ...

    def symbol(self, name: str) -> Symbol | None:
        """One symbol by its exact name, active or not."""
        ...

    def close(self) -> None:
        """Close the connections; the catalog cannot be used afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class HistoryBatch:
    """What one transaction of the history takes over: all of it, or none.

    `minutes` are 1m bars by stream id, each the whole bar as it is now. `covered` are the id ranges
    (stream id, first, last) that stand for what is stored, where they changed, and `dissolved` the ranges
    (stream id, first) that were joined into others. `places` are the journals' next sequence numbers: what lies
    below them is stored. `gaps` are new or changed ones; `filled` (stream id, first id) are no gaps any more.
    `extremes` (stream id, high, low) are prices beyond those of the ticks and minutes.
    """

    ticks: Sequence[Tick] = ()
    minutes: Sequence[tuple[int, Bar]] = ()
    covered: Sequence[tuple[int, int, int]] = ()
    dissolved: Sequence[tuple[int, int]] = ()
    gaps: Sequence[Gap] = ()
    filled: Sequence[tuple[int, int]] = ()
    places: Mapping[str, int] = field(default_factory=dict)
    extremes: Sequence[tuple[int, float, float]] = ()


@dataclass(frozen=True, slots=True)
class BackfillJob:
    """Bars of one symbol and resolution to be fetched: those that open from `start` to before `end`, unix ns.

    Those before `done_to` are stored. `error` says why it stopped, empty while it goes on or is done.
    """

    stream_id: int
    resolution: str
    start: int
    end: int
    done_to: int
    error: str = ""

    @property
    def done(self) -> bool:
        return self.done_to >= self.end


class OpenGaps(NamedTuple):
    """Gaps of one symbol and reason that may still be filled: how many, and the ids in them."""

    stream_id: int
    reason: int
    gaps: int
    ids: int


class History(Protocol):
    """Ticks, bars, gaps and Enigma levels, by stream id. Times are unix ns, ranges are `start` <= t < `end`.

    One writer, any number of readers in other processes. All writes are idempotent by key, so that what is
    written twice is there once. A bar is written over only by one of as many trades or more: each trade that is
    known makes a bar more whole, and the exchange's own bar of a closed interval is the whole one.
    Every method may block on I/O; an object may be used from several threads.

    Errors: DataFolderError or HistoryError where the store is full, locked, torn, read-only, away or refuses. Its
    places are not stored then, nor is anything that is told by them, and the same call may be made again.
    """

    def write(self, batch: HistoryBatch) -> None:
        """Take over a batch; coarser bars of closed intervals follow from its minutes."""
        ...

    def write_bars(self, stream_id: int, resolution: str, bars: Sequence[Bar]) -> int:
        """Take over the exchange's own bars of closed intervals, coarser ones following from minutes.

        Returns how many changed what was stored.
        """
        ...

    def check(self) -> None:
        """Return where it can be read. Cheap."""
        ...

    @property
    def refused(self) -> int:
        """How many ticks, bars and levels the store would not take, while it took all others, since it was opened."""
        ...

    def places(self) -> dict[str, int]:
        """The next sequence number of each journal, as the last batch told it."""
        ...

    def covered(self, stream_id: int | None = None) -> dict[int, list[Range]]:
        """The id ranges that are stored, by stream id, rising; of one symbol, where one is given."""
        ...

    def ticks(self, stream_id: int, start: int, end: int, limit: int | None = None) -> Iterator[Tick]:
        """Ticks by rising (time, id), read in pages so that a long range takes little memory."""
        ...

    def beside(
        self, stream_id: int, first: int, last: int, near: Iterable[int]
    ) -> tuple[Tick | None, Tick | None]:
        """The tick before the missing ids first..last and the one after them; None where there is none. `near` is
        when they may have been traded, unix ns, the likeliest time first: no more than a help, for it may be wrong.
        """
        ...

    def newest_tick(self, stream_id: int) -> int:
        """The time of a symbol's newest tick, unix ns; 0 where there is none."""
        ...

    def bars(
        self, stream_id: int, resolution: str, start: int, end: int, limit: int | None = None
    ) -> list[Bar]:
        """Bars by rising time, the one in progress included; with a limit the newest ones."""
        ...

    def gaps(
        self,
        stream_id: int | None = None,
        *,
        open_only: bool = False,
        first_id: int = 0,
        limit: int | None = None,
    ) -> list[Gap]:
        """Gaps by rising id; `open_only` leaves out those that cannot be filled. At most `limit`, those from
        `first_id` on."""
        ...

    def open_gaps(self) -> list[OpenGaps]:
        """How many gaps are open, by stream id and reason. Cheap, however many there are."""
        ...

    def extremes(self, stream_id: int) -> tuple[float, float] | None:
        """The highest and the lowest price of all bars and ticks that were ever stored, those that retention
        deleted included; None where there was none."""
        ...

    def write_enigma(self, levels: Sequence[EnigmaLevel]) -> None:
        """Store levels by stream id and time."""
        ...

    def enigma(self, stream_id: int) -> EnigmaLevel | None:
        """The newest level of a symbol."""
        ...

    def jobs(self) -> list[BackfillJob]:
        """Every backfill that was asked for, done or not, by stream id, resolution and start."""
        ...

    def write_job(self, job: BackfillJob) -> None:
        """Store a job and how far it is, by stream id, resolution and start."""
        ...

    def retain(self, now_ns: int) -> dict[str, int]:
        """Delete what is older than the configured ages; rows deleted, by what they were (`ticks`, `enigma`, a
        resolution). In small steps, so that writes and reads go on meanwhile."""
        ...

    def close(self) -> None:
        """Close the connections; the history cannot be used afterwards."""
        ...


class Accounts(Protocol):
    """Users, sessions, watchlists and failed logins. Times are unix seconds; a `now` of None is the clock's.

    Safe from several threads and processes. Every method may block on I/O: none is for the event server's loop.
    Only hashes of passwords and tokens are kept. User names are lower case, whatever case is asked for.

    Errors: AccountError where what is asked for cannot be or there is no such user; DataFolderError as the catalog's.
    """

    def add_user(
        self,
        username: str,
        password_hash: str,
        patterns: Sequence[str] = EVERY_SYMBOL,
        *,
        now: float | None = None,
    ) -> User:
        """A new user, active."""
        ...

    def users(self) -> list[User]:
        """All users in the order in which they were added."""
        ...

    def user(self, username: str) -> tuple[User, str] | None:
        """A user, active or not, and the hash of the password."""
        ...

    def user_by_id(self, user_id: int) -> User | None:
        """A user, active or not."""
        ...

    def set_password(self, user_id: int, password_hash: str) -> int:
        """Change it and end the user's sessions; returns how many."""
        ...

    def set_active(self, user_id: int, active: bool) -> int:
        """Enable a user, or disable them and end their sessions; returns how many."""
        ...

    def set_patterns(self, user_id: int, patterns: Sequence[str]) -> None:
        """Which symbols the user may watch, see `symbol_allowed`; at least one pattern."""
        ...

    def add_session(self, session: Session) -> None:
        """A login. AccountError where the user was disabled meanwhile. A user has at most 100: the oldest goes."""
        ...

    def session(self, token_hash: bytes, *, now: float | None = None) -> Session | None:
        """None where there is none, or it has ended or expired."""
        ...

    def active_sessions(self, *, now: float | None = None) -> list[Session]:
        """All that have neither ended nor expired, in the order of the logins."""
        ...

    def renew(self, token_hash: bytes, expires_at: int, *, now: float | None = None) -> bool:
        """The session was used, and goes on until `expires_at`. False where there is none any more."""
        ...

    def end_session(self, token_hash: bytes) -> bool:
        """Log out. False where there was nothing to end."""
        ...

    def end_sessions(self, user_id: int) -> int:
        """Log out everywhere; returns how many sessions ended."""
        ...

    def expire(self, now: float | None = None) -> int:
        """Delete what has expired; returns how many sessions that were."""
        ...

    def watchlist(self, user_id: int) -> list[str]:
        """The user's symbols in the order in which they are shown."""
        ...

    def watch(self, user_id: int, symbol: str) -> list[str]:
        """Add a symbol at the end; returns the list. Twice is no error. WatchlistFullError at 100."""
        ...

    def unwatch(self, user_id: int, symbol: str) -> list[str]:
        """Take a symbol off; returns the list. Twice is no error."""
        ...

    def set_watchlist(self, user_id: int, symbols: Sequence[str]) -> list[str]:
        """Replace the list, in this order; returns it. A symbol twice counts once."""
        ...

    def watched(self) -> set[str]:
        """The symbols of all watchlists of active users."""
        ...

    def login_wait(self, username: str, address: str, now: float) -> float:
        """Seconds until someone may try to log in again, 0.0: now. The same whether or not there is such a user."""
        ...

    def login_attempt(self, username: str, address: str, now: float) -> float:
        """What `login_wait` says; where that is now, the attempt counts as failed until `login_succeeded` forgives
        it. In one step, so that many guesses at once wait like many in a row: ask it before each password is
        looked at."""
        ...

    def login_failed(self, username: str, address: str, now: float) -> None:
        """Count a failure: waits grow per user and per address."""
        ...

    def login_succeeded(self, username: str, address: str) -> None:
        """Forgive the user's failures."""
        ...

    def version(self) -> int:
        """A number that rises with every change of users, sessions or watchlists, by whatever process. Cheap: it is
        made to be asked many times a second."""
        ...

    def changed_accounts(self, since: int, *, now: float | None = None) -> tuple[int, list[Account]]:
        """A version, and the accounts of the users that changed after the version `since` (-1: of all users), as
        they were at that version or later. Sessions that merely expired are no change."""
        ...

    def counts(self) -> dict[str, int]:
        """What is counted of telling other machines of changes: as `Announcements.counts`, empty where none is told."""
        ...

    def close(self) -> None:
        """Close the connections; the accounts cannot be used afterwards."""


class Prices(Protocol):
    """The current prices. An object may be used from several threads.

    Errors: StoreError where the prices cannot be read; StaleRowError where one symbol's cannot.
    """

    def price(self, symbol: Symbol, now_ns: int) -> Price | None:
        """The current price; None where the symbol was never traded or is not carried."""
        ...

    def prices(self, symbols: Sequence[Symbol], now_ns: int) -> list[Price]:
        """The prices of those symbols that have one that can be read."""
        ...

    def close(self) -> None:
        """Let go of what is mapped or connected; no price is to be asked for afterwards."""
        ...


class Bus(Protocol):
    """Where trades, prices and Enigma levels are published, by symbol: for whoever listens at that moment.

    A method may wait until the bus has room again. What was published is sure to be with the bus only once `flush`
    has returned. For one thread at a time.

    Errors: BusError where the bus cannot be reached, refuses or does not answer; what was not flushed must be
    published again, by the next call, which connects anew.
    """

    def publish_trades(self, symbol: str, stream_id: int, trades: Sequence[BusTrade]) -> None:
        """Publish trades in their order, in as many messages as it takes."""
        ...

    def publish_price(self, symbol: str, stream_id: int, price: BusPrice) -> None:
        """Publish the latest price."""
        ...

    def publish_enigma(self, symbol: str, stream_id: int, level: BusLevel) -> None:
        """Publish the latest Enigma level."""
        ...

    def flush(self) -> None:
        """Return once the bus has taken all that was published."""
        ...

    def close(self) -> None:
        """Close the connection without a flush; the bus cannot be used afterwards."""
        ...


class CachedBars(NamedTuple):
    """Closed bars by rising time: all that open from `start` to before `end`, unix ns."""

    start: int
    end: int
    bars: list[Bar]


class KeptBars(NamedTuple):
    """Bars out of a cache, None where none are kept that hold; and the version under which such may be kept that are
    read from the history from now on, None where none may."""

    bars: CachedBars | None
    version: str | None


class Update(NamedTuple):
    """One price update of the stream. `place` orders updates; those after it are read by giving it."""

    place: str
    symbol: str
    price: Price


class Login(NamedTuple):
    """A session as other programs find it: whose, when it ends (unix seconds), and what its user watches."""

    user_id: int
    expires_at: int
    symbols: frozenset[str]


class Cache(Protocol):
    """What is true now, by symbol, for readers that may be on other machines. Nothing is here alone: whatever is
    lost is written again from table and stores.

    A method makes one round trip for each thousand symbols at most, and waits no longer than the configured time for
    each. An object may be used from several threads.

    Errors: CacheError where the cache cannot be reached, does not answer in time, refuses or is full; a part may have
    been written then, and the same call may be made again.
    """

    def write_prices(self, prices: Mapping[str, Price], *, announce: bool = True) -> None:
        """Write current prices, which expire by themselves. `announce`: they also go to the stream of updates.

        Of the times a cache keeps `ts_event` alone, in ms."""
        ...

    def price(self, symbol: str) -> Price | None:
        """The price of one symbol as `prices` gives it; None where none is there."""
        ...

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The prices that are there, of these symbols, as they were written: `Price.at` brings one up to the day."""
        ...

    def vouch_for_prices(self) -> None:
        """Say that every price that there is was written, for as long as a price is kept."""
        ...

    def prices_vouched(self) -> bool:
        """Whether that was said and holds: what has no price in the cache has none at all."""
        ...

    def updates(self, after: str = "0", limit: int = 1000) -> list[Update]:
        """Updates after a place, by rising place, as far as the stream still has them; empty where none came."""
        ...

    def write_enigma(self, levels: Mapping[str, Mapping[str, Any]]) -> None:
        """Write Enigma levels, as they are told outside: `data` of the message in docs/protocol.md."""
        ...

    def enigma(self, symbol: str) -> dict[str, Any] | None:
        """The level as it was written; None where none was."""
        ...

    def bars(self, symbol: str, resolution: str) -> KeptBars:
        """The bars that were kept last, where they have not expired, somebody vouches for them, and none of the symbol
        was said to change since."""
        ...

    def write_bars(self, symbol: str, resolution: str, bars: CachedBars, version: str) -> None:
        """Keep the answer to a question for bars for a while, in the place of one that was kept before. `version` is
        what `bars` told before the history was asked."""
        ...

    def clock_ms(self) -> int:
        """The cache's own clock, unix ms."""
        ...

    def vouch_for_bars(self, epoch: str, until_ms: int, *, begin: bool) -> bool:
        """Vouch for the bars of an epoch until that time of the cache's clock; `begin`: it is new, bars of others hold
        no longer. False where it is not new, and the cache does not know of it any more."""
        ...

    def bars_change(self, symbols: Sequence[str], epoch: str) -> None:
        """Stored bars of these symbols are about to change: from here on none is kept or served."""
        ...

    def bars_changed(self, symbols: Sequence[str], epoch: str) -> None:
        """They have: bars may be kept again."""
        ...

    def write_logins(self, logins: Mapping[bytes, Login], lasts: float, now: float) -> None:
        """Tell of sessions, by the SHA-256 of their tokens, for `lasts` seconds from `now` (unix seconds), but not
        longer than each lasts. A session and its watchlist change in one step. A trip takes at most a hundred."""
        ...

    def login(self, token_hash: bytes) -> Login | None:
        """A session that was told of and neither dropped nor expired. What the accounts say of it holds, not this: a
        logout may be on its way here."""
        ...

    def drop_logins(self, token_hashes: Iterable[bytes]) -> None:
        """These sessions have ended. Also where the cache is full."""
        ...

    def close(self) -> None:
        """Close the connections; the cache cannot be used afterwards."""
        ...


class Elsewhere(Protocol):
    """Server and recorder of another machine, asked over the bus. From any thread.

    Errors: BusError where the bus is away, or nobody answers in time.
    """

    def health(self) -> dict[str, Any]:
        """How they are, as docs/bus.md tells it."""
        ...

    def close(self) -> None:
        """Close the connection; nothing can be asked afterwards."""
        ...


class Announcements(Protocol):
    """Tells programs on other machines that accounts changed, so that they look at once instead of at their next poll.

    An announcement says nothing else, and nothing that comes with it is believed: who may forge one makes somebody look
    in vain. One that is lost costs the wait for the poll; several at once may become one. From any thread.
    """

    def announce(self) -> None:
        """Something has changed, and is committed. Returns at once, whatever becomes of it: it is told in the
        background, again after it failed."""
        ...

    def listen(self, wake: Callable[[], None]) -> None:
        """From now on call `wake` in a thread of ours at each announcement, and when some may have been missed. It must
        return at once."""
        ...

    def counts(self) -> dict[str, int]:
        """How many were told or heard (`announcements`), and how often that failed (`announcement_errors`)."""
        ...

    def state(self) -> dict[str, Any]:
        """For the status: whether it listens at the moment, and what is in the way."""
        ...

    def close(self) -> None:
        """Tell what is still to be told, for a few seconds at most; nothing is told or heard afterwards."""
        ...
