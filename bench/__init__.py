"""Measurements: `make bench` prints the table, README.md says what each number means."""
