"""Before the upgrade: routes, origins, tokens, subprotocols, and who is refused, with which answer. No I/O."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
from picows import WSUpgradeRequest, WSUpgradeResponse

from tradeback.errors import ForgedTokenError, TokenError
from tradeback.server.protocol import SUBPROTOCOL
from tradeback.server.sessions import Credential, Sessions, Standing
from tradeback.tokens import brought_tokens, check_token, token_expiry

if TYPE_CHECKING:
    from tradeback.config import CorsConfig, WebSocketConfig

WS_PATH = "/api/v1/ws"
HEALTH_PATH = "/health"

JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def refusal(status: HTTPStatus, code: str, message: str, **headers: str) -> WSUpgradeResponse:
    """An HTTP answer in the one error shape; the connection ends with it."""
    body = orjson.dumps({"error": {"code": code, "message": message}})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response: WSUpgradeResponse = WSUpgradeResponse.create_error_response(status, body, JSON_HEADERS | named)
    return response


def unauthorized(message: str) -> WSUpgradeResponse:
    return refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, WWW_Authenticate="Bearer")


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Decision 19: no Origin (a program), the host that was called, on any port, or one of the list."""
    return origin is None or origin in allowed or "*" in allowed or is_ours(origin, host)


def is_ours(origin: str, host: str | None) -> bool:
    """Whether an origin is that of the host that was called, on any port."""
    try:
        theirs, ours = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return False
    return theirs is not None and theirs == ours


def header_tokens(request: WSUpgradeRequest, name: str) -> list[str]:
    """The comma-separated tokens of all headers of a name."""
    values = request.headers.getall(name, [])
    return [token.strip() for value in values for token in value.split(",") if token.strip()]


class Admission:
    """Answers the HTTP request that each connection begins with.

    A token that comes along is always checked, by its signature with `secret` and by what `sessions` know; without a
    secret none is good. Without a token only `config.anonymous` lets clients in.
    """

    def __init__(
        self,
        config: WebSocketConfig,
        sessions: Sessions[Any],
        *,
        cors: CorsConfig | None = None,
        secret: bytes | None = None,
    ) -> None:
        self._sessions = sessions
        self._secret = secret
        self.draining = False  # the server ends: nobody is let in
        self.no_memory = False  # close to its ceiling: no further client is let in
        self.reload(config, cors)

    def reload(self, config: WebSocketConfig, cors: CorsConfig | None) -> None:
        """Ask for this from now on."""
        self._config = config
        named = () if cors is None else cors.allowed_origins
        self._origins = tuple(config.allowed_origins) or tuple(named)
        self._cookies_of_others = cors is None or cors.allow_credentials

    def answer(self, request: WSUpgradeRequest, clients: int) -> tuple[WSUpgradeResponse, Credential | None]:
        """101 for a request that may be upgraded, with the credential that it brought; else the answer that ends the
        connection. `clients` are connected now."""
        refused = self._refusal(request, clients)
        if refused is not None:
            return refused, None
        try:
            credential = self._credential(request)
        except TokenError as error:
            return unauthorized(str(error)), None
        if credential is None and not self._config.anonymous:
            return unauthorized("log in first: no session token came along"), None
        # RFC 6455, 4.2.2: of the subprotocols offered one may be chosen; where none is known, none is named.
        offered = header_tokens(request, "Sec-WebSocket-Protocol")
        chosen = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else None
        upgrade: WSUpgradeResponse = WSUpgradeResponse.create_101_response(chosen)
        return upgrade, credential

    def _credential(self, request: WSUpgradeRequest) -> Credential | None:
        """The token that the request brings, found good as far as is known now. Raises TokenError."""
        headers = request.headers
        cookies = headers.getall("Cookie", ()) if self._cookies_count(request) else ()
        tokens = brought_tokens(cookies, headers.getall("Authorization", ()))
        if not tokens:
            return None
        if self._secret is None:
            raise ForgedTokenError("This server knows no sessions: come without a token")
        credential = _first_good(self._secret, tokens)
        if self._sessions.standing(credential, time.time()) is Standing.ENDED:
            raise TokenError("The session has ended: log in again")
        return credential

    def _cookies_count(self, request: WSUpgradeRequest) -> bool:
        """A browser sends the cookie whatever page connects. That of a page elsewhere counts as little as over REST:
        where its origin is named, `*` is no name, and not without `allow_credentials`."""
        origin = request.headers.get("Origin")
        if origin is None or is_ours(origin, request.headers.get("Host")):
            return True
        return self._cookies_of_others and origin in self._origins

    def _refusal(self, request: WSUpgradeRequest, clients: int) -> WSUpgradeResponse | None:
        """The answer to a request that is not to be upgraded, whoever sends it."""
        path = request.path.partition(b"?")[0].decode("latin-1")
        if path == HEALTH_PATH:
            said = {"status": "draining" if self.draining else "ok", "clients": clients}
            health: WSUpgradeResponse
            if self.draining:
                unready = HTTPStatus.SERVICE_UNAVAILABLE
                health = WSUpgradeResponse.create_error_response(unready, orjson.dumps(said), JSON_HEADERS)
            else:
                health = WSUpgradeResponse.create_ok_response(orjson.dumps(said), JSON_HEADERS)
            return health
        if path != WS_PATH:
            return refusal(HTTPStatus.NOT_FOUND, "not_found", f"the WebSocket is at {WS_PATH}")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return refusal(
                HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", "this is a WebSocket", Upgrade="websocket"
            )
        if request.headers.get("Sec-WebSocket-Version") != "13":
            return refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "unsupported_version",
                "Sec-WebSocket-Version must be 13",
                Sec_WebSocket_Version="13",
            )
        # picows takes this header for one token, and Firefox sends `keep-alive, Upgrade`.
        if "upgrade" in (token.lower() for token in header_tokens(request, "Connection")):
            request.headers["Connection"] = "Upgrade"
        origins = request.headers.getall("Origin", [])
        host = request.headers.get("Host")
        if len(origins) > 1 or not origin_allowed(origins[0] if origins else None, host, self._origins):
            return refusal(
                HTTPStatus.FORBIDDEN,
                "origin_not_allowed",
                "pages of this origin may not connect: name it in WS_ALLOWED_ORIGINS",
            )
        if self.draining:
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "restarting",
                "the server restarts: connect again in a moment",
                Retry_After="5",
            )
        if clients >= self._config.max_clients:
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_clients",
                f"{self._config.max_clients} clients are connected, which is the limit",
                Retry_After="10",
            )
        if self.no_memory:
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "no_memory",
                "the server's memory is used up: connect again later",
                Retry_After="10",
            )
        return None


def _first_good(secret: bytes, tokens: list[str]) -> Credential:
    """The credential of the first token that we signed and that has not expired. Raises TokenError."""
    now = time.time()
    for token in tokens:
        try:
            return Credential(check_token(secret, token, now), token_expiry(token))
        except TokenError as error:
            refused = error
    raise refused
