"""Budgets as code: plan, apply and export a file of budgets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, say, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.budgets.as_code import Step

CHANGES = 2
"""Exit code of a plan with changes; 0: none, 1: the file cannot be planned."""
_File = Annotated[Path, typer.Argument(help="The file, such as budgets.yaml.", show_default=False)]
_Format = Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")]
_SIGNS = {"add": "+", "change": "~", "end": "-"}


def add_to(budgets: typer.Typer) -> None:
    """Registers these commands."""
    budgets.command("plan", epilog="Example: rootcost budgets plan budgets.yaml")(budgets_plan)
    budgets.command("apply", epilog="Example: rootcost budgets apply budgets.yaml --reason 'fourth quarter'")(budgets_apply)
    budgets.command("export", epilog="Example: rootcost budgets export budgets.yaml")(budgets_export)


def budgets_plan(file: _File, output: _Format = "text", home: Home = None) -> None:
    """Show what apply would change, and what was changed outside of the file. Exit code: 0 nothing, 2 changes, 1 an error."""
    from ledger.budgets import as_code
    from ledger.errors import RootCostError

    with open_books(home) as books:
        try:
            steps = as_code.plan(books, as_code.read_file(file, books.settings.report.timezone))
        except RootCostError as error:
            raise as_code.as_plan_error(error) from error
    _print(steps, output)
    if any(step.kind != "same" for step in steps):
        raise typer.Exit(CHANGES)


def budgets_apply(
    file: _File,
    reason: Annotated[str, typer.Option(help="Why; it stands with the revisions.", show_default=False)] = "",
    output: _Format = "text",
    home: Home = None,
) -> None:
    """Make the budgets what the file says, all of them or none. Applied again, it changes nothing."""
    from ledger.access.principals import OPERATOR
    from ledger.budgets import as_code

    with open_books(home) as books:
        entries = as_code.read_file(file, books.settings.report.timezone)
        steps = as_code.apply(books, entries, actor=OPERATOR.id, reason=reason)
    _print(steps, output)


def budgets_export(
    file: Annotated[Path | None, typer.Argument(help="Where to; by default to the terminal.", show_default=False)] = None,
    home: Home = None,
) -> None:
    """Write the budgets in force as a file that plan and apply read."""
    from ledger.budgets import as_code

    with open_books(home) as books:
        text = as_code.export(books)
    write_text(text.rstrip("\n"), file)


def _print(steps: Sequence[Step], output: str) -> None:
    changes = [step for step in steps if step.kind != "same"]
    if output == "json":
        out_json(
            [
                {
                    "action": step.kind,
                    "budget": step.name,
                    "changes": [{"field": field, "old": old, "new": new} for field, old, new in step.differences],
                    "drift": step.drift,
                }
                for step in changes
            ]
        )
        return
    for step in changes:
        out(f"{_SIGNS[step.kind]} {step.name}" + (f"  ({step.drift})" if step.drift else ""))
        for field, old, new in step.differences:
            out(f"    {field}: {old} → {new}" if old else f"    {field}: {new}")
    if changes:
        numbers = {kind: sum(step.kind == kind for step in changes) for kind in _SIGNS}
        say(f"{numbers['add']} to add, {numbers['change']} to change, {numbers['end']} to end")
    else:
        say("The budgets are as the file says.")
