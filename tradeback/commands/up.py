"""`tradeback up`: everything for one person on one machine. It starts the processes, says which address to open, and
starts one again that ended by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import click
import structlog

from tradeback.commands.children import Child, hang_up, keep_all_running
from tradeback.commands.demo import cookie_notice, demo_login, page_address, secure_cookie
from tradeback.commands.options import with_config
from tradeback.commands.reloading import loader, reload_config
from tradeback.commands.supervisor import feed_watchdog, on_end, tell_supervisor, without_supervisor
from tradeback.commands.whole_replay import play_to_the_end
from tradeback.config import Config
from tradeback.errors import ConfigError, TradebackError
from tradeback.exchange.choice import DEFAULT_SIM, choose_exchange
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.log import set_up_logging

PASSED_ON = {
    "config": "path",
    "log-level": "log_level",
}  # options of the processes, by where click keeps them
DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")

log = structlog.get_logger(__name__)


@click.command("up")
@click.option("--symbols", help="Symbols that are carried always, separated by commas  [EXCHANGE_SYMBOLS]")
@click.option("--port", type=int, help="Port of the REST interface; 0 is any free one  [SERVER_PORT]")
@click.option("--ws-port", type=int, help="Port of the WebSocket server; 0 is any free one  [WS_PORT]")
@click.option("--loop", help="Event loop: epoll, asyncio or uvloop  [SERVER_LOOP]")
@click.option(
    "--sim-port",
    type=click.IntRange(0, 65534),
    default=9443,
    show_default=True,
    help="Port of the simulated exchange, its REST interface on the next; 0 is any free ones.",
)
@click.option(
    "--sim-rate",
    type=click.FloatRange(0),
    default=1000.0,
    show_default=True,
    help="Messages a second of the simulated exchange.",
)
@click.option("--sim-symbols", type=click.IntRange(1, 5000), default=100, show_default=True)
@click.option("--sim-seed", type=int, default=1, show_default=True, help="Same seed, same market.")
@click.option("--sim-paused", is_flag=True, help="The simulated market waits for /sim/resume.")
@click.option("--sim-market-data-only", is_flag=True, help="The simulated exchange has no historicalTrades.")
@click.option(
    "--sim-history-rows",
    type=click.IntRange(1_000),
    default=3_000_000,
    show_default=True,
    help="Trades that the simulated exchange keeps.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The simulated exchange plays this recording.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Of the replay; 0 is as fast as it is taken.",
)
@click.option("--exit-at-end", is_flag=True, help="End when the recording is stored, with exit code 0.")
@with_config(
    defaults={
        "server.host": "127.0.0.1",
        "websocket.anonymous": True,
        "exchange.symbols": DEFAULT_SYMBOLS,
    },
    flags={
        "symbols": "exchange.symbols",
        "port": "server.port",
        "ws_port": "server.ws_port",
        "loop": "server.loop",
    },
)
def up(
    config: Config,
    sim_port: int,
    sim_rate: float,
    sim_symbols: int,
    sim_seed: int,
    sim_paused: bool,
    sim_market_data_only: bool,
    sim_history_rows: int,
    replay: Path | None,
    speed: float,
    exit_at_end: bool,
) -> None:
    """Run everything on this machine: server, recorder, API, and the simulated exchange where no other is there."""
    if exit_at_end and replay is None:
        raise click.UsageError("--exit-at-end has no end to wait for: give --replay with it")
    set_up_logging(config.log)
    if replay is not None:
        config = config.with_exchange("sim")
    simulation = SimConfig(
        port=sim_port,
        rest_port=sim_port + 1 if sim_port else 0,
        symbols=sim_symbols,
        rate=sim_rate,
        seed=sim_seed,
        paused=sim_paused,
        market_data_only=sim_market_data_only,
        history_rows=sim_history_rows,
        replay=replay,
        speed=speed,
    )
    given = click.get_current_context().params
    # What the file and the environment say, the processes read themselves, and again on SIGHUP.
    options = [f"--{name}={given[key]}" for name, key in PASSED_ON.items() if given.get(key) is not None]
    asyncio.run(_up(config, options, simulation, dict(os.environ), exit_at_end, loader()))


async def _up(
    config: Config,
    options: list[str],
    simulation: SimConfig,
    environment: dict[str, str],
    exit_at_end: bool,
    load: Callable[[], Config],
) -> None:
    stop = asyncio.Event()
    children: list[Child] = []
    forced = False

    def ask_to_end(signum: signal.Signals) -> None:
        nonlocal forced
        # Who types Ctrl-C again is out of patience; SIGTERM may come twice from one who only wants to be heard.
        if stop.is_set() and signum == signal.SIGINT and not forced:
            forced = True
            log.warning("asked to end again: what still runs is killed")
        if forced:
            for child in children:
                child.kill()
        stop.set()

    def hung_up() -> None:
        if terminal is not None and _is_gone(terminal):
            ask_to_end(signal.SIGHUP)
        elif reload_config(load) is not None:
            # Each of them reads its configuration again.
            hang_up(children)

    on_end(ask_to_end)
    terminal = next((number for number in range(3) if os.isatty(number)), None)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
    running = asyncio.create_task(
        _run(config, options, simulation, environment, exit_at_end, children), name="up"
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        # Whatever it does, starting or running: it ends what it started.
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            if forced:
                raise TradebackError(
                    "ended by force, as asked: the next start brings all in order from the journal"
                ) from None
            return
        except TradebackError as error:
            # What could not be started in the moment in which nobody wanted it any more is no fault.
            log.info("ended while starting", reason=str(error))
            return
    await running


def _is_gone(terminal: int) -> bool:
    """Whether the terminal that this was started from was closed."""
    try:
        os.tcgetpgrp(terminal)
    except OSError:
        return True
    return False


async def _run(
    config: Config,
    options: list[str],
    simulation: SimConfig,
    environment: dict[str, str],
    exit_at_end: bool,
    children: list[Child],
) -> None:
    """Start all and keep it running, until cancelled; `children` gets those that were made."""
    chosen = await choose_exchange(config.exchange)
    click.echo(f"Exchange: {chosen.name} ({chosen.reason}).")
    async with AsyncExitStack() as stack:
        exchange = chosen.apply(config.exchange)
        sim: Sim | None = None
        if exchange.name == "sim" and exchange.ws_endpoint == DEFAULT_SIM:
            sim = Sim(simulation)
            stack.push_async_callback(sim.stop)
            try:
                await sim.start()
            except OSError as error:
                raise ConfigError(
                    f"the simulated exchange cannot listen on port {simulation.port} and the next: "
                    f"{error.strerror or error}; stop what listens there, or choose another with --sim-port"
                ) from error
            exchange = exchange.model_copy(update={"ws_endpoint": sim.ws_url, "rest_endpoint": sim.rest_url})
            if simulation.replay is not None and exchange.symbols == DEFAULT_SYMBOLS:
                exchange = exchange.model_copy(update={"symbols": tuple(sim.symbols)})
            click.echo(f"Simulated exchange: {sim.ws_url}, REST {sim.rest_url}")
        elif simulation.replay is not None:
            raise ConfigError(
                f"{simulation.replay} is to be played by the simulated exchange, and EXCHANGE_WS_ENDPOINT names "
                f"another one, {exchange.ws_endpoint}: unset it"
            )
        shared = {
            **without_supervisor(environment),
            "TRADEBACK_EXCHANGE": exchange.name,
            "EXCHANGE_WS_ENDPOINT": exchange.ws_endpoint,
            "EXCHANGE_REST_ENDPOINT": exchange.rest_endpoint,
            "EXCHANGE_SYMBOLS": ",".join(exchange.symbols),
            "DATA_DIR": str(config.data.folder),
        }
        server = Child(
            "server",
            ["server", *options],
            {
                **shared,
                "SERVER_HOST": config.server.host,
                "SERVER_LOOP": config.server.loop,
                "WS_PORT": str(config.server.ws_port),
                "WS_ANONYMOUS": "true" if config.websocket.anonymous else "false",
            },
        )
        at_end = ["--exit-at-end"] if exit_at_end else []
        recorder = Child("recorder", ["recorder", *at_end, *options], shared)
        api = Child(
            "api",
            ["api", *options],
            {
                **shared,
                "SERVER_HOST": config.server.host,
                "SERVER_PORT": str(config.server.port),
                "SESSION_COOKIE_SECURE": "true" if secure_cookie(config) else "false",
            },
        )
        children += [server, recorder, api]
        # The recorder ends last: it stores what the server journaled to its end.
        stack.push_async_callback(recorder.stop)
        stack.push_async_callback(server.stop)
        stack.push_async_callback(api.stop)
        addresses = await server.start()
        # Clients reconnect to the same address after a restart, also where any free port was asked for.
        server.environment["WS_PORT"] = str(urlsplit(addresses["websocket"]).port)
        click.echo(f"WebSocket: {addresses['websocket']}")
        click.echo(f"Health: {addresses['health']}")
        await recorder.start()
        api.environment["WS_PORT"] = server.environment["WS_PORT"]
        rest = (await api.start())["rest"]
        api.environment["SERVER_PORT"] = str(urlsplit(rest).port)
        click.echo(f"REST: {rest}/api/v1/symbols")
        login = await asyncio.to_thread(demo_login, config.model_copy(update={"exchange": exchange}))
        click.echo("Ready. In a terminal: tradeback watch " + " ".join(exchange.symbols[:2]))
        if notice := cookie_notice(config):
            click.echo(notice)
        click.echo(f"Open {page_address(rest)}")
        click.echo(login)
        tell_supervisor("READY=1")
        feed_watchdog()
        if exit_at_end and sim is not None:
            played = [symbol for symbol in exchange.symbols if symbol in sim.symbols]
            await play_to_the_end(sim, server, recorder, config.with_exchange("sim"), played)
            click.echo(f"All of {simulation.replay} is stored.")
        else:
            await _unless_it_fails(sim, keep_all_running(children))


async def _unless_it_fails(sim: Sim | None, work: Coroutine[None, None, None]) -> None:
    """Do the work, but only as long as the simulated exchange goes on: `Sim.stop` raises what it broke off with."""
    failed = asyncio.Event()
    if sim is not None:
        sim.on_failure(failed.set)
    tasks = [asyncio.create_task(work, name="children"), asyncio.create_task(failed.wait(), name="exchange")]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
