"""Where the exchange that the configuration chooses is to be reached."""

from __future__ import annotations

from tradeback.config import ExchangeConfig
from tradeback.exchange.binance import REST_ENDPOINTS, WS_ENDPOINTS

# Where `tradeback sim` listens by default.
SIM_PORT = 9443
SIM_REST_PORT = 9444


def stream_bases(config: ExchangeConfig) -> tuple[str, ...]:
    """Bases of the WebSocket streams, without a path, in the order to try them; `auto` gives Binance's."""
    return _bases(config, config.ws_endpoint, WS_ENDPOINTS, f"ws://127.0.0.1:{SIM_PORT}")


def rest_bases(config: ExchangeConfig) -> tuple[str, ...]:
    """Bases of the REST interface, without a path, in the order to try them; `auto` gives Binance's."""
    return _bases(config, config.rest_endpoint, REST_ENDPOINTS, f"http://127.0.0.1:{SIM_REST_PORT}")


def _bases(config: ExchangeConfig, given: str, binance: tuple[str, ...], sim: str) -> tuple[str, ...]:
    if config.name != "sim":
        return (given,) if given else binance
    # A file with Binance's endpoints may stay as it is when the simulated exchange is chosen.
    return (given,) if given and not given.startswith(binance) else (sim,)
