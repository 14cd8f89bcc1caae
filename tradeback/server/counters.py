"""What the server counts, in `stats/server`: what the core counts by itself, then what is counted in Python.

`store/stats.py` says what names with labels, and names of moments mean.
"""

from __future__ import annotations

import asyncio

from tradeback._fast import stats
from tradeback._fast.ingest import Ingest
from tradeback.exchange.binance import STREAM_TYPES
from tradeback.resources import RESOURCE_VALUES
from tradeback.server.feed import Feeds
from tradeback.server.protocol import ERROR_CODES
from tradeback.store.stats import problems

TELL_EVERY = 1.0  # seconds
SHARDS_TOLD = 8  # feeds of one type, by number; those of further ones are told together
MORE = "more"

# Modules that log, and `libraries`; what is of no module here is counted as `other`.
COMPONENTS = (
    *(
        f"server.{name}"
        for name in (
            *("accepting", "app", "carried", "connection", "draining", "feed", "hub", "settling", "texts"),
            "upkeep",
        )
    ),
    *("store.announcements", "store.catalog", "control", "recovery", "performance", "resources"),
    *("commands.server", "commands.reloading", "commands.supervisor"),
    *("libraries", "other"),
)


def client_error(code: str) -> str:
    """The name of the counter of an error that clients are told of."""
    return f'client_errors{{code="{code}"}}'


_VALUES = (
    ("sessions", "gauge", "logins that are known"),
    ("clients_authenticated", "gauge", "clients that are logged in"),
    ("clients_waiting", "gauge", "clients whose token is ours and whose login is not known yet"),
    ("unauthorized", "counter", "connections refused with 401: no token, a forged, expired or revoked one"),
    ("session_closes", "counter", "clients closed with 4401, whose login ended or was none"),
    ("symbols_forbidden", "counter", "symbols refused to clients that may not watch them"),
    ("watchlist_changes", "counter", "auto_subscribe and auto_unsubscribe messages sent"),
    ("session_updates", "counter", "times that the recorder told all that it knows of sessions"),
    *((client_error(code), "counter", "errors that clients were told of, by code") for code in ERROR_CODES),
    ("journal_next_seq", "gauge", "number that the journal's next record gets, which is its position"),
    *(
        (
            f'feed_message_at_ns{{feed="{kind}-{number}"}}',
            "gauge",
            "since the last market message of a feed, or since it has carried something where none came",
        )
        for kind in STREAM_TYPES
        for number in (*range(SHARDS_TOLD), MORE)
    ),
    *RESOURCE_VALUES,
    *problems(COMPONENTS),
)

SERVER_VALUES = (
    *stats.SERVER_VALUES,
    *((index, *value) for index, value in enumerate(_VALUES, len(stats.SERVER_VALUES))),
)


async def tell_levels(feeds: Feeds, ingest: Ingest, counters: stats.Stats) -> None:
    """Put what others keep into the counters, each second until cancelled."""
    while True:
        tell_levels_now(feeds, ingest, counters)
        await asyncio.sleep(TELL_EVERY)


def tell_levels_now(feeds: Feeds, ingest: Ingest, counters: stats.Stats) -> None:
    """The journal's position, and since when each feed that carries anything has been silent, one that never brought a
    message included; of those that share a name, the one that has been for longest."""
    counters.put("journal_next_seq", ingest.journal.next_seq)
    silent: dict[str, int] = {}
    for number, shard in enumerate(feeds.shards):
        for feed in shard.feeds:
            name = (
                f'feed_message_at_ns{{feed="{feed.stream_type}-{number if number < SHARDS_TOLD else MORE}"}}'
            )
            if not feed.symbols:
                silent.setdefault(name, 0)
            else:
                silent[name] = min(silent.get(name) or feed.silent_since_ns, feed.silent_since_ns)
    for name, since in silent.items():
        counters.put(name, since)
