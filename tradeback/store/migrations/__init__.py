"""The schema of the catalog and its history. `versions/` has one file a change, in the order of their names.

The change of a version that was published is never edited: another change is a new file, and in the tables of
`catalog.py` or `accounts.py`. Each runs on SQLite, MySQL and MariaDB alike (`steps.py`), says what taking it back would
lose, and takes it back.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
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


def downgrade(connection: Connection, version: str) -> None:
    """Take back this one, which is the newest that was run, inside the connection's transaction."""
    script = _scripts().get_revision(version)
    # First: where it is cut off on MySQL, what is left counts as not done, and can be done again.
    command.stamp(alembic_config(connection), script.down_revision or "base")
    with Operations.context(MigrationContext.configure(connection)):
        script.module.downgrade()


def loses(connection: Connection, version: str) -> str:
    """What taking this one back would lose, in words; empty: nothing."""
    with Operations.context(MigrationContext.configure(connection)):
        return str(_scripts().get_revision(version).module.loses())


def versions() -> dict[str, str]:
    """All of them, the oldest first, and what each brings."""
    return {script.revision: script.doc for script in reversed(list(_scripts().walk_revisions()))}


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())
