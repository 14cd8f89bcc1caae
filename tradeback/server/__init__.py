"""From the exchange's socket to a client's socket: one process, one thread, one loop."""
