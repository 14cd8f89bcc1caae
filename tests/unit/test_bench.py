"""The bench's own programs: they build without a warning, agree with each other, and end when told."""

from __future__ import annotations

import math
from typing import cast

import pytest

from bench import programs
from bench.__main__ import MEASUREMENTS, run
from bench.build import FOLDER, PROGRAMS, SOURCES, BenchError, program
from bench.programs import SERVER_CORE, Answer, Program, clients, compiled, measured
from bench.subject import exchange
from bench.table import QUICK, Figure, Goal, Skipped, compare, render


@pytest.mark.parametrize("name", PROGRAMS)
def test_builds_without_warnings(name: str) -> None:
    assert program(name).is_file()


def test_every_program_has_a_header_of_its_own() -> None:
    for name in PROGRAMS:
        text = (SOURCES / f"{name}.c").read_text()
        assert text.startswith(f"/* {name} "), f"{name}.c must open by saying how it is called"


def test_load_counts_what_the_raw_server_sends() -> None:
    with (
        compiled("server", 0, 5, core=SERVER_CORE) as target,
        clients(target.hear()["port"], 5, each=0, symbols=1, pid=target.pid) as load,
    ):
        while (window := load.ask("measure 0.1"))["updates"] == 0:
            pass  # the server has no turn
        assert window["updates"] == window["frames"] == window["trades"]
        assert window["closed"] == 0
        assert 0 < window["age_us"]["p50"] <= window["age_us"]["p99"] <= window["age_us"]["max"]
        assert load.ask("stall 5") == {"stalled": 5}
        load.ask("measure 0.1")
        assert load.ask("measure 0.05")["updates"] == 0
        while load.ask("unread")["unread"] == 0:
            pass


class Windows:
    """A load whose windows are these, and the last one from then on."""

    def __init__(self, *counted: tuple[int, float]) -> None:
        self.asked = 0
        self._windows = [{"updates": one, "server_cpu": cpu, "closed": 0} for one, cpu in counted]

    def ask(self, line: str) -> Answer:
        assert line == "measure 0.2"
        self.asked += 1
        return self._windows[min(self.asked, len(self._windows)) - 1]


def test_a_window_counts_only_where_something_was_done_in_it() -> None:
    load = Windows((0, 0.5), (7, 0.0), (0, 0.0), (9, 0.25), (10, 0.5))
    assert measured(cast(Program, load), 0.2)["updates"] == 9
    assert load.asked == 4


def test_a_server_that_does_nothing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "DATA_TIMEOUT_S", 0.0)
    with pytest.raises(BenchError, match=r"no 0\.2 s had both updates and CPU time .* had 7 and 0\.0%"):
        measured(cast(Program, Windows((7, 0.0))), 0.2)


def test_probe_times_the_relay() -> None:
    with compiled("probe", 4) as probe:
        exchange_port = probe.hear()["port"]
        with compiled("relay", exchange_port, 0, "wait", core=SERVER_CORE) as relay:
            assert probe.ask(f"connect {relay.hear()['port']}") == {"client": 0}
            times = probe.ask("measure 0 50 100")
    assert times["count"] == 50
    assert 0 < times["latency_us"]["p50"] <= times["latency_us"]["p99"]


def test_exchange_keeps_its_rate_and_counts() -> None:
    with exchange(3) as (source, port), compiled("relay", port, 1, "wait", core=SERVER_CORE) as relay:
        relay.hear()
        source.tell("rate 3000 taq")
        before = source.ask("status")
        assert (before["connections"], before["subscriptions"], before["cuts"]) == (1, 1, 0)
        # One symbol of three, one kind of three: a message in nine is for this relay.
        while source.ask("status")["messages"] < before["messages"] + 20:
            pass


def test_wrong_use_is_a_sentence() -> None:
    with (
        compiled("exchange", 0, 0) as source,
        pytest.raises(BenchError, match="SYMBOLS is '0': give a whole"),
    ):
        source.hear()
    with exchange(1) as (source, _), pytest.raises(BenchError, match="does not know the command"):
        source.ask("hurry")


def test_ratio_is_of_rounds_and_goal_is_judged() -> None:
    figure = compare("x", "ns", [10, 30, 20], "y", [10, 10, 10], Goal(2, at_most=True))
    assert (figure.figure, figure.peer_figure, figure.ratio, figure.met) == (20, 10, 2, True)
    assert math.isclose(figure.spread, 0.5)
    assert compare("x", "ns", [3], "y", [1], Goal(4, at_most=False)).met is False
    assert compare("x", "KiB", [3], goal=Goal(14, at_most=True, of_ratio=False)).met is True
    assert Figure("x", 1, "ns").met is None


def test_table_shows_every_row() -> None:
    text = render([compare("a", "ns", [1234.0]), Skipped("b", "no compiler")])
    assert "1,234" in text
    assert "no compiler" in text
    assert all(line == line.rstrip() for line in text.splitlines())


# The words in which README.md states a unit.
UNITS = {
    "ns": "nanoseconds",
    "us": "microseconds",
    "ms": "milliseconds",
    "KiB": "KiB",
    "bytes": "bytes",
    "rows/s": "rows a second",
    "gaps/s": "gaps a second",
    "records/s": "records of a journal",
    "sends/s/core": "a second of CPU time",
    "requests/s/core": "a second of CPU time",
    "updates/s/core": "a second of CPU time",
    "of those sent": "as a share",
    "of that before": "as a multiple",
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_quick_measurement_yields_figures(name: str) -> None:
    rows = run(name, QUICK)
    figures = [row for row in rows if isinstance(row, Figure)]
    missing = [row.reason for row in rows if isinstance(row, Skipped)]
    if missing and not figures:
        pytest.skip(missing[0])
    assert figures
    readme = (FOLDER / "README.md").read_text()
    section = " ".join(readme.split(f"\n## {name}\n")[1].split("\n## ")[0].split())
    for figure in figures:
        assert 0 < figure.figure < math.inf
        assert not figure.peer or 0 < figure.ratio < math.inf
        what = figure.name.split(", CRC")[0]
        assert f"`{what}`" in section, f"the section {name} does not explain {what}"
        assert UNITS[figure.unit] in section, f"the section {name} gives no {figure.unit}"


def test_readme_explains_every_measurement() -> None:
    readme = (FOLDER / "README.md").read_text()
    for name in MEASUREMENTS:
        assert f"\n## {name}\n" in readme, f"bench/README.md has no section on {name}"
