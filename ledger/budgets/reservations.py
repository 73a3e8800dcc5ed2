"""Reservations: a call, or a run, holds the most that it can cost at every budget it counts against, or at none. (BU-1)

A hard budget grants while ``committed + open + uncertain + amount <= limit`` of its window, and while what the ledger knows of (which includes
work that reserved nothing) leaves as much. Nothing is kept as a counter: each decision adds up the reservations of the window.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger import names
from ledger.books import Books
from ledger.budget_tables import BudgetRevision
from ledger.budgets.periods import Window, window_at
from ledger.budgets.status import Candidate, budgets_in_force, standings
from ledger.budgets.terms import Terms, terms_of
from ledger.errors import ObjectMissingError, UsageError
from ledger.exchange_rates import Exchange
from ledger.money import proportion, quantize, readable_amounts
from ledger.periods import now
from ledger.published import runs_in_force
from ledger.reservation_tables import Reservation, ReservationLevel

OPEN, COMMITTED, RELEASED, UNCERTAIN = "open", "committed", "released", "uncertain"
_NANOS: Final = 10**9
_MAX_NANOS: Final = 2**62
_LOCK_KEY: Final = 7268673
_BEGINNING, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_SPEND_SECONDS: Final = 30
"""How long what the ledger knows is used again, while no other run is published."""


class BudgetRefusedError(UsageError):
    """A hard budget has less left than a reservation asks for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. The same id again is answered as before and changes nothing."""

    scopes: Mapping[str, str]
    amount: Decimal
    currency: str
    seconds: int
    reservation_id: str = ""
    chain_id: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A budget that a reservation counts against: its window, what the request needs of it, and what the ledger knows."""

    budget_id: str
    terms: Terms
    limit: Decimal
    window: Window
    nanos: int
    chain_id: str = ""
    """Of a budget of chains: which."""
    spent: Decimal = Decimal(0)
    known_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """What the reservations of a window come to, in billionths."""

    committed: int
    open: int
    uncertain: int
    late: int
    """Committed after the newest use that the ledger knows of."""

    @property
    def counted(self) -> int:
        """All that counts against the limit."""
        return self.committed + self.open + self.uncertain


def reserve(books: Books, request: Request, actor: str) -> Reservation:
    """Holds the amount at every budget in force that it counts against. Raises `BudgetRefusedError` naming the first that has too little."""
    if not request.amount.is_finite() or request.amount < 0:
        raise UsageError(
            f"{request.amount} cannot be held", where="amount", remedy="give the most that the call can cost, 0 or more"
        )
    at = now()
    reservation_id = request.reservation_id or f"res-{secrets.token_hex(12)}"
    levels = _levels(books, request, at)
    with books.database.session() as session:
        lock(session)
        existing = session.get(Reservation, reservation_id)
        if existing is not None:
            return existing
        reservation_row = Reservation(
            reservation_id=reservation_id,
            state=OPEN,
            scopes=dict(request.scopes),
            team=request.scopes.get("team", ""),
            chain_id=request.chain_id,
            amount=request.amount,
            currency=request.currency,
            created_by=actor,
            created_at=at,
            deadline=at + timedelta(seconds=request.seconds),
        )
        session.add(reservation_row)
        session.flush()  # the first statement writes, so that on SQLite, too, decisions come one after the other
        expire(session, at)
        for level in levels:
            _require_room(session, level)
        session.add_all(_row(reservation_row, level) for level in levels)
        return reservation_row


def reservation(books: Books, reservation_id: str) -> Reservation:
    """One reservation. Raises `ObjectMissingError`."""
    with books.database.session() as session:
        return _require(session, reservation_id)


def commit(books: Books, reservation_id: str, cost: Decimal) -> Reservation:
    """Books what it cost: final, also after a release or above what was held, since the money is spent."""
    if not cost.is_finite() or cost < 0:
        raise UsageError(f"{cost} is no cost", where="cost", remedy="give what the call cost, 0 or more")
    with books.database.session() as session:
        lock(session)
        reservation_row = _require(session, reservation_id)
        if reservation_row.state != COMMITTED:
            for row in _rows(session, reservation_id):
                row.nanos = _share(row.asked_nanos, cost, reservation_row.amount)
            _finish(session, reservation_row, COMMITTED, cost)
        return reservation_row


def release(books: Books, reservation_id: str) -> Reservation:
    """Gives it back, if it is open. What is uncertain stays: somebody must say what it cost."""
    with books.database.session() as session:
        lock(session)
        reservation_row = _require(session, reservation_id)
        expire(session, now())
        session.refresh(reservation_row)
        if reservation_row.state == OPEN:
            for row in _rows(session, reservation_id):
                row.nanos = 0
            _finish(session, reservation_row, RELEASED, None)
        return reservation_row


def unfinished(books: Books, teams: frozenset[str] | None = None) -> list[Reservation]:
    """Open and uncertain reservations, the oldest deadline first; of the given teams, or all."""
    at = now()
    query = (
        sa.select(Reservation)
        .where(Reservation.state.in_((OPEN, UNCERTAIN)))
        .order_by(Reservation.deadline, Reservation.reservation_id)
    )
    with books.database.session() as session:
        rows = [row for row in session.scalars(query) if teams is None or row.team in teams]
        session.expunge_all()
    for row in rows:
        row.state = UNCERTAIN if row.deadline <= at else row.state
    return rows


def sums_of(session: Session, budget_id: str, window: Window, chain_id: str, known_until: datetime | None) -> Sums:
    """What the reservations of a budget's window come to."""
    level = ReservationLevel
    late = level.nanos if known_until is None else sa.case((level.finished_at > known_until, level.nanos), else_=0)
    query = (
        sa.select(level.state, sa.func.sum(level.nanos), sa.func.sum(late))
        .where(level.budget_id == budget_id, level.window_start == window.start, level.chain_id == chain_id)
        .group_by(level.state)
    )
    rows = {state: (int(total or 0), int(after or 0)) for state, total, after in session.execute(query)}
    committed_sums = rows.get(COMMITTED, (0, 0))
    return Sums(committed_sums[0], rows.get(OPEN, (0, 0))[0], rows.get(UNCERTAIN, (0, 0))[0], committed_sums[1])


def _levels(books: Books, request: Request, at: datetime) -> list[Level]:
    """Budgets in force whose every scope is the request's, outermost first, with what the ledger knows of them."""
    exchange = Exchange.of(books)
    rows: list[tuple[Candidate, Level]] = []
    for candidate in budgets_in_force(books):
        revision = candidate.revision_at(at)
        terms = terms_of(revision)
        if terms.enforcement == "none" or not _is_about(terms, request):
            continue
        window = window_of(terms, at, books.settings.report.timezone)
        if not window.holds(at):
            continue
        rows.append((candidate, _level(candidate, revision, window, request, exchange, at)))
    spent = spent_of(books, [candidate for candidate, level in rows if level.terms.period != "chain"], at)
    levels = [
        replace(level, spent=spent[level.budget_id][0], known_until=spent[level.budget_id][1])
        if level.budget_id in spent
        else level
        for _, level in rows
    ]
    return sorted(levels, key=lambda level: (level.terms.level, len(level.terms.scopes), level.terms.name))


def _level(
    candidate: Candidate, revision: BudgetRevision, window: Window, request: Request, exchange: Exchange, at: datetime
) -> Level:
    terms, amount = terms_of(revision), request.amount
    if request.currency != terms.currency:
        rate = exchange.on(request.currency, terms.currency, at.date())
        if rate is None:
            raise UsageError(
                f"no exchange rate of today from {request.currency} into {terms.currency}, the currency of budget {terms.name}",
                where="currency",
                remedy="import rates with `rootcost exchange import`, or reserve in the currency of the budget",
            )
        amount = proportion(amount, rate.numerator, rate.denominator)
    chain_id = request.chain_id if terms.period == "chain" else ""
    return Level(candidate.budget.budget_id, terms, revision.limit(at), window, nanos_of(amount), chain_id)


def _is_about(terms: Terms, request: Request) -> bool:
    if terms.period == "chain" and not request.chain_id:
        return False
    return all(
        dimension == "organisation" or names.key(request.scopes.get(dimension, "")) == names.key(name)
        for dimension, name in terms.scopes.items()
    )


def window_of(terms: Terms, at: datetime, timezone: str) -> Window:
    """A chain's window has no end: its reservations are those of the chain."""
    if terms.period == "chain":
        return Window(_BEGINNING, _END)
    return window_at(terms, at, timezone)


_cached_spend: WeakKeyDictionary[Books, tuple[object, datetime, dict[str, tuple[Decimal, datetime | None]]]] = WeakKeyDictionary()


def spent_of(books: Books, candidates: Sequence[Candidate], at: datetime) -> dict[str, tuple[Decimal, datetime | None]]:
    """What the ledger knows of budgets in the window of `at`, and until when it knows anything: read again when a run was published."""
    key = (sorted(runs_in_force(books.database).items()), [(c.budget.budget_id, c.budget.revision) for c in candidates])
    cached_key, read_at, spent = _cached_spend.get(books, (None, at, {}))
    if cached_key != key or not timedelta(0) <= at - read_at < timedelta(seconds=_SPEND_SECONDS):
        rows = standings(books, at, candidates=candidates, with_outlook=False)
        spent = {status.budget_id: (status.spent, status.data_until) for status in rows}
        _cached_spend[books] = (key, at, spent)
    return spent


def _require_room(session: Session, level: Level) -> None:
    """Raises `BudgetRefusedError` if a hard budget has too little left."""
    sums = sums_of(session, level.budget_id, level.window, level.chain_id, level.known_until)
    ledger_nanos = nanos_of(level.spent) + sums.late + sums.open + sums.uncertain
    nanos_left = nanos_of(level.limit) - max(sums.counted, ledger_nanos)
    if level.terms.enforcement != "hard" or level.nanos == 0 or level.nanos <= nanos_left:
        return
    left_text, limit, need = readable_amounts(max(Decimal(0), amount_of(nanos_left)), level.limit, amount_of(level.nanos))
    raise BudgetRefusedError(
        f"budget {level.terms.name} ({level.terms.described}, by {level.terms.period}) has {level.terms.currency} {left_text} left of "
        f"{limit}, and this asks for {need}",
        where=level.terms.name,
        remedy=f"{level.terms.owner or 'who may set budgets'} can raise it (PUT /v1/budgets/{level.terms.name}), or ask for less",
    )


def _row(reservation: Reservation, level: Level) -> ReservationLevel:
    return ReservationLevel(
        reservation_id=reservation.reservation_id,
        budget_id=level.budget_id,
        window_start=level.window.start,
        window_end=level.window.end,
        chain_id=level.chain_id,
        state=OPEN,
        asked_nanos=level.nanos,
        nanos=level.nanos,
    )


def _finish(session: Session, reservation: Reservation, state: str, cost: Decimal | None) -> None:
    at = now()
    reservation.state, reservation.cost, reservation.finished_at = state, cost, at
    for row in _rows(session, reservation.reservation_id):
        row.state, row.finished_at = state, at


def expire(session: Session, at: datetime) -> None:
    """What is past its deadline is uncertain, and counts on."""
    overdue_query = sa.select(Reservation.reservation_id).where(Reservation.state == OPEN, Reservation.deadline <= at)
    ids = list(session.scalars(overdue_query))
    if ids:
        session.execute(sa.update(ReservationLevel).where(ReservationLevel.reservation_id.in_(ids)).values(state=UNCERTAIN))
        session.execute(sa.update(Reservation).where(Reservation.reservation_id.in_(ids)).values(state=UNCERTAIN))


def lock(session: Session) -> None:
    """One decision at a time: on PostgreSQL by a lock, on SQLite since the transaction begins with a write."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("SELECT pg_advisory_xact_lock(:key, 2)"), {"key": _LOCK_KEY})
    else:
        session.execute(sa.text("UPDATE reservations SET state = state WHERE reservation_id = ''"))


def _require(session: Session, reservation_id: str) -> Reservation:
    reservation = session.get(Reservation, reservation_id)
    if reservation is None:
        raise ObjectMissingError("no such reservation", where=reservation_id, remedy="POST /v1/reservations makes one")
    return reservation


def _rows(session: Session, reservation_id: str) -> Sequence[ReservationLevel]:
    return session.scalars(sa.select(ReservationLevel).where(ReservationLevel.reservation_id == reservation_id)).all()


def _share(asked_nanos: int, cost: Decimal, amount: Decimal) -> int:
    """The cost in a level's currency: as many billionths of it as the amount was held with, rounded up."""
    if amount == 0:
        return nanos_of(cost)
    return -(-asked_nanos * int(quantize(cost).scaleb(12)) // int(quantize(amount).scaleb(12)))


def nanos_of(amount: Decimal) -> int:
    """An amount in billionths, rounded up.

    >>> nanos_of(Decimal("0.15"))
    150000000
    """
    nanos = int((amount * _NANOS).to_integral_value(rounding=ROUND_CEILING))
    if abs(nanos) > _MAX_NANOS:
        raise UsageError(f"{amount} is more than can be held", where="amount", remedy="reserve less than four billion at once")
    return nanos


def amount_of(nanos: int) -> Decimal:
    """Billionths as an amount."""
    return Decimal(nanos).scaleb(-9)
