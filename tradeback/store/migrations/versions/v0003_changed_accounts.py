"""Of each user the version of the accounts at which they, their sessions or their watchlist changed last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_changed_accounts"
down_revision = "0002_accounts"


def upgrade() -> None:
    column = sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    op.add_column("users", column)
    op.create_index("ix_users_version", "users", ["version"])
