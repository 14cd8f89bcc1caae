"""Answers: what the recorder says to questions over the bus: a symbol, its price, how server and recorder are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from tradeback.errors import DataFolderError, StoreError
from tradeback.model import MS_NS, Price, Symbol
from tradeback.recorder.symbols import SymbolBook
from tradeback.recorder.table_rows import TableRows
from tradeback.store.stats import Reading

PROCESSES = ("server", "recorder")
HEALTH_AGAIN_AFTER = 0.25
SHOWN = 50  # characters of a name that is none

log = structlog.get_logger(__name__)


class Refusal(Exception):
    """A question that has no answer, with the code and the message of the error that is answered."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Answers:
    """For one thread at a time. `readings` gives the counters of the processes of this machine, `status` that of the
    sinks, for any thread; the feed is silent where nothing came for `mute_limit` seconds."""

    def __init__(
        self,
        folder: Path,
        exchange: str,
        symbols: SymbolBook,
        readings: Callable[[], Mapping[str, Reading]],
        status: Callable[[], Mapping[str, Any]],
        mute_limit: float,
    ) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._rows = TableRows(folder)
        self._readings = readings
        self._status = status
        self._mute_ms = mute_limit * 1000
        self._unavailable = False
        self._told: dict[str, Any] = {}
        self._told_at = float("-inf")

    def answer(self, kind: str, name: str) -> bytes:
        """The answer as JSON, an error as one; kind is `symbol`, `price` or `health`. It raises nothing."""
        try:
            told = {"symbol": self._symbol, "price": self._price, "health": self._health}[kind](name)
        except Refusal as error:
            return _error(error.code, str(error))
        except StoreError as error:
            if not self._unavailable:
                log.warning("a question over the bus cannot be answered", reason=str(error))
            self._unavailable = True
            return _error("unavailable", "The store cannot be read at the moment; ask again later.")
        except Exception:
            log.exception("a question over the bus failed", kind=kind)
            return _error("internal", "This question failed, and should not have; the recorder's log has it.")
        self._unavailable = False
        return orjson.dumps(told)

    def close(self) -> None:
        """Unmap the table."""
        self._rows.close()

    def _known(self, name: str) -> Symbol:
        symbol = self._symbols.listed(name)
        if symbol is None:
            raise Refusal("unknown_symbol", f"{name[:SHOWN]} is no symbol of this exchange.")
        return symbol

    def _symbol(self, name: str) -> dict[str, Any]:
        return self._known(name).told()

    def _price(self, name: str) -> dict[str, Any]:
        symbol = self._known(name)
        now_ns = time.time_ns()
        row = self._rows.read(symbol.stream_id) if self._rows.open() else None
        if row is None:
            raise Refusal("no_price", f"No trade of {name} has arrived yet; wait.")
        return Price.of_row(row, now_ns).told(name, now_ns)

    def _health(self, _: str) -> dict[str, Any]:
        # However many ask, it costs what a few do.
        if time.monotonic() - self._told_at > HEALTH_AGAIN_AFTER:
            self._told = self._looked()
            self._told_at = time.monotonic()
        return self._told

    def _looked(self) -> dict[str, Any]:
        try:
            readings = self._readings()
        except DataFolderError as error:
            log.warning("the counters cannot be read", reason=str(error))
            readings = {}
        processes = {name: _process(readings.get(name)) for name in PROCESSES}
        age_ms = self._feed_age_ms()
        silent = age_ms is None or age_ms > self._mute_ms
        status = self._status()
        running = all(told["state"] == "running" for told in processes.values())
        return {
            "status": "ok" if running and not silent and not status["errors"] else "degraded",
            "exchange": self._exchange,
            "as_of_ms": time.time_ns() // MS_NS,
            "feed": {"state": "silent" if silent else "ok", "age_ms": age_ms},
            "processes": processes,
            "gaps": status["gaps"],
            # What is in the way of a sink may name addresses and paths: that something is, is enough for others.
            "sinks": {sink["name"]: _sink(sink) for sink in status["sinks"]},
        }

    def _feed_age_ms(self) -> int | None:
        """How long ago a trade or a quote came; None where none ever did."""
        if not self._rows.open():
            return None
        now_ns = time.time_ns()
        rows = [self._rows.read(symbol.stream_id) for symbol in self._symbols.known()]
        heard = [Price.of_row(row, now_ns).ts_recv for row in rows if row is not None]
        return max(0, now_ns - max(heard)) // MS_NS if heard else None


def _process(reading: Reading | None) -> dict[str, Any]:
    if reading is None:
        return {"state": "never started", "started_ms": None}
    return {"state": "running" if reading.running else "ended", "started_ms": reading.started_ns // MS_NS}


def _sink(state: Mapping[str, Any]) -> dict[str, Any]:
    lag = sum(journal["lag"] for journal in state["journals"].values())
    return {"state": "failing" if state["error"] else "ok", "lag": lag}


def _error(code: str, message: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": message}})
