"""Failed logins, counted by user and by address, in the catalog's database: `accounts.py` calls this within its
transactions."""

from __future__ import annotations

import hashlib
import ipaddress

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from tradeback.store.schema import metadata

# Failed logins: so many are free, then each wait is twice the one before. An address may be that of many people.
FREE_FAILURES_OF_USER = 3
FREE_FAILURES_OF_ADDRESS = 20
LONGEST_LOGIN_WAIT_S = 300.0
FAILURES_KEPT_S = 3600
MAX_FAILURE_ROWS = 10_000

# `subject` is a SHA-256: people type their password where the name belongs.
login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("failed_at", BigInteger, nullable=False),
)


def has_failed(connection: Connection, username: str, address: str) -> bool:
    """Whether there is anything to forgive the user."""
    (user, _), _ = _subjects(username, address)
    own = select(login_failures.c.failures).where(login_failures.c.subject == user)
    return connection.execute(own).first() is not None


def forgive(connection: Connection, username: str, address: str) -> None:
    """Forgive the user's failures, and as many of the address: not those with other names from there, which
    someone with an account could otherwise wipe out."""
    (user, _), (place, _) = _subjects(username, address)
    own = select(login_failures.c.failures).where(login_failures.c.subject == user)
    forgiven = connection.execute(own).scalar() or 0
    connection.execute(delete(login_failures).where(login_failures.c.subject == user))
    at_place = login_failures.c.subject == place
    connection.execute(
        update(login_failures).where(at_place).values(failures=login_failures.c.failures - forgiven)
    )
    connection.execute(delete(login_failures).where(at_place, login_failures.c.failures <= 0))


def _subjects(username: str, address: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """What failures are counted under, and how many are free: the user, whether there is one or not, and the
    address."""
    user = hashlib.sha256(b"user\0" + username.lower().encode("utf-8", "surrogatepass")).hexdigest()
    place = hashlib.sha256(b"address\0" + _network(address).encode("utf-8", "surrogatepass")).hexdigest()
    return (user, FREE_FAILURES_OF_USER), (place, FREE_FAILURES_OF_ADDRESS)


def _network(address: str) -> str:
    """The address, of IPv6 its /64: that is what one person has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))


def _found(connection: Connection, subject: str, now: float) -> tuple[int, float]:
    """How often it failed, and when last; none where that is long ago."""
    found = select(login_failures.c.failures, login_failures.c.failed_at).where(
        login_failures.c.subject == subject
    )
    row = connection.execute(found).first()
    if row is None or row.failed_at + FAILURES_KEPT_S <= now:
        return 0, 0.0
    return row.failures, row.failed_at


def wait(connection: Connection, username: str, address: str, now: float) -> float:
    waits = [0.0]
    for subject, free in _subjects(username, address):
        failures, failed_at = _found(connection, subject, now)
        if failures >= free:
            wait = min(2.0 ** min(failures - free, 30), LONGEST_LOGIN_WAIT_S)
            # A clock that was set back makes nobody wait for longer.
            waits.append(min(failed_at + wait - now, wait))
    return max(waits)


def count(connection: Connection, username: str, address: str, now: float) -> None:
    for subject, _ in _subjects(username, address):
        failures, _ = _found(connection, subject, now)
        connection.execute(delete(login_failures).where(login_failures.c.subject == subject))
        row = {"subject": subject, "failures": failures + 1, "failed_at": int(now)}
        connection.execute(insert(login_failures).values(row))
    _bound(connection, now)


def _bound(connection: Connection, now: float) -> None:
    """Drop what is forgotten, then the fewest failures first: a flood of names made up pushes out itself alone."""
    count = select(func.count()).select_from(login_failures)
    if connection.execute(count).scalar_one() <= MAX_FAILURE_ROWS:
        return
    connection.execute(delete(login_failures).where(login_failures.c.failed_at <= int(now) - FAILURES_KEPT_S))
    excess = connection.execute(count).scalar_one() - MAX_FAILURE_ROWS
    if excess > 0:
        order = (login_failures.c.failures, login_failures.c.failed_at)
        least = (
            connection.execute(select(login_failures.c.subject).order_by(*order).limit(excess))
            .scalars()
            .all()
        )
        connection.execute(delete(login_failures).where(login_failures.c.subject.in_(least)))
