"""A simulated exchange that speaks Binance's own protocol: an exchange on one's laptop.

- `market`: the synthetic market, that is symbols, prices, taker orders, quotes; a seed decides it
- `messages`: the bytes of the stream messages
- `ledger`: every trade that was made, in bounded memory: trades, aggTrades, one-minute bars
- `streams`: the WebSocket side: streams, who carries them, limits, faults of connections
- `connection`: one consumer's connection: requests, answers, pings
- `rest`: the HTTP side: exchangeInfo, trades, tickers, weights
- `klines`: klines of both sides
- `control`: the `/sim/...` side: faults, pause and resume, state, ledger totals
- `faults`: what goes wrong on request
- `history`, `shapes`: klines of the time before the start
- `replay`: a recording instead of the synthetic market
- `app`: `Sim`, all of it, started and stopped
"""

from tradeback.exchange.sim.app import Sim, SimConfig

__all__ = ["Sim", "SimConfig"]
