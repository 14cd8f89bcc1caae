"""What the API makes of an answer to `request.health`: who may speak on the bus may answer anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.api.health import Told, _understood
from tradeback.errors import BusError

GOOD: dict[str, Any] = {
    "status": "ok",
    "exchange": "sim",
    "as_of_ms": 1_700_000_000_000,
    "feed": {"state": "ok", "age_ms": 3},
    "processes": {
        "server": {"state": "running", "started_ms": 1_700_000_000_000},
        "recorder": {"state": "ended", "started_ms": None},
    },
    "sinks": {"history": {"state": "ok", "lag": 0, "more": "is left out"}, "unknown": 7},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Those of every value that is looked at."""
    found = [before] if before else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*before, key))
    return found


def replaced(value: dict[str, Any], path: tuple[str, ...], new: Any) -> dict[str, Any]:
    key, *rest = path
    return {**value, key: replaced(value[key], tuple(rest), new) if rest else new}


def test_a_good_answer_is_told_without_what_is_not_known() -> None:
    told = _understood(GOOD)
    assert told == Told(GOOD["as_of_ms"], 3, GOOD["processes"], {"history": {"state": "ok", "lag": 0}})


@given(st.sampled_from(paths(GOOD)), JSON)
def test_whatever_stands_in_an_answer_is_told_or_refused(path: tuple[str, ...], new: Any) -> None:
    try:
        told = _understood(replaced(GOOD, path, new))
    except BusError:
        return
    assert type(told.as_of_ms) is int
    assert told.age_ms is None or type(told.age_ms) is int
    assert {process["state"] for process in told.processes.values()} <= {"running", "ended", "never started"}
    assert {sink["state"] for sink in told.sinks.values()} <= {"ok", "failing"}
    assert all(type(sink["lag"]) is int and sink["lag"] >= 0 for sink in told.sinks.values())


@pytest.mark.parametrize("key", ["as_of_ms", "feed", "processes", "sinks"])
def test_an_answer_that_lacks_something_is_refused(key: str) -> None:
    with pytest.raises(BusError, match="another version"):
        _understood({name: value for name, value in GOOD.items() if name != key})
