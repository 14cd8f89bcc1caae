"""Where the exchanges are."""

from __future__ import annotations

from tradeback.config import ExchangeConfig

# Market data only, no account: what this program needs. https://github.com/binance/binance-spot-api-docs
BINANCE_STREAMS = "wss://data-stream.binance.vision"
BINANCE_REST = "https://data-api.binance.vision"
# The defaults of `tradeback sim`.
SIM_STREAMS = "ws://127.0.0.1:9443"
SIM_REST = "http://127.0.0.1:9444"


def stream_endpoint(config: ExchangeConfig) -> str:
    """Base of the WebSocket streams, without a path; `auto` is Binance until somebody finds otherwise."""
    return config.ws_endpoint or (SIM_STREAMS if config.name == "sim" else BINANCE_STREAMS)


def rest_endpoint(config: ExchangeConfig) -> str:
    """Base of the REST interface, without a path."""
    return config.rest_endpoint or (SIM_REST if config.name == "sim" else BINANCE_REST)
