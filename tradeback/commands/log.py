"""`tradeback log`: what the processes of this machine log from now on, without a restart.

Server and recorder are told over their control sockets. The API may be several processes, and a client must not reach
this: each looks once a second at a file in the data folder, which the command writes. It is gone at the API's next
start or reload.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import click
import structlog

from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.control import RECORDER_SOCKET, SERVER_SOCKET, ControlClient
from tradeback.errors import ControlError, DataFolderError, ProtocolError, TradebackError
from tradeback.log import LEVELS, change_level

FILE = "log-levels.json"
SOCKETS = {"server": SERVER_SOCKET, "recorder": RECORDER_SOCKET}
LOOK_EVERY_S = 1.0
TIMEOUT = 4.0

_log = structlog.get_logger(__name__)


@click.command("log")
@click.argument("level", type=click.Choice(LEVELS))
@click.argument("component", default="")
@with_config
def log(config: Config, level: str, component: str) -> None:
    """Log from LEVEL up, in COMPONENT or everywhere, until the next restart or reload.

    COMPONENT is what a line says of itself, or what stands in front of it: server.feed, store, api; for libraries their
    name, such as gunicorn, or `libraries`. Without it LEVEL holds for all components, those changed before included.
    """
    folders = [folder for folder in config.folders() if folder.is_dir()]
    if not folders:
        raise TradebackError("nothing ever ran on this data folder: name the one in use with DATA_DIR")
    for folder in folders:
        for name, socket in SOCKETS.items():
            try:
                asyncio.run(_ask(folder / socket, level, component))
            except ControlError as error:
                click.echo(f"{name}: not told ({error})")
            else:
                click.echo(f"{name}: {component or 'all'} from {level} up")
        _write(folder / FILE, level, component)
    click.echo(
        f"api: {component or 'all'} from {level} up, within a second, where one runs on this data folder"
    )


async def _ask(path: Path, level: str, component: str) -> None:
    client = ControlClient(path)
    try:
        await client.ask({"type": "log", "level": level, "component": component}, TIMEOUT)
    finally:
        client.close()


def _write(path: Path, level: str, component: str) -> None:
    """Add a change to those of before; one that is for all takes their place."""
    levels = {**(_read(path) if component else {}), component: level}
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(levels))
        part.replace(path)
    except OSError as error:
        raise DataFolderError(f"{path} cannot be written: {error.strerror}; run this as its owner") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def forget_levels(folder: Path) -> None:
    """What was changed before holds no longer: the configuration does."""
    (folder / FILE).unlink(missing_ok=True)


def follow_levels(folder: Path) -> None:
    """In a thread of this process: log as the command says, from a second after it at the latest."""
    path = folder / FILE

    def follow() -> None:
        seen: tuple[int, int] | None = None
        wait = threading.Event()
        while True:
            now = _place(path)
            if now is not None and now != seen:
                _apply(_read(path))
            seen = now
            wait.wait(LOOK_EVERY_S)

    threading.Thread(target=follow, name="log levels", daemon=True).start()


def _apply(levels: dict[str, Any]) -> None:
    for component, level in levels.items():
        try:
            change_level({"level": level, "component": component})
        except ProtocolError as error:
            _log.warning("a level of the log cannot be", file=FILE, reason=str(error))


def _place(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
