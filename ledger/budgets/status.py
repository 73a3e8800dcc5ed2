"""How budgets stand in a window: funds available = amount - billed - estimated - encumbered, from the ledger and never from a counter.

Computed when it is asked for. So a budget that was made or changed this second stands as it should, and a restated bill needs no correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl
import sqlalchemy as sa

from ledger.books import Books
from ledger.budget_tables import Budget, BudgetRevision
from ledger.budgets import holds
from ledger.budgets.outlook import HISTORY_DAYS, Outlook, Question, outlooks
from ledger.budgets.periods import Window, window_at
from ledger.budgets.run_spend import dearest_run
from ledger.budgets.spend import Spelling, Spend, converted, newest_use, of_budget, read_spend, total
from ledger.budgets.terms import Terms, terms_of
from ledger.exchange_rates import Exchange
from ledger.money import proportion, text
from ledger.periods import now

STATUS_KEYS: Final = (
    "budget", "revision", "period_start", "period_end", "currency", "amount", "billed", "estimated", "encumbered", "available",
    "forecast", "low", "high", "state",
)  # fmt: skip
"""Keys of `rootcost budgets status --format json`."""
_WITHOUT_OUTLOOK: Final = ("hour", "chain")
"""Periods that are over before a forecast by days could say anything."""
STATES: Final = ("ok", "warning", "exceeded", "no data", "no rate")
"""`no data`: no cost of anybody is known of the window; `no rate`: cost in a currency without a rate into the budget's is not counted."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget in a window. Amounts are in its currency; `notes` say what is not counted, and why."""

    budget_id: str
    terms: Terms
    revision: int
    recorded_at: datetime
    window: Window
    amount: Decimal
    billed: Decimal
    estimated: Decimal
    encumbered: Decimal
    outlook: Outlook
    state: str
    data_until: datetime | None
    notes: tuple[str, ...] = ()
    chain_id: str | None = None

    @property
    def spent(self) -> Decimal:
        """Billed and estimated."""
        return self.billed + self.estimated

    @property
    def available(self) -> Decimal:
        """What is left; negative when it is exceeded."""
        return self.amount - self.spent - self.encumbered

    def row(self) -> dict[str, Any]:
        """The row of the contract, in the order of `STATUS_KEYS`."""
        values = {
            "budget": self.terms.name,
            "revision": self.revision,
            "period_start": self.window.start,
            "period_end": self.window.end,
            "currency": self.terms.currency,
            "forecast": self.outlook.forecast,
            "low": self.outlook.low,
            "high": self.outlook.high,
        }
        return {key: values[key] if key in values else getattr(self, key) for key in STATUS_KEYS}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A budget in force and its revisions, oldest first."""

    budget: Budget
    revisions: Sequence[BudgetRevision]

    @property
    def newest(self) -> BudgetRevision:
        """The revision that was recorded last."""
        return self.revisions[-1]

    def revision_at(self, at: datetime) -> BudgetRevision:
        """The revision in force at an instant: of those that had begun, the one recorded last; before all of them the first."""
        begun_revisions = [r for r in self.revisions if not r.ended and (r.valid_from is None or r.valid_from <= at)]
        return begun_revisions[-1] if begun_revisions else next(r for r in self.revisions if not r.ended)


def budgets_in_force(books: Books) -> list[Candidate]:
    """Budgets that have not ended, by name."""
    with books.database.session() as session:
        budgets = session.scalars(sa.select(Budget).where(Budget.ended_at.is_(None)).order_by(Budget.name)).all()
        ids = [budget.budget_id for budget in budgets]
        query = sa.select(BudgetRevision).where(BudgetRevision.budget_id.in_(ids)).order_by(BudgetRevision.revision)
        by_budget: dict[str, list[BudgetRevision]] = {}
        for revision in session.scalars(query):
            by_budget.setdefault(revision.budget_id, []).append(revision)
    return [Candidate(budget, by_budget[budget.budget_id]) for budget in budgets]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Budgets as they stand, the rows (`at`, `currency`, `basis`, `cost`) that count against each, and what was read of the ledger."""

    standings: Sequence[Standing]
    rows: Mapping[str, pl.DataFrame]
    spend: Spend | None


def standings(
    books: Books, at: datetime | None = None, *, candidates: Sequence[Candidate] | None = None, with_outlook: bool = True
) -> list[Standing]:
    """Every budget in force in the window that `at` lies in; by default in the newest window that any cost is known of.

    A window is open until costs of the next one have come in: until then the revision in force now applies, afterwards the one at its end.
    """
    return list(measure(books, at, candidates=candidates, with_outlook=with_outlook).standings)


def measure(
    books: Books, at: datetime | None = None, *, candidates: Sequence[Candidate] | None = None, with_outlook: bool = True
) -> Measurement:
    """`standings` with what they were measured by; with the outlook that is the cost of `HISTORY_DAYS` before, too."""
    candidates = budgets_in_force(books) if candidates is None else candidates
    if not candidates:
        return Measurement([], {}, None)
    instant = now()
    newest = newest_use(books)
    moment = at or min(instant, newest or instant)
    choices = [_choice(candidate, moment, newest, instant, books.settings.report.timezone) for candidate in candidates]
    first = min(choice.window.start for choice in choices)
    spend = read_spend(books, first - timedelta(days=HISTORY_DAYS) if with_outlook else first)
    holds_by_budget = holds.encumbered(books, [choice.budget_id for choice in choices], instant)
    return _measured(_Measure(books, spend, holds_by_budget, instant), choices, spend, with_outlook=with_outlook)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A budget's revision in force for a window, and the limit then."""

    budget_id: str
    revision: BudgetRevision
    terms: Terms
    window: Window
    limit: Decimal


def _choice(candidate: Candidate, moment: datetime, newest: datetime | None, instant: datetime, timezone: str) -> _Choice:
    window = window_at(terms_of(candidate.revision_at(moment)), moment, timezone)
    is_open = newest is None or newest < window.end
    applies_at = instant if is_open else window.end - timedelta(microseconds=1)
    revision = candidate.revision_at(applies_at)
    terms = terms_of(revision)
    return _Choice(candidate.budget.budget_id, revision, terms, window_at(terms, moment, timezone), revision.limit(applies_at))


class _Measure:
    """Measures budgets against spend that was read once for all of them."""

    def __init__(self, books: Books, spend: Spend, holds_by_budget: Mapping[str, Decimal], instant: datetime) -> None:
        self._books = books
        self._spend = spend
        self._held = holds_by_budget
        self._timezone = books.settings.report.timezone
        self._spelling = Spelling(books)
        self._exchange = Exchange.of(books)
        today = instant.astimezone(ZoneInfo(self._timezone)).date()
        newest = None if spend.newest is None else spend.newest.astimezone(ZoneInfo(self._timezone)).date()
        self._known_until = today if newest is None else min(today, newest + timedelta(days=1))

    def standing(self, choice: _Choice) -> tuple[Standing, Question]:
        """A budget as it stands, without outlook and state, and the question that its outlook answers."""
        terms, window = choice.terms, choice.window
        counted_rows = converted(
            of_budget(self._spend, terms, self._spelling), terms.currency, self._exchange, window, self._timezone
        )
        notes = tuple(
            f"{currency} {text(amount)} is not counted: no exchange rate into {terms.currency}"
            for currency, amount in counted_rows.without_rate.items()
        )
        billed_cost, estimated_cost = (total(counted_rows.rows, window, basis) for basis in ("billed", "estimated"))
        run = dearest_run(self._books, terms, window, self._spelling) if terms.period == "chain" else None
        if terms.period == "chain":
            billed_cost, estimated_cost = Decimal(0), Decimal(0) if run is None else run.cost
        status = Standing(
            budget_id=choice.budget_id,
            terms=terms,
            revision=choice.revision.revision,
            recorded_at=choice.revision.recorded_at,
            window=window if run is None else Window(run.start, run.end),
            amount=choice.limit,
            billed=billed_cost,
            estimated=estimated_cost,
            encumbered=self._held.get(choice.budget_id, Decimal(0)),
            outlook=Outlook(),
            state="no data",
            data_until=self._spend.newest,
            notes=notes,
            chain_id=None if run is None else run.chain_id,
        )
        return status, Question(counted_rows.rows, window, self._known_until, choice.limit, self._timezone)

    def state(self, status: Standing) -> str:
        """Whether it is within its limit."""
        if not self._spend.has_data(status.window):
            return "no data"
        share = proportion(Decimal(1), status.spent, status.amount)
        if share >= 1:
            return "exceeded"
        if status.notes:
            return "no rate"
        thresholds = [t for t in thresholds_of(self._books, status.terms) if t < 1]
        return "warning" if share >= max(thresholds, default=Decimal(1)) else "ok"


def thresholds_of(books: Books, terms: Terms) -> Sequence[Decimal]:
    """Shares of the amount that raise an alert: the budget's own, else those of the settings."""
    return sorted(terms.thresholds or books.settings.alerts.thresholds)


def _measured(measure: _Measure, choices: Sequence[_Choice], spend: Spend, *, with_outlook: bool) -> Measurement:
    measured_pairs = [measure.standing(choice) for choice in choices]
    has_outlook = [with_outlook and status.terms.period not in _WITHOUT_OUTLOOK for status, _ in measured_pairs]
    answers = iter(outlooks([question for (_, question), is_asked in zip(measured_pairs, has_outlook, strict=True) if is_asked]))
    statuses = [
        replace(status, outlook=next(answers) if is_asked else Outlook(), state=measure.state(status))
        for (status, _), is_asked in zip(measured_pairs, has_outlook, strict=True)
    ]
    return Measurement(statuses, {status.budget_id: question.rows for status, question in measured_pairs}, spend)
