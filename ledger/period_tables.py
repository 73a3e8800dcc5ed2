"""Tables of closed months: the state of a month, and the documents that were booked of it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ledger.base import ALL_COLUMNS, Base, Exact, UtcDateTime


class AccountingPeriod(Base):
    """A month that was closed. `closed_at` is empty while it is open again; `asked_by` names who wants it opened and awaits a second person."""

    __tablename__ = "periods"
    audited: ClassVar = ALL_COLUMNS

    month: Mapped[str] = mapped_column(sa.String(7), primary_key=True)
    revision: Mapped[int]
    closed_by: Mapped[str] = mapped_column(sa.String(128))
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    asked_by: Mapped[str] = mapped_column(sa.String(128), default="")
    asked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    asked_reason: Mapped[str] = mapped_column(sa.Text, default="")


class PeriodDocument(Base):
    """What was booked of a month at once: the `actual` cost at its first close, or an `adjustment` of what was booked before.

    `run_id` is the run that all documents of the month up to this one sum to. Its rows are kept. Rows are only added.
    """

    __tablename__ = "period_documents"
    audited: ClassVar = ALL_COLUMNS
    __table_args__ = (sa.UniqueConstraint("month", "sequence"),)

    number: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    month: Mapped[str] = mapped_column(sa.String(7), index=True)
    sequence: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(16))
    run_id: Mapped[str] = mapped_column(sa.String(40))
    adjusts: Mapped[str | None] = mapped_column(sa.String(32))
    made_by: Mapped[str] = mapped_column(sa.String(128))
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PeriodLine(Base):
    """An exact amount of a document, by owner, invoice, class and cause. A cost column that no row of it has is null. Rows are only added."""

    __tablename__ = "period_lines"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(sa.ForeignKey("period_documents.number"), index=True)
    cause: Mapped[str] = mapped_column(sa.String(256))
    currency: Mapped[str] = mapped_column(sa.String(16))
    provider: Mapped[str | None] = mapped_column(sa.String(256))
    invoice_id: Mapped[str | None] = mapped_column(sa.String(512))
    team: Mapped[str | None] = mapped_column(sa.String(256))
    cost_class: Mapped[str] = mapped_column(sa.String(16))
    basis: Mapped[str] = mapped_column(sa.String(16))
    billed_cost: Mapped[Decimal | None] = mapped_column(Exact)
    effective_cost: Mapped[Decimal | None] = mapped_column(Exact)
