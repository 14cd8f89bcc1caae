"""The compiled core: no asyncio outside listener and epoll, no logging, no configuration."""
