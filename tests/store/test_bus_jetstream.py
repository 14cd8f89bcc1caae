"""The bus with a stream of JetStream: what was flushed is there for who comes later, once, whatever happens to NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import StorageType, StreamConfig

from tests.conftest import fill, private
from tests.servers.nats import NatsServer, kept
from tradeback.config import NatsConfig, load_config
from tradeback.errors import BusError, ConfigError
from tradeback.store.base import Bus
from tradeback.store.bus_jetstream import JetStreamBus
from tradeback.store.bus_layout import BusPrice, BusTrade, decode_message
from tradeback.store.bus_nats import NatsBus

TRADES = [BusTrade(1.5, 0.25, 1.4, 1.6, number, 10**18 + number, -3, 1, 16) for number in range(2_500)]
PRICE = BusPrice(1.0, 0.9, 1.1, 7, 8)


def settings(server: NatsServer, **more: str) -> NatsConfig:
    environ = {"NATS_URL": server.url, "NATS_JETSTREAM": "true", "NATS_STREAM_BYTES": "8MiB", **more}
    return load_config(environ=environ).messaging.nats


def kept_trades(server: NatsServer) -> list[Any]:
    return [trade for _, content in kept(server) for trade in decode_message(content)[1]]


def manage(server: NatsServer, act: Callable[[Any], Any]) -> None:
    """Something that an operator does to streams."""

    async def managing() -> None:
        client = await nats.connect(server.url)
        try:
            await act(client.jetstream())
        finally:
            await client.close()

    asyncio.run(managing())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    private(NatsServer, tmp_path / "looked").kill()  # skipped where there is none
    with NatsServer(tmp_path / "nats", "-js") as server:
        yield server


@pytest.fixture
def bus(server: NatsServer) -> Iterator[Bus]:
    bus = JetStreamBus(settings(server))
    yield bus
    bus.close()


def publish(bus: Bus, trades: list[BusTrade] = TRADES) -> None:
    bus.publish_trades("BTCUSDT", 3, trades)
    bus.publish_price("BTCUSDT", 3, PRICE)
    bus.flush()


def publish_all(bus: Bus, pieces: list[list[BusTrade]]) -> None:
    for piece in pieces:
        publish(bus, piece)


def test_who_comes_later_reads_all_trades_in_order_and_nothing_else(server: NatsServer, bus: Bus) -> None:
    publish(bus)
    assert {subject for subject, _ in kept(server)} == {"trades.BTCUSDT"}
    assert kept_trades(server) == TRADES


def test_what_is_published_again_is_kept_once(server: NatsServer, bus: Bus) -> None:
    publish(bus)
    publish(bus)
    with closing(JetStreamBus(settings(server))) as another:
        publish(another)
    assert kept_trades(server) == TRADES
    # Of another symbol, or other trades, it is not the same.
    bus.publish_trades("ETHUSDT", 4, TRADES[:1])
    bus.publish_trades("BTCUSDT", 3, TRADES[:1])
    bus.flush()
    assert kept_trades(server) == [*TRADES, TRADES[0], TRADES[0]]


def test_what_was_flushed_is_there_after_a_kill(server: NatsServer, bus: Bus) -> None:
    publish(bus, TRADES[:1_000])
    bus.publish_trades("BTCUSDT", 3, TRADES[1_000:2_000])  # nobody has said that it is there
    server.kill()
    with pytest.raises(BusError, match="see that it runs"):
        publish(bus, TRADES[1_000:2_000])
    server.start()
    # Again from the place that was saved, in the same pieces.
    publish(bus, TRADES[1_000:2_000])
    publish(bus, TRADES[2_000:])
    assert kept_trades(server) == TRADES


def test_a_server_that_hangs_is_told_in_bounded_time(server: NatsServer, bus: Bus) -> None:
    publish(bus, TRADES[:1_000])
    server.halt()
    try:
        with pytest.raises(BusError, match="took nothing"):
            publish(bus, TRADES[1_000:])
    finally:
        server.go_on()
    publish(bus, TRADES[1_000:])
    assert list(dict.fromkeys(kept_trades(server))) == TRADES


def test_the_oldest_goes_where_the_stream_is_full(server: NatsServer) -> None:
    with closing(JetStreamBus(settings(server, NATS_STREAM_BYTES="1MiB"))) as bus:
        for round_ in range(20):
            publish(bus, [trade._replace(ts_event=round_) for trade in TRADES])
    there = kept_trades(server)
    assert there[-1] == TRADES[-1]._replace(ts_event=19)
    assert 10_000 < len(there) < 20_000


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (
            {"name": "trades", "subjects": ["trades.>"], "max_age": 60.0, "max_bytes": 8 << 20},
            "max_age is 60.0 and not",
        ),
        (
            {"name": "trades", "subjects": ["orders.>"]},
            "subjects is \\['orders.>'\\] and not \\['trades.>'\\]",
        ),
        (
            {"name": "trades", "subjects": ["trades.>"], "storage": StorageType.MEMORY},
            "storage is memory and not file",
        ),
        ({"name": "other", "subjects": ["trades.BTCUSDT"]}, "overlap"),
    ],
)
def test_a_stream_of_another_is_refused_and_left_alone(
    server: NatsServer, bus: Bus, stream: dict[str, Any], said: str
) -> None:
    manage(server, lambda streams: streams.add_stream(StreamConfig(**stream)))
    for _ in range(2):
        with pytest.raises(BusError, match=said):
            publish(bus)
    assert kept(server, stream["name"]) == []
    manage(server, lambda streams: streams.delete_stream(stream["name"]))
    publish(bus)
    assert kept_trades(server) == TRADES


def test_a_stream_that_is_deleted_is_made_again(server: NatsServer, bus: Bus) -> None:
    publish(bus)
    manage(server, lambda streams: streams.delete_stream("trades"))
    with pytest.raises(BusError, match="no response from stream"):
        publish(bus)
    publish(bus)
    assert kept_trades(server) == TRADES


def test_a_server_without_jetstream_is_told(nats_server: NatsServer) -> None:
    with (
        closing(JetStreamBus(settings(nats_server))) as bus,
        pytest.raises(BusError, match="start it with -js"),
    ):
        publish(bus)


def test_a_stream_larger_than_the_server_has_room_for_is_told(tmp_path: Path) -> None:
    limits = tmp_path / "limits.conf"
    limits.write_text("jetstream { max_file_store: 4MB }")
    private(NatsServer, tmp_path / "looked").kill()
    with NatsServer(tmp_path / "nats", "-c", str(limits)) as server:
        with closing(JetStreamBus(settings(server))) as bus, pytest.raises(BusError, match="make room"):
            publish(bus)
        with closing(JetStreamBus(settings(server, NATS_STREAM_BYTES="2MiB"))) as bus:
            publish(bus)
            assert kept_trades(server) == TRADES


def test_a_full_disk_is_told_and_nothing_of_it_is_lost(
    mounted: Callable[[str], Path], tmp_path: Path
) -> None:
    private(NatsServer, tmp_path / "looked").kill()
    disk = mounted("16m")
    with NatsServer(disk / "nats", "-js") as server, closing(JetStreamBus(settings(server))) as bus:
        publish(bus, TRADES[:100])
        fill(disk / "ballast")
        pieces = [[trade._replace(ts_event=number) for trade in TRADES] for number in range(20)]
        with pytest.raises(BusError):
            publish_all(bus, pieces)
        (disk / "ballast").unlink()
        server.kill()
        server.start()
        publish_all(bus, pieces)
        there = kept_trades(server)
        assert set(there) >= {trade for piece in pieces for trade in piece}


@pytest.mark.parametrize("kind", [NatsBus, JetStreamBus])
def test_messages_fit_into_what_a_server_takes(tmp_path: Path, kind: type[NatsBus]) -> None:
    limits = tmp_path / "limits.conf"
    limits.write_text("max_payload: 2000")
    private(NatsServer, tmp_path / "looked").kill()
    with (
        NatsServer(tmp_path / "nats", "-js", "-c", str(limits)) as server,
        closing(kind(settings(server))) as bus,
    ):
        publish(bus, TRADES[:100])
        if kind is JetStreamBus:
            assert kept_trades(server) == TRADES[:100]
            assert len(kept(server)) == 5


@pytest.mark.parametrize("kind", [NatsBus, JetStreamBus])
def test_what_a_user_may_not_publish_is_told(tmp_path: Path, kind: type[NatsBus]) -> None:
    rights = tmp_path / "rights.conf"
    rights.write_text(
        'authorization { users: [ { user: u, password: p, permissions: { publish: { deny: ["trades.>"] } } } ] }'
    )
    private(NatsServer, tmp_path / "looked").kill()
    with NatsServer(tmp_path / "nats", "-js", "-c", str(rights)) as server:
        config = settings(server, NATS_URL=f"nats://u:p@127.0.0.1:{server.port}")
        with closing(kind(config)) as bus:
            for _ in range(2):
                with pytest.raises(BusError, match="ermissions"):
                    publish(bus)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NATS_STREAM", "a.b"),
        ("NATS_STREAM", "a b"),
        ("NATS_STREAM_AGE", "10ms"),
        ("NATS_STREAM_BYTES", "1KiB"),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.removeprefix("NATS_").lower()):
        load_config(environ={name: value})
