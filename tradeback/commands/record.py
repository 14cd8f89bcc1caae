"""`tradeback record`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.errors import ConfigError
from tradeback.exchange.capture import Capture
from tradeback.exchange.choice import stream_bases
from tradeback.exchange.recording import RecordingWriter

TYPES = ("trade", "aggTrade", "bookTicker")


@click.command()
@with_config
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--symbol", "symbols", multiple=True, help="A symbol; may be repeated. Default: the configured ones."
)
@click.option("--type", "types", multiple=True, default=TYPES, show_default=True, help="A type of stream.")
@click.option("--url", help="Base of the exchange's streams; default: the configured exchange's.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after so long.")
@click.option("--messages", type=click.IntRange(1), help="Stop after so many messages.")
def record(
    config: Config,
    file: Path,
    symbols: tuple[str, ...],
    types: tuple[str, ...],
    url: str | None,
    seconds: float | None,
    messages: int | None,
) -> None:
    """Record the exchange's streams into FILE (.jsonl, or .jsonl.gz), for `tradeback sim --replay`."""
    wanted = symbols or config.exchange.symbols
    if not wanted:
        raise ConfigError("no symbols to record: give --symbol BTCUSDT, or set EXCHANGE_SYMBOLS")
    streams = [f"{symbol.lower()}@{kind}" for kind in types for symbol in dict.fromkeys(wanted)]
    with RecordingWriter(file) as writer:
        capture = Capture(url or stream_bases(config.exchange)[0], streams, writer, messages)
        uvloop.run(_record(capture, seconds))
        click.echo(f"{writer.messages} messages recorded in {file}")


async def _record(capture: Capture, seconds: float | None) -> None:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    try:
        async with asyncio.timeout(seconds):
            await capture.run()
    except (TimeoutError, asyncio.CancelledError):
        return
