"""Budgets: what a team or an agent may spend in a month, measured from published costs.

Each threshold is alerted once a month and revision: the alert's id is the hash of its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote

import polars as pl
import sqlalchemy as sa

from attribution.monitoring.daily_spend import daily_spend
from ledger import periods, registry
from ledger.alerts import add_new, alert_id
from ledger.books import Books
from ledger.db import Alert, Budget
from ledger.money import MONEY, proportion, readable_amounts, text
from ledger.names import RegisteredNames
from ledger.published import runs_in_force
from ledger.tables import BUDGET_STATUS


def current_budgets(books: Books) -> list[Budget]:
    """The newest revision of every budget that was not deleted, by name."""
    with books.database.session() as session:
        newest: dict[str, Budget] = {}
        for budget in session.scalars(sa.select(Budget).order_by(Budget.name, Budget.revision)):
            newest[budget.name] = budget
    return [b for b in newest.values() if not b.deleted]


def evaluate(books: Books, months: Sequence[str] | None = None) -> list[Alert]:
    """Builds `budget_status` for the published months and raises alerts; returns the new ones."""
    runs = runs_in_force(books.database)
    budgets = current_budgets(books)
    timeline = registry.timeline(registry.rows(books))
    registered_names = {"team": RegisteredNames.teams(timeline), "agent": RegisteredNames.agents(timeline)}
    names = {budget.name: registered_names[budget.scope].find(budget.scope_name) or budget.scope_name for budget in budgets}
    alerts: list[Alert] = []
    for month in months if months is not None else list(runs):
        if month not in runs:
            continue
        spend = daily_spend(books, [month])
        rows = [
            _status(budget, names[budget.name], month, spend, runs[month], books.settings.alerts.thresholds) for budget in budgets
        ]
        frame = (
            pl.DataFrame(rows, schema_overrides=dict.fromkeys(("amount", "billed", "estimated"), MONEY))
            if rows
            else BUDGET_STATUS.empty()
        )
        books.store.replace(BUDGET_STATUS, frame, {"month": month})
        alerts += [
            alert for budget, row in zip(budgets, rows, strict=True) for alert in _alerts(budget, names[budget.name], row, books)
        ]
    with books.database.session() as session:
        return add_new(session, alerts)


def _status(
    budget: Budget, name: str, month: str, spend: pl.DataFrame, run_id: str, thresholds: Sequence[Decimal]
) -> dict[str, object]:
    """One budget in one month; `name` is its team or agent as costs spell it. Names are compared whole: `search` does not include `search-ads`."""
    budget_spend = spend.filter((pl.col(f"{budget.view}_{budget.scope}") == name) & (pl.col("currency") == budget.currency))
    spent = {
        basis: Decimal(str(budget_spend.filter(pl.col("basis") == basis)["cost"].sum())) for basis in ("billed", "estimated")
    }
    share = proportion(Decimal(1), spent["billed"] + spent["estimated"], budget.amount)
    warning = max((t for t in thresholds if t < 1), default=Decimal(1))
    return {
        "month": month,
        "run_id": run_id,
        "budget": budget.name,
        "scope": budget.scope,
        "scope_name": budget.scope_name,
        "view": budget.view,
        "currency": budget.currency,
        "amount": budget.amount,
        **spent,
        "state": "exceeded" if share >= 1 else "warning" if share >= warning else "ok",
    }


def _alerts(budget: Budget, name: str, row: dict[str, object], books: Books) -> list[Alert]:
    billed_cost, estimated_cost = Decimal(str(row["billed"])), Decimal(str(row["estimated"]))
    share = proportion(Decimal(1), billed_cost + estimated_cost, budget.amount)
    out = []
    # Of thresholds passed at once only the highest raises an alert.
    for threshold in sorted((t for t in books.settings.alerts.thresholds if share >= t), reverse=True)[:1]:
        cause = f"budget|{budget.name}|{budget.revision}|{row['month']}|{threshold.normalize()}"
        percent = f"{share * 100:.0f} %"
        verb = "is exceeded" if threshold >= 1 else f"has passed {threshold * 100:.0f} %"
        spent, limit, billed_text, estimated_text = readable_amounts(
            billed_cost + estimated_cost, budget.amount, billed_cost, estimated_cost
        )
        message = (
            f"Budget {budget.name} {verb}: {budget.scope} {budget.scope_name} caused {budget.currency} {spent} of "
            f"{limit} in {row['month']} ({percent}); billed {billed_text}, estimated {estimated_text}."
        )
        month = str(row["month"])
        address = (
            f"/v1/costs?by={budget.view}_agent,model&view={budget.view}&filter={quote(f'{budget.view}_{budget.scope}={name}')}"
            f"&start={month}&end={periods.next_month(month)}&calendar=usage"
        )
        payload = {key: text(value) if isinstance(value, Decimal) else value for key, value in row.items()} | {
            "share": text(share),
            "threshold": text(threshold),
        }
        out.append(
            Alert(
                alert_id=alert_id(cause),
                kind="budget",
                severity="critical" if threshold >= 1 else "warning",
                subject=budget.name,
                text=message,
                address=address,
                payload=payload,
                created_at=periods.now(),
                attempts=0,
            )
        )
    return out
