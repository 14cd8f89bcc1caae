"""History for charts against a plain oracle over known minutes: TradingView's, and `/symbols/{symbol}/bars`."""

from __future__ import annotations

import random
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.accounts import accounts_api
from tests.e2e.api import ApiProcess
from tests.e2e.running import stream_ids
from tests.reference.bars import DecimalBar, as_decimals, decimal_fold
from tests.servers.services import config_of
from tradeback.config import LimitsConfig
from tradeback.model import Bar
from tradeback.store.histories import open_history

SECOND = 10**9
SYMBOL = "BTCUSDT"
EMPTY = "ETHUSDT"
START = 1_700_006_400 + 17 * 60  # 17 minutes after midnight, UTC
MOST = 5_000
UDF = {"1": 60, "5": 300, "15": 900, "60": 3_600, "240": 14_400, "1D": 86_400, "D": 86_400}
REST = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}


@dataclass(frozen=True)
class Known:
    """The API, and what is stored: the bars of each length in seconds."""

    api: ApiProcess
    bars: dict[int, list[DecimalBar]]
    now: int

    def before(self, length: int, end: int) -> list[DecimalBar]:
        """The bars that opened before this second."""
        bars = self.bars[length]
        return bars[: bisect_left(bars, end * SECOND, key=lambda bar: bar.open_time)]


def minutes(now: int) -> list[Bar]:
    """Some days of minutes with holes of all sizes, more in one day than an answer may have, and the one of now."""
    rng = random.Random(5)
    at, found = START, []
    for _ in range(6_500):
        found.append(at)
        at += 60 * (1 if rng.random() < 0.98 else rng.choice([2, 3, 20, 200, 3_000]))
    bars = []
    for opened in (*found, now - now % 60):
        first, last, more, less = (rng.randrange(1, 10**6) for _ in range(4))
        prices = [value / 100 for value in (first, max(first, last) + more, min(first, last, less), last)]
        bars.append(Bar(opened * SECOND, *prices, rng.randrange(1, 10**9) / 10**4, rng.randrange(1, 9)))
    return bars


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    folder = tmp_path_factory.mktemp("history")
    unlimited = {f"LIMIT_{name.upper()}": "off" for name in LimitsConfig.model_fields}
    with accounts_api(folder, **unlimited) as there:
        now = int(time.time())
        stored = minutes(now)
        with closing(open_history(config_of(folder), write=True)) as history:
            history.write_bars(stream_ids(folder)[SYMBOL], "1m", stored)
        given = [
            as_decimals((b.open_time, b.open, b.high, b.low, b.close, b.volume, b.trade_count))
            for b in stored
        ]
        bars = {length: decimal_fold(given, length * SECOND) for length in REST.values()}
        yield Known(there.api, bars, now)


@st.composite
def times(draw: st.DrawFn) -> int:
    """A time that matters: beside a bar's beginning, beside now, and far away."""
    place = START + 60 * draw(st.integers(-10, 40_000))
    kinds = [st.just(place), st.just(int(time.time())), st.sampled_from([0, 9_000_000_000])]
    near = draw(st.one_of(*kinds))
    return max(0, near + draw(st.sampled_from([-86_400, -3_600, -60, -1, 0, 1, 59, 60, 3_600, 86_400])))


def answered(row: DecimalBar) -> tuple[int, *tuple[Decimal, ...]]:
    return (row.open_time // SECOND, row.open, row.high, row.low, row.close, row.volume)


def told(*values: float) -> tuple[int, *tuple[Decimal, ...]]:
    return (int(values[0]), *(Decimal(repr(float(value))) for value in values[1:]))


PLENTY = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MAYBE_TIMES = st.none() | times()


@PLENTY
@given(
    base=st.sampled_from(["/udf", "/api/v1/tradingview"]),
    resolution=st.sampled_from(sorted(UDF)),
    start=MAYBE_TIMES,
    end=MAYBE_TIMES,
    countback=st.none() | st.integers(0, 30) | st.sampled_from([329, 5_000, 5_001, 10**9]),
)
def test_tradingview(
    known: Known, base: str, resolution: str, start: int | None, end: int | None, countback: int | None
) -> None:
    length = UDF[resolution]
    asked = {"symbol": SYMBOL, "resolution": resolution, "from": start, "to": end, "countback": countback}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    answer = known.api.get(f"{base}/history?{query}")
    before = known.before(length, 10**10 if end is None else end)
    older = [] if countback else [bar for bar in before if bar.open_time < (start or 0) * SECOND]
    expected = before[-min(countback, MOST) :] if countback else before[len(older) :][-MOST:]
    if not expected:
        place = {"nextTime": older[-1].open_time // SECOND} if older else {}
        assert answer == {"s": "no_data", **place}
        return
    assert set(answer) == {"s", *"tohlcv"}
    assert answer["s"] == "ok"
    rows = [told(*values) for values in zip(*(answer[key] for key in "tohlcv"), strict=True)]
    assert rows == list(map(answered, expected))
    # What follows is so in the oracle too, and said for its own sake.
    opened = answer["t"]
    assert opened == sorted(set(opened))
    assert all(at % length == 0 for at in opened)
    assert end is None or opened[-1] < end


@PLENTY
@given(
    resolution=st.sampled_from(sorted(REST)),
    start=MAYBE_TIMES,
    end=MAYBE_TIMES,
    limit=st.none() | st.integers(1, 30) | st.sampled_from([300, 5_000]),
)
def test_rest(known: Known, resolution: str, start: int | None, end: int | None, limit: int | None) -> None:
    length = REST[resolution]
    asked = {"resolution": resolution, "from": start, "to": end, "limit": limit}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    path = f"/api/v1/symbols/{SYMBOL}/bars?{query}"
    beyond = [at for at in (start, end) if at is not None and at > 9_000_000_000]
    if beyond or (start is not None and end is not None and start >= end):
        assert known.api.ask(path).json["error"]["parameter"] == (
            "to" if start not in beyond and beyond else "from"
        )
        return
    before = known.before(length, 10**10 if end is None else end)
    fitting = [bar for bar in before if bar.open_time >= (start or 0) * SECOND]
    most = limit or (300 if start is None else MOST)
    answer: dict[str, Any] = known.api.get(path)
    rows = [
        told(*(bar[key] for key in ("time", "open", "high", "low", "close", "volume")))
        for bar in answer["bars"]
    ]
    assert rows == list(map(answered, fitting[-most:]))
    assert answer["truncated"] == (start is not None and len(fitting) > most)


@pytest.mark.parametrize("resolution", UDF)
def test_the_bar_in_progress_and_its_predecessor(known: Known, resolution: str) -> None:
    """What the adapter asks every few seconds: the last two bars, up to a time ahead."""
    length = UDF[resolution]
    for ahead in (1, 60, 86_400, 10**7):
        query = (
            f"symbol={SYMBOL}&resolution={resolution}&from={known.now - 10 * length}&to={known.now + ahead}"
        )
        answer = known.api.get(f"/udf/history?{query}&countback=2")
        last = known.bars[length][-2:]
        assert answer["t"] == [bar.open_time // SECOND for bar in last]
        assert answer["t"][-1] == known.now - known.now % length


def test_a_symbol_without_bars(known: Known) -> None:
    for more in ("", "&countback=5"):
        query = f"symbol={EMPTY}&resolution=1&from=0&to={known.now}{more}"
        assert known.api.get(f"/udf/history?{query}") == {"s": "no_data"}
