"""Anomalies at the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_rows, say

if TYPE_CHECKING:
    from api.models import AnomalyRow


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    anomalies = typer.Typer(no_args_is_help=True, help="Spend that is unlike its own past, and why.")
    anomalies.command("list", epilog="Example: rootcost anomalies list --month 2026-10 --format json")(list_anomalies)
    app.add_typer(anomalies, name="anomalies")


def list_anomalies(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only those that began in this month.", show_default=False)] = "",
    whole: Annotated[bool, typer.Option("--all", help="Also those that are part of another.")] = False,
    details: Annotated[bool, typer.Option("--details", help="In JSON: id, currency, owner, chains and times as well.")] = False,
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List anomalies, newest first, each with drivers that sum to its impact.

    An agent's spike that is its team's and its model's as well is one anomaly: the agent's; --all lists the others, too.
    """
    from api import queries
    from api.queries import of_operator

    with open_books(home) as books:
        rows = queries.anomalies(of_operator(books), month=month or None).page().rows
    rows = [row for row in rows if whole or row.part_of is None]
    if output == "json":
        out_rows(_contract(row) | (row.model_dump(mode="json") if details else {}) for row in rows)
    elif rows:
        _draw(rows)
    if not rows:
        say("No anomalies.")


def _contract(row: AnomalyRow) -> dict[str, object]:
    """The keys that programs can rely on. Days begin at midnight in the reporting timezone."""
    from ledger.money import text

    return {
        "scope": f"{row.scope}={row.scope_name}",
        "start": row.day.isoformat() if row.start_time is None or row.grain == "day" else row.start_time.isoformat(),
        "kind": row.kind or "spike",
        "actual": text(row.actual),
        "expected": text(row.expected),
        "impact": text(row.excess),
        "drivers": {name: text(amount) for name, amount in row.drivers.items()},
    }


def _draw(rows: list[AnomalyRow]) -> None:
    from ledger.money import readable_amounts
    from rootcost.terminal.tables import draw, table

    cells = (
        {
            "id": (row.anomaly_id or "")[:8],
            "start": row.day.isoformat(),
            "kind": row.kind or "spike",
            "scope": f"{row.scope} {row.scope_name}",
            "actual": row.actual,
            "expected": row.expected,
            "impact": row.excess,
            "currency": row.currency,
            "drivers": ", ".join(f"{name} {readable_amounts(amount)[0]}" for name, amount in list(row.drivers.items())[:3]),
        }
        for row in rows
    )
    columns = ["id", "start", "kind", "scope", "actual", "expected", "impact", "currency", "drivers"]
    draw(table(columns, cells, money=["actual", "expected", "impact"]))
