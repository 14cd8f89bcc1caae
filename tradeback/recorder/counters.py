"""What the recorder counts, in `stats/recorder`: the same layout as the server's, read by `store/stats.py`."""

from __future__ import annotations

from tradeback.resources import RESOURCE_VALUES
from tradeback.store.stats import problems
from tradeback.store.timing import QUESTIONS

# Modules that log, and `libraries`; what is of no module here is counted as `other`.
COMPONENTS = (
    *(
        f"recorder.{name}"
        for name in (
            *("accounts_watch", "answers", "app", "backfill", "cache_sink", "day_volumes", "history_sink"),
            *("indicators", "kept_bars", "logins_cache", "outbox", "repair", "replay", "sinks"),
            *("stored_levels", "symbols", "watch"),
        )
    ),
    *(f"store.{name}" for name in ("announcements", "catalog", "histories", "influx")),
    *("store.influx_restore", "store.requests_nats"),
    *("control", "recovery", "performance", "resources"),
    *("commands.recorder", "commands.reloading", "commands.supervisor", "libraries", "other"),
)

_VALUES = (
    ("ticks", "counter", "records of trades that were stored"),
    ("trades", "counter", "trades that these records stand for"),
    ("seen_before", "counter", "records of trades that were stored already"),
    ("repaired", "counter", "trades stored that came from REST"),
    ("minute_bars", "counter", "1m bars written, each time that one changed"),
    ("minute_bars_rebuilt", "counter", "1m bars made anew from stored ticks, because late ones came"),
    ("batches", "counter", "transactions of the history"),
    ("gaps", "counter", "gaps that were recorded"),
    ("gaps_open", "gauge", "gaps that may still be filled"),
    ("gaps_unfillable", "gauge", "gaps that the exchange cannot fill"),
    ("places_lost", "counter", "times that a sink lost its place, or passed over damaged records"),
    ("points_refused", "counter", "ticks, bars and levels that InfluxDB refused, which are not stored"),
    ("sink_errors", "counter", "times that a sink failed and tried again"),
    ("service_errors", "counter", "times that a service failed and was started again"),
    ("lag_history", "gauge", "records of both journals that the history sink has still to store"),
    ("lag_indicators", "gauge", "records of both journals that the Enigma levels do not reckon with yet"),
    ("lag_bus", "gauge", "records of both journals that the bus sink has still to publish"),
    ("bus_published", "counter", "records of trades that the bus acknowledged"),
    ("levels", "counter", "Enigma levels published"),
    ("levels_sent", "counter", "Enigma levels that the server took, for the clients that it has"),
    ("lag_cache", "gauge", "records of both journals that the cache sink has still to read"),
    ("prices_cached", "counter", "changed prices written to the cache"),
    ("levels_cached", "counter", "Enigma levels written to the cache"),
    ("logins_cached", "gauge", "sessions that the cache has as they are"),
    ("logins_cache_errors", "counter", "times that sessions could not be told to the cache"),
    ("prices_refused", "counter", "records of the journals whose price is no price"),
    ("gap_trades_open", "gauge", "trades in the gaps that may still be filled"),
    ("repair_steps", "counter", "times that a symbol's missing trades were looked for at the exchange"),
    ("repair_trades", "counter", "missing trades that were fetched and journaled"),
    ("repair_trades_given_up", "counter", "missing trades that cannot be had"),
    ("repair_failures", "counter", "times that missing trades could not be fetched and were put off"),
    ("backfill_jobs_pending", "gauge", "fetches of bars that are not done"),
    ("backfill_pages", "counter", "pages of bars that were fetched"),
    ("backfill_bars", "counter", "bars that were fetched"),
    ("backfill_bars_changed", "counter", "bars that were fetched and were not stored like that before"),
    ("backfill_failures", "counter", "times that a page of bars could not be fetched and was put off"),
    ("rest_weight_used", "gauge", "request weight used of the exchange's minute"),
    ("rest_weight_limit", "gauge", "request weight a minute that may be used"),
    ("rest_retries", "counter", "requests to the exchange that were tried again"),
    ("day_volumes", "counter", "volumes of the UTC day that were held against the exchange's"),
    (
        "day_volumes_changed",
        "counter",
        "volumes of the UTC day that trades before a beginning or in gaps changed",
    ),
    ("rows_expired", "counter", "rows deleted from the history because of their age"),
    ("announcements", "counter", "times that accounts were said to have changed on another machine"),
    ("requests_answered", "counter", "questions over the bus that were answered"),
    ("request_errors", "counter", "times that nobody could ask over the bus"),
    ("announcement_errors", "counter", "times that nobody could be heard who says so"),
    ("repairs_next_seq", "gauge", "number that the next record of the repairs' journal gets: its position"),
    *RESOURCE_VALUES,
    *problems(COMPONENTS),
    *(
        (
            f"sink_{name}",
            "gauge",
            f"the sink {name}: 0 there is none, 1 all is well, 2 it fails and tries again",
        )
        for name in ("history", "indicators", "cache", "bus")
    ),
)

RECORDER_VALUES = tuple((index, *value) for index, value in enumerate(_VALUES))


def question(store: str, kind: str) -> str:
    """The name of the histogram of these questions."""
    return f'query{{store="{store}",kind="{kind}"}}'


RECORDER_HISTOGRAMS = (
    (0, "commit", "one commit of a sink"),
    *(
        (index, question(store, kind), "one question to a database or to Redis")
        for index, (store, kind) in enumerate(QUESTIONS, 1)
    ),
)
