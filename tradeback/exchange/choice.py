"""Which exchange: the real one where it can be reached, the simulated one otherwise, and where each is found."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from tradeback.config import ExchangeConfig
from tradeback.exchange.binance import REST_ENDPOINTS, REST_PATHS, WS_ENDPOINTS

PROBE_TIMEOUT = 4.0
SIM_WS_PORT = 9443
SIM_REST_PORT = 9444

DEFAULT_SIM = f"ws://127.0.0.1:{SIM_WS_PORT}"
DEFAULT_SIM_REST = f"http://127.0.0.1:{SIM_REST_PORT}"


def stream_bases(config: ExchangeConfig) -> tuple[str, ...]:
    """Bases of the WebSocket streams, without a path, in the order to try them; `auto` gives Binance's."""
    return _bases(config.name, config.ws_endpoint, WS_ENDPOINTS, DEFAULT_SIM)


def rest_bases(config: ExchangeConfig) -> tuple[str, ...]:
    """Bases of the REST interface, without a path, in the order to try them; `auto` gives Binance's."""
    return _bases(config.name, config.rest_endpoint, REST_ENDPOINTS, DEFAULT_SIM_REST)


def _bases(name: str, given: str, binance: tuple[str, ...], sim: str) -> tuple[str, ...]:
    if name != "sim":
        return (given,) if given else binance
    # A file with Binance's endpoints may stay as it is when the simulated exchange is chosen.
    return (given,) if given and not given.startswith(binance) else (sim,)


@dataclass(frozen=True, slots=True)
class Choice:
    """The exchange that is used, and why: one sentence for the person who started the program."""

    name: str
    reason: str

    def apply(self, config: ExchangeConfig) -> ExchangeConfig:
        """The section with the exchange's name, and its endpoints where none were configured for it.

        Endpoints beside `auto` are those that could not be reached, where the simulated exchange was chosen.
        """
        fallen_back = config.name == "auto" and self.name == "sim"
        chosen = config.model_copy(
            update={"name": self.name, **({"ws_endpoint": "", "rest_endpoint": ""} if fallen_back else {})}
        )
        return chosen.model_copy(
            update={"ws_endpoint": stream_bases(chosen)[0], "rest_endpoint": rest_bases(chosen)[0]}
        )


async def choose_exchange(config: ExchangeConfig) -> Choice:
    """`sim` and `binance` are taken at their word; for `auto`, Binance's REST interface is asked."""
    if config.name != "auto":
        return Choice(config.name, f"{config.name} was asked for")
    endpoint = rest_bases(config)[0]
    try:
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT) as client:
            answer = await client.get(endpoint.rstrip("/") + REST_PATHS["ping"])
            answer.raise_for_status()
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return Choice("sim", f"{endpoint} cannot be reached ({why}): the simulated exchange is used")
    return Choice("binance", f"{endpoint} answers: Binance's market data is used")
