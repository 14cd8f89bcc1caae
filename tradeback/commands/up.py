"""`tradeback up`: everything for one person on one machine. It starts the processes, says where they listen, and
starts one again that ended by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson
import structlog

from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.errors import ConfigError, TradebackError
from tradeback.exchange.choice import DEFAULT_SIM, choose_exchange
from tradeback.exchange.sim import Sim, SimConfig
from tradeback.log import set_up_logging

log = structlog.get_logger(__name__)

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
RESTARTS_A_MINUTE = 5
RESTART_PAUSE = 1.0


@dataclass(slots=True)
class Child:
    """A process of ours: the command that it runs, and how often it had to be started again."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    restarts: list[float] = field(default_factory=list)

    async def start(self) -> dict[str, str]:
        """Start it and wait until it says that it is ready. Returns its addresses."""
        reader, writer = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tradeback",
                *self.arguments,
                f"--ready-fd={writer}",
                env=self.environment,
                pass_fds=(writer,),
            )
        finally:
            os.close(writer)
        line = await _read_line(reader)
        if not line:
            code = await self.process.wait()
            raise TradebackError(
                f"{self.name} ended with code {code} before it was ready: its messages say why"
            )
        addresses: dict[str, str] = orjson.loads(line)
        return addresses

    async def stop(self) -> None:
        """Ask it to end; end it by force where it does not."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self.process.wait()
        except TimeoutError:
            log.error("a process did not end when asked, it is killed", process=self.name)
            self.process.kill()
            await self.process.wait()

    async def keep_running(self) -> None:
        """Start it again whenever it ends. Raises TradebackError where that happens too often."""
        while True:
            if self.process is None:
                raise TradebackError(f"{self.name} was never started")
            code = await self.process.wait()
            now = time.monotonic()
            self.restarts = [moment for moment in self.restarts if now - moment < 60.0] + [now]
            if len(self.restarts) > RESTARTS_A_MINUTE:
                raise TradebackError(
                    f"{self.name} ended {len(self.restarts)} times within a minute, last with code {code}"
                )
            log.error("a process ended by itself, it is started again", process=self.name, code=code)
            await asyncio.sleep(RESTART_PAUSE)
            await self.start()


async def _read_line(descriptor: int) -> bytes:
    """The line that the child writes when it is ready; empty where it ended before."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    with os.fdopen(descriptor, "rb") as pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await reader.readline()
        except TimeoutError:
            raise TradebackError(f"a process was not ready within {START_TIMEOUT:.0f} s") from None
        finally:
            transport.close()


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
@with_config(
    defaults={
        "server.host": "127.0.0.1",
        "websocket.anonymous": True,
        "exchange.symbols": ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"),
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
    replay: Path | None,
    speed: float,
) -> None:
    """Run everything on this machine: the server, and the simulated exchange where no other is there."""
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
        replay=replay,
        speed=speed,
    )
    path = click.get_current_context().params.get("path")
    asyncio.run(_up(config, path, simulation, dict(os.environ)))


async def _up(config: Config, path: Path | None, simulation: SimConfig, environment: dict[str, str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    running = asyncio.create_task(_run(config, path, simulation, environment), name="up")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        # Whatever it does, starting or running: it ends what it started.
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            return
        except TradebackError as error:
            # Ctrl-C reaches the other processes too, and one that ends before it was ready is no fault then.
            log.info("ended while starting", reason=str(error))
            return
    await running


async def _run(config: Config, path: Path | None, simulation: SimConfig, environment: dict[str, str]) -> None:
    chosen = await choose_exchange(config.exchange)
    click.echo(f"Exchange: {chosen.name} ({chosen.reason}).")
    async with AsyncExitStack() as stack:
        exchange = chosen.apply(config.exchange)
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
            click.echo(f"Simulated exchange: {sim.ws_url}, REST {sim.rest_url}")
        server = Child(
            "server",
            ["server", "--log-level", config.log.level, *(["--config", str(path)] if path else [])],
            {
                **environment,
                "TRADEBACK_EXCHANGE": exchange.name,
                "EXCHANGE_WS_ENDPOINT": exchange.ws_endpoint,
                "EXCHANGE_REST_ENDPOINT": exchange.rest_endpoint,
                "EXCHANGE_SYMBOLS": ",".join(exchange.symbols),
                "SERVER_HOST": config.server.host,
                "SERVER_LOOP": config.server.loop,
                "WS_PORT": str(config.server.ws_port),
                "WS_ANONYMOUS": "true" if config.websocket.anonymous else "false",
                "DATA_DIR": str(config.data.folder),
            },
        )
        stack.push_async_callback(server.stop)
        addresses = await server.start()
        # Clients reconnect to the same address after a restart, also where any free port was asked for.
        server.environment["WS_PORT"] = str(urlsplit(addresses["websocket"]).port)
        click.echo(f"WebSocket: {addresses['websocket']}")
        click.echo(f"Health: {addresses['health']}")
        click.echo("Ready. Watch it with: tradeback watch " + " ".join(exchange.symbols[:2]))
        await server.keep_running()
