"""Exchange rates: dated facts that `rootcost costs --currency` applies and names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ledger.plurals import counted
from rootcost.terminal.console import Home, open_books, out, out_rows, say, write_lock


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    rates = typer.Typer(no_args_is_help=True, help="Exchange rates, day by day.")
    rates.command("import", epilog="Example: rootcost exchange import ecb.csv")(exchange_import)
    rates.command("list", epilog="Example: rootcost exchange list --format json")(exchange_list)
    app.add_typer(rates, name="exchange")


def exchange_import(
    file: Annotated[
        Path, typer.Argument(help="CSV with the columns date, from, to, rate and, if need be, source.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, and tell what would change.")] = False,
    home: Home = None,
) -> None:
    """Add exchange rates. One unit of `from` is worth `rate` units of `to` on `date`, and until the next rate, for 31 days at most.

    Earlier rates stay; of two for one day the later imported one holds.
    """
    from ledger.exchange_rates import import_csv

    with open_books(home) as books, write_lock(books):
        result = import_csv(books, file, preview=dry_run)
    out(
        f"{counted(result.added, 'rate')} {'would be ' if dry_run else ''}added ({result.changed:,} of them changed), {result.unchanged:,} unchanged"
    )
    for problem in result.problems:
        say(f"{problem.uri} {problem.place}: {problem.field} {problem.reason} — {problem.remedy}")
    say("Next: rootcost costs --currency EUR")
    if result.problems:
        raise typer.Exit(1)


def exchange_list(
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List the exchange rates in force, by pair and day."""
    from ledger.exchange_rates import rates_in_force
    from ledger.money import text
    from rootcost.terminal import tables

    with open_books(home) as books:
        frame = rates_in_force(books)
    rows = [row | {"rate": text(row["rate"])} for row in frame.iter_rows(named=True)]
    if output == "json":
        out_rows(rows)
    elif rows:
        table_rows = [
            {"from": r["from_currency"], "to": r["to_currency"], **{k: r[k] for k in ("day", "rate", "source")}} for r in rows
        ]
        tables.draw(tables.table(["from", "to", "day", "rate", "source"], table_rows, numbers=["rate"]))
    else:
        say("No exchange rates. Next: rootcost exchange import FILE")
