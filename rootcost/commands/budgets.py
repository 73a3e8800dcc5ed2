"""Budgets: monthly limits on what a team or an agent may cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_rows, say

if TYPE_CHECKING:
    from ledger.books import Books

_OPTIONS = {"amount": "--amount", "currency": "--currency", "scope_name": "--team, --agent"}


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    budgets = typer.Typer(no_args_is_help=True, help="Monthly budgets of teams and agents.")
    budgets.command("set", epilog="Example: rootcost budgets set care-monthly --team Care --amount 1500 --currency USD")(
        budgets_set
    )
    budgets.command("list", epilog="Example: rootcost budgets list --format json")(budgets_list)
    app.add_typer(budgets, name="budgets")


def budgets_set(
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    amount: Annotated[str, typer.Option(help="Monthly limit, e.g. 1500.00.", show_default=False)],
    team: Annotated[str, typer.Option(help="The team it limits.", show_default=False)] = "",
    agent: Annotated[str, typer.Option(help="Or the agent.", show_default=False)] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "USD",
    view: Annotated[Literal["initiator", "executor"], typer.Option(help="Whether caused or burned cost counts.")] = "initiator",
    home: Home = None,
) -> None:
    """Set up a budget, or change it; earlier revisions are kept. Alerts follow `alerts.thresholds`."""
    from pydantic import ValidationError

    from api.changes import change_budget
    from api.models import NewBudget
    from api.queries import of_operator
    from ledger.errors import UsageError
    from rootcost.terminal import tables

    if bool(team) == bool(agent):
        raise UsageError("a budget limits one team or one agent", where="--team, --agent", remedy="give exactly one of them")
    try:
        budget = NewBudget.model_validate(
            {
                "name": name,
                "scope": "team" if team else "agent",
                "scope_name": team or agent,
                "amount": amount,
                "currency": currency,
                "view": view,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{first['input']!r}: {first['msg'].removeprefix('Value error, ')}",
            where=_OPTIONS.get(str(first["loc"][0]), "NAME"),
            remedy="see --help",
        ) from error
    with open_books(home) as books:
        tables.budgets([change_budget(of_operator(books), name, budget)])
        _warn_if_unknown(books, budget.scope, budget.scope_name, view)
    say("Next: rootcost attribute evaluates it")


def _warn_if_unknown(books: Books, scope: str, name: str, view: Literal["initiator", "executor"]) -> None:
    """Warns about a budget whose team or agent is not known: it may be set up early, or it may be a typing error."""
    from api import queries
    from api.queries import of_operator
    from ledger import registry
    from ledger.names import RegisteredNames

    spending = queries.costs(of_operator(books), queries.CostQuery(by=(f"{view}_{scope}",), view=view))[f"{view}_{scope}"]
    registered_names = registry.timeline(registry.rows(books))[scope].drop_nulls().unique()
    known_names = sorted({*registered_names, *spending.drop_nulls()} - {""})
    if RegisteredNames.of(registered_names).find(name) not in known_names:
        names_listed = (
            f"known are {', '.join(known_names[:12])}{', …' if len(known_names) > 12 else ''}"
            if known_names
            else "none is known yet"
        )
        say(f"No {scope} {name!r} is registered or has spent so far; {names_listed}")


def budgets_list(
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List budgets, and how they stand in their newest month."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = queries.budgets(of_operator(books))
    if output == "json":
        out_rows(row.model_dump() for row in rows)
    elif rows:
        tables.budgets(rows)
    else:
        say("No budgets. Next: rootcost budgets set NAME --team TEAM --amount 1500")
