"""Users, their sessions and watchlists, failed logins, and a number that rises with every change of these."""

from __future__ import annotations

import sqlalchemy as sa

from tradeback.store.migrations import steps

revision = "0002_accounts"
down_revision = "0001_symbolsmap"


def upgrade() -> None:
    steps.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", sa.String(64), nullable=False, unique=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("symbol_patterns", sa.Text, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP, nullable=True, server_default=steps.now()),
        sqlite_autoincrement=True,
    )
    steps.create_table(
        "market_watch",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("user_id", sa.Integer, index=True),
        sa.Column("symbol", sa.String(50), nullable=False),
        sa.Column("display_order", sa.Integer, server_default=sa.text("0")),
        sa.Column("created_at", sa.TIMESTAMP, nullable=True, server_default=steps.now()),
        sa.UniqueConstraint("session_id", "symbol", name="unique_session_symbol"),
    )
    steps.create_table(
        "user_sessions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("session_token", sa.String(255), nullable=False, unique=True),
        sa.Column("user_id", sa.String(255), index=True),
        sa.Column("ip_address", sa.String(45)),
        sa.Column("user_agent", sa.Text),
        sa.Column("is_active", sa.Boolean, server_default=sa.true()),
        sa.Column("last_activity", sa.TIMESTAMP, nullable=True, server_default=steps.now(touched=True)),
        sa.Column("created_at", sa.TIMESTAMP, nullable=True, server_default=steps.now()),
        sa.Column("expires_at", sa.TIMESTAMP, nullable=True, index=True),
    )
    steps.create_table(
        "login_failures",
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.BigInteger, nullable=False),
    )
    mark = steps.create_table(
        "accounts_mark",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    steps.insert_first(mark, {"id": 1, "version": 0})


def loses() -> str:
    """What a downgrade would lose, in words; empty: nothing."""
    users = steps.count("users")
    sessions = steps.count("user_sessions", where="WHERE is_active = 1")
    watched = steps.count("market_watch")
    if users or sessions or watched:
        return f"{users:,} users with {sessions:,} sessions and {watched:,} symbols of watchlists"
    return ""


def downgrade() -> None:
    for table in ("accounts_mark", "login_failures", "user_sessions", "market_watch", "users"):
        steps.drop_table(table)
