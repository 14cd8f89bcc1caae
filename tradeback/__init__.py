"""Trade-Back: a market-data server. Exchange streams in, binary WebSocket frames out, nothing lost."""

from importlib.metadata import version

__version__ = version("tradeback")
