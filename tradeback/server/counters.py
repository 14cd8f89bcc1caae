"""What the server counts, in `stats/server`: what the core counts by itself, then what is counted in Python."""

from __future__ import annotations

from itertools import count

from tradeback._fast import stats

_index = count(len(stats.SERVER_VALUES))


def _value(name: str, kind: str, meaning: str) -> tuple[int, str, str, str]:
    return next(_index), name, kind, meaning


SERVER_VALUES = (
    *stats.SERVER_VALUES,
    _value("sessions", "gauge", "logins that are known"),
    _value("clients_authenticated", "gauge", "clients that are logged in"),
    _value("clients_waiting", "gauge", "clients whose token is ours and whose login is not known yet"),
    _value(
        "unauthorized", "counter", "connections refused with 401: no token, a forged, expired or revoked one"
    ),
    _value("session_closes", "counter", "clients closed with 4401, whose login ended or was none"),
    _value("symbols_forbidden", "counter", "symbols refused to clients that may not watch them"),
    _value("watchlist_changes", "counter", "auto_subscribe and auto_unsubscribe messages sent"),
    _value("session_updates", "counter", "times that the recorder told all that it knows of sessions"),
)
