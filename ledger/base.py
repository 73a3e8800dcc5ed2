"""What all tables of the application database share: their base class, and column types that SQLite lacks."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

ALL_COLUMNS: frozenset[str] = frozenset({"*"})
"""Value of `Base.audited` for a table of which every change is audited."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Aware UTC datetimes, on databases with and without time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuses naive datetimes: they would silently shift."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored; give it a timezone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """SQLite returns naive datetimes; they are UTC."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Exact(sa.TypeDecorator[Decimal]):
    """Money stored as text: SQLite has no exact decimal type."""

    impl = sa.String(64)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> str | None:
        """Writes plain digits, without an exponent."""
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Decimal | None:
        """Reads the text as Decimal."""
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """All application tables. Each says which changes are audited."""

    audited: ClassVar[frozenset[str]]
    """Columns of which every change needs an audit entry, and so does every row added or removed; `ALL_COLUMNS` for all of them.

    Empty: the state of the machine, which nobody decides about.
    """
