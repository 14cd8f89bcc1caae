"""`python -m bench.peers.bare_falcon`: the least that Falcon can answer, under the same gunicorn as the REST interface.

One route, no middleware, a small constant as JSON. Its first line is {"rest":ADDRESS}; it ends when it is asked to.
"""

from __future__ import annotations

import json
import socket

import falcon
import orjson
from falcon import Request, Response

from tradeback.api.gunicorn_conf import Gunicorn

CONTENT = {
    "symbol": "S0000USDT",
    "price": 100.25,
    "bid": 100.24,
    "ask": 100.26,
    "volume": 512.5,
    "timestamp": 1_700_000_000_000,
    "stale_ms": 12,
}


class Constant:
    """Answers CONTENT, written anew each time."""

    def on_get(self, request: Request, response: Response, symbol: str) -> None:
        response.data = orjson.dumps(CONTENT)
        response.content_type = "application/json"


def main() -> None:
    """Runs until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]  # gunicorn takes the socket over

    def ready() -> None:
        print(json.dumps({"rest": f"http://127.0.0.1:{port}"}), flush=True)

    app = falcon.App()
    app.add_route("/api/v1/symbols/{symbol}/price", Constant())
    Gunicorn(listener, lambda: app, ready, 30).run()


if __name__ == "__main__":
    main()
