"""One client: its commands, what they are answered, and what it is subscribed to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tradeback._fast.listener import ClientListener
from tradeback.errors import CloseCode, DataFolderError, ProtocolError
from tradeback.server import protocol
from tradeback.server.protocol import CarriedSymbol, Ping, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from tradeback.server.hub import Hub


class Client:
    """The protocol's side of a connection. Made for an upgrade, forgotten when the connection is lost.

    What it is subscribed to stands in the fan-out alone.
    """

    __slots__ = ("_hub", "_listener", "_malformed")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._listener: ClientListener | None = None
        self._malformed = 0

    @property
    def listener(self) -> ClientListener:
        """The connection; there is one from `on_open` to `on_lost`."""
        if self._listener is None:
            raise RuntimeError("the client's connection does not stand: it is not open yet, or it was lost")
        return self._listener

    # What the listener calls.

    def on_open(self, listener: ClientListener) -> None:
        self._listener = listener
        self._hub.on_open(self)

    def on_text(self, data: bytes) -> None:
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
        self._hub.schedule_flush()

    def on_leave(self, slots: list[int]) -> None:
        self._hub.interest.release(slots)

    def on_lost(self) -> None:
        self._hub.on_lost(self)
        self._listener = None

    # What the server calls.

    def auto_subscribe(self, symbols: Iterable[str]) -> None:
        """Subscribe to what is on its watchlist, and tell it so; names that are none are left out."""
        taken, _, _, _ = self._take(symbols)
        for carried in taken:
            self.listener.send_text(protocol.auto_subscribe(carried))
        self._hub.schedule_flush()

    def drop_symbols(self, symbols: Iterable[str]) -> None:
        """End subscriptions, as the client's own command would."""
        self._unsubscribe(symbols)

    # Commands.

    def _subscribe(self, symbols: Iterable[str]) -> None:
        taken, unknown, refused, left_out = self._take(symbols)
        # Before any frame with these ids: those leave at the end of the loop's iteration.
        if taken:
            self.listener.send_text(protocol.subscribed(taken))
            self._hub.schedule_flush()
        if unknown:
            self._send_error("unknown_symbols", "these symbols are not known", unknown)
        if refused:
            self._send_error("not_now", "the server cannot carry these symbols now: try again later", refused)
        if left_out:
            limit = self._hub.config.max_symbols
            self._send_error("too_many_symbols", f"a client may have {limit} subscriptions", left_out)

    def _take(self, symbols: Iterable[str]) -> tuple[list[CarriedSymbol], list[str], list[str], list[str]]:
        """Subscribe to each: those subscribed now (also before), those unknown, those that cannot be carried now,
        those beyond the limit."""
        fanout, interest, handle = self._hub.fanout, self._hub.interest, self.listener.handle
        room = self._hub.config.max_symbols - fanout.subscription_count(handle)
        taken: list[CarriedSymbol] = []
        unknown: list[str] = []
        refused: list[str] = []
        left_out: list[str] = []
        for name in symbols:
            known = interest.find(name)
            if known is not None and fanout.is_subscribed(handle, known.slot):
                taken.append(known)
            elif room == 0:
                left_out.append(name)
            else:
                try:
                    carried = interest.acquire(name)
                except DataFolderError:  # the reason stands in the log, and is none of a client's business
                    refused.append(name)
                    continue
                if carried is None:
                    unknown.append(name)
                    continue
                fanout.subscribe(handle, carried.slot)
                taken.append(carried)
                room -= 1
        return taken, unknown, refused, left_out

    def _unsubscribe(self, symbols: Iterable[str]) -> None:
        fanout, interest, handle = self._hub.fanout, self._hub.interest, self.listener.handle
        ended: list[CarriedSymbol] = []
        if fanout.subscription_count(handle):
            # What was traded up to here belongs to the client.
            fanout.drain(handle)
        for name in symbols:
            carried = interest.find(name)
            if carried is not None and fanout.unsubscribe(handle, carried.slot):
                ended.append(carried)
        self.listener.send_text(protocol.unsubscribed(ended))
        interest.release(carried.slot for carried in ended if fanout.watcher_count(carried.slot) == 0)

    def _malformed_message(self, error: ProtocolError) -> None:
        self._malformed += 1
        self._hub.stats.increase("malformed_commands")
        self._send_error(error.code, str(error))
        if self._malformed >= self._hub.config.malformed_limit:
            self.listener.close(CloseCode.MALFORMED, f"{self._malformed} malformed messages")

    def _send_error(self, code: str, message: str, symbols: list[str] | None = None) -> None:
        self.listener.send_text(protocol.error_message(code, message, symbols or ()))


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
