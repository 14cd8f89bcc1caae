"""What the document says of market data, health and itself."""

from __future__ import annotations

from typing import Any

from tradeback.api.bars import DEFAULT_BARS, MAX_BARS
from tradeback.api.health import PROCESSES, SINK_STATES, SINKS
from tradeback.api.openapi.parts import (
    COUNT,
    FLAG,
    GIVEN_TEXT,
    HTML,
    INTEGER,
    MAYBE,
    NUMBER,
    PLAIN,
    SYMBOL_PATH,
    TEXT,
    UNIX_MS,
    UNIX_SECONDS,
    also,
    list_of,
    object_of,
    operation,
    query,
    reference,
)
from tradeback.api.params import MAX_SECONDS
from tradeback.api.symbols import MAX_LISTED, MAX_QUERY
from tradeback.model import FIBONACCI, RESOLUTIONS
from tradeback.resources import LEVELS, RESOURCES

PRECISION: dict[str, Any] = {"type": "integer", "minimum": 0, "description": "digits behind the point"}
STATE: dict[str, Any] = {"enum": ["ok", "unavailable"]}
LATENCY: dict[str, Any] = {"type": "number", "minimum": 0, "description": "how long it took to say so, in ms"}


def _component(**told: dict[str, Any]) -> dict[str, Any]:
    """A component: what it tells beside its state is there only while it can be read."""
    return {
        "type": "object",
        "properties": {"state": STATE, "latency_ms": LATENCY, **told},
        "required": ["state", "latency_ms"],
        "additionalProperties": False,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": object_of(
        error={
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "for programs", "examples": ["unknown_symbol"]},
                "message": {"type": "string", "description": "for people"},
                "parameter": {"type": "string", "description": "the parameter or field that cannot be"},
                "component": {"type": "string", "description": "the component that cannot be read"},
                "websocket": {"type": "string", "description": "the address of the WebSocket"},
            },
            "required": ["code", "message"],
            "additionalProperties": False,
        }
    ),
    "Symbol": object_of(
        id={
            "type": "integer",
            "minimum": 1,
            "maximum": 65_535,
            "description": "in the WebSocket's frames; never another symbol's",
        },
        symbol={"type": "string", "examples": ["BTCUSDT"]},
        name={"type": "string", "examples": ["BTC/USDT"]},
        base_currency=TEXT,
        quote_currency=TEXT,
        is_active=FLAG,
        price_precision=PRECISION,
        quantity_precision=PRECISION,
    ),
    "Price": object_of(
        symbol=TEXT,
        price={"type": "number", "description": "of the last trade"},
        bid=MAYBE,
        ask=MAYBE,
        volume={"type": "number", "minimum": 0, "description": "of the base asset on this UTC day"},
        timestamp={**UNIX_MS, "description": "of the last trade, in unix milliseconds"},
        stale_ms={**COUNT, "description": "since something was last heard of the symbol"},
    ),
    "Bar": object_of(
        time={**UNIX_SECONDS, "description": "when it opened, in unix seconds"},
        open=NUMBER,
        high=NUMBER,
        low=NUMBER,
        close=NUMBER,
        volume={"type": "number", "minimum": 0, "description": "of the base asset"},
    ),
    "Bars": object_of(
        symbol=TEXT,
        resolution={"enum": list(RESOLUTIONS)},
        bars={**list_of(reference("Bar")), "description": "by rising time", "maxItems": MAX_BARS},
        truncated={"type": "boolean", "description": "whether older ones since `from` were left out"},
    ),
    "Enigma": object_of(
        symbol=TEXT,
        level={
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 100,
            "description": "null where ath = atl",
        },
        ath={"type": "number", "description": "the highest price ever stored"},
        atl={"type": "number", "description": "the lowest price ever stored"},
        current_price=NUMBER,
        fib_levels=object_of(**dict.fromkeys(FIBONACCI, NUMBER)),
        timestamp=UNIX_MS,
    ),
    "Alive": object_of(status={"const": "ok"}),
    "Ready": object_of(
        status={"enum": ["ok", "unavailable", "draining"]},
        components=object_of(catalog=STATE, history=STATE, prices=STATE),
    ),
    "Health": object_of(
        status={
            "enum": ["ok", "degraded", "unavailable"],
            "description": "degraded: a process does not run or has too little, a sink fails, the exchange is silent",
        },
        components=also(
            object_of(
                catalog=_component(active_symbols=COUNT),
                history=_component(journal_places={"type": "object", "additionalProperties": INTEGER}),
                prices=_component(symbols_with_price=COUNT),
                counters=_component(),
            ),
            # Only where server and recorder are on another machine: feed and processes are as of that moment.
            recorder=_component(as_of_ms=UNIX_MS),
        ),
        feed=object_of(
            state={"enum": ["ok", "silent"]},
            age_ms={
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "since the exchange was last heard of",
            },
        ),
        processes={
            "type": "object",
            "additionalProperties": object_of(
                state={"enum": ["running", "ended", "never started", "unknown"]},
                started_ms={**UNIX_MS, "type": ["integer", "null"]},
            ),
            "required": list(PROCESSES),
        },
        sinks={
            "type": "object",
            "description": "Those of a running recorder; `lag` is how many records a sink is behind",
            "propertyNames": {"enum": list(SINKS)},
            "additionalProperties": object_of(state={"enum": list(SINK_STATES.values())}, lag=COUNT),
        },
        resources={
            "type": "object",
            "description": "Of the API and each running process that shares its data folder, how much is left of each",
            "propertyNames": {"enum": ["api", *PROCESSES]},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": list(RESOURCES)},
                "additionalProperties": {"enum": list(LEVELS.values())},
            },
        },
    ),
    "Document": object_of(False, openapi={"type": "string", "pattern": r"^3\.1\."}, paths={"type": "object"}),
}

SECONDS = {"type": "integer", "minimum": 0, "maximum": MAX_SECONDS}
BARS_QUERY = (
    query("resolution", {"enum": list(RESOLUTIONS), "default": "1m"}, "How long a bar lasts", example="1h"),
    query("from", SECONDS, "The first time, in unix seconds; less than `to`", example=1_700_000_000),
    query("to", SECONDS, "The time that is not in it any more, in unix seconds", example=1_800_000_000),
    query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_BARS},
        f"The newest of them, this many at most; without it {MAX_BARS}, and without `from` too {DEFAULT_BARS}",
        example=100,
    ),
)
CURRENCY = {**GIVEN_TEXT, "minLength": 1, "maxLength": MAX_QUERY}
SYMBOLS_QUERY = (
    query(
        "q",
        {**GIVEN_TEXT, "maxLength": MAX_QUERY},
        "What the name, such as BTCUSDT or BTC/USDT, holds, in any case; all where it is empty",
        example="btc",
    ),
    query("base", CURRENCY, "The base currency", example="BTC"),
    query("quote", CURRENCY, "The quote currency", example="USDT"),
    query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LISTED},
        "How many to list at most; X-Total-Count counts all that fit",
        example=20,
    ),
)
TAGGED = ("ETag",)
OF_A_SYMBOL = (400, 404, 503)


def _health(summary: str, schema: str) -> dict[str, Any]:
    told = operation(summary, reference(schema), (400,))
    answers = told["responses"]
    answers["503"] = {**answers["200"], "description": "The same, and something of it cannot be read"}
    return told


PATHS: dict[str, dict[str, Any]] = {
    "/api/v1/symbols": {
        "get": operation(
            "The active symbols; `q` searches",
            reference("Symbol[]"),
            (400, 503),
            parameters=SYMBOLS_QUERY,
            description="With a `q` the nearest first: the symbol of this name, those of this base currency, those "
            "that begin so, those that hold it; by name among equals.",
            headers=("ETag", "X-Total-Count"),
        )
    },
    "/api/v1/symbols/{symbol}": {
        "get": operation(
            "One symbol, active or not",
            reference("Symbol"),
            OF_A_SYMBOL,
            parameters=(SYMBOL_PATH,),
            headers=TAGGED,
        )
    },
    "/api/v1/symbols/{symbol}/price": {
        "get": operation("The current price", reference("Price"), OF_A_SYMBOL, parameters=(SYMBOL_PATH,))
    },
    "/api/v1/symbols/{symbol}/bars": {
        "get": operation(
            "Bars by rising time, the one in progress included",
            reference("Bars"),
            OF_A_SYMBOL,
            parameters=(SYMBOL_PATH, *BARS_QUERY),
            description="With a `to` before the bar in progress opened, the answer has an ETag and may be kept; "
            "what closed a few minutes ago may be kept if it is asked after each time.",
            headers=TAGGED,
        )
    },
    "/api/v1/symbols/{symbol}/enigma": {
        "get": operation(
            "Where the price stands between the lowest and the highest ever stored",
            reference("Enigma"),
            OF_A_SYMBOL,
            parameters=(SYMBOL_PATH,),
        )
    },
    "/api/v1/health": {"get": operation("Whether the process lives", reference("Alive"), ())},
    "/api/v1/health/ready": {"get": _health("Whether all can be read", "Ready")},
    "/api/v1/health/detailed": {"get": _health("What each component says", "Health")},
    "/api/v1/metrics": {
        "get": operation("Counters and histograms for Prometheus", TEXT, (400, 503), kind=PLAIN)
    },
    "/api/v1/ws": {"get": operation("The address of the WebSocket", None, (426,), status=426)},
    "/api/v1/openapi.json": {
        "get": operation("This document", reference("Document"), (400,), headers=TAGGED)
    },
    "/api/v1/docs": {"get": operation("This document as a page", TEXT, (400,), kind=HTML, headers=TAGGED)},
}
# Its ETag is only in answers that may be kept.
PATHS["/api/v1/symbols/{symbol}/bars"]["get"]["responses"]["200"]["headers"]["ETag"] = {
    "description": "Where the answer may be kept; for If-None-Match",
    "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
}
