"""The watchlist of the user who is logged in: all sessions of a user have the same."""

from __future__ import annotations

from collections.abc import Iterable

from falcon import Request

from tradeback.api import params
from tradeback.api.answers import Answer, Refused, write_json
from tradeback.api.auth import Sessions
from tradeback.api.stores import Stores
from tradeback.api.symbols import SymbolBook
from tradeback.errors import WatchlistFullError
from tradeback.model import User, symbol_allowed


class MarketWatchResource:
    """`GET` and `PUT /marketwatch`, `POST` and `DELETE /marketwatch/{symbol}`; each answers the list.

    What the user may no longer watch is not answered, and is there again once they may.
    """

    def __init__(self, sessions: Sessions, book: SymbolBook, stores: Stores) -> None:
        self._sessions = sessions
        self._book = book
        self._stores = stores

    def on_get(self, request: Request, response: Answer) -> None:
        user = self._user(request, response)
        with self._stores.accounts.use() as accounts:
            listed = accounts.watchlist(user.id)
        _answer(response, user, listed)

    def on_put(self, request: Request, response: Answer) -> None:
        user = self._user(request, response)
        symbols = params.json_object(request, {"symbols": list})["symbols"]
        for symbol in symbols:
            if not isinstance(symbol, str):
                raise params.bad("symbols", "give a list of the symbols' names")
        for symbol in dict.fromkeys(symbols):
            self._check(user, symbol)
        with self._stores.accounts.use() as accounts:
            try:
                listed = accounts.set_watchlist(user.id, symbols)
            except WatchlistFullError as error:
                raise _full(error) from None
        _answer(response, user, listed)

    def on_post_symbol(self, request: Request, response: Answer, symbol: str) -> None:
        user = self._user(request, response)
        self._check(user, symbol)
        with self._stores.accounts.use() as accounts:
            try:
                listed = accounts.watch(user.id, symbol)
            except WatchlistFullError as error:
                raise _full(error) from None
        _answer(response, user, listed)

    def on_delete_symbol(self, request: Request, response: Answer, symbol: str) -> None:
        user = self._user(request, response)
        self._book.symbol(symbol)
        with self._stores.accounts.use() as accounts:
            listed = accounts.unwatch(user.id, symbol)
        _answer(response, user, listed)

    def _user(self, request: Request, response: Answer) -> User:
        params.query(request, ())
        return self._sessions.require(request, response).user

    def _check(self, user: User, symbol: str) -> None:
        self._book.symbol(symbol)
        if not symbol_allowed(user.symbol_patterns, symbol):
            raise Refused(403, "symbol_not_allowed", f"{symbol} is none of the symbols that you may watch.")


def _answer(response: Answer, user: User, listed: Iterable[str]) -> None:
    write_json(
        response, {"symbols": [symbol for symbol in listed if symbol_allowed(user.symbol_patterns, symbol)]}
    )


def _full(error: WatchlistFullError) -> Refused:
    return Refused(409, "watchlist_full", f"{error}.")
