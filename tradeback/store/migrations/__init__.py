"""The schema of the catalog and its history. `versions/` has one file a change, in the order of their names.

The change of a version that was published is never edited: another change is a new file, and in the tables of
`catalog.py` or `accounts.py`. Each runs on SQLite, MySQL and MariaDB alike (`steps.py`), says what taking it back would
lose, and takes it back.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    """What Alembic needs to know: where this folder is, and the connection that `env.py` takes."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, version: str = "head") -> None:
    """Run what is missing, inside the connection's transaction."""
    command.upgrade(alembic_config(connection), version)


def versions() -> list[str]:
    """All of them, the oldest first."""
    found = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return [script.revision for script in found][::-1]
