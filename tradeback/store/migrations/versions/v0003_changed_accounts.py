"""Of each user the version of the accounts at which they, their sessions or their watchlist changed last."""

from __future__ import annotations

import sqlalchemy as sa

from tradeback.store.migrations import steps

revision = "0003_changed_accounts"
down_revision = "0002_accounts"


def upgrade() -> None:
    column = sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    steps.add_column("users", column, index="ix_users_version")


def loses() -> str:
    """Nothing that is not made anew: who follows the accounts reads them all once more."""
    return ""


def downgrade() -> None:
    steps.drop_column("users", "version", index="ix_users_version")
