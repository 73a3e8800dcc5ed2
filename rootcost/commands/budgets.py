"""Budgets: limits on what teams, agents and others may cause; how they stand, who changed them, and raises that await a second person."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_rows, say

if TYPE_CHECKING:
    from datetime import datetime

    from api.models import Budget, BudgetChange
    from ledger.books import Books

_OPTIONS = {
    "scopes": "--team, --agent, --scope", "amount": "--amount", "currency": "--currency", "range_start": "--from", "range_end": "--to",
    "thresholds": "--threshold", "period": "--period", "parent": "--parent",
}  # fmt: skip
Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
_Name = Annotated[str, typer.Argument(help="Its name, or its id.", show_default=False)]
_Reason = Annotated[str, typer.Option("--reason", help="Why; it stands with the revision.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    from rootcost.commands import budget_holds, budgets_file

    budgets = typer.Typer(no_args_is_help=True, help="Budgets of teams, agents and others: limits, and how they stand.")
    commands: dict[str, tuple[Callable[..., None], str]] = {
        "set": (budgets_set, "care-monthly --team Care --amount 1500 --currency USD"),
        "list": (budgets_list, "--format json"),
        "status": (budgets_status, "--at 2026-10-31 --format json"),
        "show": (budgets_show, "care-monthly"),
        "rename": (budgets_rename, "care-monthly care"),
        "delete": (budgets_delete, "care-monthly --reason 'moved to Dev'"),
        "approve": (budgets_approve, "req-5f0c2a1b9d3e4f60"),
    }
    for name, (command, example) in commands.items():
        budgets.command(name, epilog=f"Example: rootcost budgets {name} {example}")(command)
    budgets_file.add_to(budgets)
    budget_holds.add_to(budgets)
    app.add_typer(budgets, name="budgets")


def budgets_set(
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    amount: Annotated[str, typer.Option(help="Limit of a period, e.g. 1500.00.", show_default=False)] = "",
    team: Annotated[str, typer.Option(help="The team it limits.", show_default=False)] = "",
    agent: Annotated[str, typer.Option(help="The agent.", show_default=False)] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Another dimension, as model=gpt-4o; organisation=NAME is the whole. Repeatable.", show_default=False),
    ] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217 code. Default of a new one: USD.", show_default=False)] = "",
    view: Annotated[str, typer.Option(help="initiator: caused cost counts; executor: burned cost.", show_default=False)] = "",
    period: Annotated[
        str, typer.Option(help="hour, day, week, month, quarter, year, range or chain. Default: month.", show_default=False)
    ] = "",
    start: Annotated[str, typer.Option("--from", help="First day or instant of a range.", show_default=False)] = "",
    end: Annotated[str, typer.Option("--to", help="First day or instant after a range.", show_default=False)] = "",
    basis: Annotated[str, typer.Option(help="effective, billed, list or contracted cost.", show_default=False)] = "",
    infrastructure: Annotated[
        bool | None,
        typer.Option("--infrastructure/--no-infrastructure", help="Whether cost of no model counts, too.", show_default=False),
    ] = None,
    shared_cost: Annotated[
        bool | None, typer.Option("--shared/--no-shared", help="Whether shared cost counts.", show_default=False)
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.", show_default=False)] = None,
    enforcement: Annotated[str, typer.Option(help="none, advisory or hard.", show_default=False)] = "",
    on_outage: Annotated[str, typer.Option(help="Hard ones, if the store is away: open or closed.", show_default=False)] = "",
    parent: Annotated[str | None, typer.Option(help='The budget it is a part of; "" for none.', show_default=False)] = None,
    exceeds_parent: Annotated[
        bool | None,
        typer.Option("--exceeds-parent/--within-parent", help="Whether it may have more than is left.", show_default=False),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="Share that raises an alert. Repeatable.", show_default=False)
    ] = None,
    recipient: Annotated[list[str] | None, typer.Option(help="Who is told, too. Repeatable.", show_default=False)] = None,
    valid_from: Annotated[str, typer.Option(help="Day or instant from which it holds.", show_default=False)] = "",
    until: Annotated[str, typer.Option(help="The amount is a raise that ends then.", show_default=False)] = "",
    reason: _Reason = "",
    home: Home = None,
) -> None:
    """Set up a budget, or change it: what is left out stays as it is. Earlier revisions are kept."""
    from rootcost.terminal import tables

    texts = {
        "amount": amount, "currency": currency, "view": view, "period": period, "basis": basis, "enforcement": enforcement,
        "on_outage": on_outage, "reason": reason,
    }  # fmt: skip
    flags = {
        "infrastructure": infrastructure, "shared": shared_cost, "owner": owner, "parent": parent, "exceeds_parent": exceeds_parent,
        "thresholds": threshold or None, "recipients": recipient or None,
    }  # fmt: skip
    instants = {"range_start": start, "range_end": end, "valid_from": valid_from, "raised_until": until}
    with open_books(home) as books:
        values: dict[str, Any] = {key: value for key, value in texts.items() if value}
        values |= {key: value for key, value in flags.items() if value is not None}
        values |= {key: _instant(books, text, key) for key, text in instants.items() if text}
        if scopes := _scopes(team, agent, scope or []):
            values["scopes"] = scopes
        tables.budgets([_change(books, name, _validated(values))])


def _scopes(team: str, agent: str, scope_texts: list[str]) -> dict[str, str]:
    from ledger.budgets.terms import DIMENSIONS
    from ledger.errors import UsageError

    scopes = {dimension: name for dimension, name in (("team", team), ("agent", agent)) if name}
    for text in scope_texts:
        dimension, equals, name = text.partition("=")
        if not equals or dimension not in DIMENSIONS:
            raise UsageError(
                f"{text!r} is no scope", where="--scope", remedy=f"write {', '.join(DIMENSIONS)} = its name, as model=gpt-4o"
            )
        scopes[dimension] = name
    return scopes


def _instant(books: Books, text: str, field: str) -> datetime:
    from ledger.periods import parse_bound

    option = {"range_start": "--from", "range_end": "--to", "valid_from": "--valid-from", "raised_until": "--until"}[field]
    return parse_bound(text, field=option, timezone=books.settings.report.timezone)


def _validated(values: dict[str, Any]) -> BudgetChange:
    """The change; raises `UsageError` that names the option."""
    from pydantic import ValidationError

    from api.models import BudgetChange
    from ledger.errors import UsageError

    try:
        return BudgetChange.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise UsageError(
            f"{first['input']!r}: {first['msg'].removeprefix('Value error, ')}",
            where=_OPTIONS.get(field, f"--{field.replace('_', '-')}"),
            remedy="see --help",
        ) from error


def _change(books: Books, name: str, change: BudgetChange) -> Budget:
    """Makes the change, and says what is remarkable about the budget."""
    from api.changes import change_budget
    from api.queries import of_operator
    from ledger.errors import UsageError

    try:
        budget = change_budget(of_operator(books), name, change)
    except UsageError as error:
        field = error.where.rsplit(": ", 1)[-1]
        place = error.where.replace(field, _OPTIONS[field]) if field in _OPTIONS else error.where
        raise UsageError(error.what, where=place, remedy=error.remedy) from error
    for note in budget.notes:
        say(f"{note[:1].upper()}{note[1:]}{_known(books, note)}")
    return budget


def _known(books: Books, note: str) -> str:
    """Names to choose from instead of one that nobody has heard of."""
    from ledger.budgets import known_names

    dimension = note.split()[1]
    known_list = (
        sorted(known_names.read(books).get(dimension, ())) if note.startswith("no ") and "is registered" in note else None
    )
    if known_list is None:
        return ""
    return (
        f"; known are {', '.join(known_list[:12])}{', …' if len(known_list) > 12 else ''}"
        if known_list
        else "; none is known yet"
    )


def budgets_list(output: Format = "table", home: Home = None) -> None:
    """List budgets, and how they stand in their newest period."""
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


def budgets_status(
    name: Annotated[str, typer.Argument(help="Only this budget.", show_default=False)] = "",
    at: Annotated[
        str, typer.Option(help="A day or instant in the period. Default: the newest that cost is known of.", show_default=False)
    ] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Tell how budgets stand: available = amount - billed - estimated - encumbered, with a forecast of the period and its interval."""
    from api import queries
    from api.queries import of_operator
    from ledger.budgets.revisions import missing
    from ledger.periods import parse_bound
    from rootcost.terminal import tables

    with open_books(home) as books:
        moment = parse_bound(at, field="--at", timezone=books.settings.report.timezone) if at else None
        rows = queries.budget_standings(of_operator(books), moment)
    rows = [row for row in rows if not name or name in (row.terms.name, row.budget_id)]
    if name and not rows:
        raise missing(name)
    if output == "json":
        out_rows(row.row() for row in rows)
    elif rows:
        tables.budget_status(rows)
    else:
        say("No budgets. Next: rootcost budgets set NAME --team TEAM --amount 1500")


def budgets_show(name: _Name, output: Format = "table", home: Home = None) -> None:
    """Show the revisions of a budget: who changed it, when and why."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import tables

    with open_books(home) as books:
        rows = queries.budget_revisions(of_operator(books), name)
    if output == "json":
        out_rows(row.model_dump() for row in rows)
    else:
        tables.budget_revisions(rows)


def budgets_rename(
    name: _Name,
    new_name: Annotated[str, typer.Argument(help="Its new name.", show_default=False)],
    reason: _Reason = "",
    home: Home = None,
) -> None:
    """Give a budget another name. Its id and its revisions stay."""
    from ledger.budgets.revisions import require
    from rootcost.terminal import tables

    with open_books(home) as books:
        with books.database.session() as session:
            require(session, name)
        tables.budgets([_change(books, name, _validated({"rename": new_name, "reason": reason}))])


def budgets_delete(name: _Name, reason: _Reason = "", home: Home = None) -> None:
    """End a budget. Its revisions are kept, and its name is free again."""
    from api.changes import drop_budget
    from api.queries import of_operator

    with open_books(home) as books:
        drop_budget(of_operator(books), name, reason=reason)
    say(f"Ended: {name}")


def budgets_approve(
    request: Annotated[str, typer.Argument(help="Id of the request; none: list them.", show_default=False)] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it instead.")] = False,
    reason: _Reason = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Approve a raise that awaits a second person, or list those that do."""
    from api import queries
    from api.changes import decide
    from api.models import Decision
    from api.queries import of_operator
    from rootcost.terminal import tables

    with open_books(home) as books:
        if request:
            tables.budgets([decide(of_operator(books), request, Decision(approve=not refuse, reason=reason))])
            return
        rows = [row for row in queries.budget_requests(of_operator(books)) if row.state == "waiting"]
    if output == "json":
        out_rows(row.model_dump() for row in rows)
    elif rows:
        tables.budget_requests(rows)
    else:
        say("No raise awaits anybody.")
