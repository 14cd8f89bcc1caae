"""A simulated exchange that speaks Binance's own protocol: an exchange on one's laptop.

market.py    the synthetic market: symbols, prices, taker orders, quotes; deterministic for a seed
messages.py  the bytes of the stream messages
ledger.py    every trade that was made, in bounded memory: trades, aggTrades, one-minute bars
streams.py   the WebSocket side: connections, subscriptions, pings, limits
rest.py      the HTTP side: exchangeInfo, klines, trades, tickers, weights
control.py   the `/sim/...` side: faults, pause and resume, state, ledger totals
faults.py    what goes wrong on request
replay.py    a recording instead of the synthetic market
app.py       `Sim`: all of it, started and stopped
"""

from tradeback.exchange.sim.app import Sim, SimConfig

__all__ = ["Sim", "SimConfig"]
