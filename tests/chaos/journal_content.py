"""What the record of each number holds, so that a reader can tell whether it is the right one."""

from __future__ import annotations

from typing import TypedDict


class Content(TypedDict):
    stream_id: int
    price: float
    qty: float
    trade_id: int
    ts_event: int


def content(seq: int) -> Content:
    return Content(
        stream_id=seq % 65535 + 1, price=seq / 8, qty=1 / seq, trade_id=seq * 3, ts_event=seq * 1_000_003
    )
