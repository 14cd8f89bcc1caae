"""The symbols, and the highest stream id ever given."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from tradeback.store.migrations import steps

revision = "0001_symbolsmap"
down_revision = None


def upgrade() -> None:
    # SQLite would make a float of a DECIMAL.
    amount = sa.String(21) if steps.on_sqlite() else sa.Numeric(20, 8)
    steps.create_table(
        "symbolsmap",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("symbol", sa.String(50), nullable=False, unique=True),
        sa.Column("base_currency", sa.String(50)),
        sa.Column("quote_currency", sa.String(50)),
        sa.Column("is_active", sa.Boolean, server_default=sa.true()),
        sa.Column("price_precision", sa.Integer),
        sa.Column("quantity_precision", sa.Integer),
        sa.Column("min_quantity", amount),
        sa.Column("max_quantity", amount),
        sa.Column("step_size", amount),
        sa.Column("min_notional", amount),
        sa.Column("created_at", sa.TIMESTAMP, nullable=True, server_default=steps.now()),
        sa.Column("updated_at", sa.TIMESTAMP, nullable=True, server_default=steps.now(touched=True)),
        sa.Column(
            "stream_id",
            sa.SmallInteger().with_variant(mysql.SMALLINT(unsigned=True), "mysql", "mariadb"),
            nullable=False,
            unique=True,
        ),
        sa.CheckConstraint("stream_id BETWEEN 1 AND 65535", name="stream_id_range"),
        sqlite_autoincrement=True,
    )
    mark = steps.create_table(
        "stream_id_mark",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last_stream_id", sa.Integer, nullable=False),
    )
    steps.insert_first(mark, {"id": 1, "last_stream_id": 0})


def loses() -> str:
    """What a downgrade would lose, in words; empty: nothing."""
    symbols = steps.count("symbolsmap")
    return f"{symbols:,} symbols with their stream ids, by which all else is stored" if symbols else ""


def downgrade() -> None:
    steps.drop_table("symbolsmap")
    # Last: as long as there are symbols it must be known which ids were given.
    steps.drop_table("stream_id_mark")
