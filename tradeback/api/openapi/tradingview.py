"""What the document says of TradingView's Universal Data Feed."""

from __future__ import annotations

from typing import Any

from tradeback.api.openapi.parts import (
    FLAG,
    GIVEN_TEXT,
    INTEGER,
    MAYBE,
    NUMBER,
    PLAIN,
    TEXT,
    UNIX_SECONDS,
    list_of,
    object_of,
    operation,
    query,
    reference,
)
from tradeback.api.udf import FAR, MARKS_A_BAR, SERVED

TIMES = {
    **list_of(UNIX_SECONDS),
    "description": "when each bar opened, in unix seconds, rising",
    "minItems": 1,
}
NUMBERS = list_of(NUMBER, minItems=1)
_QUOTE = object_of(
    **dict.fromkeys(("lp", "ch", "chp", "open_price", "high_price", "low_price"), NUMBER),
    **dict.fromkeys(("prev_close_price", "volume"), NUMBER),
    **dict.fromkeys(("bid", "ask"), MAYBE),
    **dict.fromkeys(("short_name", "exchange", "description"), TEXT),
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "UdfError": object_of(s={"const": "error"}, errmsg=TEXT),
    "UdfConfig": object_of(
        **dict.fromkeys(
            (
                "supports_search",
                "supports_group_request",
                "supports_marks",
                "supports_timescale_marks",
                "supports_time",
            ),
            FLAG,
        ),
        exchanges=list_of(object_of(value=TEXT, name=TEXT, desc=TEXT)),
        symbols_types=list_of(object_of(name=TEXT, value=TEXT)),
        supported_resolutions=list_of({"enum": list(SERVED)}),
    ),
    "UdfSymbol": object_of(
        **dict.fromkeys(
            ("name", "ticker", "description", "exchange", "listed_exchange", "format", "currency_code"), TEXT
        ),
        type={"const": "crypto"},
        session={"const": "24x7"},
        timezone={"const": "Etc/UTC"},
        pricescale={"type": "integer", "minimum": 1},
        minmov={"const": 1},
        has_intraday=FLAG,
        has_daily=FLAG,
        supported_resolutions=list_of({"enum": list(SERVED)}),
        intraday_multipliers=list_of({"enum": list(SERVED)}),
        volume_precision={"type": "integer", "minimum": 0},
        data_status={"const": "streaming"},
    ),
    "UdfFound": object_of(
        **dict.fromkeys(("symbol", "full_name", "description", "exchange", "ticker", "type"), TEXT)
    ),
    "UdfHistory": {
        "oneOf": [
            object_of(s={"const": "ok"}, t=TIMES, **dict.fromkeys("ohlcv", NUMBERS)),
            {
                "type": "object",
                "properties": {
                    "s": {"const": "no_data"},
                    "nextTime": {**UNIX_SECONDS, "description": "when the newest older bar opened"},
                },
                "required": ["s"],
                "additionalProperties": False,
            },
        ]
    },
    "UdfQuotes": object_of(
        s={"const": "ok"},
        d=list_of(
            {
                "oneOf": [
                    object_of(s={"const": "ok"}, n=TEXT, v=_QUOTE),
                    object_of(s={"const": "error"}, n=TEXT, v={"type": "object"}, errmsg=TEXT),
                ]
            }
        ),
    ),
    "UdfMark": object_of(
        **dict.fromkeys(("id", "color", "text", "label", "labelFontColor"), TEXT),
        time=UNIX_SECONDS,
        minSize=INTEGER,
    ),
    "UdfTimescaleMark": object_of(
        **dict.fromkeys(("id", "color", "label"), TEXT),
        time=UNIX_SECONDS,
        tooltip=list_of(TEXT, maxItems=MARKS_A_BAR),
    ),
}

NAMES = {"type": "string", "pattern": r"^[^\u0000]*[^,\u0000][^\u0000]*$"}
ANY_TIME = {"type": "integer", "minimum": -FAR, "maximum": FAR}
SYMBOL = query(
    "symbol",
    {**GIVEN_TEXT, "minLength": 1},
    "The symbol's name, an exchange and a colon before it or not",
    example="BTCUSDT",
    required=True,
)
RESOLUTION = query(
    "resolution", {"enum": [*SERVED, "D"]}, "How long a bar lasts", example="60", required=True
)
RANGE = (
    query("from", ANY_TIME, "The first time, in unix seconds", example=1_700_000_000),
    query("to", ANY_TIME, "The time that is not in it any more, in unix seconds", example=1_800_000_000),
)
OF_A_SYMBOL = (400, 404, 503)


def _get(summary: str, schema: dict[str, Any], errors: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    return {"get": operation(summary, schema, errors, error="UdfError", **more)}


# By the end of the path. Parameters that are not named here are passed over.
PATHS: dict[str, dict[str, Any]] = {
    "config": _get("What the feed can do", reference("UdfConfig")),
    "symbols": _get("One symbol for the chart", reference("UdfSymbol"), OF_A_SYMBOL, parameters=(SYMBOL,)),
    "search": _get(
        "Symbols by text, the nearest first",
        reference("UdfFound[]"),
        (400, 503),
        parameters=(
            query("query", GIVEN_TEXT, "What to search; all where it is empty", example="BTC"),
            query("type", GIVEN_TEXT, "Empty or crypto, else nothing is found", example="crypto"),
            query("exchange", GIVEN_TEXT, "Empty or the exchange, else nothing is found"),
            query("limit", {"type": "integer", "minimum": 1, "maximum": FAR}, "This many", example=30),
        ),
    ),
    "history": _get(
        "Bars for the chart, the one in progress included",
        reference("UdfHistory"),
        OF_A_SYMBOL,
        parameters=(
            SYMBOL,
            RESOLUTION,
            *RANGE,
            query(
                "countback",
                {"type": "integer", "minimum": 0, "maximum": FAR},
                "This many bars before `to`, whatever `from` says",
                example=300,
            ),
        ),
    ),
    "time": _get("The time in unix seconds", {"type": "string", "pattern": "^[0-9]+$"}, kind=PLAIN),
    "quotes": _get(
        "Quotes of several symbols",
        reference("UdfQuotes"),
        (400, 503),
        parameters=(
            query(
                "symbols",
                NAMES,
                "Their names, commas between",
                example="BTCUSDT",
                required=True,
            ),
        ),
    ),
    "marks": _get(
        "Where trades are missing",
        reference("UdfMark[]"),
        OF_A_SYMBOL,
        parameters=(SYMBOL, RESOLUTION, *RANGE),
    ),
    "timescale_marks": _get(
        "Where trades are missing, on the time scale",
        reference("UdfTimescaleMark[]"),
        OF_A_SYMBOL,
        parameters=(SYMBOL, RESOLUTION, *RANGE),
    ),
}
BASES = ("/api/v1/tradingview", "/udf")
