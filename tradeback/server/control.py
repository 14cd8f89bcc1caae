"""What the control socket's messages do in the server (`tradeback/control.py` has the table of them).

Each runs on the server's loop, between feeds and clients: who sends keeps each line short.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from tradeback._fast.ingest import Ingest
from tradeback.control import Handler
from tradeback.errors import ProtocolError
from tradeback.model import Account, Symbol
from tradeback.server.carried import CarriedSymbols
from tradeback.server.feed import Feeds
from tradeback.server.hub import Hub
from tradeback.server.seeding import seed

HASH_BYTES = 32


class ControlHandlers:
    """`configured` are the symbols that are always carried."""

    def __init__(
        self,
        exchange: str,
        configured: Iterable[str],
        ingest: Ingest,
        feeds: Feeds,
        carried: CarriedSymbols,
        hub: Hub,
    ) -> None:
        self._exchange = exchange
        self._configured = frozenset(configured)
        self._ingest = ingest
        self._feeds = feeds
        self._carried = carried
        self._hub = hub
        self._started = time.monotonic()
        self._watched: set[str] = set()  # on watchlists, as the recorder said
        self._by_hand: set[str] = set()
        self._pins: set[str] = set()  # of the parts so far
        self._next_pins = 1

    def by_type(self) -> dict[str, Handler]:
        """Of each type of message what answers it."""
        return {
            "status": self._status,
            "pin": self._pin,
            "learn": self._learn,
            "seed": self._seed,
            "publish": self._publish,
            "sessions": self._sessions,
        }

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        hub = self._hub
        return {
            "type": "status",
            "exchange": self._exchange,
            "uptime": time.monotonic() - self._started,
            "feeds": [feed.describe() for feed in self._feeds],
            "symbols": {
                "known": len(self._carried.known),
                "carried": len(self._carried),
                "pinned": len(self._carried.pinned),
            },
            "clients": len(hub.clients),
            "sessions": {
                "known": len(hub.sessions),
                "users": hub.sessions.users,
                "updates": hub.sessions.updates,
                "clients": hub.authenticated,
                "waiting": hub.sessions.waiting,
            },
            "journal": {
                "next_seq": self._ingest.journal.next_seq,
                "unwritten_symbols": self._ingest.unwritten_symbols,
                # aggTrades that wait for their single trades, and skipped ids that may still come
                "waiting": self._ingest.table.deadline_ns != 0,
            },
        }

    def _pin(self, message: dict[str, Any]) -> dict[str, Any]:
        carried = self._carried
        if "symbols" not in message:
            add, drop = names(message, "pin", "add"), names(message, "pin", "drop")
            # Anybody may pin beside the recorder, which says `watched`: neither drops what the other wants.
            mine, others = (
                (self._watched, self._by_hand)
                if message.get("watched") is True
                else (self._by_hand, self._watched)
            )
            mine.update(add)
            mine.difference_update(drop)
            unknown = carried.pin_more(add)
            carried.unpin(set(drop) - self._configured - others)
            return {"type": "pinned", "unknown": unknown}
        symbols = names(message, "pin", "symbols")
        part, parts = place(message)
        if part == 1:
            self._pins = set()
        elif part != self._next_pins:
            raise ProtocolError("bad_part", f"part {part} of the pins came out of turn: begin with part 1")
        self._pins.update(symbols)
        unknown = carried.pin_more(symbols)
        self._next_pins = part + 1
        if part == parts:
            self._next_pins = 1
            self._watched, self._pins = self._pins, set()
            carried.unpin(carried.pinned - self._watched - self._by_hand - self._configured)
            carried.settle()
        return {"type": "pinned", "unknown": unknown}

    def _learn(self, message: dict[str, Any]) -> dict[str, Any]:
        rows = message.get("symbols")
        if not isinstance(rows, list):
            raise ProtocolError("bad_field", "learn takes symbols: a list of catalog rows")
        try:
            symbols = [Symbol.from_row(row) for row in rows]
            self._carried.learn(symbols)
        except (ValueError, ArithmeticError) as error:
            raise ProtocolError("bad_field", str(error)) from error
        self._hub.settling.settle_lacking()
        return {"type": "learned", "count": len(symbols)}

    def _seed(self, message: dict[str, Any]) -> dict[str, Any]:
        return seed(self._ingest.table, self._ingest, message)

    def _publish(self, message: dict[str, Any]) -> dict[str, Any]:
        messages = message.get("messages")
        if not isinstance(messages, list) or not all(
            isinstance(part, dict)
            and isinstance(part.get("symbol"), str)
            and isinstance(part.get("message"), dict)
            for part in messages
        ):
            raise ProtocolError(
                "bad_field",
                "publish takes messages: a list of objects with symbol, a name, and message, an object",
            )
        taken = self._hub.publish((part["symbol"], part["message"]) for part in messages)
        return {"type": "published", "watched": taken}

    def _sessions(self, message: dict[str, Any]) -> dict[str, Any]:
        listed = message.get("accounts")
        if not isinstance(listed, list):
            raise ProtocolError("bad_field", "sessions takes accounts: a list of objects")
        accounts = [account_from(row) for row in listed]
        sessions = self._hub.sessions
        updates = sessions.updates
        if "part" in message:
            touched = sessions.part(accounts, *place(message))
        else:
            touched = sessions.change(accounts, message.get("more") is True)
        self._hub.stats.increase("session_updates", sessions.updates - updates)
        self._hub.settling.settle(touched)
        return {"type": "taken", "sessions": len(sessions)}


def names(message: dict[str, Any], kind: str, field: str) -> list[str]:
    """A field that is a list of names of symbols. Raises ProtocolError."""
    found = message.get(field)
    if not isinstance(found, list) or not all(isinstance(symbol, str) for symbol in found):
        raise ProtocolError("bad_field", f"{kind} takes {field}: a list of names")
    return found


def place(message: dict[str, Any]) -> tuple[int, int]:
    """`part` and `parts`, 1 of 1 where they are left out. Raises ProtocolError."""
    part, parts = message.get("part", 1), message.get("parts", 1)
    if type(part) is not int or type(parts) is not int or not 1 <= part <= parts:
        raise ProtocolError("bad_field", f"part {part!r} of {parts!r} parts cannot be: they count from 1")
    return part, parts


def account_from(row: Any) -> Account:
    """An account as `sessions` brings it. Raises ProtocolError."""
    try:
        user, sessions = row["user"], row["sessions"]
        patterns, watchlist = row.get("patterns", ()), row.get("watchlist", ())
        ends = {bytes.fromhex(token): end for token, end in sessions.items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ProtocolError(
            "bad_field", "an account has a user and sessions, ends by tokens' hashes"
        ) from error
    if (
        type(user) is not int
        or not all(isinstance(texts, list | tuple) for texts in (patterns, watchlist))
        or not all(isinstance(text, str) for text in (*patterns, *watchlist))
        or not all(len(token) == HASH_BYTES and type(end) is int for token, end in ends.items())
    ):
        raise ProtocolError("bad_field", f"the account of user {user!r} has a field that cannot be")
    return Account(user, tuple(patterns), tuple(watchlist), ends)
