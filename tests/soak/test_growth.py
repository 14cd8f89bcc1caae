"""The verdict of a soak is no formality: it finds what creeps, and is not taken in by noise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.growth import Series

HOUR = [float(second) for second in range(300, 3600, 10)]


def series(values: list[float], allowed: float = 2.0) -> Series:
    return Series("the server's memory", "MiB", list(zip(HOUR, values, strict=False)), allowed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(1, 400))
def test_noise_and_bursts_are_no_growth(seed: int, level: float) -> None:
    rng = random.Random(seed)
    noisy = [level + rng.uniform(-1, 1) + (50 if rng.random() < 0.05 else 0) for _ in HOUR]
    assert not series(noisy).grows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(3.5, 1000))
def test_a_leak_is_found_under_them(seed: int, leaked: float) -> None:
    rng = random.Random(seed)
    leaking = [
        100 + leaked * place / len(HOUR) + rng.uniform(-1, 1) + (50 if rng.random() < 0.05 else 0)
        for place in range(len(HOUR))
    ]
    assert series(leaking).grows


def test_a_step_in_the_middle_is_found() -> None:
    assert series([100.0] * 165 + [110.0] * 165).growth > 2


def test_too_little_is_no_verdict() -> None:
    with pytest.raises(AssertionError, match="measured 2 times"):
        _ = series([1.0, 1.0]).growth
