"""Recordings that are broken: what is intact is journaled, and a sentence names what is not."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.playback.replaying import catalog_in, gaps, records, replayed, trades
from tests.playback.test_ingest import RECORDINGS
from tests.reference.faulty_lines import make_market
from tests.reference.journal_ids import Coverage
from tests.reference.recordings import EPOCH, agg_trade, line, market_lines, trade, write_lines
from tradeback.errors import ExchangeError
from tradeback.recorder.scan import USELESS_MAX

YEAR = 366 * 86_400


def good(trade_id: int) -> str:
    return line(EPOCH + trade_id, trade("AUSDT", trade_id, "1.5", "2", EPOCH + trade_id))


def with_payload(change: Callable[[str], str], trade_id: int = 5) -> str:
    return line(EPOCH + trade_id, change(trade("AUSDT", trade_id, "1.5", "2", EPOCH + trade_id)))


def changed(**values: object) -> str:
    return line(EPOCH + 5, trade("AUSDT", 5, "1.5", "2", EPOCH + 5, **values))


def changed_agg(**values: object) -> str:
    return line(EPOCH + 5, agg_trade("AUSDT", 5, 5, "1.5", "2", EPOCH + 5, **values))


# Each stands at line 5, in place of trade 5, and is told; nothing of it may be journaled.
BROKEN = {
    "empty": "\n",
    "no JSON": "x\n",
    "cut": good(5)[:50] + "\n",
    "two in one": good(5)[:-1] + good(5),
    "nul bytes": "\0" * 100 + "\n",
    "an array": "[1,2]\n",
    "no payload": '{"t":1617566596}\n',
    "no time": '{"m":"{}"}\n',
    "time as text": '{"t":"1617566596","m":"{}"}\n',
    "t below zero": '{"t":-5,"m":"{}"}\n',
    "t beyond the calendar": '{"t":1e300,"m":"{}"}\n',
    "t in milliseconds": line((EPOCH + 5) * 1000, trade("AUSDT", 5, "1.5", "2", EPOCH + 5)),
    "payload cut": with_payload(lambda payload: payload[:-10]),
    "payload no JSON": line(EPOCH, "x"),
    "payload nested": line(EPOCH, "[" * 100_000),
    "T in seconds": changed(T=int(EPOCH) + 5),
    "T a year later": changed(T=int((EPOCH + YEAR) * 1000)),
    "T zero": changed(T=0),
    "T below zero": changed(T=-1),
    "T as text": changed(T="1617566596000"),
    "T missing": with_payload(lambda payload: re.sub(r'"T":\d+,', "", payload)),
    "E beyond int64": changed(E=2**70),
    "id as text": changed(t="5"),
    "id below zero": changed(t=-5),
    "id beyond int64": changed(t=2**63),
    "id a stray": changed(t=5_000_000_000),
    "id a near stray": changed(t=200_000),
    "price zero": changed(p="0.00"),
    "price below zero": changed(p="-1.5"),
    "price no number": changed(p="NaN"),
    "price without end": changed(p="Infinity"),
    "price a number": changed(p=1.5),
    "price words": changed(p="one"),
    "price in other digits": changed(p="\u0661.\u0665"),
    "quantity zero": changed(q="0"),
    "quantity too fine": changed(q="0.0000000000000000001"),
    "quantity too long": changed(q="9" * 40),
    "quantity null": changed(q=None),
    "symbol null": changed(s=None),
    "symbol another": changed(s="BUSDT"),
    "maker no flag": changed(m="true"),
    "key twice": with_payload(lambda payload: payload.replace('"t":5', '"t":5,"t":6')),
    "ids descending": changed_agg(f=6, l=5),
    "last id missing": with_payload(
        lambda _: agg_trade("AUSDT", 5, 5, "1", "2", EPOCH).replace('"l":5,', "")
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_is_told_and_the_others_are_kept(tmp_path: Path, what: str) -> None:
    lines = [good(n) for n in range(1, 10)]
    lines[4] = BROKEN[what]
    path = write_lines(tmp_path / "broken.jsonl", lines)
    folder = tmp_path / "sim"
    report = replayed(path, folder)
    assert report.faults.startswith(f"1 line of {path} held no message, the first is line 5: "), report.faults
    assert [record.trade_id for record in trades(folder)] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert gaps(folder) == [(1, 5, 5)]
    with catalog_in(folder).engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT symbol FROM symbolsmap").scalars().all()
    assert set(rows) <= {"AUSDT", "BUSDT"}


# What is no fault: other streams, and the same event in another layout.
PECULIAR = {
    "no object": line(EPOCH, "5"),
    "another stream": line(EPOCH + 5, '{"stream":"ausdt@depth","data":{"e":"depthUpdate","s":"AUSDT"}}'),
    "an array of tickers": line(EPOCH + 5, '{"stream":"!miniTicker@arr","data":[{"s":"AUSDT"}]}'),
    "an answer": line(EPOCH + 5, '{"result":null,"id":1}'),
    "a symbol that cannot be carried": changed(s="币安"),
    "a shutdown": line(EPOCH + 5, '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'),
    "a repetition": good(4),
    "a trade of long ago": changed(t=1),
}


@pytest.mark.parametrize("what", PECULIAR)
def test_what_is_merely_of_no_interest_is_no_fault(tmp_path: Path, what: str) -> None:
    lines = [good(n) for n in range(1, 10)]
    lines[4] = PECULIAR[what]
    report = replayed(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "sim")
    assert report.faults == ""
    assert [record.trade_id for record in trades(tmp_path / "sim")] == [1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "lines",
    [
        [with_payload(lambda payload: payload.replace(":", " : ").replace(",", " ,\n "), 1)],
        [with_payload(lambda payload: json.dumps(json.loads(payload), sort_keys=True), 1)],
        [with_payload(lambda payload: json.dumps(json.loads(payload)["data"]), 1)],
        [good(1).rstrip("\n")],
        [good(1).replace("\n", "\r\n")],
    ],
    ids=["spaces", "another order", "raw", "no last newline", "CRLF"],
)
def test_another_layout_is_the_same_trade(tmp_path: Path, lines: list[str]) -> None:
    report = replayed(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "sim")
    assert report.faults == ""
    assert [(record.trade_id, record.price, record.qty) for record in trades(tmp_path / "sim")] == [
        (1, 1.5, 2.0)
    ]


@pytest.mark.parametrize(
    ("ids", "kept", "missing"),
    [
        ([1, 2, 900_000, 3, 4], [1, 2, 3, 4], []),
        ([900_000, 1, 2, 3], [1, 2, 3], []),
        ([1, 2, 3, 900_000], [1, 2, 3], []),
        ([1, 2, 2**40, 3, 2**50, 4], [1, 2, 3, 4], []),
        # A line that was cut for long: ids stay where they went.
        ([1, 2, 900_000, 900_001, 900_002], [1, 2, 900_000, 900_001, 900_002], [(1, 3, 899_999)]),
        ([1, 2, 50_000, 50_001], [1, 2, 50_000, 50_001], [(1, 3, 49_999)]),
    ],
    ids=["in the middle", "at the begin", "at the end", "two", "a long cut", "a short cut"],
)
def test_ids_that_jump(
    tmp_path: Path, ids: list[int], kept: list[int], missing: list[tuple[int, int, int]]
) -> None:
    lines = [line(EPOCH + n, trade("AUSDT", id_, "1.5", "2", EPOCH + n)) for n, id_ in enumerate(ids)]
    path = write_lines(tmp_path / "a.jsonl", lines)
    report = replayed(path, tmp_path / "sim")
    assert [record.trade_id for record in trades(tmp_path / "sim")] == kept
    assert gaps(tmp_path / "sim") == missing
    left_out = [number for number, id_ in enumerate(ids, 1) if id_ not in kept]
    assert (f"the first is line {left_out[0]}: " in report.faults) if left_out else report.faults == ""


def test_ids_beyond_what_the_folder_can_follow_are_told(tmp_path: Path) -> None:
    """The table refuses ids that are 2**32 ahead; a recording that lies so far ahead begins anew instead."""
    folder = tmp_path / "sim"
    replayed(write_lines(tmp_path / "a.jsonl", [good(1)]), folder)
    later = [line(EPOCH + n, trade("AUSDT", 2**40 + n, "1.5", "2", EPOCH + n)) for n in range(3)]
    report = replayed(write_lines(tmp_path / "b.jsonl", later), folder)
    if report.faults:
        assert report.faults.startswith("3 of its messages were refused")
        assert [record.trade_id for record in trades(folder)] == [1]
    else:
        assert [record.trade_id for record in trades(folder)] == [1, 2**40, 2**40 + 1, 2**40 + 2]
        assert gaps(folder) == []


@pytest.mark.parametrize("share", [0.05, 0.37, 0.8, 0.999])
def test_a_compressed_file_that_was_cut_short_is_kept_as_far_as_it_goes(
    recordings: Path, tmp_path: Path, share: float
) -> None:
    whole = (recordings / RECORDINGS[0]).read_bytes()
    data = whole[: int(len(whole) * share)]
    (tmp_path / "cut.jsonl.gz").write_bytes(data)
    lines = zlib.decompressobj(wbits=31).decompress(data).split(b"\n")[:-1]
    path = tmp_path / "readable.jsonl"
    path.write_bytes(b"".join(row + b"\n" for row in lines))
    report = replayed(tmp_path / "cut.jsonl.gz", tmp_path / "cut" / "sim")
    assert f"cannot be read beyond line {len(lines)}: " in report.faults
    assert replayed(path, tmp_path / "readable" / "sim").faults == ""
    assert records(tmp_path / "cut" / "sim") == records(tmp_path / "readable" / "sim")


def test_a_compressed_file_with_a_wrong_byte_is_kept_up_to_it(recordings: Path, tmp_path: Path) -> None:
    data = bytearray((recordings / RECORDINGS[0]).read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "wrong.jsonl.gz"
    path.write_bytes(data)
    report = replayed(path, tmp_path / "sim")
    assert str(path) in report.faults
    assert report.journaled > 300


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", "holds no trade, aggTrade or bookTicker to replay"),
        ("empty.jsonl.gz", b"", "holds no trade, aggTrade or bookTicker to replay"),
        ("plain.jsonl.gz", good(1).encode(), "cannot be read: Not a gzipped file"),
        ("compressed.jsonl", gzip.compress(good(1).encode()), "held no message, the first is line 1: "),
        ("other.jsonl", b'{"t":1,"m":"{}"}\n', "holds no trade, aggTrade or bookTicker to replay"),
        ("lines.jsonl", b"x\n" * (USELESS_MAX + 5), "is no recording: more than 10,000 of its lines"),
    ],
)
def test_what_is_no_recording_changes_nothing(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExchangeError, match=re.escape(words)) as raised:
        replayed(path, tmp_path / "sim")
    assert name in str(raised.value)
    assert not (tmp_path / "sim" / "journal").exists()


def test_what_is_wrong_is_told_in_few_words(tmp_path: Path) -> None:
    lines = [good(1), changed(p="x" * 5_000_000), good(2)]
    report = replayed(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "sim")
    assert len(report.faults) < 600


def test_receipts_that_go_back_in_time_lose_nothing(tmp_path: Path) -> None:
    ats = [EPOCH, EPOCH - 3_600, EPOCH + 3_600, EPOCH + 1, EPOCH + 2, EPOCH - 80_000]
    lines = [line(at, trade("AUSDT", n, "1.5", "2", EPOCH)) for n, at in enumerate(ats, 1)]
    report = replayed(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "sim")
    assert report.faults == ""
    assert [record.trade_id for record in trades(tmp_path / "sim")] == [1, 2, 3, 4, 5, 6]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), faults=st.lists(st.sampled_from(sorted(BROKEN)), max_size=12))
def test_two_faulty_lines_with_broken_ones_among_them(
    tmp_path_factory: pytest.TempPathFactory, seed: int, faults: list[str]
) -> None:
    """Lines of both kinds are cut and mixed, and broken ones strewn in: the journal is that of the intact ones."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = random.Random(seed)
    intact = market_lines("AUSDT", make_market(rng, 300).events, 3)
    strewn = [("", text) for text in intact]
    for what in faults:
        strewn.insert(rng.randint(0, len(strewn)), (what, BROKEN[what]))
    # Ids that would be strays elsewhere are so here as well, but for the edges of the file.
    if not intact or {what for what, _ in (*strewn[:2], *strewn[-1:])} & {"id a stray", "id a near stray"}:
        return
    expected = replayed(write_lines(folder / "intact.jsonl", intact), folder / "a" / "sim")
    report = replayed(
        write_lines(folder / "strewn.jsonl", [text for _, text in strewn]), folder / "b" / "sim"
    )
    found = [row for row in records(folder / "b" / "sim") if int.from_bytes(row[56:58], "little") == 1]
    assert found == records(folder / "a" / "sim")
    assert (expected.faults, bool(report.faults)) == ("", bool(faults))
    numbers = [number for number, (what, _) in enumerate(strewn, 1) if what]
    if numbers:
        assert f"the first is line {numbers[0]}: " in report.faults
        assert f"{len(numbers):,} line" in report.faults
    coverage = Coverage(precision=3)
    for record in found:
        coverage.add(record + bytes(4))
