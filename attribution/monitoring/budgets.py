"""Alerts of budgets: thresholds that spend has passed in its period. How budgets stand is computed by `ledger.budgets.status`.

Each threshold is alerted once a period and revision: the alert's id is the hash of its cause.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alerts import OPEN_STATES, add_new, alert_id, close, settle
from ledger.books import Books
from ledger.budgets.alarms import Alarm, alarms
from ledger.budgets.spend import column_of
from ledger.budgets.status import Standing, budgets_in_force, standings, thresholds_of
from ledger.calendars import in_zone
from ledger.db import Alert
from ledger.money import proportion, readable_amounts, text
from ledger.periods import month_end, month_of, now
from ledger.published import runs_in_force

KIND: Final = "budget"
_NEXT_STEP: Final = "See who spends it by agent and model; raise the budget, or stop what spends."


def evaluate(books: Books, months: Sequence[str] | None = None) -> list[Alert]:
    """Raises alerts for the periods that hold the ends of the published months, and for the running one; returns the new ones.

    Alerts of monthly budgets follow the figures: what a later run takes back is corrected or withdrawn, what another revision replaces is over.
    """
    candidates = budgets_in_force(books)
    alerts: dict[str, Alert] = {}
    monthly: defaultdict[str, list[Standing]] = defaultdict(list)
    for moment in _moments(books, months):
        for status in standings(books, moment, candidates=candidates, with_outlook=False):
            alerts |= {alert.alert_id: alert for alert in alerts_of(status, books)}
            if status.terms.period == "month":
                monthly[_period_text(status, books)].append(status)
    further_alerts = {alert.alert_id: alert for alert in map(alert_of_alarm, alarms(books))}
    further_alerts |= {key: alert for key, alert in alerts.items() if alert.month is None}
    with books.database.session() as session:
        new_alerts = add_new(session, list(further_alerts.values()))
        for month, month_standings in monthly.items():
            _end_replaced(session, month, month_standings)
            of_month = [alert for alert in alerts.values() if alert.month == month]
            causes = {alert_id(cause) for status in month_standings for cause in _causes(status, month, books)}
            new_alerts += settle(session, KIND, month, of_month, holding=causes)
        return new_alerts


def _causes(status: Standing, period: str, books: Books) -> list[str]:
    """The causes of all thresholds that spend has passed; where nothing is known of it, of all: nothing is taken back."""
    share = proportion(Decimal(1), status.spent, status.amount)
    passed_thresholds = [
        threshold for threshold in thresholds_of(books, status.terms) if share >= threshold or status.state == "no data"
    ]
    return [_cause(status, period, threshold) for threshold in passed_thresholds]


def _cause(status: Standing, period: str, threshold: Decimal) -> str:
    return f"budget|{status.terms.name}|{status.revision}|{period}|{threshold.normalize()}"


def _end_replaced(session: Session, month: str, month_standings: Sequence[Standing]) -> None:
    """Resolves alerts of revisions that are not in force any more: the limit that they tell of is not the limit."""
    revisions = {status.terms.name: status.revision for status in month_standings}
    is_open = (Alert.kind == KIND) & (Alert.month == month) & Alert.state.in_(OPEN_STATES)
    for alert in session.scalars(sa.select(Alert).where(is_open)).all():
        if revisions.get(alert.subject) != alert.payload.get("revision"):
            close(session, alert, "resolved", text="The budget was changed, or has ended.")


def _moments(books: Books, months: Sequence[str] | None) -> list[datetime | None]:
    """An instant of each published month, the last; and the newest that cost is known of (None)."""
    zone = ZoneInfo(books.settings.report.timezone)
    published_months = runs_in_force(books.database)
    month_ends = [
        in_zone(month_end(month), zone) - timedelta(microseconds=1)
        for month in (months or published_months)
        if month in published_months
    ]
    at = now()
    return [*(end for end in month_ends if end < at), None]


def alerts_of(status: Standing, books: Books) -> list[Alert]:
    """The alert of the highest threshold that spend has passed: of thresholds passed at once only that one is told."""
    share = proportion(Decimal(1), status.spent, status.amount)
    passed_thresholds = [threshold for threshold in thresholds_of(books, status.terms) if share >= threshold]
    return [_alert(status, passed_thresholds[-1], share, books)] if passed_thresholds and status.state != "no data" else []


def alert_of_alarm(alarm: Alarm) -> Alert:
    """The alert of a budget whose money is spent too fast, or will not do."""
    status = alarm.standing
    return Alert(
        alert_id=alert_id(alarm.cause),
        kind=alarm.kind,
        severity="warning",
        subject=status.terms.name,
        text=alarm.text,
        address=_address(status),
        payload=_payload(status) | {"window_hours": alarm.window_hours, "actual": _plain(alarm.actual)},
        team=status.terms.scopes.get("team"),
        figure="" if alarm.actual is None else f"{status.terms.currency} {readable_amounts(alarm.actual)[0]}",
        limit_text=f"{status.terms.currency} {readable_amounts(status.amount)[0]} in its period",
        next_step=_NEXT_STEP,
        chain_id=status.chain_id,
        created_at=now(),
        attempts=0,
    )


def _payload(status: Standing) -> dict[str, object]:
    """The figures of the contract, and what the alert is about."""
    scope, scope_name = status.terms.subject
    return {key: _plain(value) for key, value in status.row().items()} | {
        "scope": scope,
        "scope_name": scope_name,
        "scopes": status.terms.scopes,
        "view": status.terms.view,
        "budget_id": status.budget_id,
        "recipients": status.terms.recipients,
    }


def _alert(status: Standing, threshold: Decimal, share: Decimal, books: Books) -> Alert:
    terms = status.terms
    period = _period_text(status, books)
    cause = _cause(status, period, threshold)
    verb = "is exceeded" if threshold >= 1 else f"has passed {threshold * 100:.0f} %"
    spent, limit, billed_text, estimated_text = readable_amounts(status.spent, status.amount, status.billed, status.estimated)
    message = (
        f"Budget {terms.name} {verb}: {terms.described} caused {terms.currency} {spent} of "
        f"{limit} in {period} ({share * 100:.0f} %); billed {billed_text}, estimated {estimated_text}."
    )
    return Alert(
        alert_id=alert_id(cause),
        kind="budget",
        severity="critical" if threshold >= 1 else "warning",
        subject=terms.name,
        text=message,
        address=_address(status),
        payload=_payload(status)
        | {"month": period[:7], "share": text(share), "threshold": text(threshold), "actual": text(status.spent)},
        team=terms.scopes.get("team"),
        month=period if terms.period == "month" else None,
        figure=f"{terms.currency} {spent}",
        limit_text=f"{terms.currency} {limit}",
        next_step=_NEXT_STEP,
        chain_id=status.chain_id,
        created_at=now(),
        attempts=0,
    )


def _plain(value: object) -> object:
    return text(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, datetime) else value


def _period_text(status: Standing, books: Books) -> str:
    """The period in words: 2026-10 for a month, else its first day or instant."""
    start = status.window.start.astimezone(ZoneInfo(books.settings.report.timezone))
    if status.chain_id is not None:
        return f"{start:%Y-%m-%d}, chain {status.chain_id}"
    if status.terms.period == "month":
        return month_of(start)
    if status.terms.period == "hour":
        return f"{start:%Y-%m-%dT%H:%M%z}"
    return f"{start:%Y-%m-%d}, {status.terms.period}"


def _address(status: Standing) -> str:
    """The query that shows what counted."""
    terms, window = status.terms, status.window
    filters = "".join(
        f"&filter={quote(f'{column_of(dimension, terms.view)}={name}')}"
        for dimension, name in terms.scopes.items()
        if dimension != "organisation"
    )
    bounds = "".join(f"&{name}={at:%Y-%m-%dT%H:%M:%SZ}" for name, at in (("start", window.start), ("end", window.end)))
    return f"/v1/costs?by={terms.view}_agent,model&view={terms.view}{filters}{bounds}&calendar=usage"
