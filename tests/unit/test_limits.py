"""Counting of requests: what is kept, how much of it, and which group a route belongs to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.conftest import sqlite_config
from tradeback.api.app import create_app
from tradeback.api.limits import MemoryCounts, _network, group_of
from tradeback.commands.api import stores_of
from tradeback.config import LimitsConfig, load_config
from tradeback.errors import ConfigError


@given(keys=st.lists(st.sampled_from("abcdef"), max_size=100))
def test_memory_counts_each_key(keys: list[str]) -> None:
    counts = MemoryCounts()
    seen: dict[str, int] = {}
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        assert counts.incr(key, 60) == seen[key]


def test_memory_is_bounded_and_keeps_who_was_seen_last() -> None:
    counts = MemoryCounts(1_000)
    for count in range(1, 101):
        for flood in range(100):
            assert counts.incr(f"{count}.{flood}", 60) == 1
        assert counts.incr("a client that goes on", 60) == count
    assert len(counts._young) + len(counts._old) <= 1_000


def test_memory_counts_in_threads() -> None:
    counts = MemoryCounts(100)
    threads = [
        threading.Thread(target=lambda: [counts.incr("one", 60) for _ in range(2_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.incr("one", 60) == 16_001


def test_every_route_has_a_group(tmp_path: Path) -> None:
    app = create_app(sqlite_config(tmp_path), stores_of(sqlite_config(tmp_path)), b"secret")
    groups = {group_of(path) for path in _templates(app._router._roots)}
    assert groups - {None} <= set(LimitsConfig.model_fields)
    assert group_of("/api/v1/health") is None
    assert group_of("/api/v1/health/detailed") == "monitoring"
    assert group_of("/api/v1/symbols") == group_of("/api/v1/symbols/{symbol}") == "symbols"
    assert group_of("/api/v1/symbols/{symbol}/price") == "price"
    assert group_of("/api/v1/auth/login") == "auth"
    assert group_of("/api/v1/marketwatch/{symbol}") == group_of("/api/v1/auth/session") == "marketwatch"
    assert group_of("/udf/history") == group_of("/api/v1/tradingview/history") == "udf"
    assert group_of("/") == group_of("/assets/{name}") == "page"


def _templates(nodes: list, before: str = "") -> list[str]:  # type: ignore[type-arg]
    found = []
    for node in nodes:
        path = f"{before}/{node.raw_segment}"
        found += [path, *_templates(node.children, path)]
    return found


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("no:address", "no:address"),
    ],
)
def test_an_address_of_ipv6_counts_with_its_network(address: str, network: str) -> None:
    assert _network(address) == network


@pytest.mark.parametrize(
    "text", ["600", "0/minute", "600/fortnight", "600/minute;1/second", "-1/minute", "on"]
)
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"LIMIT_PRICE is .*600/minute"):
        load_config(environ={"LIMIT_PRICE": text})
