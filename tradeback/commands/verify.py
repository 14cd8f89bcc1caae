"""`tradeback verify`: what is stored, against what the exchange says, for a trader who doubts it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from tradeback.commands.options import with_config
from tradeback.commands.progress import Part, shown_progress
from tradeback.commands.stored import decided, known_symbol
from tradeback.commands.times import format_time, with_range
from tradeback.config import Config
from tradeback.exchange.binance import REST_ROWS_MAX
from tradeback.exchange.choice import rest_bases
from tradeback.exchange.rest import ExchangeRest
from tradeback.model import RESOLUTIONS, Bar, Gap, Symbol, Tick
from tradeback.recorder.comparison import BarsReport, bar_of, compare_bars, skip
from tradeback.recorder.contiguity import Contiguity, contiguity
from tradeback.store.base import History
from tradeback.store.histories import open_history

# What was traded a moment ago may still be on its way into the store.
SETTLE_NS = 5_000_000_000
# A gap is given up shortly after its trades; it tells the time of trades whose neighbours are deleted.
GIVEN_UP_NS = 60_000_000_000
MS = 1_000_000
LEFT = {"bars", "opens", "field", "first", "last", "after", "before", "why"}
TICKS_A_REDRAW = 10_000
SHOWN = 50  # rows of a table; --format jsonl tells all


@dataclass(frozen=True, slots=True)
class Range:
    """What is verified: whole bars that open from `start` to before `end`, unix ns."""

    symbol: Symbol
    start: int
    end: int
    resolutions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome: one report a resolution, and what the trade ids say."""

    bars: list[BarsReport]
    ids: Contiguity

    @property
    def good(self) -> bool:
        """All that could be compared is equal, and no trade is missing of those that were asked for."""
        differing = any(report.differences for report in self.bars)
        return not differing and not self.missing and not self.ids.faults

    @property
    def missing(self) -> int:
        """How many trades are missing that were asked for."""
        return sum(part.trades for part in self.ids.missing if part.asked)


@click.command("verify")
@click.argument("symbol")
@with_range("-1d")
@click.option(
    "--resolution", "resolutions", multiple=True, type=click.Choice(list(RESOLUTIONS)), help="[all]"
)
@click.option(
    "--format", "as_format", type=click.Choice(["text", "jsonl"]), default="text", show_default=True
)
@with_config
def verify(
    config: Config, symbol: str, start: int, end: int, resolutions: tuple[str, ...], as_format: str
) -> None:
    """Compare stored bars with the exchange's, and stored trades with their ids.

    Reads only, also while a recorder runs. Ends with 0 where all is equal and no trade is missing, else with 1.
    """
    config = decided(config)
    known = known_symbol(config, symbol)
    asked = Range(known, start, end, resolutions or tuple(RESOLUTIONS))
    with contextlib.closing(open_history(config, write=False)) as history:
        verified = asyncio.run(_verify(config, history, asked))
    if as_format == "jsonl":
        for line in _lines(verified):
            sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _print(Console(), config, asked, verified)
    if not verified.good:
        sys.exit(1)


async def _verify(config: Config, history: History, asked: Range) -> Verified:
    with shown_progress() as progress:
        async with ExchangeRest(rest_bases(config.exchange)[0]) as rest:
            now = await rest.server_time()
            theirs = {}
            for resolution in asked.resolutions:
                part = Part(progress, f"the exchange's {resolution} bars", asked.end - asked.start)
                theirs[resolution] = await _klines(rest, asked, resolution, part)
        part = Part(progress, "stored trades", asked.end - asked.start)
        # Read after the exchange was asked, so that nothing it told of can still be on its way here.
        return await asyncio.to_thread(_compare, config, history, asked, theirs, now, part)


def _counted(ticks: Iterable[Tick], start: int, part: Part) -> Iterator[Tick]:
    """The ticks, and now and then how far they are."""
    for number, tick in enumerate(ticks):
        if number % TICKS_A_REDRAW == 0:
            part.to(tick.ts_event - start)
        yield tick


def _compare(
    config: Config, history: History, asked: Range, theirs: dict[str, list[Bar]], now: int, part: Part
) -> Verified:
    stream_id = asked.symbol.stream_id
    longest = max(RESOLUTIONS[resolution] for resolution in asked.resolutions)
    start, end = asked.start - asked.start % longest, -(-asked.end // longest) * longest
    ids = contiguity(
        # What lies open becomes a gap in the journal a moment later.
        _counted(history.ticks(stream_id, start, min(end, now - SETTLE_NS)), asked.start, part),
        history.covered(stream_id).get(stream_id, []),
        lambda: (history.gaps(stream_id), history.covered(stream_id).get(stream_id, [])),
    )
    gaps = history.gaps(stream_id)
    reports = []
    for resolution in asked.resolutions:
        length = RESOLUTIONS[resolution]
        age = getattr(config.history, f"keep_{resolution}")
        judge = _Judge(config, ids, gaps, length, now - round(age * 1e9) if age else 0)
        closed = now - length - SETTLE_NS
        ours = history.bars(stream_id, resolution, asked.start, asked.end)
        report = compare_bars(
            resolution,
            [bar for bar in ours if bar.open_time <= closed],
            [bar for bar in theirs[resolution] if bar.open_time <= closed],
            judge.lacking,
        )
        for open_time in sorted({bar.open_time for bar in (*ours, *theirs[resolution])}):
            if open_time > closed:
                skip(report, open_time, "in progress, or closed a moment ago")
        reports.append(report)
    return Verified(reports, ids)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Why a bar of `length` may rightly have fewer trades than the exchange's."""

    config: Config
    ids: Contiguity
    gaps: list[Gap]
    length: int
    kept_from: int

    def lacking(self, open_time: int, have: int, there_are: int) -> str:
        end = open_time + self.length
        if not have and not self.config.features.aggregation_enabled:
            return "no bars are built: FEATURE_AGGREGATION_ENABLED is false"
        if not have and open_time < self.kept_from:
            return "older than bars of this resolution are kept"
        why = self.ids.lacking(open_time, end)
        if not why:
            # Its trades may lie beside those that tell the times of what is missing.
            given_up = [gap for gap in self.gaps if open_time <= gap.ts_event < end + GIVEN_UP_NS]
            why = f"trades {given_up[0].first_id} to {given_up[-1].last_id} are missing" if given_up else ""
        return why


async def _klines(rest: ExchangeRest, asked: Range, resolution: str, part: Part) -> list[Bar]:
    """Every bar of the exchange in the range, by rising time."""
    bars: list[Bar] = []
    start, last = -(-asked.start // MS), (asked.end - 1) // MS
    while start <= last:
        rows = await rest.klines(asked.symbol.name, resolution, start_ms=start, end_ms=last)
        bars += map(bar_of, rows)
        if len(rows) < REST_ROWS_MAX:
            break
        part.to(rows[-1].open_time - asked.start)
        start = rows[-1].open_time // MS + 1
    part.to(asked.end - asked.start)
    return bars


# What is printed.


def _lines(verified: Verified) -> Iterator[dict[str, Any]]:
    """One JSON object a line; times are ISO 8601. The last one is the summary."""
    for report in verified.bars:
        for difference in report.differences:
            fields = difference._asdict() | {"open_time": format_time(difference.open_time)}
            yield {"kind": "difference", **fields}
        for part in report.not_compared:
            yield {"kind": "not_compared", **part._asdict(), **_times(first=part.first, last=part.last)}
    for missing in verified.ids.missing:
        yield {"kind": "missing", **missing._asdict(), **_times(after=missing.after, before=missing.before)}
    for fault in verified.ids.faults:
        yield {"kind": "fault", "text": fault}
    ids = verified.ids
    yield {
        "kind": "summary",
        "good": verified.good,
        "bars": {
            report.resolution: {"compared": report.compared, "equal": report.equal}
            for report in verified.bars
        },
        "trades": {
            "stored": ids.trades,
            "records": ids.ticks,
            "first_id": ids.first_id,
            "last_id": ids.last_id,
            "missing": verified.missing,
            "not_carried": sum(part.trades for part in ids.missing if not part.asked),
            **_times(begin=ids.begin, end=ids.end),
        },
    }


def _times(**times: int) -> dict[str, str | None]:
    return {name: format_time(ns) if ns else None for name, ns in times.items()}


def _print(console: Console, config: Config, asked: Range, verified: Verified) -> None:
    console.print(
        f"{asked.symbol.name} at {config.exchange.name}, {format_time(asked.start)} to {format_time(asked.end)}"
    )
    overview = _table("", "bars", "compared", "equal", "differing", "not compared")
    for report in verified.bars:
        skipped = sum(part.bars for part in report.not_compared)
        differing = report.compared - report.equal
        overview.add_row(
            report.resolution,
            *(f"{number:,}" for number in (report.compared, report.equal, differing, skipped)),
        )
    console.print(overview)
    differences = [difference for report in verified.bars for difference in report.differences]
    _rows(
        console,
        _table("Bars that differ", "bars", "opens", "field", "stored", "exchange"),
        [
            (of.resolution, format_time(of.open_time), of.field, _number(of.stored), _number(of.exchange))
            for of in differences
        ],
    )
    _rows(
        console,
        _table("Bars that could not be compared", "bars", "first", "last", "count", "why"),
        [
            (of.resolution, format_time(of.first), format_time(of.last), f"{of.bars:,}", of.why)
            for report in verified.bars
            for of in report.not_compared
        ],
    )
    _print_ids(console, verified.ids)
    console.print(
        "All that could be compared is equal, and no trade is missing."
        if verified.good
        else f"Bars that differ: {len({(of.resolution, of.open_time) for of in differences}):,}. "
        f"Trades missing: {verified.missing:,}."
    )


def _print_ids(console: Console, ids: Contiguity) -> None:
    if not ids.ticks:
        console.print("No trades are stored of this time.")
        return
    console.print(
        f"Trades {ids.first_id} to {ids.last_id}, {format_time(ids.begin)} to {format_time(ids.end)}: "
        f"{ids.trades:,} stored in {ids.ticks:,} records.",
        soft_wrap=True,
    )
    _rows(
        console,
        _table("Trades that are not stored", "first id", "last id", "count", "after", "before", "why"),
        [
            (str(of.first_id), str(of.last_id), f"{of.trades:,}", _time(of.after), _time(of.before), of.why)
            for of in ids.missing
        ],
    )
    for fault in ids.faults[:SHOWN]:
        console.print(f"Fault: {fault}.", soft_wrap=True)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in LEFT else "right", overflow="fold")
    return table


def _rows(console: Console, table: Table, rows: list[tuple[str, ...]]) -> None:
    """Print a table that has rows, at most SHOWN of them."""
    for row in rows[:SHOWN]:
        table.add_row(*row)
    if rows:
        console.print(table)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN:,} more: --format jsonl tells all")


def _number(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _time(ns: int) -> str:
    return format_time(ns) if ns else ""
