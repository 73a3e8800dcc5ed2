"""Tables of scheduled sources and their runs in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ledger.money import text
from ledger.periods import now
from rootcost.terminal.console import out, say, terminal
from rootcost.terminal.tables import table

if TYPE_CHECKING:
    from api.models import SourceRunRow, SourceStatus


def span(seconds: float) -> str:
    """A length of time, to the eye's precision.

    >>> span(0.34), span(75), span(3600), span(7260), span(200_000)
    ('0.3 s', '75 s', '1 h', '2 h', '2 d')
    """
    if seconds >= 3600 and seconds % 3600 == 0 and seconds < 172_800:
        return f"{seconds // 3600:.0f} h"
    for limit, size, unit in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if limit == 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _at(instant: datetime | None) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%d %H:%M}"


def _money(amounts: Mapping[str, Decimal]) -> str | None:
    return ", ".join(f"{text(amount)} {currency}" for currency, amount in amounts.items()) or None


def sources(rows: Sequence[SourceStatus]) -> None:
    """A line each: what it is, how it stands, what the last run brought, when the next one is due."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        last = row.last_run
        due_at = row.due_at
        lines.append(
            {
                "name": row.name,
                "source": row.source,
                "state": row.state,
                "newest row": _at(row.newest),
                "age": None if row.age_seconds is None else span(row.age_seconds),
                "stale after": span(row.stale_after_seconds),
                "last run": None if last is None else f"{_at(last.started_at)} {last.status}",
                "rows": None if last is None else f"{last.rows:,}",
                "money in": None if last is None else _money(last.money_in),
                "next run": None if due_at is None else f"{_at(due_at)}{' (overdue)' if due_at < now() else ''}",
                "address": ", ".join(row.addresses) or "(received)",
                "cron": row.cron or None,
            }
        )
    terminal().print(table(list(lines[0]), lines, numbers=["rows"], keep=["name", "state"]))
    for row in rows:
        if row.failures and row.last_run is not None and row.last_run.error:
            say(f"{row.name}: {row.failures} failed in a row, the last time: {row.last_run.error}")


def runs(rows: Sequence[SourceRunRow], *, total: int) -> None:
    """A line each, newest first."""
    lines = [
        {
            "run": row.run,
            "name": row.name,
            "began (UTC)": f"{row.started_at:%Y-%m-%d %H:%M:%S}",
            "cause": row.cause if row.since is None else f"{row.cause} {row.since} – {row.until or 'now'}",
            "status": row.status,
            "took": None if row.seconds is None else span(row.seconds),
            "files": row.files,
            "rows": f"{row.rows:,}",
            "changed": f"{row.rows_changed:,}",
            "money in": _money(row.money_in),
            "lag": None if row.lag_seconds is None else span(row.lag_seconds),
            "error": row.error,
        }
        for row in rows
    ]
    caption = f"{len(rows)} of {total} runs" if total > len(rows) else ""
    terminal().print(table(list(lines[0]), lines, numbers=["run", "files", "rows", "changed"], caption=caption))


def kinds(rows: Sequence[Mapping[str, Any]], *, whole: bool) -> None:
    """What can be a source; of one alone also what it needs, and its policy."""
    table_rows = [
        {
            "source": row["source"],
            "kind": row["kind"],
            "what": row["title"],
            "read": row["cron"],
            "stale after": span(row["lag_seconds"]),
            "e.g.": ", ".join(row["addresses"]),
        }
        for row in rows
    ]
    terminal().print(table(list(table_rows[0]), table_rows, keep=["source"]))
    if whole:
        say(f"It needs {rows[0]['needs']}.")
        if rows[0]["policy"]:
            out(str(rows[0]["policy"]))
