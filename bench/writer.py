"""`python -m bench.writer FOLDER`: writes RATE ticks a second, and the 1m bars of their symbols, into a history.

A batch each WINDOW_S, as the recorder does, from the line `go` to the line `pause`. Each is answered with the ticks a
second since the last one, {"rate": X}; at first it prints {"ready": true}. It ends with its standard input.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from pathlib import Path

from tradeback.config import Config, load_config
from tradeback.model import MINUTE_NS, Bar, Tick
from tradeback.store.base import HistoryBatch
from tradeback.store.histories import open_history

SYMBOLS = 200
RATE = 10_000
WINDOW_S = 0.04
BATCH = int(RATE * WINDOW_S)
DAY = 20_000 * 1_440 * MINUTE_NS  # some midnight: what is written begins there


def configured(folder: Path) -> Config:
    return load_config(environ={"DATA_DIR": str(folder), "TRADEBACK_EXCHANGE": "sim"})


def random_ticks(count: int, first_id: int = 1) -> list[Tick]:
    """Ticks of all symbols in no order, RATE a second from DAY on; the same at each call."""
    choice = random.Random(first_id)
    ticks = []
    for trade_id in range(first_id, first_id + count):
        price = round(choice.uniform(1, 70_000), 2)
        quantity = round(choice.random(), 5)
        time_ns = DAY + trade_id * 10**9 // RATE
        symbol = choice.randint(1, SYMBOLS)
        ticks.append(Tick(symbol, trade_id, 1, price, quantity, round(price - 0.01, 2), price, time_ns, 1))
    return ticks


def batch(ticks: list[Tick]) -> HistoryBatch:
    """What the recorder makes of them: ticks, the bars in progress, and the place in the journal."""
    minutes = {
        tick.stream_id: Bar(
            tick.ts_event - tick.ts_event % MINUTE_NS, 1.0, 70_000.0, 1.0, tick.price, 9.5, tick.trade_id
        )
        for tick in ticks
    }
    return HistoryBatch(ticks=ticks, minutes=list(minutes.items()), places={"journal": ticks[-1].trade_id})


def main(folder: Path) -> None:
    history = open_history(configured(folder), write=True)
    next_id = history.places().get("journal", 0) + 1
    written, begin, due = 0, 0.0, None  # `due`: when the next batch is; None while it pauses
    print(json.dumps({"ready": True}), flush=True)
    while True:
        content = batch(random_ticks(BATCH, next_id))
        wait = None if due is None else max(0.0, due - time.monotonic())
        if select.select([sys.stdin], [], [], wait)[0]:
            command = sys.stdin.buffer.readline().strip()
            if not command:
                break
            now = time.monotonic()
            print(json.dumps({"rate": written / (now - begin) if written else 0.0}), flush=True)
            written, begin, due = 0, now, now if command == b"go" else None
            continue
        history.write(content)
        written += BATCH
        next_id += BATCH
        due = WINDOW_S + (due or 0.0)
    history.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
