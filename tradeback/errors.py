"""The error tree, and the table of close codes.

A message names the thing, the value and the remedy: it is read by the person who can mend the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class TradebackError(Exception):
    """The root of what this program raises on purpose. The command line prints it as one sentence."""


class ConfigError(TradebackError):
    """A setting is unknown, or its value cannot be."""


class StoreError(TradebackError):
    """A store cannot be used at the moment; the same call may be made again. `away`: it did not answer at all, or
    takes nobody with our credentials, and who asks again at once may wait as long for nothing."""

    away = False


class DataFolderError(StoreError):
    """A file of the data folder is foreign, torn, of another version, locked, or cannot be written."""


class CatalogError(StoreError):
    """The database of symbols and accounts on another machine cannot be used, or is none of ours."""


class HistoryError(StoreError):
    """The history on another machine cannot be reached, does not answer, or refuses."""


class StaleRowError(DataFolderError):
    """A row of the shared table stays half-written: its writer was killed in the middle."""


class PlaceLostError(TradebackError):
    """A cursor's place was deleted by retention. `oldest_seq` is the oldest record that can still be read."""

    def __init__(self, message: str, oldest_seq: int) -> None:
        super().__init__(message)
        self.oldest_seq = oldest_seq


class ControlError(TradebackError):
    """Another process of this machine cannot be reached at its control socket, or refused."""


class ControlRefusedError(ControlError):
    """It was reached, and refused the message: the same one would be refused again."""


class BusError(TradebackError):
    """The message bus cannot be reached, refused, or did not acknowledge; or a message of it cannot be understood."""


class CacheError(StoreError):
    """The cache cannot be reached, refused the password, is full, or holds what cannot be understood."""


class ExchangeError(TradebackError):
    """The exchange refused, cannot be reached, or sent what cannot be understood."""


class UnknownSymbolError(TradebackError):
    """No symbol of this name is in the catalog."""


class SymbolLimitError(TradebackError):
    """All 65,535 stream ids are given; ids are never given twice."""


class AccountError(TradebackError):
    """A user, a password, a pattern or a watchlist cannot be as asked for."""


class WatchlistFullError(AccountError):
    """A watchlist has all the symbols that it may have."""


class TokenError(TradebackError):
    """A session token does not let in."""


class ForgedTokenError(TokenError):
    """It is no token, or was not signed with our secret."""


class ExpiredTokenError(TokenError):
    """It was ours, and its time is over."""


class ServerRefusedError(TradebackError):
    """A Trade-Back server refused the connection, and would again: the client must change something."""


class ProtocolError(TradebackError):
    """A client sent a message that cannot be understood. Carries the error code of the answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CloseCode(IntEnum):
    """WebSocket close codes that this server sends; `CLOSE_REASONS` says when, and what a client does."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    POLICY = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL = 1011
    SERVICE_RESTART = 1012
    MALFORMED = 4400
    UNAUTHENTICATED = 4401
    SYMBOL_FORBIDDEN = 4403
    SLOW_CONSUMER = 4408
    TOO_MANY_MESSAGES = 4429


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection was closed with a code, and whether the client should connect again.

    `wait_s`: from and to, in seconds, between which a client waits at random before it connects again by
    itself; None where it must not.
    """

    when: str
    reconnect: str
    wait_s: tuple[float, float] | None = None


CLOSE_REASONS: dict[CloseCode, CloseReason] = {
    CloseCode.NORMAL: CloseReason("the client asked for it", "no"),
    CloseCode.GOING_AWAY: CloseReason("the server stops", "yes, after 1 s to 10 s at random", (1.0, 10.0)),
    CloseCode.PROTOCOL_ERROR: CloseReason("frames that break RFC 6455", "no: mend the client"),
    CloseCode.INVALID_TEXT: CloseReason("a text message that is not UTF-8", "no: mend the client"),
    CloseCode.POLICY: CloseReason("a rule was broken that no other code names", "no"),
    CloseCode.MESSAGE_TOO_BIG: CloseReason("a message longer than the limit", "no: send shorter messages"),
    CloseCode.INTERNAL: CloseReason("a fault of the server", "yes, after 1 s to 10 s at random", (1.0, 10.0)),
    CloseCode.SERVICE_RESTART: CloseReason(
        "the server restarts, or cannot tell yet who is logged in",
        "yes, after 1 s to 10 s at random",
        (1.0, 10.0),
    ),
    CloseCode.MALFORMED: CloseReason("malformed messages, repeatedly", "no: mend the client"),
    CloseCode.UNAUTHENTICATED: CloseReason("not or no longer logged in", "after logging in"),
    CloseCode.SYMBOL_FORBIDDEN: CloseReason("a symbol that the session may not watch", "without that symbol"),
    CloseCode.SLOW_CONSUMER: CloseReason(
        "took no data for longer than WS_BLOCKED_LIMIT",
        "yes, with fewer symbols or a better line",
        (1.0, 10.0),
    ),
    CloseCode.TOO_MANY_MESSAGES: CloseReason(
        "more messages than allowed", "yes, after a minute, and slower", (60.0, 70.0)
    ),
}
