"""Every recorded message, against the oracle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.reference.decode import decode_reference
from tradeback._fast.decode import DECODED_OTHER, decode
from tradeback.exchange.recording import read_recording


def test_every_recorded_message_decodes_as_the_oracle_says(recordings: Path) -> None:
    kinds: Counter[object] = Counter()
    for path in sorted(recordings.glob("ws_*.jsonl.gz")):
        for _, text in read_recording(path):
            data = text.encode()
            found = decode(data)
            assert found == decode_reference(data), data
            kinds[found["kind"] if isinstance(found, dict) else f"status {found}"] += 1
            if not isinstance(found, dict):
                continue
            # The same event as a raw stream would have brought it.
            payload = data[data.index(b'"data":') + 7 : -1]
            assert decode(payload) == found, payload
    # Nothing recorded is unusual or malformed: depth and kline are other streams.
    assert kinds == {1: 6000, 2: 3174, 3: 5978, f"status {DECODED_OTHER}": 8149}
