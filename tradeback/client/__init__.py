"""A Python client of Trade-Back: logs in, subscribes, decodes, and connects again by the table of close codes.

    async with Client("ws://127.0.0.1:8081/api/v1/ws", ["BTCUSDT"]) as client:
        async for update in client:
            print(update.symbol, update.price, update.volume)

`docs/client-python.md` is its manual.
"""

from tradeback.client.client import Client
from tradeback.client.events import AutoSubscribed, AutoUnsubscribed, Event, Level, Refused, Update
from tradeback.client.login import Credentials, Login, log_in, log_out

__all__ = [
    "AutoSubscribed",
    "AutoUnsubscribed",
    "Client",
    "Credentials",
    "Event",
    "Level",
    "Login",
    "Refused",
    "Update",
    "log_in",
    "log_out",
]
