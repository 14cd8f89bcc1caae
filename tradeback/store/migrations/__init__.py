"""The schema of the catalog and its history. `versions/` has one file a change, in the order of their names.

A version that was published is never edited: a change is a new file, and in the tables of `catalog.py`.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    """What Alembic needs to know: where this folder is, and the connection that `env.py` takes."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run what is missing, inside the connection's transaction."""
    command.upgrade(alembic_config(connection), "head")
