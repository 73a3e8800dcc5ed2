"""Digests: what a day or a week cost, by team, with budgets and alerts. A receiver of teams gets theirs, by the gate that a principal passes.

A digest is an alert of the kind `digest` with one receiver: it goes through the outbox, once a period.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ledger.access.principals import Grant, Principal
from ledger.access.roles import Permission
from ledger.alerts import add_new, alert_id
from ledger.db import Alert
from ledger.money import readable_amounts, text

if TYPE_CHECKING:
    from ledger.alert_settings import Channel, Digest
    from ledger.books import Books

_MOST_TEAMS = 15


def decide_due(books: Books, at: datetime) -> int:
    """Decides the digests that are due and were not decided before; returns how many."""
    channels = {channel.name: channel for channel in books.settings.alerts.receivers()}
    digest_count = 0
    for digest in books.settings.alerts.digests:
        period = period_of(digest, at, ZoneInfo(books.settings.report.timezone))
        for name in digest.channels:
            key = alert_id(f"digest|{digest.every}|{period[0]}|{name}")
            with books.database.session() as session:
                is_decided = session.get(Alert, key) is not None
            if is_decided:
                continue
            alert = _digest(books, channels[name], key, digest.every, period, at)
            with books.database.session() as session:
                digest_count += len(add_new(session, [alert]))
    return digest_count


def period_of(digest: Digest, at: datetime, zone: ZoneInfo) -> tuple[date, date]:
    """The newest period whose digest is due: a day, or a week from Monday on; ``[start, end)`` in days.

    >>> from datetime import UTC
    >>> from ledger.alert_settings import Digest
    >>> monday = datetime(2026, 10, 5, 7, 59, tzinfo=UTC)
    >>> [str(day) for day in period_of(Digest(channels=["a"], every="week"), monday, ZoneInfo("UTC"))]
    ['2026-09-21', '2026-09-28']
    >>> [str(day) for day in period_of(Digest(channels=["a"], every="day"), monday + timedelta(hours=1), ZoneInfo("UTC"))]
    ['2026-10-04', '2026-10-05']
    """
    local = at.astimezone(zone)
    hour, minute = map(int, digest.at.split(":"))
    end = local.date() if local.time() >= time(hour, minute) else local.date() - timedelta(days=1)
    if digest.every == "day":
        return end - timedelta(days=1), end
    end -= timedelta(days=end.weekday())
    return end - timedelta(days=7), end


def _digest(books: Books, channel: Channel, key: str, interval: str, period: tuple[date, date], at: datetime) -> Alert:
    """The digest as the receiver may see it."""
    start, end = period
    grants = tuple(Grant("viewer", team) for team in channel.teams) or (Grant("viewer"),)
    reader = Principal(f"channel:{channel.name}", "machine", channel.name, grants)
    days = f"{start:%d %b}" if interval == "day" else f"{start:%d %b} to {end - timedelta(days=1):%d %b %Y}"
    lines, figure, payload = _lines(books, reader, start, end)
    return Alert(
        alert_id=key,
        kind="digest",
        severity="info",
        subject=f"Cost of AI, {days}{f' ({chr(44).join(channel.teams)})' if channel.teams else ''}",
        text="\n".join(lines),
        address=f"/v1/costs?by=team&start={start}&end={end}&calendar=usage",
        payload=payload,
        figure=figure,
        limit_text="",
        next_step="Open the explorer for agents and models; budgets and alerts are on their pages.",
        created_at=at,
        delivered_at=None,
        attempts=0,
        state="resolved",
        channels=[channel.name],
    )


def _lines(books: Books, reader: Principal, start: date, end: date) -> tuple[list[str], str, dict[str, object]]:
    from api import queries
    from api.queries.alert_rows import alerts
    from api.queries.gate import ScopedBooks

    length = end - start
    current, earlier = (_costs(books, reader, since, since + length) for since in (start, start - length))
    lines, figures, totals = list[str](), list[str](), dict[str, str | None]()
    for currency in sorted({currency for currency, _ in (*current, *earlier)}):
        total, before = (
            sum((cost for (unit, _), cost in part.items() if unit == currency), Decimal(0)) for part in (current, earlier)
        )
        figures.append(f"{currency} {readable_amounts(total)[0]}")
        lines.append(f"Total: {currency} {readable_amounts(total)[0]}, before: {readable_amounts(before)[0]}")
        totals[currency] = text(total)
        lines += list(_teams(currency, current, earlier))
    if not lines:
        lines.append("No cost in this period.")
    budgets = queries.budgets(ScopedBooks(books, reader, Permission.BUDGETS_READ))
    critical_budgets = [budget for budget in budgets if budget.state in ("exceeded", "warning")]
    lines.append(
        f"Budgets: {len(budgets)}, of which near or over the limit: {', '.join(b.name for b in critical_budgets) or 'none'}"
    )
    open_alerts = alerts(ScopedBooks(books, reader, Permission.BUDGETS_READ), state="open").page(limit=5)
    lines.append(f"Open alerts: {open_alerts.total}")
    lines += [f"  {alert.text}" for alert in open_alerts.rows if alert.kind != "digest"]
    return lines, " + ".join(figures) or "no cost", {"start": str(start), "end": str(end), "totals": totals}


def _teams(
    currency: str, current: Mapping[tuple[str, str], Decimal], earlier: Mapping[tuple[str, str], Decimal]
) -> Iterator[str]:
    teams = sorted(
        {team for unit, team in (*current, *earlier) if unit == currency}, key=lambda t: -current.get((currency, t), Decimal(0))
    )
    for team in teams[:_MOST_TEAMS]:
        cost, before = current.get((currency, team), Decimal(0)), earlier.get((currency, team), Decimal(0))
        yield f"  {team}: {currency} {readable_amounts(cost)[0]}, before: {readable_amounts(before)[0]}"
    if len(teams) > _MOST_TEAMS:
        yield f"  and {len(teams) - _MOST_TEAMS} more teams"


def _costs(books: Books, reader: Principal, start: date, end: date) -> Mapping[tuple[str, str], Decimal]:
    from api import queries
    from api.queries.gate import ScopedBooks

    query = queries.CostQuery.parse(
        by="team", start=str(start), end=str(end), calendar="usage", timezone=books.settings.report.timezone
    )
    sums: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in queries.costs(ScopedBooks(books, reader, Permission.COSTS_READ), query).iter_rows(named=True):
        sums[row["currency"], row["team"] or "without a team"] += row["cost"] or Decimal(0)
    return sums
