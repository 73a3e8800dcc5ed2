"""Tables of budgets in the application database: budgets, their revisions, and raises that await a second person."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ledger.base import ALL_COLUMNS, Base, Exact, UtcDateTime


class Budget(Base):
    """A budget: an id that survives renames, its name, and its newest revision. An ended budget keeps its revisions; its name is free again."""

    __tablename__ = "budgets"
    audited: ClassVar = ALL_COLUMNS
    __table_args__ = (
        sa.Index(
            "uq_budgets_name_in_force",
            "name",
            unique=True,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        ),
    )

    budget_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(256), index=True)
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class BudgetRevision(Base):
    """The terms of a budget from `valid_from` on, who recorded them, when, and why. Rows are only added.

    `scopes` maps dimensions (organisation, team, agent, workflow, tenant, environment, provider, model) to names, each compared whole.
    `valid_from` None: always. `origin` is file for what `rootcost budgets apply` made.
    Of two revisions, the later recorded one applies. Until `raised_until` the limit is `raised_amount`.
    """

    __tablename__ = "budget_revisions"
    audited: ClassVar = ALL_COLUMNS
    __table_args__ = (sa.UniqueConstraint("budget_id", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    budget_id: Mapped[str] = mapped_column(sa.ForeignKey("budgets.budget_id"), index=True)
    revision: Mapped[int]
    name: Mapped[str] = mapped_column(sa.String(256))
    scopes: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    view: Mapped[str] = mapped_column(sa.String(16), default="initiator")
    period: Mapped[str] = mapped_column(sa.String(16), default="month")
    range_start: Mapped[datetime | None] = mapped_column(UtcDateTime)
    range_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    amount: Mapped[Decimal] = mapped_column(Exact)
    currency: Mapped[str] = mapped_column(sa.String(8))
    raised_amount: Mapped[Decimal | None] = mapped_column(Exact)
    raised_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    basis: Mapped[str] = mapped_column(sa.String(16), default="effective")
    infrastructure: Mapped[bool] = mapped_column(default=True)
    shared: Mapped[bool] = mapped_column(default=True)
    owner: Mapped[str] = mapped_column(sa.String(256), default="")
    enforcement: Mapped[str] = mapped_column(sa.String(16), default="none")
    on_outage: Mapped[str] = mapped_column(sa.String(16), default="open")
    parent_id: Mapped[str | None] = mapped_column(sa.String(40))
    exceeds_parent: Mapped[bool] = mapped_column(default=False)
    thresholds: Mapped[list[str]] = mapped_column(sa.JSON, default=list)
    recipients: Mapped[list[str]] = mapped_column(sa.JSON, default=list)
    valid_from: Mapped[datetime | None] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    recorded_by: Mapped[str] = mapped_column(sa.String(128), default="")
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    origin: Mapped[str] = mapped_column(sa.String(16), default="")
    ended: Mapped[bool] = mapped_column(default=False)

    def limit(self, at: datetime) -> Decimal:
        """The amount in force at an instant: the raised one until the raise expires."""
        is_raised = self.raised_amount is not None and (self.raised_until is None or at < self.raised_until)
        return self.raised_amount if is_raised and self.raised_amount is not None else self.amount


class BudgetRequest(Base):
    """A raise of a budget that awaits a second person: what is asked, by whom, until when; and what was decided."""

    __tablename__ = "budget_requests"
    audited: ClassVar = ALL_COLUMNS

    request_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    budget_id: Mapped[str] = mapped_column(sa.ForeignKey("budgets.budget_id"), index=True)
    revision: Mapped[int]
    terms: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    asked_by: Mapped[str] = mapped_column(sa.String(128))
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    decision: Mapped[str] = mapped_column(sa.String(16), default="")
    decided_by: Mapped[str] = mapped_column(sa.String(128), default="")
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
