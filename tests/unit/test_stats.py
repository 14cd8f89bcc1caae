from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback._fast.stats import SERVER_HISTOGRAMS, SERVER_VALUES, START_TIME, Stats
from tradeback.errors import DataFolderError
from tradeback.store.stats import bucket_start, read_all, read_stats

LAST_BUCKET = 311


def bucket_by_search(ns: int) -> int:
    return max(place for place in range(LAST_BUCKET + 1) if bucket_start(place) <= max(ns, 0))


def test_a_reader_sees_what_was_counted(tmp_path: Path) -> None:
    path = tmp_path / "stats" / "server"
    stats = Stats.create(path, "server")
    stats.increase("gaps")
    stats.increase("gaps", 4)
    stats.put("clients", 17)
    stats.observe_ns("flush", 1000)
    reading = read_stats(path)
    assert (reading.process, reading.pid, reading.running) == ("server", os.getpid(), True)
    assert reading.values["gaps"].value == stats.value("gaps") == 5
    assert reading.values["gaps"].kind == "counter"
    assert (reading.values["clients"].value, reading.values["clients"].kind) == (17, "gauge")
    assert reading.histograms["flush"].count == stats.histogram_count("flush") == 1
    assert reading.histograms["flush"].sum_ns == 1000
    assert list(reading.values) == [*(name for _, name, _, _ in SERVER_VALUES), START_TIME[0]]
    assert reading.values[START_TIME[0]].value == reading.started_ns // 10**9
    assert list(reading.histograms) == [name for _, name, _ in SERVER_HISTOGRAMS]
    stats.close()
    assert not read_stats(path).running
    assert read_stats(path).values["gaps"].value == 5


def test_a_restarted_process_starts_at_zero_and_readers_find_the_new_file(tmp_path: Path) -> None:
    first = Stats.create(tmp_path / "server", "server")
    first.increase("gaps")
    second = Stats.create(tmp_path / "server", "server")
    first.increase("gaps")
    assert read_all(tmp_path)["server"].values["gaps"].value == 0
    first.close()
    assert read_all(tmp_path)["server"].running
    second.close()


def test_a_process_may_bring_counters_of_its_own(tmp_path: Path) -> None:
    stats = Stats.create(
        tmp_path / "recorder",
        "recorder",
        [(0, "points", "counter", "points written"), (1, "lag", "gauge", "records behind")],
        [(0, "write", "one write to the store")],
    )
    stats.observe_ns("write", 5)
    assert read_stats(tmp_path / "recorder").histograms["write"].p50 == 5
    with pytest.raises(KeyError):
        stats.increase("gaps")
    stats.close()
    with pytest.raises(ValueError, match="indexes count up from 0"):
        Stats.in_memory([(1, "points", "counter", "points written")])


@given(st.integers(-(2**62), 2**62))
def test_a_duration_lands_in_the_bucket_whose_bounds_hold_it(ns: int) -> None:
    stats = Stats.in_memory([], [(0, "one", "one")])
    stats.observe_ns("one", ns)
    assert stats.histogram_count("one") == 1
    assert stats.bucket_count("one", bucket_by_search(ns)) == 1


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200))
def test_quantiles_are_at_most_an_eighth_above_the_true_ones(
    tmp_path_factory: pytest.TempPathFactory, durations: list[int]
) -> None:
    path = tmp_path_factory.mktemp("stats") / "one"
    stats = Stats.create(path, "one", [], [(0, "one", "one")])
    for ns in durations:
        stats.observe_ns("one", ns)
    histogram = read_stats(path).histograms["one"]
    true = (
        statistics.median_high(durations)
        if len(durations) % 2
        else sorted(durations)[len(durations) // 2 - 1]
    )
    assert histogram.p50 is not None
    assert true <= histogram.p50 <= true * 1.125
    assert histogram.quantile(1) is not None
    assert histogram.sum_ns == sum(durations)
    stats.close()


def test_an_empty_histogram_has_no_quantile(tmp_path: Path) -> None:
    stats = Stats.create(tmp_path / "server", "server")
    assert read_stats(tmp_path / "server").histograms["flush"].p99 is None
    stats.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no file of counters: delete it"),
        (b"SQLite format 3\0" * 400, "no file of counters: delete it"),
        (b"TBSTATS1\x02\0\0\0\0\0\0\0", "version 2 .*run the same version"),
        (b"TBSTATS1\x01\0\0\0\x02\0\0\0{}", "damaged .*delete it"),
        (b"TBSTATS1\x01\0\0\0\xff\0\0\0{", "damaged .*delete it"),
        (
            b'TBSTATS1\x01\0\0\0\x5c\0\0\0{"values":[{"name":"a","kind":"counter","meaning":"","offset":999999}],'
            b'"histograms":[]}',
            "damaged .*delete it",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_remedy(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "server").write_bytes(content)
    with pytest.raises(DataFolderError, match=sentence):
        read_stats(tmp_path / "server")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "stats").write_text("a file, where the folder should be")
    with pytest.raises(DataFolderError, match=r"cannot be made: .*; make the folder writable"):
        Stats.create(tmp_path / "stats" / "server", "server")
    assert read_all(tmp_path / "nothing") == {}
    with pytest.raises(FileNotFoundError):
        read_stats(tmp_path / "nothing")
