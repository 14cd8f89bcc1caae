"""Servers of others that do what `bench/c/server.c` does: one record to everybody, over and over."""
