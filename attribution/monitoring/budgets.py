"""Alerts of budgets: thresholds that spend has passed in its period. How budgets stand is computed by `ledger.budgets.status`.

Each threshold is alerted once a period and revision: the alert's id is the hash of its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from ledger.alerts import add_new, alert_id
from ledger.books import Books
from ledger.budgets.alarms import Alarm, alarms
from ledger.budgets.spend import column_of
from ledger.budgets.status import Standing, budgets_in_force, standings, thresholds_of
from ledger.calendars import in_zone
from ledger.db import Alert
from ledger.money import proportion, readable_amounts, text
from ledger.periods import month_end, month_of, now
from ledger.published import runs_in_force


def evaluate(books: Books, months: Sequence[str] | None = None) -> list[Alert]:
    """Raises alerts for the periods that hold the ends of the published months, and for the running one; returns the new ones."""
    candidates = budgets_in_force(books)
    alerts = {
        alert.alert_id: alert
        for moment in _moments(books, months)
        for standing in standings(books, moment, candidates=candidates, with_outlook=False)
        for alert in alerts_of(standing, books)
    }
    alerts |= {alert.alert_id: alert for alert in map(alert_of_alarm, alarms(books))}
    with books.database.session() as session:
        return add_new(session, list(alerts.values()))


def _moments(books: Books, months: Sequence[str] | None) -> list[datetime | None]:
    """An instant of each published month, the last; and the newest that cost is known of (None)."""
    zone = ZoneInfo(books.settings.report.timezone)
    published = runs_in_force(books.database)
    ends = [in_zone(month_end(month), zone) - timedelta(microseconds=1) for month in (months or published) if month in published]
    at = now()
    return [*(end for end in ends if end < at), None]


def alerts_of(standing: Standing, books: Books) -> list[Alert]:
    """The alert of the highest threshold that spend has passed: of thresholds passed at once only that one is told."""
    share = proportion(Decimal(1), standing.spent, standing.amount)
    passed = [threshold for threshold in thresholds_of(books, standing.terms) if share >= threshold]
    return [_alert(standing, passed[-1], share, books)] if passed and standing.state != "no data" else []


def alert_of_alarm(alarm: Alarm) -> Alert:
    """The alert of a budget whose money is spent too fast, or will not do."""
    standing = alarm.standing
    return Alert(
        alert_id=alert_id(alarm.cause),
        kind=alarm.kind,
        severity="warning",
        subject=standing.terms.name,
        text=alarm.text,
        address=_address(standing),
        payload=_payload(standing) | {"window_hours": alarm.window_hours, "actual": _plain(alarm.actual)},
        created_at=now(),
        attempts=0,
    )


def _payload(standing: Standing) -> dict[str, object]:
    """The figures of the contract, and what the alert is about."""
    scope, scope_name = standing.terms.subject
    return {key: _plain(value) for key, value in standing.row().items()} | {
        "scope": scope,
        "scope_name": scope_name,
        "scopes": standing.terms.scopes,
        "view": standing.terms.view,
        "budget_id": standing.budget_id,
        "recipients": standing.terms.recipients,
    }


def _alert(standing: Standing, threshold: Decimal, share: Decimal, books: Books) -> Alert:
    terms = standing.terms
    period = _period_text(standing, books)
    cause = f"budget|{terms.name}|{standing.revision}|{period}|{threshold.normalize()}"
    verb = "is exceeded" if threshold >= 1 else f"has passed {threshold * 100:.0f} %"
    spent, limit, billed, estimated = readable_amounts(standing.spent, standing.amount, standing.billed, standing.estimated)
    message = (
        f"Budget {terms.name} {verb}: {terms.described} caused {terms.currency} {spent} of "
        f"{limit} in {period} ({share * 100:.0f} %); billed {billed}, estimated {estimated}."
    )
    return Alert(
        alert_id=alert_id(cause),
        kind="budget",
        severity="critical" if threshold >= 1 else "warning",
        subject=terms.name,
        text=message,
        address=_address(standing),
        payload=_payload(standing) | {"month": period[:7], "share": text(share), "threshold": text(threshold)},
        created_at=now(),
        attempts=0,
    )


def _plain(value: object) -> object:
    return text(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, datetime) else value


def _period_text(standing: Standing, books: Books) -> str:
    """The period in words: 2026-10 for a month, else its first day or instant."""
    start = standing.window.start.astimezone(ZoneInfo(books.settings.report.timezone))
    if standing.chain_id is not None:
        return f"{start:%Y-%m-%d}, chain {standing.chain_id}"
    if standing.terms.period == "month":
        return month_of(start)
    if standing.terms.period == "hour":
        return f"{start:%Y-%m-%dT%H:%M%z}"
    return f"{start:%Y-%m-%d}, {standing.terms.period}"


def _address(standing: Standing) -> str:
    """The query that shows what counted."""
    terms, window = standing.terms, standing.window
    filters = "".join(
        f"&filter={quote(f'{column_of(dimension, terms.view)}={name}')}"
        for dimension, name in terms.scopes.items()
        if dimension != "organisation"
    )
    bounds = "".join(f"&{name}={at:%Y-%m-%dT%H:%M:%SZ}" for name, at in (("start", window.start), ("end", window.end)))
    return f"/v1/costs?by={terms.view}_agent,model&view={terms.view}{filters}{bounds}&calendar=usage"
