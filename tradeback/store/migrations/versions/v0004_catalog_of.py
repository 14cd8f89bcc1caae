"""Of which exchange the symbols are, and a name by which a data folder knows its catalog again."""

from __future__ import annotations

import sqlalchemy as sa

from tradeback.store.migrations import steps

revision = "0004_catalog_of"
down_revision = "0003_changed_accounts"


def upgrade() -> None:
    steps.create_table(
        "catalog_of",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("exchange", sa.String(50), nullable=False),
        sa.Column("identity", sa.String(32), nullable=False),
    )


def loses() -> str:
    """Nothing that is not noted anew: the data folder has the name too, and settings tell the exchange."""
    return ""


def downgrade() -> None:
    steps.drop_table("catalog_of")
