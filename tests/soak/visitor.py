"""A person at the REST interface, again and again: logs in, changes a watchlist, looks at charts, logs out."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.e2e.api import Answer, ApiProcess
from tests.servers.services import config_of
from tradeback.passwords import hash_password
from tradeback.store.accounts import open_accounts

USER, PASSWORD = "soak", "correct horse"
# Twice a visit counts for the limit of logins.
EVERY_S = 2.0


class Visitor:
    """Visits in a thread of its own, until it is told to stop. `answers` counts them by path and status."""

    def __init__(self, folder: Path, api: ApiProcess, symbols: list[str]) -> None:
        self.api = api
        self.symbols = symbols
        self.answers: Counter[tuple[str, int]] = Counter()
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(1)
        self._visits: Future[None] | None = None
        accounts = open_accounts(config_of(folder))
        try:
            accounts.add_user(USER, hash_password(PASSWORD), ("*",))
        finally:
            accounts.close()

    def _visit(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._once(self.symbols[self.answers.total() % len(self.symbols)])

    def _once(self, symbol: str) -> None:
        login = self._ask("auth/login", "POST", {"username": USER, "password": PASSWORD})
        token = login.json["token"]
        self._ask(f"marketwatch/{symbol}", "POST", token=token)
        self._ask("marketwatch", token=token)
        self._ask(f"symbols/{symbol}/price", token=token)
        self._ask(f"symbols/{symbol}/bars?resolution=1m", token=token)
        self._ask(f"symbols/{symbol}/enigma", token=token)
        self._ask("symbols", token=token)
        self._ask("health/detailed", token=token)
        self._ask("metrics", token=token)
        self._ask(f"marketwatch/{symbol}", "DELETE", token=token)
        self._ask("auth/logout", "POST", {}, token)

    def _ask(self, path: str, method: str = "GET", content: object = None, token: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if content is not None:
            headers["Content_Type"] = "application/json"
        body = None if content is None else json.dumps(content).encode()
        answer = self.api.ask(f"/api/v1/{path}", method, body, **headers)
        self.answers[path.partition("?")[0].partition("/")[0], answer.status] += 1
        # No price and no level yet are answers too.
        yet = path.endswith(("/price", "/enigma")) and answer.status == 404
        assert yet or answer.status in (200, 204), (path, answer)
        return answer

    def check(self) -> None:
        """Raises what ended the visits before their time."""
        if self._visits is not None and self._visits.done():
            self._visits.result()

    def __enter__(self) -> Visitor:
        self._visits = self._executor.submit(self._visit)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._executor.shutdown()
