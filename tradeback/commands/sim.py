"""The command `tradeback sim`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from tradeback.errors import TradebackError
from tradeback.exchange.choice import SIM_REST_PORT, SIM_WS_PORT
from tradeback.exchange.sim.app import Sim, SimConfig
from tradeback.exchange.sim.streams import StreamLimits


def _speed(context: click.Context, parameter: click.Parameter, value: str) -> float:
    if value == "max":
        return 0.0
    try:
        speed = float(value)
    except ValueError:
        speed = -1.0
    if not 0.0 <= speed <= 1e6:
        raise click.BadParameter(f"{value!r} is no speed: give a factor such as 1 or 10, or max")
    return speed


@click.command("sim")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=SIM_WS_PORT, show_default=True, help="WebSocket port; 0 is any free one.")
@click.option(
    "--rest-port", default=SIM_REST_PORT, show_default=True, help="REST and /sim/ port; 0: any free."
)
@click.option("--symbols", type=click.IntRange(1, 5_000), default=100, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(0), default=1_000.0, show_default=True, help="Messages a second."
)
@click.option("--seed", default=1, show_default=True, help="Same seed, same market.")
@click.option("--steady", is_flag=True, help="An even flow of messages, without bursts.")
@click.option("--first-id", type=click.IntRange(1), help="First trade id; the clock decides otherwise.")
@click.option("--paused", is_flag=True, help="Wait for /sim/resume.")
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play a recording."
)
@click.option("--speed", default="1", callback=_speed, help="Of the replay: a factor, or max.")
@click.option(
    "--exchange-info", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="For --replay."
)
@click.option("--derive-trades", is_flag=True, help="Replay: trades out of aggTrades that are one trade.")
@click.option(
    "--history/--no-history", default=True, show_default=True, help="Klines of the time before the start."
)
@click.option("--history-rows", type=click.IntRange(1_000), default=3_000_000, show_default=True)
@click.option("--weight-limit", type=click.IntRange(1), default=6_000, show_default=True)
@click.option("--market-data-only", is_flag=True, help="Without historicalTrades.")
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Connection attempts in 5 minutes.",
)
@click.option(
    "--max-age", type=click.FloatRange(0.1), default=86_400.0, help="Seconds a connection may live."
)
def sim_command(max_age: float, max_attempts: int, **options: object) -> None:
    """Run a simulated exchange that speaks Binance's protocol, and misbehaves on request (/sim/fault)."""
    limits = StreamLimits(max_age=max_age, attempts=max_attempts)
    config = SimConfig(limits=limits, **options)  # type: ignore[arg-type]
    try:
        uvloop.run(_serve(config))
    except (TradebackError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(config: SimConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Sim(config) as sim:
        click.echo(f"simulated exchange: streams {sim.ws_url} rest {sim.rest_url} symbols {len(sim.symbols)}")
        sim.on_failure(stop.set)
        await stop.wait()
