"""`tradeback health`: whether the processes of this machine answer, for supervisors and containers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import click

from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.control import RECORDER_SOCKET, SERVER_SOCKET, ControlClient
from tradeback.errors import ControlError, TradebackError

TIMEOUT = 4.0  # seconds, of each; a supervisor that waits five for the command hears why
PROCESSES = ("server", "recorder", "api")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # where one listens, and may be asked


@click.command()
@click.argument("processes", nargs=-1, type=click.Choice(PROCESSES))
@with_config
def health(config: Config, processes: tuple[str, ...]) -> None:
    """Ask processes of this machine whether they live: server, recorder, api; all where none is named.

    Exit code 0 where each answers, else 1. A service that is away (a database, the exchange) is no reason to end a
    process: `/api/v1/health/detailed` tells of those.
    """
    for name in processes or PROCESSES:
        QUESTIONS[name](config)
        click.echo(f"{name} answers")


def _server(config: Config) -> None:
    _ask_control(config, SERVER_SOCKET)


def _recorder(config: Config) -> None:
    _ask_control(config, RECORDER_SOCKET)


def _ask_control(config: Config, name: str) -> None:
    """Of an exchange that is left to `auto` only the processes know which it is: either folder's may answer."""
    refusals = []
    for folder in config.folders():
        try:
            asyncio.run(_status(folder / name))
        except ControlError as error:
            refusals.append(str(error))
        else:
            return
    raise TradebackError("; ".join(refusals))


async def _status(path: Path) -> None:
    client = ControlClient(path)
    try:
        await client.ask({"type": "status"}, TIMEOUT)
    finally:
        client.close()


def _api(config: Config) -> None:
    host, port = EVERYWHERE.get(config.server.host, config.server.host), config.server.port
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/api/v1/health")
            answer = connection.getresponse()
            alive = answer.status == 200 and json.load(answer) == {"status": "ok"}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TradebackError(
                f"the API does not answer at {host}, port {port} ({error}): see that it runs, and SERVER_PORT"
            ) from error
    if not alive:
        raise TradebackError(
            f"what answers at {host}, port {port} with {answer.status} is not the API: see SERVER_PORT"
        )


QUESTIONS: dict[str, Callable[[Config], None]] = {"server": _server, "recorder": _recorder, "api": _api}
