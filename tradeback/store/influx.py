"""InfluxDB 2.7: lines in, rows out. The only file that knows its driver.

Queries are Flux with parameters (`extern` of the query's body, as the driver sends them): no text of a caller becomes
part of a query.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, NoReturn

import structlog
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from tradeback.config.sections import InfluxConfig
from tradeback.errors import HistoryError
from tradeback.store.timing import timed
from tradeback.store.tls import Trust

log = structlog.get_logger(__name__)

# What fits into an i64 and into InfluxDB, which keeps the ends of the range for itself.
FIRST_NS, LAST_NS = -(2**63) + 2, 2**63 - 2
WRITE_BYTES = 4 << 20  # of one request, before it is packed
# Of one request: each week is a shard, and InfluxDB gives up a request after 10 s in which it may have to make them.
WEEKS_AT_ONCE = 8
WEEK_NS = 7 * 86_400 * 1_000_000_000
# The fastest level: the driver's own, 9, takes nine times as long, 8 us a tick, for a tenth less.
PACKED = 1
SAID = 300  # characters of an answer or a line, in messages
REFUSED_TOLD_EVERY = 60.0  # seconds; the first is told at once
# Asks for nothing, of the bucket that it names.
_EMPTY = """from(bucket: bucket) |> range(start: 0, stop: 1) |> limit(n: 1)"""
# Answers that concern some lines of a request, by what InfluxDB says then: of 422 it stored the others, of 400 none.
_OF_LINES = {400: "unable to parse", 422: "partial write"}
_DROPPED = re.compile(r"dropped[ =](\d+)")
_DIALECT = {
    "header": True,
    "delimiter": ",",
    "annotations": [],
    "commentPrefix": "#",
    "dateTimeFormat": "RFC3339Nano",
}


class Refused(NamedTuple):
    """`points` points that InfluxDB would not take, the line of one of them, and why in its words."""

    points: int
    line: str
    reason: str


class Influx:
    """One organisation and bucket. An object may be used from several threads.

    Errors: HistoryError where the server cannot be reached, does not answer in time, or refuses. A part of what was
    to be written may be stored then; the same points may be written again.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self.place = f"{config.url}, bucket {config.bucket}"
        self._config = config
        self._trust = Trust(config.ca_file, "INFLUX_CA_FILE", "INFLUX_URL")
        self._client = InfluxDBClient(
            config.url,
            config.token.get_secret_value(),
            org=config.org,
            timeout=round(config.timeout * 1000),
            ssl_ca_cert=config.ca_file or None,  # without one it believes the system's authorities
        )
        self._client.api_client.set_default_header("Accept-Encoding", "gzip")  # type: ignore[no-untyped-call]
        self._writing = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]
        self._querying = self._client.query_api()
        self._deleting = self._client.delete_api()
        self._closed = False
        self._lock = threading.Lock()
        self._tell_from = float("-inf")
        self.refused = 0  # points that were not taken, since this was opened

    def write(self, *lines: bytes) -> None:
        """Write lines of the line protocol, each with its time in ns; they can be read when this returns. What is given
        as one piece should lie within some weeks: pieces are put into as many requests as that takes.

        Points that InfluxDB refuses for what they are, such as a field of another type than is stored, or a time
        before the bucket's retention, are told in the log and counted in `refused`; all others are written.
        """
        self._check_open()
        with timed("history", "write"):
            found = [refused for part in _requests(lines) for refused in self._write_part(part)]
        if found:
            self._tell(found)

    def _write_part(self, lines: bytes) -> list[Refused]:
        try:
            self._writing.post_write(  # type: ignore[no-untyped-call]
                self._config.org,
                self._config.bucket,
                gzip.compress(lines, PACKED),
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
            )
        except (ApiException, HTTPError, OSError) as error:
            if isinstance(error, ApiException) and _OF_LINES.get(error.status, "\0") in _said(error):
                return self._sift(lines, _said(error))
            self._fail(error)
        return []

    def _sift(self, lines: bytes, reason: str) -> list[Refused]:
        """Find the lines that made a request fail, and write all others. Written is what was in a request that
        InfluxDB took as a whole: beside one that it took in part, another shard's points may have failed too."""
        count = lines.count(b"\n")
        dropped = _DROPPED.search(reason)
        if count == 1 or (dropped is not None and int(dropped[1]) == count):
            return [Refused(count, lines[: lines.index(b"\n")].decode(), reason)]
        middle = lines.find(b"\n", len(lines) // 2, -1) + 1
        if not middle:  # the last line is as long as all before it
            middle = lines.rindex(b"\n", 0, -1) + 1
        return self._write_part(lines[:middle]) + self._write_part(lines[middle:])

    def _tell(self, found: list[Refused]) -> None:
        with self._lock:
            self.refused += sum(refused.points for refused in found)
            if time.monotonic() < self._tell_from:
                return
            self._tell_from = time.monotonic() + REFUSED_TOLD_EVERY
            log.error(
                "InfluxDB refuses points: they are not stored, all others are. Its reason says what to mend",
                refused=self.refused,
                point=found[0].line[:SAID],
                reason=found[0].reason[:SAID],
            )

    def query(self, flux: str, **parameters: str | int | float) -> Iterator[dict[str, str]]:
        """The rows of a query in their order, all tables one after the other. `bucket` is a parameter of each."""
        text = self._ask(flux, parameters)
        return (dict(zip(names, row, strict=True)) for names, row in self._read(text))

    def points(self, flux: str, **parameters: str | int | float) -> dict[int, dict[str, str]]:
        """The fields of each point that a query brings, by the point's time, unix ns. Its rows have `_time`, `_field`
        and `_value`; these are many, so no dictionary is made of each."""
        found: dict[str, dict[str, str]] = {}
        known: list[str] = []
        for names, row in self._read(self._ask(flux, parameters)):
            if names is not known:
                known = names
                time, field, value = map(names.index, ("_time", "_field", "_value"))
            fields = found.get(row[time])
            if fields is None:
                found[row[time]] = {row[field]: row[value]}
            else:
                fields[row[field]] = row[value]
        # InfluxDB writes a time in one way, and each comes once for each field.
        return {nanoseconds(time): fields for time, fields in found.items()}

    def _ask(self, flux: str, parameters: Mapping[str, str | int | float]) -> str:
        """The answer to a query."""
        self._check_open()
        try:
            with timed("history", "read"):
                answer = self._querying.query_raw(
                    flux, dialect=_DIALECT, params={"bucket": self._config.bucket, **parameters}
                )
                try:
                    return answer.read().decode()  # type: ignore[no-any-return]
                finally:
                    answer.release_conn()
        except (ApiException, HTTPError, OSError) as error:
            self._fail(error)

    def check(self) -> None:
        """Return where it answers and lets this token read the bucket."""
        for _ in self.query(_EMPTY):
            pass

    def delete(self, start_ns: int, end_ns: int, predicate: str) -> None:
        """Delete the points from `start_ns` to before `end_ns` that a predicate of InfluxDB's delete API fits."""
        self._check_open()
        start, stop = (_rfc3339(min(max(time, FIRST_NS), LAST_NS)) for time in (start_ns, end_ns - 1))
        try:
            with timed("history", "delete"):
                self._deleting.delete(start, stop, predicate, self._config.bucket)
        except (ApiException, HTTPError, OSError) as error:
            self._fail(error)

    def close(self) -> None:
        """Close the connections; it cannot be used afterwards."""
        self._closed = True
        self._client.close()  # type: ignore[no-untyped-call]

    def _read(self, text: str) -> Iterator[tuple[list[str], list[str]]]:
        """Each row of an answer, with the names of its columns."""
        names: list[str] = []
        # Tables of other columns follow an empty line, with a header of their own.
        for row in csv.reader(io.StringIO(text)):
            if not row:
                names = []
            elif not names:
                names = row
                if "error" in names:
                    continue
            elif "error" in names:
                raise HistoryError(f"InfluxDB at {self.place} broke off a query: {row[names.index('error')]}")
            else:
                yield names, row

    def _check_open(self) -> None:
        if self._closed:
            raise HistoryError(f"The history at {self.place} was closed: open it again")

    def _fail(self, error: Exception) -> NoReturn:
        if not isinstance(error, ApiException) or not error.status:
            # The driver wraps what fails in TLS into an answer without a status.
            text = str(error.reason if isinstance(error, ApiException) else error)
            said = " ".join(text.split()) or type(error).__name__
            remedy = self._trust.remedy(error) or "start it, or correct INFLUX_URL"
            away = HistoryError(
                f"InfluxDB at {self.place} cannot be reached or does not answer ({said}): {remedy}"
            )
            away.away = True
            raise away from error
        remedy = {
            401: "give it a token that it knows with INFLUX_TOKEN",
            403: "give the token the right to read and write the bucket",
            404: "make the organisation and the bucket, or name others with INFLUX_ORG and INFLUX_BUCKET",
        }.get(error.status, "its log says why")
        raise HistoryError(
            f"InfluxDB at {self.place} refuses ({error.status} {error.reason}: {_said(error)[:SAID]}): {remedy}"
        ) from error


def escape_tag(value: str) -> str:
    """A tag's value as the line protocol writes it. ValueError where it cannot be one."""
    if "\\" in value or "\n" in value:
        raise ValueError(f"{value!r} cannot be a tag of InfluxDB: it has a backslash or a line's end")
    return value.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def escape_text(value: str) -> str:
    """A text as the line protocol writes it, between quotation marks."""
    return value.replace("\\", "\\\\").replace('"', '\\"')


def nanoseconds(text: str) -> int:
    """Unix ns of a time as InfluxDB writes it: RFC 3339, in UTC, with up to nine digits of a second."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    # datetime knows no nanoseconds.
    day, of_day = divmod(seconds, 86_400)
    date = datetime.fromordinal(datetime(1970, 1, 1).toordinal() + day)
    hours, minutes = divmod(of_day // 60, 60)
    return f"{date:%Y-%m-%d}T{hours:02}:{minutes:02}:{of_day % 60:02}.{rest:09}Z"


def _requests(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces for one request each: of some megabytes and some weeks."""
    gathered: list[bytes] = []
    size, weeks = 0, set[int]()
    for piece in pieces:
        if not piece:
            continue
        week = int(piece[piece.rindex(b" ") :]) // WEEK_NS
        if gathered and (size + len(piece) > WRITE_BYTES or len(weeks | {week}) > WEEKS_AT_ONCE):
            yield from _parts(b"".join(gathered))
            gathered, size, weeks = [], 0, set()
        gathered.append(piece)
        size += len(piece)
        weeks.add(week)
    yield from _parts(b"".join(gathered))


def _parts(lines: bytes) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time."""
    start = 0
    while start < len(lines):
        end = len(lines)
        if end - start > WRITE_BYTES:
            end = lines.rindex(b"\n", start, start + WRITE_BYTES) + 1
        yield lines[start:end]
        start = end


def _said(error: ApiException) -> str:
    """What its answer says: the message of InfluxDB, or whatever a stranger sent."""
    text = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    with suppress(ValueError):
        told = json.loads(text)
        if isinstance(told, dict) and isinstance(told.get("message"), str):
            text = told["message"]
    return text.strip()
