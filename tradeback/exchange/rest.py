"""The REST client of the exchange: one budget of request weight, patience with refusals, strict answers.

The budget is learnt from exchangeInfo's rate limits and from what the exchange says was used; a request that
would go over it waits for the next minute. 429 and 418 are obeyed for as long as `Retry-After` says; other
failures are tried again with exponential backoff and jitter. One asyncio loop owns a client.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from tradeback.errors import ExchangeError
from tradeback.exchange.binance import (
    REST_PATHS,
    REST_RETRY_HEADER,
    REST_ROWS_MAX,
    REST_TIMEOUT_S,
    REST_WEIGHT_HEADER,
    REST_WEIGHTS,
    REST_WEIGHTS_ALL,
)
from tradeback.exchange.rows import (
    AggTradeRow,
    KlineRow,
    TradeRow,
    agg_trade_row,
    kline_row,
    parse_rows,
    price_row,
    symbol_row,
    trade_row,
)
from tradeback.model import SymbolInfo

MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RestPolicy:
    """How patient the client is. Times in seconds.

    `weight_share` of the exchange's limit is used, since others may work from the same address. A wait that
    the exchange asks for and that is longer than `longest_wait` is an error at once.
    """

    timeout: float = REST_TIMEOUT_S
    attempts: int = 5
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    longest_wait: float = 120.0
    weight_share: float = 0.8
    weight_limit: int = 1_200


class WeightBudget:
    """Request weight of the running minute, as the exchange counts it: by minutes of the clock."""

    def __init__(self, limit: int, share: float) -> None:
        self.limit = limit
        self.share = share
        self.used = 0
        self._minute = 0

    def wait(self, weight: int, now: float) -> float:
        """Seconds until `weight` may be spent; 0.0 spends it."""
        self._turn(now)
        if self.used > 0 and self.used + weight > self.limit * self.share:
            return 60.0 - now % 60.0 + 0.05
        self.used += weight
        return 0.0

    def told(self, used: int, weight: int, asked: float, now: float) -> None:
        """The exchange said how much it counted, in its answer to a request of `weight` made at `asked`.

        Where the minute turned meanwhile, it may have counted in the old one or in the new one: then the request
        alone counts in the new one, for the old count would lock it.
        """
        self._turn(now)
        if int(asked // 60.0) == self._minute:
            self.used = max(self.used, used)
        else:
            self.used += weight

    def left(self, now: float) -> int:
        """Weight that may still be spent in this minute."""
        self._turn(now)
        return max(int(self.limit * self.share) - self.used, 0)

    def _turn(self, now: float) -> None:
        if int(now // 60.0) != self._minute:
            self._minute = int(now // 60.0)
            self.used = 0


class RefusedError(ExchangeError):
    """The exchange answered with an error of its own: `code` and `msg` of its body."""

    def __init__(self, message: str, status: int, code: int) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ExchangeRest:
    """A client of the exchange's market data; a context manager. Methods raise ExchangeError on failure.

    `base_url` has no path: `https://data-api.binance.vision`. Several tasks may use one client.
    `clock` is unix seconds, as the exchange's minutes run; by default the wall clock of the start, carried on by the
    monotonic one, so that a clock which jumps spends no minute's weight twice.
    """

    def __init__(
        self, base_url: str, policy: RestPolicy | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.policy = policy or RestPolicy()
        self.budget = WeightBudget(self.policy.weight_limit, self.policy.weight_share)
        self.retries = 0
        self.clock = clock or partial(_seconds_since, time.time() - time.monotonic())
        self._refused_until = 0.0
        self._http = httpx.AsyncClient(
            base_url=self.base_url, timeout=self.policy.timeout, headers={"Accept": "application/json"}
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    def counts(self) -> dict[str, int]:
        """For the counters, by their names."""
        budget = self.budget
        limit = int(budget.limit * budget.share)
        return {
            "rest_weight_used": limit - budget.left(self.clock()),
            "rest_weight_limit": limit,
            "rest_retries": self.retries,
        }

    async def server_time(self) -> int:
        """The exchange's clock, ns."""
        body = await self._get("time", {})
        if not isinstance(body, dict) or type(body.get("serverTime")) is not int:
            raise ExchangeError(f"time: the exchange answered {body!r}")
        return int(body["serverTime"]) * 1_000_000

    async def exchange_info(self) -> list[SymbolInfo]:
        """Every symbol; the rate limits that stand beside them become the budget's."""
        body = await self._get("exchangeInfo", {})
        if not isinstance(body, dict):
            raise ExchangeError("exchangeInfo: the exchange answered no object")
        limits = body.get("rateLimits")
        for limit in limits if isinstance(limits, list) else []:
            minute = isinstance(limit, dict) and (limit.get("interval"), limit.get("intervalNum")) == (
                "MINUTE",
                1,
            )
            if minute and limit.get("rateLimitType") == "REQUEST_WEIGHT" and type(limit.get("limit")) is int:
                self.budget.limit = limit["limit"]
        return parse_rows(body.get("symbols"), symbol_row, "exchangeInfo")

    async def klines(
        self,
        symbol: str,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = REST_ROWS_MAX,
    ) -> list[KlineRow]:
        """Bars whose open time is in `start_ms`..`end_ms` (both inclusive), oldest first, at most 1,000."""
        query = {
            "symbol": symbol,
            "interval": interval,
            "startTime": start_ms,
            "endTime": end_ms,
            "limit": limit,
        }
        rows = parse_rows(await self._get("klines", query), kline_row, f"klines of {symbol}")
        _rising(f"klines of {symbol}", [row.open_time for row in rows])
        return rows

    async def historical_trades(
        self, symbol: str, *, from_id: int | None = None, limit: int = REST_ROWS_MAX
    ) -> list[TradeRow]:
        """Trades from `from_id` on (inclusive; else the newest), oldest first, at most 1,000."""
        query = {"symbol": symbol, "fromId": from_id, "limit": limit}
        body = await self._get("historicalTrades", query)
        return self._trades(f"historicalTrades of {symbol}", body, from_id)

    async def trades(self, symbol: str, *, limit: int = REST_ROWS_MAX) -> list[TradeRow]:
        """The newest trades, oldest first, at most 1,000."""
        return self._trades(
            f"trades of {symbol}", await self._get("trades", {"symbol": symbol, "limit": limit}), None
        )

    async def agg_trades(
        self,
        symbol: str,
        *,
        from_id: int | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = REST_ROWS_MAX,
    ) -> list[AggTradeRow]:
        """AggTrades from `from_id` (an aggTrade's id) or `start_ms` on, oldest first, at most 1,000."""
        query = {
            "symbol": symbol,
            "fromId": from_id,
            "startTime": start_ms,
            "endTime": end_ms,
            "limit": limit,
        }
        what = f"aggTrades of {symbol}"
        rows = parse_rows(await self._get("aggTrades", query), agg_trade_row, what)
        _rising(what, [row.agg_id for row in rows], from_id)
        return rows

    async def prices(self) -> dict[str, Decimal]:
        """The last price of every symbol; 0 where there was no trade yet."""
        return dict(parse_rows(await self._get("ticker/price", {}), price_row, "ticker/price"))

    def _trades(self, what: str, body: object, from_id: int | None) -> list[TradeRow]:
        rows = parse_rows(body, trade_row, what)
        _rising(what, [row.trade_id for row in rows], from_id)
        return rows

    # One request, with everything that can go wrong with it.

    async def _get(self, path: str, query: dict[str, str | int | None]) -> Any:
        params = {name: value for name, value in query.items() if value is not None}
        policy = self.policy
        weight = REST_WEIGHTS[path] if "symbol" in params else REST_WEIGHTS_ALL.get(path, REST_WEIGHTS[path])
        last: ExchangeError | None = None
        for attempt in range(policy.attempts):
            if attempt and last is not None:
                self.retries += 1
                if self._refused_until <= time.monotonic():
                    await asyncio.sleep(self._backoff(attempt))
            await self._allowed(path, weight)
            try:
                return await self._once(path, params, weight)
            except _TryAgainError as error:
                last = error
        raise ExchangeError(
            f"{path}: given up after {policy.attempts} attempts; the last one: {last}"
        ) from last

    def _backoff(self, attempt: int) -> float:
        """Doubling, with jitter, so that many clients do not come back at one moment."""
        ceiling = min(self.policy.first_backoff * 2.0 ** (attempt - 1), self.policy.longest_backoff)
        return random.uniform(ceiling / 2.0, ceiling)

    async def _allowed(self, path: str, weight: int) -> None:
        while True:
            refused = self._refused_until - time.monotonic()
            if refused > self.policy.longest_wait:
                raise ExchangeError(
                    f"{path}: the exchange refuses this address for {refused:.0f} s more; ask less often"
                )
            wait = refused if refused > 0.0 else self.budget.wait(weight, self.clock())
            if wait <= 0.0:
                return
            await asyncio.sleep(wait)

    async def _fetch(self, path: str, params: dict[str, str | int]) -> tuple[httpx.Response, bytes]:
        """The answer and its body, which is given up when it grows beyond all reason."""
        async with self._http.stream("GET", REST_PATHS[path], params=params) as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise ExchangeError(f"{path}: the answer is longer than {MAX_BODY_BYTES} bytes")
            return answer, bytes(body)

    async def _once(self, path: str, params: dict[str, str | int], weight: int) -> Any:
        asked = self.clock()
        try:
            async with asyncio.timeout(self.policy.timeout):
                answer, content = await self._fetch(path, params)
        except (httpx.HTTPError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise _TryAgainError(f"{self.base_url} cannot be reached: {reason}") from error
        used = answer.headers.get(REST_WEIGHT_HEADER, "")
        if used.isdigit():
            self.budget.told(int(used), weight, asked, self.clock())
        if answer.status_code in (418, 429):
            wait = _retry_after(answer)
            self._refused_until = max(self._refused_until, time.monotonic() + wait)
            raise _TryAgainError(f"the exchange answered {answer.status_code}: wait {wait:g} s")
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            sentence = f"{path}: the exchange answered {answer.status_code} and no JSON: {content[:80]!r}"
            if 400 <= answer.status_code < 500:
                raise RefusedError(sentence, answer.status_code, 0) from error
            raise _TryAgainError(sentence) from error
        if answer.status_code == 200:
            return body
        code = body.get("code", 0) if isinstance(body, dict) else 0
        message = body.get("msg", "") if isinstance(body, dict) else ""
        sentence = f"{path}: the exchange answered {answer.status_code}, code {code}: {message}"
        if answer.status_code >= 500:
            raise _TryAgainError(sentence)
        raise RefusedError(sentence, answer.status_code, code if isinstance(code, int) else 0)


class _TryAgainError(ExchangeError):
    """A failure that the next attempt may not meet."""


def _seconds_since(origin: float) -> float:
    return origin + time.monotonic()


def _retry_after(answer: httpx.Response) -> float:
    """Seconds to keep away. An answer that does not say is given a minute: the limit is one of a minute."""
    value = answer.headers.get(REST_RETRY_HEADER, "")
    return float(value) if value.isascii() and value.isdigit() else 60.0


def _rising(what: str, keys: list[int], first: int | None = None) -> None:
    """Rows must come in rising order and none from before what was asked for."""
    before = -1 if first is None else first - 1
    for key in keys:
        if key <= before:
            raise ExchangeError(f"{what}: {key} follows {before}: the rows are out of order")
        before = key
