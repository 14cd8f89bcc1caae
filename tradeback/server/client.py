"""One client: its commands, what they are answered, what it is subscribed to, and its login."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tradeback._fast.listener import ClientListener, text_frame
from tradeback.errors import CloseCode, DataFolderError, ProtocolError
from tradeback.server import protocol
from tradeback.server.counters import client_error
from tradeback.server.protocol import CarriedSymbol, Ping, Subscribe, Unsubscribe
from tradeback.server.sessions import Access, Credential, Standing

if TYPE_CHECKING:
    from tradeback.server.hub import Hub

HELD_MESSAGES = 32  # of a client whose login is not known yet
HELD_BYTES = 65_536


@dataclass(slots=True)
class _Taken:
    """What became of symbols that were to be subscribed to."""

    subscribed: list[CarriedSymbol] = field(default_factory=list)  # now, or before
    unknown: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # they cannot be carried now
    left_out: list[str] = field(default_factory=list)  # beyond the limit


@dataclass(slots=True)
class _Login:
    """What a client that came with a token has beside one that did not.

    `access` is None until its session is known, and `held` are its commands until then. `own` are symbols that it
    subscribed to itself, `listed` those of the watchlist that it was told of.
    """

    credential: Credential
    access: Access | None = None
    lacking: bool = False
    held: list[bytes] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    listed: dict[str, CarriedSymbol] = field(default_factory=dict)


class Client:
    """The protocol's side of a connection. Made for an upgrade, forgotten when the connection is lost.

    What it is subscribed to stands in the fan-out alone.
    """

    __slots__ = ("_forbidden", "_hub", "_listener", "_login", "_malformed")

    def __init__(self, hub: Hub, credential: Credential | None = None) -> None:
        self._hub = hub
        self._listener: ClientListener | None = None
        self._malformed = 0
        self._forbidden = 0  # commands in a row that asked for nothing but what it may not watch
        self._login = None if credential is None else _Login(credential)

    @property
    def listener(self) -> ClientListener:
        """The connection; there is one from `on_open` to `on_lost`."""
        if self._listener is None:
            raise RuntimeError("the client's connection does not stand: it is not open yet, or it was lost")
        return self._listener

    @property
    def credential(self) -> Credential | None:
        """What it came with."""
        return None if self._login is None else self._login.credential

    @property
    def authenticated(self) -> bool:
        """Whether its session is known."""
        return self._login is not None and self._login.access is not None

    @property
    def waits(self) -> bool:
        """Whether its connection stands and its session is not known yet."""
        return (
            self._login is not None
            and self._login.access is None
            and self._listener is not None
            and not self._listener.is_closing
        )

    # What the listener calls.

    def on_open(self, listener: ClientListener) -> None:
        self._listener = listener
        self._hub.on_open(self)

    def on_text(self, data: bytes) -> None:
        if self._login is not None and self._login.access is None:
            self._hold(self._login.held, data)
        else:
            self._obey(data)

    def _hold(self, held: list[bytes], data: bytes) -> None:
        """Keep a command until its session is known."""
        if len(held) >= HELD_MESSAGES or sum(map(len, held)) + len(data) > HELD_BYTES:
            self.listener.close(
                CloseCode.TOO_MANY_MESSAGES, "too many messages for one whose session is not known yet"
            )
        elif self._hub.settling.hold(len(data)):
            held.append(data)
        else:
            # Others filled the room: who did nothing wrong is not sent away for a minute.
            self.listener.close(
                CloseCode.SERVICE_RESTART, "too many clients wait for their sessions to be known"
            )

    def _take_held(self) -> list[bytes]:
        """The commands that were kept; they are no longer."""
        if self._login is None:
            return []
        held, self._login.held = self._login.held, []
        self._hub.settling.hold(-sum(map(len, held)))
        return held

    def _obey(self, data: bytes) -> None:
        try:
            command = protocol.parse_command(data, self._hub.config.max_symbols)
        except ProtocolError as error:
            if not is_utf8(data):
                self.listener.close(CloseCode.INVALID_TEXT, "a text message is UTF-8")
            else:
                self._malformed_message(error)
            return
        match command:
            case Ping():
                self.listener.send_text(protocol.PONG)
            case Subscribe(symbols):
                self._subscribe(symbols)
            case Unsubscribe(symbols):
                self._unsubscribe(symbols)

    def on_binary(self) -> None:
        self._malformed_message(
            ProtocolError("malformed", "binary messages are not understood: send JSON as text")
        )

    def on_writable(self) -> None:
        self._hub.settling.settle_now(self)
        self._hub.schedule_flush()

    def on_leave(self, slots: list[int]) -> None:
        self._hub.interest.release(slots)

    def on_lost(self) -> None:
        self._take_held()
        self._hub.on_lost(self)
        self._listener = None

    # What the server calls.

    def settle(self) -> bool:
        """Bring it in line with how its login stands now; False where that must wait until it takes data again."""
        login = self._login
        if login is None or self._listener is None or self._listener.is_closing:
            return True
        standing = self._hub.sessions.standing(login.credential, time.time(), self)
        if standing is Standing.ENDED:
            self._hub.stats.increase("session_closes")
            self._listener.close(CloseCode.UNAUTHENTICATED, "not or no longer logged in")
        elif isinstance(standing, Access) and (standing is not login.access or login.lacking):
            if self._hub.fanout.blocked_ns(self._listener.handle):
                return False
            if login.access is None:
                self._hub.on_authenticated(1)
            self._follow(login, standing)
            for data in self._take_held():
                if self._listener.is_closing:
                    break
                self._obey(data)
        return True

    def abort(self) -> None:
        """Cut its connection, if it stands."""
        if self._listener is not None:
            self._listener.abort()

    def _follow(self, login: _Login, access: Access) -> None:
        """Take over rights and watchlist: what it may not watch any more ends, and so does what left the watchlist,
        unless it subscribed to that itself too; what came to the watchlist begins."""
        fanout, interest, handle = self._hub.fanout, self._hub.interest, self.listener.handle
        known = [symbol for symbol in access.watchlist if interest.knows(symbol)]
        wanted = {symbol: None for symbol in known if access.allows(symbol)}
        held = [interest.at(slot) for slot in fanout.slots_of(handle)]
        forbidden = {carried.symbol: carried for carried in held if not access.allows(carried.symbol)}
        off = {symbol: carried for symbol, carried in login.listed.items() if symbol not in wanted}
        own = login.own - forbidden.keys()
        login.access = access
        ended = [symbol for symbol in forbidden | off if symbol not in own]
        if ended:
            self._end(ended)
        texts = [
            protocol.auto_unsubscribe(carried, goes_on=symbol in own)
            for symbol, carried in (forbidden | off).items()
        ]
        for symbol in off:
            del login.listed[symbol]
        taken = self._take([symbol for symbol in wanted if symbol not in login.listed])
        login.listed.update({carried.symbol: carried for carried in taken.subscribed})
        texts += map(protocol.auto_subscribe, taken.subscribed)
        if texts:
            self._hub.stats.increase("watchlist_changes", len(texts))
            # In one write, whatever their number.
            self.listener.send_frames(b"".join(map(text_frame, texts)))
            self._hub.schedule_flush()
        login.lacking = len(known) < len(access.watchlist) or bool(taken.unknown or taken.refused)
        if login.lacking:
            self._hub.settling.lacks(self)
        if taken.left_out:
            self._send_left_out(taken.left_out)

    # Commands.

    def _subscribe(self, symbols: Iterable[str]) -> None:
        taken = self._take(symbols)
        if self._login is not None:
            self._login.own.update(carried.symbol for carried in taken.subscribed)
        # Before any frame with these ids: those leave at the end of the loop's iteration.
        if taken.subscribed:
            self.listener.send_text(protocol.subscribed(taken.subscribed))
            self._hub.schedule_flush()
        if taken.unknown:
            self._send_error("unknown_symbols", "these symbols are not known", taken.unknown)
        if taken.refused:
            self._send_error(
                "not_now", "the server cannot carry these symbols now: try again later", taken.refused
            )
        if taken.left_out:
            self._send_left_out(taken.left_out)
        if taken.forbidden:
            self._refuse(taken.forbidden)
        if taken.subscribed or not taken.forbidden:
            self._forbidden = 0

    def _take(self, symbols: Iterable[str]) -> _Taken:
        """Subscribe to each."""
        fanout, interest, handle = self._hub.fanout, self._hub.interest, self.listener.handle
        room = self._hub.config.max_symbols - fanout.subscription_count(handle)
        access = None if self._login is None else self._login.access
        taken = _Taken()
        for name in symbols:
            known = interest.find(name)
            if known is not None and fanout.is_subscribed(handle, known.slot):
                taken.subscribed.append(known)
            elif access is not None and interest.knows(name) and not access.allows(name):
                taken.forbidden.append(name)
            elif room == 0:
                taken.left_out.append(name)
            else:
                try:
                    carried = interest.acquire(name)
                except DataFolderError:  # the reason stands in the log, and is none of a client's business
                    taken.refused.append(name)
                    continue
                if carried is None:
                    taken.unknown.append(name)
                    continue
                fanout.subscribe(handle, carried.slot)
                taken.subscribed.append(carried)
                room -= 1
        return taken

    def _unsubscribe(self, symbols: Iterable[str]) -> None:
        self.listener.send_text(protocol.unsubscribed(self._end(symbols)))

    def _end(self, symbols: Iterable[str]) -> list[CarriedSymbol]:
        """End the subscriptions to these symbols; those that there were."""
        fanout, interest, handle = self._hub.fanout, self._hub.interest, self.listener.handle
        ended: list[CarriedSymbol] = []
        if fanout.subscription_count(handle):
            # What was traded up to here belongs to the client.
            fanout.drain(handle)
        for name in symbols:
            carried = interest.find(name)
            if carried is not None and fanout.unsubscribe(handle, carried.slot):
                ended.append(carried)
        if self._login is not None:
            self._login.own.difference_update(carried.symbol for carried in ended)
        interest.release(carried.slot for carried in ended if fanout.watcher_count(carried.slot) == 0)
        return ended

    def _refuse(self, symbols: list[str]) -> None:
        self._hub.stats.increase("symbols_forbidden", len(symbols))
        self._send_error("symbol_not_allowed", "your account may not watch these symbols", symbols)
        self._forbidden += 1
        if self._forbidden >= self._hub.config.malformed_limit:
            self.listener.close(
                CloseCode.SYMBOL_FORBIDDEN, f"asked {self._forbidden} times for what it may not watch"
            )

    def _send_left_out(self, symbols: list[str]) -> None:
        limit = self._hub.config.max_symbols
        self._send_error("too_many_symbols", f"a client may have {limit} subscriptions", symbols)

    def _malformed_message(self, error: ProtocolError) -> None:
        self._malformed += 1
        self._hub.stats.increase("malformed_commands")
        self._send_error(error.code, str(error))
        if self._malformed >= self._hub.config.malformed_limit:
            self.listener.close(CloseCode.MALFORMED, f"{self._malformed} malformed messages")

    def _send_error(self, code: str, message: str, symbols: list[str] | None = None) -> None:
        self._hub.stats.increase(client_error(code))
        self.listener.send_text(protocol.error_message(code, message, symbols or ()))


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
