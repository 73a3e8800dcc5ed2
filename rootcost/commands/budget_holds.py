"""Money that is held of budgets: what is open or uncertain, and what an uncertain call cost."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_rows, say


def add_to(budgets: typer.Typer) -> None:
    """Registers these commands."""
    budgets.command("holds", epilog="Example: rootcost budgets holds --format json")(budgets_holds)
    budgets.command("settle", epilog="Example: rootcost budgets settle res-5f0c2a1b9d3e4f60 0.10")(budgets_settle)


def budgets_holds(
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List reservations that are open, or uncertain: past their deadline, and nobody has said what they cost."""
    from api.models import ReservationRow
    from ledger.budgets.reservations import unfinished
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = [ReservationRow.model_validate(row, from_attributes=True) for row in unfinished(books)]
    if output == "json":
        out_rows(row.model_dump() for row in rows)
    elif rows:
        tables.reservations(rows)
    else:
        say("Nothing is held.")


def budgets_settle(
    reservation_id: Annotated[str, typer.Argument(help="Id of the reservation.", show_default=False)],
    cost: Annotated[str, typer.Argument(help="What it cost, by the token log or the bill, e.g. 0.10.", show_default=False)],
    home: Home = None,
) -> None:
    """Book what a reservation cost, by the token log or the bill: an uncertain one stops holding its whole amount."""
    from ledger.budgets.reservations import commit
    from ledger.errors import UsageError
    from ledger.money import exact_decimal, text

    amount = exact_decimal(cost)
    if amount is None:
        raise UsageError(f"{cost!r} is no amount of money", where="COST", remedy="write it like 0.10")
    with open_books(home) as books:
        row = commit(books, reservation_id, amount)
    say(f"{reservation_id}: {row.state}, {row.currency} {text(row.cost)}")
