"""`tradeback server`: the event server. It loads the symbols, then runs `server.app.Server` on the chosen loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import click
import structlog

from tradeback._fast.epoll import new_event_loop
from tradeback.ceilings import allow_descriptors
from tradeback.commands.lifeline import tell_ready
from tradeback.commands.options import with_config
from tradeback.commands.reloading import loader, on_hangup
from tradeback.commands.supervisor import feed_watchdog, on_end
from tradeback.config import Config, notices
from tradeback.errors import ConfigError, ExchangeError, StoreError, TradebackError
from tradeback.exchange.choice import choose_exchange
from tradeback.exchange.rest import ExchangeRest
from tradeback.log import set_up_logging
from tradeback.model import Symbol
from tradeback.server.app import Server
from tradeback.store.catalog import open_catalog
from tradeback.store.symbols_copy import keep_symbols, kept_symbols
from tradeback.tokens import load_secret

log = structlog.get_logger(__name__)

SYNC_TIMEOUT = 20.0
# Beside its clients: feeds and those that replace them, files of journal and table, control connections, the backlog's.
OTHER_DESCRIPTORS = 256


@click.command("server")
@click.option("--ws-port", type=int, help="Port of the WebSocket server; 0 is any free one  [WS_PORT]")
@click.option("--loop", help="Event loop: epoll, asyncio or uvloop  [SERVER_LOOP]")
@click.option("--ready-fd", type=int, hidden=True)
@with_config(flags={"ws_port": "server.ws_port", "loop": "server.loop"})
def server(config: Config, ready_fd: int | None) -> None:
    """Run the event server: one exchange's streams in, clients' frames out."""
    set_up_logging(config.log)
    for notice in notices(config):
        log.warning(notice)
    run_server(config, ready_fd=ready_fd, load=loader())


def run_server(config: Config, *, ready_fd: int | None, load: Callable[[], Config]) -> None:
    """Run until SIGTERM or SIGINT. `ready_fd` gets the addresses as a line of JSON once clients can connect; `load`
    reads the configuration again on SIGHUP."""
    config = with_clients_that_fit(config)
    with asyncio.Runner(loop_factory=loop_factory(config.server.loop, config.server.spin)) as runner:
        runner.run(_serve(config, ready_fd, load))


def with_clients_that_fit(config: Config) -> Config:
    """The configuration with as many clients as the limit of open files allows, which is raised as far as it may be.

    Raises ConfigError where it allows none.
    """
    wanted = config.websocket.max_clients
    allowed = allow_descriptors(wanted + OTHER_DESCRIPTORS, 1 + OTHER_DESCRIPTORS, "the event server")
    fitting = min(wanted, allowed - OTHER_DESCRIPTORS)
    if fitting == wanted:
        return config
    log.warning(
        "fewer clients than configured are let in: raise the hard limit of open files (LimitNOFILE= of a systemd unit, "
        "--ulimit nofile= of a container, ulimit -Hn), or lower WS_MAX_CLIENTS",
        max_clients=wanted,
        let_in=fitting,
        hard_limit=allowed,
        needed=wanted + OTHER_DESCRIPTORS,
    )
    websocket = config.websocket.model_copy(update={"max_clients": fitting})
    return config.model_copy(update={"websocket": websocket})


def loop_factory(name: str, spin: float) -> Callable[[], asyncio.AbstractEventLoop]:
    """How the event loop of that name is made. Raises ConfigError where it cannot spin as asked."""
    if name == "epoll":
        return partial(_spinning, spin)
    if spin:
        raise ConfigError(f"server.spin is {spin} and server.loop is {name}: only the epoll loop can spin")
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.SelectorEventLoop


def _spinning(spin: float) -> asyncio.AbstractEventLoop:
    loop = new_event_loop()
    loop.spin = spin
    return loop


async def _serve(config: Config, ready_fd: int | None, load: Callable[[], Config]) -> None:
    stop = asyncio.Event()
    on_end(lambda _: stop.set())
    on_hangup(load)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    making = asyncio.create_task(_make_server(config), name="start")
    # An exchange that does not answer is waited for half a minute; who asks for the end does not wait with it.
    await asyncio.wait({making, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    else:
        serving = await making

        def ready(addresses: dict[str, str]) -> None:
            on_hangup(load, lambda read: serving.reload(with_clients_that_fit(read)))
            _tell(addresses, ready_fd)

        await serving.run(ready, stop)
    stopping.cancel()
    log.info("server stopped")


async def _make_server(config: Config) -> Server:
    chosen = await choose_exchange(config.exchange)
    log.info("exchange chosen", exchange=chosen.name, reason=chosen.reason)
    config = config.model_copy(update={"exchange": chosen.apply(config.exchange)})
    folder = config.data.of(chosen.name)
    secret = load_secret(folder, config.session.secret.get_secret_value())
    return Server(config, folder, chosen.name, await load_symbols(config), secret)


def _tell(addresses: dict[str, str], ready_fd: int | None) -> None:
    log.info("server ready", **addresses)
    feed_watchdog()
    tell_ready(ready_fd, addresses)


async def load_symbols(config: Config) -> list[Symbol]:
    """The catalog's symbols, brought up to date where the exchange answers; what is stored serves otherwise.

    A catalog on another machine may be away: then those of the last start serve, and the recorder tells the others.
    """
    folder = config.data.of(config.exchange.name)
    remote = bool(config.database.mysql.host)
    try:
        symbols = await _symbols_of_the_catalog(config)
    except StoreError as error:
        kept = kept_symbols(folder) if remote and error.away else []
        if not kept:
            raise
        log.warning(
            "the catalog is away, the symbols of the last start serve", reason=str(error), kept=len(kept)
        )
        return kept
    keep_symbols(folder, symbols)
    return symbols


async def _symbols_of_the_catalog(config: Config) -> list[Symbol]:
    with contextlib.closing(open_catalog(config)) as catalog:
        try:
            async with asyncio.timeout(SYNC_TIMEOUT), ExchangeRest(config.exchange.rest_endpoint) as rest:
                infos = await rest.exchange_info()
            catalog.sync_symbols(infos)
        except (ExchangeError, TimeoutError) as error:
            stored = catalog.symbols()
            if not stored:
                raise TradebackError(
                    f"no symbol is known: the catalog is empty and the exchange gave none ({error}); "
                    "start again once it can be reached"
                ) from error
            log.warning("symbols not refreshed, the stored ones serve", reason=str(error), stored=len(stored))
            return stored
        return catalog.symbols()
