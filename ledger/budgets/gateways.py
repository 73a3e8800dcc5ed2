"""Gateways that enforce budgets by themselves: what they hold is reported here, and what they may still grant is answered. (BU-1)

A gateway decides each call from its own store and reports its sums every few seconds; they become reservations, so that status, other gateways
and agents that reserve over the API count them. What is spent past a gateway lowers what it may grant:

    room = limit - elsewhere,   elsewhere = max(counted, known + late + open + uncertain) - counted by this store

where `counted` is what all reservations of the window come to, `known` what the ledger knows of, and `late` what was committed after that.
Within one store a limit holds exactly; between stores it holds but for what is spent in the seconds between two reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger import names
from ledger.books import Books
from ledger.budgets.periods import Window
from ledger.budgets.reservations import (
    COMMITTED,
    OPEN,
    RELEASED,
    UNCERTAIN,
    amount_of,
    expire,
    lock,
    nanos_of,
    spent_of,
    sums_of,
    window_of,
)
from ledger.budgets.status import Candidate, budgets_in_force
from ledger.budgets.terms import Terms, terms_of
from ledger.exchange_rates import Exchange
from ledger.periods import now
from ledger.reservation_tables import Reservation, ReservationLevel

LOST_SECONDS: Final = 900
"""A gateway that reported nothing for so long has left what it held uncertain."""
MAX_LEVELS: Final = 1000
"""How many levels one report may hold."""


@dataclass(frozen=True, slots=True)
class GatewayStore:
    """A gateway's store in one of its lives: one that lost its data begins another `epoch`."""

    gateway: str
    epoch: str

    @property
    def prefix(self) -> str:
        """What the ids of its reservations begin with."""
        return f"{self.gateway}.{hashlib.sha256(self.epoch.encode()).hexdigest()[:8]}."


@dataclass(frozen=True, slots=True)
class GatewaySums:
    """What one level of a gateway's store comes to, in the budget's currency: all that was committed in its life, what is open and uncertain."""

    budget_id: str
    window_start: datetime
    committed: Decimal
    open: Decimal
    uncertain: Decimal
    chain_id: str = ""


@dataclass(frozen=True, slots=True)
class GatewayLimit:
    """A budget as a gateway enforces it; `usd_rate` is what one US dollar is in its currency, None where no rate is known."""

    budget_id: str
    revision: int
    terms: Terms
    window: Window
    limit: Decimal
    elsewhere: Decimal
    usd_rate: Decimal | None


def report(books: Books, store: GatewayStore, levels: Sequence[GatewaySums], actor: str, teams: frozenset[str] | None) -> None:
    """Takes over the sums of a store. An older report after a newer one changes no commit; a budget that is not there, or another team's, is passed over."""
    at = now()
    terms_by_id = {c.budget.budget_id: terms_of(c.revision_at(at)) for c in _visible(books, teams, at)}
    with books.database.session() as session:
        lock(session)
        expire(session, at)
        for sums in levels:
            terms = terms_by_id.get(sums.budget_id)
            if terms is not None:
                _enter(
                    session, store, sums, terms, window_of(terms, sums.window_start, books.settings.report.timezone), actor, at
                )


def limits(books: Books, store: GatewayStore, teams: frozenset[str] | None) -> list[GatewayLimit]:
    """Budgets in force that a gateway enforces or watches, outermost first, each with what is spent or held elsewhere."""
    at = now()
    exchange = Exchange.of(books)
    rows = []
    for candidate in _visible(books, teams, at):
        revision = candidate.revision_at(at)
        terms = terms_of(revision)
        window = window_of(terms, at, books.settings.report.timezone)
        if terms.enforcement != "none" and window.holds(at):
            rows.append((candidate, revision, terms, window))
    spent = spent_of(books, [candidate for candidate, _, terms, _ in rows if terms.period != "chain"], at)
    answers = []
    with books.database.session() as session:
        for candidate, revision, terms, window in rows:
            budget_id = candidate.budget.budget_id
            spent_elsewhere = Decimal(0)
            if terms.period != "chain":
                spent_elsewhere = _elsewhere(session, store, budget_id, window, spent.get(budget_id, (Decimal(0), None)))
            rate = exchange.on("USD", terms.currency, at.date()) if terms.currency != "USD" else None
            usd_rate = Decimal(1) if terms.currency == "USD" else rate and rate.numerator / rate.denominator
            answers.append(
                GatewayLimit(budget_id, revision.revision, terms, window, revision.limit(at), spent_elsewhere, usd_rate or None)
            )
    return sorted(answers, key=lambda row: (row.terms.level, len(row.terms.scopes), row.terms.name))


def _visible(books: Books, teams: frozenset[str] | None, at: datetime) -> list[Candidate]:
    candidates = budgets_in_force(books)
    if teams is None:
        return candidates
    keys = {names.key(team) for team in teams}
    return [c for c in candidates if names.key(terms_of(c.revision_at(at)).scopes.get("team", "")) in keys]


def _elsewhere(
    session: Session, store: GatewayStore, budget_id: str, window: Window, known_spend: tuple[Decimal, datetime | None]
) -> Decimal:
    spent, known_until = known_spend
    sums = sums_of(session, budget_id, window, "", known_until)
    counted_nanos = max(sums.counted, nanos_of(spent) + sums.late + sums.open + sums.uncertain)
    level = ReservationLevel
    own_query = sa.select(sa.func.sum(level.nanos)).where(
        level.budget_id == budget_id,
        level.window_start == window.start,
        level.chain_id == "",
        level.reservation_id.startswith(store.prefix, autoescape=True),
    )
    own_nanos = int(session.scalar(own_query) or 0)
    return amount_of(max(0, counted_nanos - own_nanos))


def _enter(
    session: Session, store: GatewayStore, sums: GatewaySums, terms: Terms, window: Window, actor: str, at: datetime
) -> None:
    """One reservation for what is open, one for what is uncertain, and one for what each hour committed."""
    text = f"{sums.budget_id}|{window.start.isoformat()}|{sums.chain_id}"
    prefix = f"{store.prefix}{hashlib.sha256(text.encode()).hexdigest()[:12]}."
    level = ReservationLevel
    committed_query = sa.select(sa.func.sum(level.nanos)).where(
        level.reservation_id.startswith(prefix, autoescape=True), level.state == COMMITTED
    )
    more_nanos = nanos_of(sums.committed) - int(session.scalar(committed_query) or 0)
    hour = at.astimezone(UTC).strftime("%Y%m%d%H")
    changes: Mapping[str, tuple[str, int | None]] = {
        OPEN: (OPEN, nanos_of(sums.open)),
        UNCERTAIN: (UNCERTAIN, nanos_of(sums.uncertain)),
        f"{COMMITTED}.{hour}": (COMMITTED, more_nanos if more_nanos > 0 else None),
    }
    for suffix, (state, nanos) in changes.items():
        row = session.get(Reservation, prefix + suffix)
        if nanos is None or (row is None and nanos == 0):
            continue
        if row is None:
            row = _new_row(session, prefix + suffix, sums, terms, window, actor, at)
        (level_row,) = session.scalars(sa.select(level).where(level.reservation_id == row.reservation_id))
        level_row.nanos = nanos + (level_row.nanos if state == COMMITTED else 0)
        level_row.asked_nanos = level_row.nanos
        row.state = level_row.state = state if level_row.nanos else RELEASED
        row.amount = amount_of(level_row.nanos)
        row.cost = row.amount if state == COMMITTED else None
        row.finished_at = level_row.finished_at = at if row.state in (COMMITTED, RELEASED) else None
        row.deadline = at + timedelta(seconds=LOST_SECONDS)


def _new_row(
    session: Session, reservation_id: str, sums: GatewaySums, terms: Terms, window: Window, actor: str, at: datetime
) -> Reservation:
    row = Reservation(
        reservation_id=reservation_id,
        state=OPEN,
        scopes=dict(terms.scopes),
        team=terms.scopes.get("team", ""),
        chain_id=sums.chain_id,
        amount=Decimal(0),
        currency=terms.currency,
        created_by=actor,
        created_at=at,
        deadline=at + timedelta(seconds=LOST_SECONDS),
    )
    session.add(row)
    session.flush()
    session.add(
        ReservationLevel(
            reservation_id=reservation_id,
            budget_id=sums.budget_id,
            window_start=window.start,
            window_end=window.end,
            chain_id=sums.chain_id,
            state=OPEN,
            asked_nanos=0,
            nanos=0,
        )
    )
    session.flush()
    return row
