"""What the server counts, in `stats/server`: what the core counts by itself, then what is counted in Python."""

from __future__ import annotations

from tradeback._fast import stats

_VALUES = (
    ("sessions", "gauge", "logins that are known"),
    ("clients_authenticated", "gauge", "clients that are logged in"),
    ("clients_waiting", "gauge", "clients whose token is ours and whose login is not known yet"),
    ("unauthorized", "counter", "connections refused with 401: no token, a forged, expired or revoked one"),
    ("session_closes", "counter", "clients closed with 4401, whose login ended or was none"),
    ("symbols_forbidden", "counter", "symbols refused to clients that may not watch them"),
    ("watchlist_changes", "counter", "auto_subscribe and auto_unsubscribe messages sent"),
    ("session_updates", "counter", "times that the recorder told all that it knows of sessions"),
)

SERVER_VALUES = (
    *stats.SERVER_VALUES,
    *((index, *value) for index, value in enumerate(_VALUES, len(stats.SERVER_VALUES))),
)
