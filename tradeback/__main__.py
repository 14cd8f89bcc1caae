"""`python -m tradeback` is the `tradeback` command."""

from tradeback.cli import main

main()
