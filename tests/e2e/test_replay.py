"""A recording, replayed at full speed through real processes, is in the journal trade by trade as it was recorded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.running import Up, stream_ids
from tests.playback.test_ingest import RECORDINGS, exchange_told, journal_told, market_events
from tradeback._fast.journal import JournalCursor, JournalTrade


def journaled(folder: Path) -> list[JournalTrade]:
    with JournalCursor.open(folder / "sim" / "journal") as cursor:
        records = []
        while cursor.available():
            records += cursor.read(5_000)
    return [record for record in records if isinstance(record, JournalTrade)]


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_journal_holds_the_recording(recordings: Path, tmp_path: Path, name: str) -> None:
    events = [data for _, _, data in market_events(recordings / name)]
    symbols = sorted({data["s"] for data in events})
    arguments = ["--replay", str(recordings / name), "--speed", "0", "--symbols", ",".join(symbols)]
    with Up(tmp_path, *arguments) as up:
        deadline = time.monotonic() + 90
        while not (state := up.sim("/sim/state"))["ended"] or not state["drained"]:
            assert time.monotonic() < deadline, f"the replay never ended: {state}"
            time.sleep(0.05)
        while len(journaled(tmp_path)) < len(events):
            assert time.monotonic() < deadline, "trades are missing in the journal"
            time.sleep(0.05)
        assert up.stop() == 0
    ids = stream_ids(tmp_path)
    # Lines are connections of their own, and symbols do not wait for each other: order holds for each symbol.
    for symbol in symbols:
        told = [journal_told(record) for record in journaled(tmp_path) if record.stream_id == ids[symbol]]
        assert told == [exchange_told(data) for data in events if data["s"] == symbol]
