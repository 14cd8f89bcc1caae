"""`tradeback backfill`: bars of the past, with a progress bar on a terminal and lines elsewhere.

Where a recorder runs on the data folder, it is asked to do it; otherwise this process does, under the recorder's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tradeback.commands.options import with_config
from tradeback.config import Config
from tradeback.config.units import format_duration
from tradeback.control import RECORDER_SOCKET, ControlClient
from tradeback.errors import ConfigError, ControlError, ExchangeError
from tradeback.exchange.binance import can_carry
from tradeback.exchange.choice import choose_exchange, rest_bases
from tradeback.exchange.rest import ExchangeRest, RestPolicy
from tradeback.log import set_up_logging
from tradeback.model import RESOLUTIONS, Symbol, SymbolInfo
from tradeback.recorder.asking import DAYS_MAX, asked_backfill, asked_progress, find_symbols
from tradeback.recorder.backfill import Backfill
from tradeback.recorder.lock import RecorderLock
from tradeback.store.catalog import open_catalog
from tradeback.store.histories import open_history

REDRAWS_PER_SECOND = 4
LINE_EVERY_S = 5.0
RATE_WINDOW_S = 10.0
GIVE_UP_AFTER_S = 300.0  # of failures without one page between them
INTERRUPTED = 130  # what shells answer for Ctrl-C

Ask = Callable[[], Awaitable[dict[str, Any]]]


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option(
    "--days",
    type=click.IntRange(0, DAYS_MAX),
    default=30,
    show_default=True,
    help="How many days before today; today's closed bars come with them.",
)
@click.option(
    "--resolution",
    "resolutions",
    type=click.Choice([*RESOLUTIONS, "all"]),
    multiple=True,
    default=["1m"],
    show_default=True,
    help="Of the bars; may be given several times. Coarser ones follow from 1m bars as well.",
)
@click.option("--again", is_flag=True, help="Fetch also what is stored already.")
@with_config
def backfill(
    config: Config, symbols: tuple[str, ...], days: int, resolutions: tuple[str, ...], again: bool
) -> None:
    """Fetch bars of the past from the exchange, into the history.

    What was fetched is not fetched again: after Ctrl-C, or a failure, the same command goes on where it was.
    """
    wanted = list(RESOLUTIONS) if "all" in resolutions else list(dict.fromkeys(resolutions))
    request = {"symbols": list(symbols), "resolutions": wanted, "days": days, "again": again}
    if not config.features.aggregation_enabled:
        raise ConfigError(
            "bars are switched off (FEATURE_AGGREGATION_ENABLED is false): switch them on to fetch them"
        )
    _tell_what_is_not_kept(config, wanted, days)
    running = _Running()
    try:
        asyncio.run(_backfill(config, request, running))
    except KeyboardInterrupt:
        click.echo(f"\n{running.interrupted()}", err=True)
        sys.exit(INTERRUPTED)


def _tell_what_is_not_kept(config: Config, resolutions: list[str], days: int) -> None:
    for resolution in resolutions:
        keep = getattr(config.history, f"keep_{resolution}")
        if 0 < keep < (days + 1) * 86_400:
            click.echo(
                f"{resolution} bars are kept for {format_duration(keep)} (HISTORY_KEEP_{resolution.upper()}): older "
                "ones are not fetched.",
                err=True,
            )


@dataclass(slots=True)
class _Running:
    """Who does the work, for the sentence after Ctrl-C."""

    by_recorder: bool = False
    begun: bool = False

    def interrupted(self) -> str:
        if not self.begun:
            return "Stopped before anything was asked for."
        if self.by_recorder:
            return "The recorder goes on with it; the same command shows how far it is."
        return "Stopped. What was fetched is stored; the same command goes on where this one was."


async def _backfill(config: Config, request: dict[str, Any], running: _Running) -> None:
    chosen = await choose_exchange(config.exchange)
    config = config.model_copy(update={"exchange": chosen.apply(config.exchange)})
    folder = config.data.of(chosen.name)
    client = ControlClient(folder / RECORDER_SOCKET)
    try:
        await client.connect()
    except ControlError:
        await _by_itself(config, folder, request, running)
    else:
        with contextlib.closing(client):
            await _by_recorder(config, client, request, running)


async def _by_recorder(
    config: Config, client: ControlClient, request: dict[str, Any], running: _Running
) -> None:
    with contextlib.closing(open_catalog(config, create=False)) as catalog:
        names = [symbol.name for symbol in catalog.symbols()]
    request["symbols"] = find_symbols(request["symbols"], names, config.exchange.name)
    running.by_recorder = True
    jobs = (await client.ask({"type": "backfill", **request}))["jobs"]
    running.begun = True

    async def progress() -> dict[str, Any]:
        return await client.ask({"type": "progress"})

    await _show(jobs, progress)


async def _by_itself(config: Config, folder: Path, request: dict[str, Any], running: _Running) -> None:
    # The progress tells of failures; logged lines would only break its picture.
    set_up_logging(config.log.model_copy(update={"level": "error"}))
    async with AsyncExitStack() as stack:
        stack.enter_context(RecorderLock(folder))
        policy = RestPolicy(attempts=2, weight_share=config.recorder.weight_share)
        rest = await stack.enter_async_context(ExchangeRest(rest_bases(config.exchange)[0], policy))
        listed = await _exchange_info(rest)
        catalog = stack.enter_context(contextlib.closing(open_catalog(config)))
        known = {symbol.name: symbol for symbol in catalog.symbols()}
        if any(info.symbol not in known and can_carry(info.symbol) for info in listed):
            catalog.sync_symbols([info for info in listed if can_carry(info.symbol)])
            known = {symbol.name: symbol for symbol in catalog.symbols()}
        request["symbols"] = find_symbols(request["symbols"], known, config.exchange.name)
        history = stack.enter_context(contextlib.closing(open_history(config, write=True)))
        by_id: dict[int, Symbol] = {symbol.stream_id: symbol for symbol in known.values()}
        work = Backfill(history, rest, by_id.get, config)
        await work.read_clock()
        jobs = asked_backfill(work, known.get, request)["jobs"]
        running.begun = True
        keys = {(job["symbol"], job["resolution"], job["start"]) for job in jobs}
        only = [job for job in work.jobs if (by_id[job.stream_id].name, job.resolution, job.start) in keys]
        working = asyncio.create_task(work.run(only=only))
        stack.push_async_callback(_ended, working)

        async def progress() -> dict[str, Any]:
            if working.done():
                await working
            return asked_progress(work)

        await _show(jobs, progress)


async def _exchange_info(rest: ExchangeRest) -> list[SymbolInfo]:
    """The exchange's list, which also tells how much weight may be used."""
    try:
        return await rest.exchange_info()
    except ExchangeError as error:
        raise ExchangeError(
            f"The exchange cannot be asked ({error}): see EXCHANGE_REST_ENDPOINT, or start `tradeback sim` and choose "
            "--exchange sim"
        ) from error


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _View:
    """How far the jobs are that were asked for. `total` and `done` count intervals, `rate` bars a second."""

    total: int
    done: int
    symbols: int
    symbols_done: int
    rate: float
    pages: int
    note: str
    errors: tuple[str, ...]
    weight: str
    finished: bool


class _Viewer:
    """Makes views out of what `progress` answers. Raises ExchangeError where nothing goes on for too long."""

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        self._keys = {(job["symbol"], job["resolution"], job["start"]) for job in jobs}
        self._seen: list[tuple[float, int]] = []
        self._pages = -1
        self._moved = time.monotonic()
        self._failures = 0
        self.first_done: int | None = None

    def view(self, answer: dict[str, Any]) -> _View:
        jobs = [
            job for job in answer["jobs"] if (job["symbol"], job["resolution"], job["start"]) in self._keys
        ]
        total = sum(_intervals(job, "end") for job in jobs)
        done = sum(_intervals(job, "done_to") for job in jobs)
        errors = tuple(f"{job['symbol']} {job['resolution']}: {job['error']}" for job in jobs if job["error"])
        unfinished = [job for job in jobs if job["done_to"] < job["end"] and not job["error"]]
        failures = [job["failure"] for job in unfinished if job["failure"]]
        now = time.monotonic()
        if answer["pages"] != self._pages or answer["waits"] or not failures:
            self._pages, self._moved = answer["pages"], now
        if now - self._moved > GIVE_UP_AFTER_S:
            raise ExchangeError(f"nothing could be fetched for {now - self._moved:.0f} s: {failures[0]}")
        if self.first_done is None:
            self.first_done = done
        self._seen = [(at, bars) for at, bars in self._seen if at > now - RATE_WINDOW_S] + [
            (now, answer["bars"])
        ]
        (since, before), (at, bars) = self._seen[0], self._seen[-1]
        waits = answer["waits"]
        note = (
            f"waits {waits:.0f} s for the exchange's next minute"
            if waits
            else failures[0]
            if failures
            else ""
        )
        left = {job["symbol"] for job in unfinished}
        names = {job["symbol"] for job in jobs}
        return _View(
            total,
            done,
            len(names),
            len(names - left),
            (bars - before) / (at - since) if at > since else 0.0,
            answer["pages"],
            note,
            errors,
            f"{answer['weight']['used']}/{answer['weight']['limit']}",
            not unfinished,
        )


def _intervals(job: dict[str, Any], to: str) -> int:
    return int((job[to] - job["start"]) // RESOLUTIONS[job["resolution"]])


async def _show(jobs: list[dict[str, Any]], ask: Ask) -> None:
    """Show the progress until all is done. Raises ExchangeError where a job ended with an error."""
    viewer = _Viewer(jobs)
    began = time.monotonic()
    console = Console(stderr=True)
    view = await (_draw if console.is_terminal else _print)(viewer, ask, console)
    fetched = view.done - (viewer.first_done or 0)
    seconds = time.monotonic() - began
    if view.errors:
        raise ExchangeError(f"not all could be fetched: {'; '.join(view.errors)}")
    what = f"{view.symbols} symbol{'s' if view.symbols != 1 else ''}, {view.total:,} intervals"
    if fetched:
        click.echo(f"{what}: done, {fetched:,} of them now, in {seconds:.1f} s.")
    else:
        click.echo(f"{what}: everything was fetched before.")


async def _print(viewer: _Viewer, ask: Ask, console: Console) -> _View:
    last = ""
    printed = float("-inf")
    while True:
        view = viewer.view(await ask())
        if view.finished or time.monotonic() - printed >= LINE_EVERY_S:
            printed = time.monotonic()
            line = (
                f"{view.symbols_done} of {view.symbols} symbols, {view.done:,} of {view.total:,} intervals, "
                f"{view.pages} pages, {view.rate:,.0f} bars/s, weight {view.weight}"
                + (f"; {view.note}" if view.note else "")
            )
            if line != last:
                click.echo(line, err=True)
                last = line
        if view.finished:
            return view
        await asyncio.sleep(1 / REDRAWS_PER_SECOND)


async def _draw(viewer: _Viewer, ask: Ask, console: Console) -> _View:
    columns = (
        TextColumn("{task.fields[symbols]} symbols"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TextColumn(
            "{task.fields[rate]:,.0f} bars/s, {task.fields[pages]} pages, weight {task.fields[weight]}"
        ),
        TimeRemainingColumn(),
        TextColumn("[yellow]{task.fields[note]}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=None, symbols="", rate=0.0, pages=0, weight="", note="")
        while True:
            view = viewer.view(await ask())
            progress.update(
                task,
                total=view.total,
                completed=view.done,
                symbols=f"{view.symbols_done}/{view.symbols}",
                rate=view.rate,
                pages=view.pages,
                weight=view.weight,
                note=view.note,
                refresh=True,
            )
            if view.finished:
                return view
            await asyncio.sleep(1 / REDRAWS_PER_SECOND)
