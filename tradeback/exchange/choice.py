"""Which exchange: the real one where it can be reached, the simulated one otherwise, and where each is found."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from tradeback.config import ExchangeConfig
from tradeback.exchange.binance import REST_ENDPOINTS, REST_PATHS, WS_ENDPOINTS

PROBE_TIMEOUT = 4.0
SIM_WS_PORT = 9443
SIM_REST_PORT = 9444

ENDPOINTS = {
    "binance": (WS_ENDPOINTS[0], REST_ENDPOINTS[0]),
    "sim": (f"ws://127.0.0.1:{SIM_WS_PORT}", f"http://127.0.0.1:{SIM_REST_PORT}"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The exchange that is used, and why: one sentence for the person who started the program."""

    name: str
    reason: str

    def apply(self, config: ExchangeConfig) -> ExchangeConfig:
        """The section with the exchange's name, and its endpoints where none were configured."""
        ws_endpoint, rest_endpoint = ENDPOINTS[self.name]
        return config.model_copy(
            update={
                "name": self.name,
                "ws_endpoint": config.ws_endpoint or ws_endpoint,
                "rest_endpoint": config.rest_endpoint or rest_endpoint,
            }
        )


async def choose_exchange(config: ExchangeConfig) -> Choice:
    """`sim` and `binance` are taken at their word; for `auto`, Binance's REST interface is asked."""
    if config.name != "auto":
        return Choice(config.name, f"{config.name} was asked for")
    endpoint = config.rest_endpoint or ENDPOINTS["binance"][1]
    try:
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT) as client:
            answer = await client.get(endpoint.rstrip("/") + REST_PATHS["ping"])
            answer.raise_for_status()
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return Choice("sim", f"{endpoint} cannot be reached ({why}): the simulated exchange is used")
    return Choice("binance", f"{endpoint} answers: Binance's market data is used")
