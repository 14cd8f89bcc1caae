"""TradingView's Universal Data Feed, point by point as its adapter reads it, over real processes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from falcon.testing import TestClient

from tests.e2e.accounts import accounts_api, make_catalog
from tests.e2e.api import SYMBOL, Running, all_running
from tests.e2e.running import stream_ids
from tests.servers.services import config_of
from tradeback.api.app import create_app
from tradeback.api.stores import Store
from tradeback.commands.api import stores_of
from tradeback.model import Bar, Gap
from tradeback.store.base import History, HistoryBatch
from tradeback.store.histories import open_history

RESOLUTIONS = {"1": 60, "5": 300, "15": 900, "60": 3_600, "240": 14_400, "1D": 86_400}
GIVEN = "BNBUSDT"  # not carried: its bars and gaps are those that are written here
START = 1_700_006_400  # midnight, UTC
BARS = 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with all_running(tmp_path_factory.mktemp("udf")) as running:
        stream_id = stream_ids(running.folder)[GIVEN]
        history = open_history(config_of(running.folder), write=True)
        try:
            bars = [Bar((START + 60 * n) * 10**9, 1.0 + n, 2.0 + n, 0.5, 1.5, 3.25, 4) for n in range(BARS)]
            history.write_bars(stream_id, "1m", bars)
            # Given up already: the recorder, which runs and does not know them, leaves them as they are.
            gaps = [
                Gap(stream_id, 100 * n, 100 * n + 9, (START + 60) * 10**9 + n, 1, "not_there")
                for n in range(1, 15)
            ]
            history.write(HistoryBatch(gaps=[*gaps, Gap(stream_id, 9_000, 9_001, 10**18, 1, "not_there")]))
        finally:
            history.close()
        yield running


@pytest.fixture(params=["/udf", "/api/v1/tradingview"])
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_config(running: Running, base: str) -> None:
    config = running.api.get(f"{base}/config")
    assert config["supports_search"] is True
    assert config["supports_group_request"] is False
    assert config["supports_marks"] is config["supports_timescale_marks"] is config["supports_time"] is True
    assert config["supported_resolutions"] == list(RESOLUTIONS)
    assert all(set(row) == {"value", "name", "desc"} for row in config["exchanges"])
    assert all(set(row) == {"name", "value"} for row in config["symbols_types"])
    # Exactly those that are served: no others that a chart may name.
    for resolution in ("D", "1W", "1M", "W", "1S", "1T", "2", "3", "30", "120", "60m", "1h", "1d", "2D"):
        path = f"{base}/history?symbol={SYMBOL}&resolution={resolution}&from=0&to=1"
        assert (running.api.ask(path).json["s"] != "error") == (resolution == "D"), resolution


def test_symbols(running: Running, base: str) -> None:
    told = running.api.get(f"{base}/symbols?symbol={SYMBOL}")
    required = "name description type session timezone exchange listed_exchange format pricescale minmov"
    assert set(told) >= {*required.split(), "ticker", "has_intraday", "has_daily", "volume_precision"}
    assert "s" not in told
    assert ":" not in told["ticker"]
    assert (told["session"], told["timezone"], told["minmov"]) == ("24x7", "Etc/UTC", 1)
    precision = running.api.get(f"/api/v1/symbols/{SYMBOL}")["price_precision"]
    assert told["pricescale"] == 10**precision
    assert told["intraday_multipliers"] == ["1", "5", "15", "60", "240"]
    assert (told["currency_code"], told["data_status"]) == ("USDT", "streaming")
    assert running.api.get(f"{base}/symbols?symbol=BINANCE:{SYMBOL}") == told
    assert running.api.get(f"{base}/symbols?symbol=SIM%3A{SYMBOL}&currencyCode=USD") == told


def test_search(running: Running, base: str) -> None:
    every = running.api.get(f"{base}/search?query=&type=&exchange=&limit=30")
    assert len(every) == 5
    (found,) = running.api.get(f"{base}/search?query=BTC&type=crypto&exchange=SIM&limit=30")
    assert set(found) == {"symbol", "full_name", "description", "exchange", "ticker", "type"}
    assert (found["ticker"], found["full_name"]) == (SYMBOL, f"SIM:{SYMBOL}")
    assert len(running.api.get(f"{base}/search?query=&limit=2")) == 2
    assert running.api.get(f"{base}/search?query=&type=stock") == []
    assert running.api.get(f"{base}/search?query=&exchange=OTHER") == []
    assert [row["ticker"] for row in running.api.get(f"{base}/search?query=BINANCE%3ABTC")] == [SYMBOL]
    assert [row["ticker"] for row in running.api.get(f"{base}/search?query=BTC%2FUSDT")] == [SYMBOL]
    assert running.api.get(f"{base}/search?query=NOTHING") == []
    # What it finds is what /symbols takes.
    for row in every:
        for name in (row["ticker"], row["full_name"]):
            assert running.api.get(f"{base}/symbols?symbol={name}")["ticker"] == row["ticker"]


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_history_of_a_running_market(running: Running, base: str, resolution: str) -> None:
    ahead = int(time.time()) + RESOLUTIONS[resolution]
    told = running.api.get(f"{base}/history?symbol={SYMBOL}&resolution={resolution}&from=0&to={ahead}")
    assert told["s"] == "ok"
    assert "nextTime" not in told
    times = told["t"]
    assert times == sorted(set(times))
    assert all(at % RESOLUTIONS[resolution] == 0 and at < ahead for at in times)
    # The one in progress is there, or the market stood still since.
    assert times[-1] >= ahead - 2 * RESOLUTIONS[resolution] - 600
    for key in "ohlcv":
        assert len(told[key]) == len(times)
        assert all(math.isfinite(value) for value in told[key])


def test_history_ranges(running: Running, base: str) -> None:
    def ask(start: int, end: int, more: str = "", resolution: str = "1") -> dict[str, object]:
        path = f"{base}/history?symbol={GIVEN}&resolution={resolution}&from={start}&to={end}{more}"
        answer: dict[str, object] = running.api.get(path)
        return answer

    times = [START + 60 * n for n in range(BARS)]
    assert ask(START, START + 120)["t"] == times[:2]
    assert ask(START + 1, START + 121)["t"] == times[1:3]
    last = times[-1]
    # countback outranks from, in both directions.
    assert ask(last, last + 1, "&countback=3")["t"] == times[-3:]
    assert ask(START, last + 60, "&countback=3")["t"] == times[-3:]
    assert ask(last + 10_000, last + 20_000, "&countback=2")["t"] == times[-2:]
    assert ask(0, START, "&countback=5") == {"s": "no_data"}
    assert ask(last + 60, last + 600) == {"s": "no_data", "nextTime": last}
    assert ask(0, START) == {"s": "no_data"}
    assert ask(-(10**12), START) == {"s": "no_data"}
    assert ask(last, 10**13)["t"] == [last]
    assert ask(START, START + 86_400, resolution="D") == ask(START, START + 86_400, resolution="1D")
    assert ask(START, START + 86_400, resolution="1D")["t"] == [START]


def test_time(running: Running, base: str) -> None:
    answer = running.api.ask(f"{base}/time")
    assert answer.headers["content-type"].startswith("text/plain")
    assert abs(int(answer.body) - time.time()) < 60


def test_quotes(running: Running, base: str) -> None:
    told = running.api.get(f"{base}/quotes?symbols={SYMBOL},SIM:ETHUSDT,NOTHING,{GIVEN}")
    assert told["s"] == "ok"
    assert [(row["s"], row["n"]) for row in told["d"]] == [
        ("ok", SYMBOL),
        ("ok", "SIM:ETHUSDT"),
        ("error", "NOTHING"),
        ("error", GIVEN),
    ]
    values = told["d"][0]["v"]
    names = "lp bid ask ch chp open_price high_price low_price prev_close_price volume short_name exchange description"
    assert set(values) == set(names.split())
    assert values["low_price"] <= values["lp"] <= values["high_price"]
    assert values["ch"] == pytest.approx(values["lp"] - values["prev_close_price"], abs=1e-9)


def test_marks(running: Running, base: str) -> None:
    where = f"symbol={GIVEN}&from={START}&to={START + 3600}&resolution=1"
    marks = running.api.get(f"{base}/marks?{where}")
    assert {mark["time"] for mark in marks} == {START + 60}
    assert len(marks) == len({mark["id"] for mark in marks}) == 10
    assert all(set(m) == {"id", "time", "color", "text", "label", "labelFontColor", "minSize"} for m in marks)
    (mark,) = running.api.get(f"{base}/timescale_marks?{where}")
    assert set(mark) == {"id", "time", "color", "label", "tooltip"}
    assert (mark["time"], len(mark["tooltip"])) == (START + 60, 10)
    assert running.api.get(f"{base}/marks?symbol={GIVEN}&from=0&to=1&resolution=D") == []


@pytest.mark.parametrize(
    "path",
    [
        "symbols?symbol=NOTHING",
        "symbols",
        f"symbols?symbol=OTHER:{SYMBOL}",
        f"history?symbol={SYMBOL}&resolution=3&from=0&to=1",
        f"history?symbol={SYMBOL}&resolution=1W&from=0&to=1",
        f"history?symbol={SYMBOL}&from=0&to=1",
        f"history?symbol={SYMBOL}&resolution=1&from=x&to=1",
        f"history?symbol={SYMBOL}&resolution=1&from=0&to=1&countback=many",
        "history?symbol=NOTHING&resolution=1&from=0&to=1",
        "quotes",
        "nothing",
        "marks?symbol=NOTHING&resolution=1&from=0&to=1",
    ],
)
def test_every_error_is_json_that_the_adapter_reads(running: Running, base: str, path: str) -> None:
    answer = running.api.ask(f"{base}/{path}")
    assert 400 <= answer.status < 500
    assert set(answer.json) == {"s", "errmsg"}
    assert answer.json["s"] == "error"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path", ["config", f"symbols?symbol={SYMBOL}", "symbols?symbol=NO", "nothing", "time"]
)
@pytest.mark.parametrize("origin", ["https://charts.example", "https://anywhere.example", "null"])
def test_pages_of_any_origin_may_read_it_without_a_cookie(
    running: Running, base: str, path: str, origin: str
) -> None:
    answer = running.api.ask(f"{base}/{path}", Origin=origin)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    if path != "nothing":
        asked = {"Origin": origin, "Access_Control_Request_Method": "GET"}
        preflight = running.api.ask(f"{base}/{path}", "OPTIONS", **asked)
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "GET" in preflight.headers["access-control-allow-methods"]


def test_a_fault_of_ours_has_the_same_shape(base: str, tmp_path: Path) -> None:
    stores = stores_of(config_of(tmp_path))
    make_catalog(tmp_path)
    history: Store[History] = Store("history", tmp_path, lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    app = create_app(config_of(tmp_path), replace(stores, history=history), b"secret")
    try:
        client = TestClient(app)
        told = client.simulate_get(f"{base}/history", params={"symbol": SYMBOL, "resolution": "1"})
        other = client.simulate_get(f"/api/v1/symbols/{SYMBOL}/bars")
    finally:
        stores.close()
    assert (told.status_code, told.headers["content-type"]) == (500, "application/json")
    assert set(told.json) == {"s", "errmsg"}
    assert told.json["s"] == "error"
    assert told.headers["x-request-id"] in told.json["errmsg"]
    assert "division" not in told.text
    assert (other.status_code, other.json["error"]["code"]) == (500, "internal")


def test_too_many_requests_have_the_same_shape(base: str, tmp_path: Path) -> None:
    with accounts_api(tmp_path, LIMIT_UDF="1/day") as there:
        assert there.api.ask(f"{base}/time").status == 200
        answer = there.api.ask(f"{base}/time", Origin="https://anywhere.example")
    assert (answer.status, answer.json["s"]) == (429, "error")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_other_errors_have_the_same_shape(running: Running, base: str) -> None:
    wrong = running.api.ask(f"{base}/config", "DELETE")
    assert (wrong.status, set(wrong.json)) == (405, {"s", "errmsg"})
    assert wrong.headers["content-type"] == "application/json"
    assert running.api.ask(f"{base}/config", "POST", b"x" * 65_537).json["s"] == "error"


@pytest.mark.embedded("its file is moved away")
def test_a_history_that_is_away_is_an_error_of_the_same_shape(running: Running, base: str) -> None:
    history = running.folder / "sim" / "history.sqlite"
    kept = history.with_name("kept.sqlite")
    history.rename(kept)
    try:
        answer = running.api.ask(f"{base}/history?symbol={SYMBOL}&resolution=1&from=0&to=1")
        assert (answer.status, answer.json["s"]) == (503, "error")
    finally:
        kept.rename(history)
