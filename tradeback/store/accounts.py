"""Users, sessions, watchlists and failed logins, in the catalog's database (`catalog.py` opens it).

Every change begins with a write to `accounts_mark`: from there to its end a transaction is the only one that changes
accounts, and the number there tells others that something did. A change of a user's rights, sessions or watchlist ends
with that number noted at the user, so that others find what changed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    and_,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)

from tradeback.config import Config
from tradeback.errors import AccountError, WatchlistFullError
from tradeback.model import EVERY_SYMBOL, Account, Session, User
from tradeback.store import login_failures as failures
from tradeback.store.announcements import open_announcements
from tradeback.store.base import Announcements
from tradeback.store.catalog import open_catalog
from tradeback.store.database import Database, again_where_undone
from tradeback.store.mysql import LAST_MOMENT
from tradeback.store.schema import metadata

MAX_WATCHED = 100
MAX_SESSIONS = 100  # of a user, ended ones that have not expired included
MAX_USERNAME = 64
MAX_PATTERNS = 100
MAX_SYMBOL_BYTES = 50
MAX_USER_AGENT = 1024  # characters that are kept of it
MAX_ADDRESS = 45


class Moment(TypeDecorator[int]):
    """A TIMESTAMP in UTC; in Python unix seconds."""

    impl = TIMESTAMP
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        # Within what MySQL can keep, in every database alike: a session ends then at the latest.
        return datetime.fromtimestamp(max(1, min(value, LAST_MOMENT)), UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value.replace(tzinfo=UTC).timestamp())


users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(MAX_USERNAME), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("symbol_patterns", Text, nullable=False),
    Column("created_at", Moment),
    Column("version", BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,
)

# `session_id` is that of the specification. A user's list is under `user:ID`, so that each login finds it.
market_watch = Table(
    "market_watch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("session_id", String(255), nullable=False),
    Column("user_id", Integer, index=True),
    Column("symbol", String(MAX_SYMBOL_BYTES), nullable=False),
    Column("display_order", Integer),
    Column("created_at", Moment),
    UniqueConstraint("session_id", "symbol", name="unique_session_symbol"),
)

# `session_token` is the token's SHA-256 in hexadecimal digits, never the token.
user_sessions = Table(
    "user_sessions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("session_token", String(255), nullable=False, unique=True),
    Column("user_id", String(255), index=True),
    Column("ip_address", String(MAX_ADDRESS)),
    Column("user_agent", Text),
    Column("is_active", Boolean),
    Column("last_activity", Moment),
    Column("created_at", Moment),
    Column("expires_at", Moment, index=True),
)

accounts_mark = Table(
    "accounts_mark",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

_USER = (users.c.id, users.c.username, users.c.is_active, users.c.symbol_patterns, users.c.created_at)
_SESSION = (
    user_sessions.c.session_token,
    user_sessions.c.user_id,
    user_sessions.c.ip_address,
    user_sessions.c.user_agent,
    user_sessions.c.created_at,
    user_sessions.c.expires_at,
    user_sessions.c.last_activity,
)


class SqlAccounts:
    """The `Accounts` in one SQL database. `open_accounts` makes it. Changes that others are to find are announced, once
    they are committed, where `announcements` are given; they are closed with it."""

    def __init__(self, database: Database, announcements: Announcements | None = None) -> None:
        self.database = database
        self._announcements = announcements
        self.engine = database.engine

    @again_where_undone
    def add_user(
        self,
        username: str,
        password_hash: str,
        patterns: Sequence[str] = EVERY_SYMBOL,
        *,
        now: float | None = None,
    ) -> User:
        name, allowed = _new_username(username), _new_patterns(patterns)
        created = _seconds(now)
        with self._change() as connection:
            if connection.execute(select(users.c.id).where(users.c.username == name)).first():
                raise AccountError(f"There is a user {name} already: choose another name")
            values = {
                "username": name,
                "password_hash": password_hash,
                "is_active": True,
                "symbol_patterns": ",".join(allowed),
                "created_at": created,
                "version": 0,
            }
            key = connection.execute(insert(users).values(values)).inserted_primary_key
            if key is None:
                raise AccountError(
                    f"The database {self.database.place} gave the user {name} no id: it cannot be used"
                )
        return User(int(key[0]), name, True, allowed, created)

    def users(self) -> list[User]:
        with self.database.read() as connection:
            return [_user(row) for row in connection.execute(select(*_USER).order_by(users.c.id))]

    def user(self, username: str) -> tuple[User, str] | None:
        found = select(*_USER, users.c.password_hash).where(users.c.username == username.lower())
        with self.database.read() as connection:
            row = connection.execute(found).first()
        # MySQL takes a name with a space behind it for the same.
        return None if row is None or row.username != username.lower() else (_user(row[:-1]), row[-1])

    def user_by_id(self, user_id: int) -> User | None:
        with self.database.read() as connection:
            row = connection.execute(select(*_USER).where(users.c.id == user_id)).first()
        return None if row is None else _user(row)

    def set_password(self, user_id: int, password_hash: str) -> int:
        return self._set(user_id, {"password_hash": password_hash}, ends_sessions=True)

    def set_active(self, user_id: int, active: bool) -> int:
        return self._set(user_id, {"is_active": active}, ends_sessions=not active)

    def set_patterns(self, user_id: int, patterns: Sequence[str]) -> None:
        self._set(user_id, {"symbol_patterns": ",".join(_new_patterns(patterns))}, ends_sessions=False)

    @again_where_undone
    def add_session(self, session: Session) -> None:
        with self._change() as connection:
            active = select(users.c.id).where(users.c.id == session.user_id, users.c.is_active.is_(True))
            if connection.execute(active).first() is None:
                raise AccountError(
                    f"The user {session.user_id} is not there or is disabled: nobody logs in as them"
                )
            values = {
                "session_token": session.token_hash.hex(),
                "user_id": str(session.user_id),
                "ip_address": session.ip_address[:MAX_ADDRESS],
                "user_agent": session.user_agent[:MAX_USER_AGENT],
                "is_active": True,
                "created_at": session.created_at,
                "expires_at": session.expires_at,
                "last_activity": session.last_activity,
            }
            of_user = user_sessions.c.user_id == str(session.user_id)
            keep = (user_sessions.c.is_active.desc(), user_sessions.c.id.desc())
            kept = select(user_sessions.c.id).where(of_user).order_by(*keep).limit(MAX_SESSIONS - 1)
            ids = connection.execute(kept).scalars().all()
            connection.execute(delete(user_sessions).where(of_user, user_sessions.c.id.not_in(ids)))
            connection.execute(insert(user_sessions).values(values))
            _note(connection, users.c.id == session.user_id)

    def session(self, token_hash: bytes, *, now: float | None = None) -> Session | None:
        with self.database.read() as connection:
            row = connection.execute(
                _active(_seconds(now)).where(user_sessions.c.session_token == token_hash.hex())
            ).first()
        return None if row is None else _session(row)

    def active_sessions(self, *, now: float | None = None) -> list[Session]:
        with self.database.read() as connection:
            return [
                _session(row)
                for row in connection.execute(_active(_seconds(now)).order_by(user_sessions.c.id))
            ]

    @again_where_undone
    def renew(self, token_hash: bytes, expires_at: int, *, now: float | None = None) -> bool:
        seconds = _seconds(now)
        statement = (
            update(user_sessions)
            .where(
                user_sessions.c.session_token == token_hash.hex(),
                user_sessions.c.is_active.is_(True),
                user_sessions.c.expires_at > seconds,
            )
            .values(expires_at=expires_at, last_activity=seconds)
        )
        with self._change() as connection:
            renewed = connection.execute(statement).rowcount > 0
            _note(connection, _owner(token_hash))
            return renewed

    @again_where_undone
    def end_session(self, token_hash: bytes) -> bool:
        with self._change() as connection:
            ended = _end(connection, user_sessions.c.session_token == token_hash.hex()) > 0
            _note(connection, _owner(token_hash))
            return ended

    @again_where_undone
    def end_sessions(self, user_id: int) -> int:
        with self._change() as connection:
            _note(connection, users.c.id == user_id)
            return _end(connection, user_sessions.c.user_id == str(user_id))

    @again_where_undone
    def expire(self, now: float | None = None) -> int:
        with self._change() as connection:
            done = connection.execute(
                delete(user_sessions).where(user_sessions.c.expires_at <= _seconds(now))
            )
            return done.rowcount

    def watchlist(self, user_id: int) -> list[str]:
        with self.database.read() as connection:
            return _watchlist(connection, user_id)

    @again_where_undone
    def watch(self, user_id: int, symbol: str) -> list[str]:
        _check_symbol(symbol)
        with self._change() as connection:
            _check_user(connection, user_id)
            listed = _watchlist(connection, user_id)
            if symbol in listed:
                return listed
            if len(listed) >= MAX_WATCHED:
                raise _full(symbol)
            last = func.coalesce(func.max(market_watch.c.display_order), -1)
            order = connection.execute(select(last).where(market_watch.c.user_id == user_id)).scalar_one() + 1
            connection.execute(
                insert(market_watch).values(_watched_row(user_id, symbol, order, _seconds(None)))
            )
            _note(connection, users.c.id == user_id)
            return [*listed, symbol]

    @again_where_undone
    def unwatch(self, user_id: int, symbol: str) -> list[str]:
        with self._change() as connection:
            if symbol in _watchlist(connection, user_id):  # to MySQL a space behind it makes no difference
                listed = and_(market_watch.c.user_id == user_id, market_watch.c.symbol == symbol)
                connection.execute(delete(market_watch).where(listed))
            _note(connection, users.c.id == user_id)
            return _watchlist(connection, user_id)

    @again_where_undone
    def set_watchlist(self, user_id: int, symbols: Sequence[str]) -> list[str]:
        listed = list(dict.fromkeys(symbols))
        for symbol in listed:
            _check_symbol(symbol)
        if len(listed) > MAX_WATCHED:
            raise _full(listed[MAX_WATCHED])
        with self._change() as connection:
            _check_user(connection, user_id)
            connection.execute(delete(market_watch).where(market_watch.c.user_id == user_id))
            now = _seconds(None)
            rows = [_watched_row(user_id, symbol, order, now) for order, symbol in enumerate(listed)]
            if rows:
                connection.execute(insert(market_watch), rows)
            _note(connection, users.c.id == user_id)
        return listed

    def watched(self) -> set[str]:
        statement = (
            select(market_watch.c.symbol)
            .join(users, users.c.id == market_watch.c.user_id)
            .where(users.c.is_active.is_(True))
            .distinct()
        )
        with self.database.read() as connection:
            return set(connection.execute(statement).scalars())

    def login_wait(self, username: str, address: str, now: float) -> float:
        with self.database.read() as connection:
            return failures.wait(connection, username, address, now)

    @again_where_undone
    def login_attempt(self, username: str, address: str, now: float) -> float:
        with self._change(seen=False) as connection:
            wait = failures.wait(connection, username, address, now)
            if wait <= 0:
                failures.count(connection, username, address, now)
            return wait

    @again_where_undone
    def login_failed(self, username: str, address: str, now: float) -> None:
        with self._change(seen=False) as connection:
            failures.count(connection, username, address, now)

    @again_where_undone
    def login_succeeded(self, username: str, address: str) -> None:
        with self.database.read() as connection:
            if not failures.has_failed(connection, username, address):
                return
        with self._change(seen=False) as connection:
            failures.forgive(connection, username, address)

    def version(self) -> int:
        # By the driver itself: SQLAlchemy's statements take ten times as long, and this is asked all the time.
        with self.database.plain_errors(), closing(self.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT version FROM accounts_mark")
            ((version,),) = cursor.fetchall()
            cursor.close()
        return int(version)

    def changed_accounts(self, since: int, *, now: float | None = None) -> tuple[int, list[Account]]:
        changed = users.c.version > since
        listed = (
            select(market_watch.c.user_id, market_watch.c.symbol)
            .join(users, users.c.id == market_watch.c.user_id)
            .where(changed, users.c.is_active.is_(True))
            .order_by(market_watch.c.display_order, market_watch.c.id)
        )
        opened = (
            select(
                cast(user_sessions.c.user_id, Integer),
                user_sessions.c.session_token,
                user_sessions.c.expires_at,
            )
            .join(users, users.c.id == cast(user_sessions.c.user_id, Integer))
            .where(changed, users.c.is_active.is_(True), _is_open(_seconds(now)))
        )
        found = select(users.c.id, users.c.symbol_patterns).where(changed).order_by(users.c.id)
        watchlists: defaultdict[int, list[str]] = defaultdict(list)
        sessions: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
        with self.database.read() as connection:
            # First: what changes while the rest is read is then found once more.
            version = int(connection.execute(select(accounts_mark.c.version)).scalar_one())
            rows = connection.execute(found).all()
            for user_id, symbol in connection.execute(listed):
                watchlists[user_id].append(symbol)
            for user_id, token, expires_at in connection.execute(opened):
                sessions[user_id][bytes.fromhex(token)] = expires_at
        return version, [
            Account(user_id, tuple(patterns.split(",")), tuple(watchlists[user_id]), sessions[user_id])
            for user_id, patterns in rows
        ]

    def counts(self) -> dict[str, int]:
        return {} if self._announcements is None else self._announcements.counts()

    def close(self) -> None:
        if self._announcements is not None:
            self._announcements.close()
        self.database.close()

    @contextmanager
    def _change(self, *, seen: bool = True) -> Iterator[Connection]:
        """A transaction that changes accounts; `seen`: what `version` tells of."""
        with self.database.change() as connection:
            connection.execute(update(accounts_mark).values(version=accounts_mark.c.version + int(seen)))
            yield connection
        if seen and self._announcements is not None:
            self._announcements.announce()

    @again_where_undone
    def _set(self, user_id: int, values: dict[str, Any], *, ends_sessions: bool) -> int:
        with self._change() as connection:
            _check_user(connection, user_id)
            connection.execute(update(users).where(users.c.id == user_id).values(values))
            _note(connection, users.c.id == user_id)
            return _end(connection, user_sessions.c.user_id == str(user_id)) if ends_sessions else 0


def open_accounts(config: Config, *, create: bool = True) -> SqlAccounts:
    """The accounts of the configured exchange, in its catalog: see `open_catalog`, whose errors are the same."""
    catalog = open_catalog(config, create=create)
    return SqlAccounts(catalog.database, open_announcements(config))


def _seconds(now: float | None) -> int:
    return int(time.time() if now is None else now)


def _user(row: Sequence[Any]) -> User:
    user_id, username, is_active, patterns, created_at = row
    return User(user_id, username, is_active, tuple(patterns.split(",")), created_at)


def _session(row: Sequence[Any]) -> Session:
    token, user_id, *rest = row
    return Session(bytes.fromhex(token), int(user_id), *rest)


def _is_open(now: int) -> ColumnElement[bool]:
    return and_(user_sessions.c.is_active.is_(True), user_sessions.c.expires_at > now)


def _active(now: int) -> Any:
    return select(*_SESSION).where(_is_open(now))


def _owner(token_hash: bytes) -> ColumnElement[bool]:
    """The user whose session it is, or was."""
    token = user_sessions.c.session_token == token_hash.hex()
    return users.c.id == select(cast(user_sessions.c.user_id, Integer)).where(token).scalar_subquery()


def _note(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Note the version of this change at these users."""
    version = select(accounts_mark.c.version).scalar_subquery()
    connection.execute(update(users).where(condition).values(version=version))


def _end(connection: Connection, condition: Any) -> int:
    ended = (
        update(user_sessions).where(condition, user_sessions.c.is_active.is_(True)).values(is_active=False)
    )
    return connection.execute(ended).rowcount


def _watchlist(connection: Connection, user_id: int) -> list[str]:
    listed = select(market_watch.c.symbol).where(market_watch.c.user_id == user_id)
    return list(
        connection.execute(listed.order_by(market_watch.c.display_order, market_watch.c.id)).scalars()
    )


def _watched_row(user_id: int, symbol: str, order: int, now: int) -> dict[str, Any]:
    return {
        "session_id": f"user:{user_id}",
        "user_id": user_id,
        "symbol": symbol,
        "display_order": order,
        "created_at": now,
    }


def _check_user(connection: Connection, user_id: int) -> None:
    if connection.execute(select(users.c.id).where(users.c.id == user_id)).first() is None:
        raise AccountError(f"There is no user {user_id}: `tradeback user list` names them")


def _full(symbol: str) -> WatchlistFullError:
    return WatchlistFullError(
        f"{symbol} is one too many: a watchlist has at most {MAX_WATCHED} symbols, take one off first"
    )


def _check_symbol(symbol: str) -> None:
    if (
        not symbol.isprintable()
        or symbol != symbol.strip()
        or not 0 < len(symbol.encode()) <= MAX_SYMBOL_BYTES
    ):
        raise AccountError(
            f"{symbol[:60]!r} is no name of a symbol: give 1 to {MAX_SYMBOL_BYTES} bytes of text, no space at its ends"
        )


def _new_username(username: str) -> str:
    # Lower case, for databases differ in whether they tell A from a.
    name = username.lower()
    known = name.isascii() and all(letter.isalnum() or letter in "._@+-" for letter in name)
    if not known or not 0 < len(name) <= MAX_USERNAME or name.startswith("-"):
        raise AccountError(
            f"{username[:80]!r} is no name for a user: take 1 to {MAX_USERNAME} letters, digits or . _ @ + -, "
            "the first of them no -"
        )
    return name


def _new_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    allowed = tuple(dict.fromkeys(pattern.upper() for pattern in patterns))
    for pattern in allowed:
        if (
            not pattern.isprintable()
            or set(pattern) & set(" ,[]")
            or not 0 < len(pattern.encode()) <= MAX_SYMBOL_BYTES
        ):
            raise AccountError(
                f"{pattern[:60]!r} is no pattern of symbols: take one such as BTCUSDT, *USDT or * (any text; ? is any "
                "one character)"
            )
    if not 0 < len(allowed) <= MAX_PATTERNS:
        raise AccountError(
            f"{len(allowed)} patterns were given: a user has 1 to {MAX_PATTERNS}, * allows every symbol"
        )
    return allowed
