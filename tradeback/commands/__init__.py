"""The commands of `tradeback`, one a file; `tradeback/cli.py` has the table."""
