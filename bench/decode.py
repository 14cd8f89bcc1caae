"""Decoding the exchange's messages: nanoseconds each, beside orjson with float() and simdjson on demand."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from bench.build import FOLDER, BenchError, extension, simdjson
from bench.table import Effort, Goal, Row, Skipped, compare

RECORDINGS = Path(os.environ.get("TRADEBACK_RECORDINGS", FOLDER.parent.parent / "shared" / "data"))
MESSAGES_MAX = 2000
PASSES = 200
PEER_TIMEOUT_S = 300
ORJSON_GOAL = Goal(25, at_most=False)
SIMDJSON_GOAL = Goal(2, at_most=False)

# Kind -> the recordings that hold it.
SOURCES = {
    "trade": "ws_trade_us_trxusdt_20250304_a.jsonl.gz",
    "aggTrade": "ws_binance_spot_20210405_10sym.jsonl.gz",
    "bookTicker": "ws_binance_spot_20210405_10sym.jsonl.gz",
}


def measure(effort: Effort) -> list[Row]:
    extension("micro")
    from bench.micro import Arena, decode_ns

    rows: list[Row] = []
    peer = simdjson()
    passes = effort.of(PASSES, 2)
    for kind in SOURCES:
        messages = recorded(kind) or made_up(kind)
        arena = Arena(messages)
        ours, orjson_ns, simdjson_ns = [], [], []
        for _ in range(effort.rounds):
            ours.append(decode_ns(arena, passes))
            orjson_ns.append(_python_ns(TAKERS[kind], messages, max(1, passes // 20)))
            if peer is not None:
                simdjson_ns.append(_simdjson_ns(peer, messages, passes))
        name = f"decode {kind}"
        rows.append(compare(name, "ns", ours, "orjson + float", orjson_ns, ORJSON_GOAL, speedup=True))
        if simdjson_ns:
            rows.append(
                compare(name, "ns", ours, "simdjson on demand", simdjson_ns, SIMDJSON_GOAL, speedup=True)
            )
        else:
            rows.append(Skipped(name, "no simdjson: `apt-get install g++ libsimdjson-dev` brings it"))
    return rows


def recorded(kind: str) -> list[bytes]:
    """Messages of a kind as the exchange sent them; none where the recordings are not on this machine."""
    path = RECORDINGS / SOURCES[kind]
    if not path.is_file():
        return []
    with gzip.open(path, "rt") as lines:
        texts = (json.loads(line)["m"].encode() for line in lines)
        found = [text for text in texts if f"@{kind}".encode() in text[:64]]
    return found[:MESSAGES_MAX]


def made_up(kind: str) -> list[bytes]:
    """The same layout with values that change."""
    return [f'{{"stream":"btcusdt@{kind}","data":{LAYOUTS[kind](i)}}}'.encode() for i in range(MESSAGES_MAX)]


def _number(i: int, digits: int) -> str:
    return f"{i * 2654435761 % 10**digits / 10**3:.8f}"


def _time(i: int) -> int:
    return 1_700_000_000_000 + i * 37


LAYOUTS: dict[str, Callable[[int], str]] = {
    "trade": lambda i: (
        f'{{"e":"trade","E":{_time(i)},"s":"BTCUSDT","t":{4_000_000_000 + i},"p":"{_number(i, 8)}",'
        f'"q":"{_number(i, 5)}","T":{_time(i)},"m":true,"M":true}}'
    ),
    "aggTrade": lambda i: (
        f'{{"e":"aggTrade","E":{_time(i)},"s":"BTCUSDT","a":{3_000_000_000 + i},"p":"{_number(i, 8)}",'
        f'"q":"{_number(i, 5)}","f":{4_000_000_000 + i},"l":{4_000_000_000 + i},"T":{_time(i)},'
        f'"m":true,"M":true}}'
    ),
    "bookTicker": lambda i: (
        f'{{"u":{50_000_000_000 + i},"s":"BTCUSDT","b":"{_number(i, 8)}","B":"{_number(i, 5)}",'
        f'"a":"{_number(i + 1, 8)}","A":"{_number(i + 1, 5)}"}}'
    ),
}


def _trade(message: bytes) -> tuple[Any, ...]:
    data = orjson.loads(message)["data"]
    return data["E"], data["s"], data["t"], float(data["p"]), float(data["q"]), data["T"], data["m"]


def _agg_trade(message: bytes) -> tuple[Any, ...]:
    d = orjson.loads(message)["data"]
    return d["E"], d["s"], d["a"], float(d["p"]), float(d["q"]), d["f"], d["l"], d["T"], d["m"]


def _book_ticker(message: bytes) -> tuple[Any, ...]:
    d = orjson.loads(message)["data"]
    return d["u"], d["s"], float(d["b"]), float(d["B"]), float(d["a"]), float(d["A"])


TAKERS = {"trade": _trade, "aggTrade": _agg_trade, "bookTicker": _book_ticker}


def _python_ns(take: Callable[[bytes], object], messages: list[bytes], passes: int) -> float:
    start = time.thread_time_ns()
    for _ in range(passes):
        for message in messages:
            take(message)
    return (time.thread_time_ns() - start) / passes / len(messages)


def _simdjson_ns(peer: Path, messages: list[bytes], passes: int) -> float:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(messages) + b"\n")
        file.flush()
        done = subprocess.run(
            [str(peer), str(passes), file.name],
            capture_output=True,
            text=True,
            timeout=PEER_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        raise BenchError(f"The simdjson peer failed: {done.stderr.strip()}")
    return float(json.loads(done.stdout)["ns"])
