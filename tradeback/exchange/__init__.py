"""What is particular to the exchange, and a simulated one."""
