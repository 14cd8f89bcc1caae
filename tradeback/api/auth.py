"""Logins: who is asking, logging in and out, and how long a session lasts.

A request brings its token as a cookie or after `Authorization: Bearer`. A token that is forged or expired is refused
by its signature, without any I/O; only then is the store asked whether the session goes on, and whose it is.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from falcon import Request

from tradeback.api import params
from tradeback.api.answers import NO_STORE, Answer, Refused, write_json
from tradeback.api.origin import client_address, may_act_for_user, origin_allowed
from tradeback.api.stores import Stores, Unavailable
from tradeback.config import Config, CorsConfig
from tradeback.errors import AccountError, TokenError
from tradeback.log.asking import tell_session
from tradeback.model import Session, User
from tradeback.passwords import MOST_BYTES, password_is
from tradeback.store.base import Accounts
from tradeback.tokens import check_token, new_token, session_name, token_hash

COOKIE = "session_token"
CREDENTIALS = "Cookie, Authorization"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_USERNAME = 64
MAX_COOKIES = 10  # of our name: those of other folders and domains come along with ours
# A password takes some 20 ms and 19 MiB to look at. The other threads go on answering the rest meanwhile.
LOGINS_AT_ONCE = 6
BUSY_WAIT_S = 1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Who is asking: the user, and the session that lets them in."""

    user: User
    session: Session


class SameSite:
    """Refuses what would change something and comes from a page that may not act for its user (CSRF).

    A browser sends its cookie along whatever page asks; it tells which page that is, in `Origin`. Programs send none,
    and who has a token in `Authorization` did not leave it to a browser.
    """

    def __init__(self, config: CorsConfig) -> None:
        self._config = config

    def process_request(self, request: Request, response: Answer) -> None:
        origin = request.env.get("HTTP_ORIGIN")
        if origin is None or request.method in SAFE_METHODS or "HTTP_AUTHORIZATION" in request.env:
            return
        rule = may_act_for_user if COOKIE in request.cookies else origin_allowed
        if not rule(self._config, origin, request):
            raise Refused(
                403,
                "foreign_origin",
                "Pages of this origin may not do this: name it in SERVER_CORS_ALLOWED_ORIGINS.",
            )


class Sessions:
    """The sessions of requests. `secret` is the key of the tokens' signatures."""

    def __init__(self, config: Config, stores: Stores, secret: bytes) -> None:
        self._config = config.session
        # Tells the address of the client of a request.
        self.address = partial(client_address, trusted=config.server.trusted_proxies)
        self._stores = stores
        self._secret = secret

    def token_hash(self, request: Request) -> bytes | None:
        """What names the session of a request whose token is ours and not expired; it may have ended all the same.

        None where there is no such token. No I/O.
        """
        try:
            return self._signed(request)
        except Refused:
            return None

    def require(self, request: Request, response: Answer) -> LoggedIn:
        """Who is asking; refused with 401 where nobody is logged in. Notes now and then that the session is used."""
        response.append_header("Vary", CREDENTIALS)
        known = self._signed(request)
        tell_session(session_name(known))
        now = time.time()
        with self._stores.accounts.use() as accounts:
            session = accounts.session(known, now=now)
            user = None if session is None else accounts.user_by_id(session.user_id)
        if session is None or user is None or not user.is_active or self._end(session, now) <= now:
            raise _unauthorized()
        if not 0 <= now - session.last_activity < self._config.renewal:
            session = self._renewed(session, now)
        return LoggedIn(user, session)

    def begin(self, accounts: Accounts, user: User, request: Request) -> tuple[str, Session]:
        """A session for someone who has just shown the password, with its token, which is told to them alone.

        AccountError where the user was disabled meanwhile.
        """
        now = time.time()
        token = new_token(self._secret, self._config.lifetime, now=now)
        session = Session(
            token_hash=token_hash(token),
            user_id=user.id,
            ip_address=self.address(request),
            user_agent=request.user_agent or "",
            created_at=int(now),
            expires_at=0,
            last_activity=int(now),
        )
        session = replace(session, expires_at=self._end(session, now))
        accounts.add_session(session)
        tell_session(session_name(session.token_hash))
        return token, session

    def _end(self, session: Session, now: float) -> int:
        """When a session that is used now will end."""
        return int(min(now + self._config.idle, session.created_at + self._config.lifetime))

    def _renewed(self, session: Session, now: float) -> Session:
        end = self._end(session, now)
        try:
            with self._stores.accounts.use() as accounts:
                if not accounts.renew(session.token_hash, end, now=now):
                    raise _unauthorized()
        except Unavailable as error:
            # Such as a full disk: it goes on until the time that is stored, and the next request tries again.
            log.warning("the use of a session cannot be noted", reason=str(error))
            return session
        return replace(session, expires_at=end, last_activity=int(now))

    def _signed(self, request: Request) -> bytes:
        given = request.env.get("HTTP_AUTHORIZATION")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("Authorization must be `Bearer` and the token that logging in answered.")
            tokens = [token.strip()]
        else:
            tokens = (request.get_cookie_values(COOKIE) or [])[:MAX_COOKIES]
        for token in tokens:
            try:
                return check_token(self._secret, token, time.time())
            except TokenError:
                continue
        raise _unauthorized()


class AuthResource:
    """`POST /auth/login`, `POST /auth/logout`, `GET /auth/session`."""

    def __init__(self, sessions: Sessions, stores: Stores, config: Config) -> None:
        self._sessions = sessions
        self._stores = stores
        self._config = config.session
        self._at_work = threading.BoundedSemaphore(LOGINS_AT_ONCE)
        # What an unknown user is compared with is made now, or the first of them would take longer than others.
        password_is(None, "")

    def on_post_login(self, request: Request, response: Answer) -> None:
        response.append_header("Vary", CREDENTIALS)
        params.query(request, ())
        given = params.json_object(request, {"username": str, "password": str})
        username: str = given["username"]
        password: str = given["password"]
        if not 1 <= len(username) <= MAX_USERNAME:
            raise params.bad("username", f"give 1 to {MAX_USERNAME} characters")
        if not 1 <= len(password.encode()) <= MOST_BYTES:
            raise params.bad("password", f"give 1 to {MOST_BYTES} bytes")
        if not self._at_work.acquire(blocking=False):
            raise _too_many(BUSY_WAIT_S)
        try:
            token, user, session = self._log_in(request, username, password)
        finally:
            self._at_work.release()
        # The browser keeps it for as long as the session can last; when it ends for want of use, the store knows.
        response.set_cookie(
            COOKIE,
            token,
            max_age=int(self._config.lifetime),
            path="/",
            secure=self._config.cookie_secure,
            http_only=True,
            same_site="Lax",
        )
        write_json(response, {"token": token, "expires_at": session.expires_at, "user": _describe(user)})

    def on_post_logout(self, request: Request, response: Answer) -> None:
        given = params.query(request, ("everywhere",))
        everywhere = given.get("everywhere", "false")
        if everywhere not in ("true", "false"):
            raise params.bad("everywhere", f"give true or false, not {everywhere[: params.MAX_TEXT]!r}")
        if "HTTP_AUTHORIZATION" not in request.env:
            response.unset_cookie(COOKIE, path="/", same_site="Lax")
        session = self._sessions.require(request, response).session
        with self._stores.accounts.use() as accounts:
            if everywhere == "true":
                accounts.end_sessions(session.user_id)
            else:
                accounts.end_session(session.token_hash)
        response.status = 204
        response.set_header("Cache-Control", NO_STORE)

    def on_get_session(self, request: Request, response: Answer) -> None:
        params.query(request, ())
        who = self._sessions.require(request, response)
        write_json(
            response,
            {
                "user": _describe(who.user),
                "expires_at": who.session.expires_at,
                "created_at": who.session.created_at,
            },
        )

    def _log_in(self, request: Request, username: str, password: str) -> tuple[str, User, Session]:
        """Every way to be refused does the same work up to the refusal, and is told in the same words."""
        address = self._sessions.address(request)
        with self._stores.accounts.use() as accounts:
            wait = accounts.login_attempt(username, address, time.time())
            if wait > 0:
                raise _too_many(wait)
            user, password_hash = accounts.user(username) or (None, None)
            fits = password_is(password_hash, password)
            if user is None or not fits or not user.is_active:
                raise self._refused(address)
            try:
                token, session = self._sessions.begin(accounts, user, request)
            except AccountError:
                raise self._refused(address) from None
            # Whoever changed the password meanwhile ended all sessions but this one, which was not there yet.
            if accounts.user(username) != (user, password_hash):
                accounts.end_session(session.token_hash)
                raise self._refused(address)
            accounts.login_succeeded(username, address)
        log.info("logged in", user=user.username, address=address)
        return token, user, session

    @staticmethod
    def _refused(address: str) -> Refused:
        # Not the name: people type their password there.
        log.info("a login was refused", address=address)
        return Refused(
            401, "bad_credentials", "There is no such user, or the password is another.", headers=_CHALLENGE
        )


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Trade-Back"'}


def _unauthorized(message: str = "Nobody is logged in here, or no longer: log in.") -> Refused:
    return Refused(401, "unauthorized", message, headers=_CHALLENGE)


def _too_many(wait: float) -> Refused:
    seconds = math.ceil(wait)
    return Refused(
        429,
        "too_many_attempts",
        f"Too many attempts to log in: wait {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )


def _describe(user: User) -> dict[str, Any]:
    return {"username": user.username, "symbol_patterns": user.symbol_patterns}
