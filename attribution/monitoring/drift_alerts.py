"""Drift alerts: alerts and problems for models whose estimates were further from the bill than the tolerance allows. (ES-3)"""

from __future__ import annotations

import shlex
from decimal import Decimal
from urllib.parse import quote

import polars as pl

from ledger import periods
from ledger.alerts import alert_id, settle
from ledger.books import Books
from ledger.db import Alert
from ledger.money import MONEY, readable_amounts, text
from ledger.problems import Problem

SOURCE = "attribution"
MIN_DIFFERENCE = Decimal(1)
"""Below one unit of money a difference is noise, whatever its share."""


def exceeding(drift: pl.DataFrame, tolerance: Decimal) -> pl.DataFrame:
    """Rows that are off by more than the tolerance, and by at least a unit of money."""
    limit = pl.lit(tolerance, dtype=MONEY)
    return drift.filter(pl.col("drift").abs() > limit, (pl.col("billed") - pl.col("estimated")).abs() >= MIN_DIFFERENCE)


def problems(drift: pl.DataFrame, tolerance: Decimal, *, uri: str) -> list[Problem]:
    """One problem for each model whose estimates are not reliable."""
    return [
        Problem(
            SOURCE,
            uri,
            f"{row['provider']} {row['model']}",
            "list_cost",
            f"estimate_drift: {_comparison(row)}",
            f"`rootcost prices history {shlex.quote(row['model'] or 'MODEL')}` shows the rates; import your contract prices",
            severity="warning",
            cost=row["billed"],
            currency=row["currency"],
        )
        for row in exceeding(drift, tolerance).iter_rows(named=True)
    ]


def _comparison(row: dict[str, Decimal]) -> str:
    estimated_text, billed_text = readable_amounts(row["estimated"], row["billed"])
    direction = "more" if row["drift"] > 0 else "less"
    return f"billed {row['currency']} {billed_text} for what was estimated at {estimated_text}, {abs(row['drift']) * 100:.1f} % {direction}"


def raise_alerts(books: Books, month: str, drift: pl.DataFrame, tolerance: Decimal) -> list[Alert]:
    """Raises an alert once a month, model and direction; returns the new ones."""
    alerts = []
    for row in exceeding(drift, tolerance).iter_rows(named=True):
        cause = f"drift|{month}|{row['provider']}|{row['model']}|{row['currency']}|{'up' if row['drift'] > 0 else 'down'}"
        alerts.append(
            Alert(
                alert_id=alert_id(cause),
                kind="drift",
                severity="warning",
                subject=f"{row['provider']} {row['model']}",
                text=f"Estimates of {row['provider']} {row['model']} were off in {month}: {_comparison(row)}.",
                address=f"/v1/costs?by=model,cost_class&filter={quote('model=' + row['model'])}"
                f"&start={month}&end={periods.next_month(month)}",
                payload={key: text(value) if isinstance(value, Decimal) else value for key, value in row.items()}
                | {"month": month},
                month=month,
                figure=f"{row['currency']} {readable_amounts(row['billed'])[0]} billed",
                limit_text=f"{row['currency']} {readable_amounts(row['estimated'])[0]} estimated, ± {tolerance * 100:.0f} %",
                next_step=f"rootcost prices history {shlex.quote(row['model'] or 'MODEL')} shows the rates; import your contract prices",
                created_at=periods.now(),
                attempts=0,
            )
        )
    with books.database.session() as session:
        return settle(session, "drift", month, alerts)
