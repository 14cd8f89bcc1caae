"""Users, logins and watchlists for tests: made in the accounts of a data folder, as the API makes them."""

from __future__ import annotations

import time
from pathlib import Path

from tests.servers.services import config_of
from tradeback.model import EVERY_SYMBOL, Session, User
from tradeback.store.accounts import SqlAccounts, open_accounts
from tradeback.tokens import check_token, load_secret, new_token


class Logins:
    """The accounts of the simulated exchange in `folder`, opened by a process that is none of the server's."""

    def __init__(self, folder: Path) -> None:
        config = config_of(folder)
        self.accounts: SqlAccounts = open_accounts(config)
        self.secret = load_secret(folder / "sim", "")

    def user(self, name: str, patterns: tuple[str, ...] = EVERY_SYMBOL) -> User:
        return self.accounts.add_user(name, "no password has this hash", patterns)

    def login(self, user: User, lifetime: float = 3600, *, token_lifetime: float | None = None) -> str:
        """A new session; its token."""
        now = time.time()
        token = new_token(self.secret, lifetime if token_lifetime is None else token_lifetime)
        session = Session(
            self.hash(token), user.id, "127.0.0.1", "a test", int(now), int(now + lifetime), int(now)
        )
        self.accounts.add_session(session)
        return token

    def hash(self, token: str) -> bytes:
        return check_token(self.secret, token, time.time())

    def logout(self, token: str) -> None:
        self.accounts.end_session(self.hash(token))

    def close(self) -> None:
        self.accounts.close()


def cookie(token: str) -> dict[str, str]:
    """The header by which a browser brings it."""
    return {"Cookie": f"theme=dark; session_token={token}"}


def bearer(token: str) -> dict[str, str]:
    """The header by which a program brings it."""
    return {"Authorization": f"Bearer {token}"}
