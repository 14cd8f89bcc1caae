"""What an operator switched off is answered as such, and nothing of what was stored before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.api import SYMBOL, ApiProcess, all_running

BARS = f"/api/v1/symbols/{SYMBOL}/bars"
ENIGMA = f"/api/v1/symbols/{SYMBOL}/enigma"
PRICE = f"/api/v1/symbols/{SYMBOL}/price"
UDF_SYMBOL = f"symbol={SYMBOL}"
HISTORY = f"history?{UDF_SYMBOL}&resolution=1&from=0&to=9000000000"
SWITCHED_OFF = (404, "switched_off")


@dataclass(frozen=True)
class Three:
    """The API on the same folder: with everything, without bars, without levels."""

    whole: ApiProcess
    no_bars: ApiProcess
    no_levels: ApiProcess


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("features")
    with (
        all_running(folder) as running,
        ApiProcess(folder, FEATURE_AGGREGATION_ENABLED="false") as no_bars,
        ApiProcess(folder, FEATURE_ENIGMA_ENABLED="false") as no_levels,
    ):
        yield Three(running.api, no_bars, no_levels)


def refused(api: ApiProcess, path: str) -> tuple[int, str]:
    answer = api.ask(path)
    return answer.status, answer.json["error"]["code"]


def test_bars(three: Three) -> None:
    assert three.whole.get(BARS)["bars"]
    for query in ("", "?resolution=1d", "?from=0&to=60"):
        assert refused(three.no_bars, BARS + query) == SWITCHED_OFF
    assert "FEATURE_AGGREGATION_ENABLED" in three.no_bars.ask(BARS).json["error"]["message"]
    # Levels and prices go on, and so do bars without levels.
    assert three.no_bars.get(ENIGMA) == three.whole.get(ENIGMA)
    assert three.no_bars.get(PRICE)["price"] == three.whole.get(PRICE)["price"]
    assert three.no_levels.get(BARS) == three.whole.get(BARS)


def test_levels(three: Three) -> None:
    assert three.whole.get(ENIGMA)["symbol"] == SYMBOL
    assert refused(three.no_levels, ENIGMA) == SWITCHED_OFF
    assert refused(three.no_levels, ENIGMA.replace(SYMBOL, "NOTHING")) == SWITCHED_OFF
    assert three.no_levels.get(f"/udf/{HISTORY}") == three.whole.get(f"/udf/{HISTORY}")


@pytest.mark.parametrize("base", ["/udf", "/api/v1/tradingview"])
def test_charts_without_bars(three: Three, base: str) -> None:
    assert three.whole.get(f"{base}/{HISTORY}")["s"] == "ok"
    answer = three.no_bars.ask(f"{base}/{HISTORY}")
    assert (answer.status, answer.json["s"]) == (404, "error")
    assert "FEATURE_AGGREGATION_ENABLED" in answer.json["errmsg"]
    assert three.no_bars.get(f"{base}/config")["supported_resolutions"] == []
    symbol = three.no_bars.get(f"{base}/symbols?{UDF_SYMBOL}")
    assert symbol["has_intraday"] is symbol["has_daily"] is False
    assert symbol["supported_resolutions"] == symbol["intraday_multipliers"] == []
    for name in ("marks", "timescale_marks"):
        assert three.no_bars.get(f"{base}/{name}?{UDF_SYMBOL}&resolution=1&from=0&to=9000000000") == []
    # A quote has the price, and nothing out of bars that may be old.
    (quote,) = three.no_bars.get(f"{base}/quotes?symbols={SYMBOL}")["d"]
    values = quote["v"]
    assert {values[key] for key in ("open_price", "high_price", "low_price", "prev_close_price")} == {
        values["lp"]
    }
    assert values["ch"] == values["chp"] == 0
    (whole,) = three.whole.get(f"{base}/quotes?symbols={SYMBOL}")["d"]
    assert whole["v"]["high_price"] > whole["v"]["low_price"]
