"""Tables of reservations: money that calls under way hold of budgets, and what became of it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ledger.base import Base, Exact, UtcDateTime


class Reservation(Base):
    """What one call, or one run, may cost at most: `open`, and then `committed`, `released` or `uncertain`.

    A reservation that is past its deadline is uncertain: it goes on counting until somebody says what it cost.
    """

    __tablename__ = "reservations"
    audited: ClassVar = frozenset[str]()

    reservation_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(16), index=True)
    scopes: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    team: Mapped[str] = mapped_column(sa.String(256), default="", index=True)
    chain_id: Mapped[str] = mapped_column(sa.String(128), default="")
    amount: Mapped[Decimal] = mapped_column(Exact)
    currency: Mapped[str] = mapped_column(sa.String(8))
    cost: Mapped[Decimal | None] = mapped_column(Exact)
    created_by: Mapped[str] = mapped_column(sa.String(128))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deadline: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ReservationLevel(Base):
    """What a reservation counts for in one budget's window: billionths of the budget's currency, so that the database adds them up exactly."""

    __tablename__ = "reservation_levels"
    audited: ClassVar = frozenset[str]()
    __table_args__ = (sa.Index("ix_reservation_levels_window", "budget_id", "window_start", "chain_id", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    reservation_id: Mapped[str] = mapped_column(sa.ForeignKey("reservations.reservation_id"), index=True)
    budget_id: Mapped[str] = mapped_column(sa.String(40))
    window_start: Mapped[datetime] = mapped_column(UtcDateTime)
    window_end: Mapped[datetime] = mapped_column(UtcDateTime)
    chain_id: Mapped[str] = mapped_column(sa.String(128), default="")
    state: Mapped[str] = mapped_column(sa.String(16))
    asked_nanos: Mapped[int] = mapped_column(sa.BigInteger)
    nanos: Mapped[int] = mapped_column(sa.BigInteger)
    """The amount while it is open or uncertain, the cost once it is committed."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
