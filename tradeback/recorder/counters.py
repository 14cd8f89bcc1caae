"""What the recorder counts, in `stats/recorder`: the same layout as the server's, read by `store/stats.py`."""

from __future__ import annotations

from itertools import count

_index = count()


def _value(name: str, kind: str, meaning: str) -> tuple[int, str, str, str]:
    return next(_index), name, kind, meaning


RECORDER_VALUES = (
    _value("ticks", "counter", "records of trades that were stored"),
    _value("trades", "counter", "trades that these records stand for"),
    _value("seen_before", "counter", "records of trades that were stored already"),
    _value("repaired", "counter", "trades stored that came from REST"),
    _value("minutes", "counter", "1m bars written, each time that one changed"),
    _value("minutes_rebuilt", "counter", "1m bars made anew from stored ticks, because late ones came"),
    _value("batches", "counter", "transactions of the history"),
    _value("gaps", "counter", "gaps that were recorded"),
    _value("gaps_open", "gauge", "gaps that may still be filled"),
    _value("gaps_unfillable", "gauge", "gaps that the exchange cannot fill"),
    _value("places_lost", "counter", "times that a sink lost its place, or passed over damaged records"),
    _value("sink_errors", "counter", "times that a sink failed and tried again"),
    _value("service_errors", "counter", "times that a service failed and was started again"),
    _value("lag_history", "gauge", "records of both journals that the history sink has still to store"),
    _value(
        "lag_indicators", "gauge", "records of both journals that the Enigma levels do not reckon with yet"
    ),
    _value("lag_bus", "gauge", "records of both journals that the bus sink has still to publish"),
    _value("bus_published", "counter", "records of trades that the bus acknowledged"),
    _value("levels", "counter", "Enigma levels published"),
    _value("levels_sent", "counter", "Enigma levels that the server took, for the clients that it has"),
    _value("lag_cache", "gauge", "records of both journals that the cache sink has still to read"),
    _value("prices_cached", "counter", "changed prices written to the cache"),
    _value("levels_cached", "counter", "Enigma levels written to the cache"),
    _value("prices_refused", "counter", "records of the journals whose price is no price"),
    _value("gap_trades_open", "gauge", "trades in the gaps that may still be filled"),
    _value("repair_steps", "counter", "times that a symbol's missing trades were looked for at the exchange"),
    _value("repair_trades", "counter", "missing trades that were fetched and journaled"),
    _value(
        "repair_trades_given_up", "counter", "missing trades that cannot be had, those before a beginning too"
    ),
    _value("repair_failures", "counter", "times that missing trades could not be fetched and were put off"),
    _value("backfill_jobs_pending", "gauge", "fetches of bars that are not done"),
    _value("backfill_pages", "counter", "pages of bars that were fetched"),
    _value("backfill_bars", "counter", "bars that were fetched"),
    _value("backfill_bars_changed", "counter", "bars that were fetched and were not stored like that before"),
    _value("backfill_failures", "counter", "times that a page of bars could not be fetched and was put off"),
    _value("rest_weight_used", "gauge", "request weight used of the exchange's minute"),
    _value("rest_weight_limit", "gauge", "request weight a minute that may be used"),
    _value("rest_retries", "counter", "requests to the exchange that were tried again"),
    _value("day_volumes", "counter", "volumes of the UTC day that were held against the exchange's"),
    _value(
        "day_volumes_changed",
        "counter",
        "volumes of the UTC day that trades before a beginning or in gaps changed",
    ),
    _value("rows_expired", "counter", "rows deleted from the history because of their age"),
)

RECORDER_HISTOGRAMS = ((0, "commit", "one commit of a sink"),)
