"""`rootcost periods`: the months in the books, what is left to do before one is closed, closing it, and opening it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, out_rows, say

if TYPE_CHECKING:
    from api.models import PeriodRow

_Output = Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")]
_Month = Annotated[str, typer.Argument(metavar="YYYY-MM", help="Invoice month.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    group = typer.Typer(no_args_is_help=True, help="The months in the books: open, provisional, final or closed.")
    group.command("list", epilog="Example: rootcost periods list --format json")(periods_list)
    group.command("checklist", epilog="Example: rootcost periods checklist 2026-10")(periods_checklist)
    group.command("close", epilog='Example: rootcost periods close 2026-10 --waive estimates --reason "no bill will come"')(
        periods_close
    )
    group.command("reopen", epilog='Example: rootcost periods reopen 2026-10 --reason "an invoice was missing"')(periods_reopen)
    group.command("documents", epilog="Example: rootcost periods documents 2026-10 --format json")(periods_documents)
    app.add_typer(group, name="periods")


def periods_list(output: _Output = "text", home: Home = None) -> None:
    """List the months, newest first, with their state, what blocks a close, and what was booked."""
    from api.queries import of_operator
    from rootcost.operations import periods as operations

    with open_books(home) as books:
        rows = operations.periods(of_operator(books))
    if output == "json":
        out_rows(row.model_dump() for row in rows)
        return
    for row in rows:
        _show(row)
    if not rows:
        say("There are no months yet. Next: rootcost ingest, then rootcost attribute (or: rootcost demo)")


def periods_checklist(month: _Month, output: _Output = "text", home: Home = None) -> None:
    """Show what is to be done before a month is closed: each item with its figure, whether it blocks, and the remedy.

    Exit code 1 if something blocks.
    """
    from api.queries import of_operator
    from rootcost.operations import periods as operations

    with open_books(home) as books:
        checks = operations.checks(of_operator(books), month)
    if output == "json":
        out_rows(check.model_dump() for check in checks)
    else:
        for check in checks:
            mark = "✓" if check.passed else "✗" if check.blocks else "!"
            out(f"{mark} {check.item:<15}{check.figure}" + (f" — {check.remedy}" if check.remedy else ""))
    if any(check.blocks and not check.passed for check in checks):
        raise typer.Exit(1)


def periods_close(
    month: _Month,
    waive: Annotated[
        list[str] | None,
        typer.Option(help="An item of the checklist that is not waited for; may be repeated.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason, for the audit log; needed to waive an item.")] = "",
    output: _Output = "text",
    home: Home = None,
) -> None:
    """Close a month: what it costs is booked, and the rows of its run are kept from then on.

    A later run of it is published like any other, and what it changes is booked as an adjustment by team and cause.
    """
    from api.models import PeriodClose
    from api.queries import of_operator
    from rootcost.operations import periods as operations

    with open_books(home) as books:
        row = operations.close(of_operator(books), month, PeriodClose(reason=reason, waive=waive or []))
    _tell(row, output)


def periods_reopen(
    month: _Month,
    reason: Annotated[str, typer.Option(help="Why; for the audit log and the second person.")] = "",
    decision: Annotated[
        Literal["", "approve", "refuse"],
        typer.Option(help="Decide about what somebody else has asked for.", show_default=False),
    ] = "",
    output: _Output = "text",
    home: Home = None,
) -> None:
    """Ask for a closed month to be opened again, or decide about it: that takes two people.

    Who asked on the command line needs somebody who decides over the API or on the dashboard, and the other way round. What was booked
    stays; when the month is closed again, what has changed is booked as an adjustment.
    """
    from api.models import PeriodDecision, PeriodReopening
    from api.queries import of_operator
    from ledger.errors import UsageError
    from rootcost.operations import periods as operations

    if not decision and not reason.strip():
        raise UsageError("opening a closed month again needs a reason", where="--reason", remedy="say why, for the audit log")
    with open_books(home) as books:
        if decision:
            terms = PeriodDecision(approve=decision == "approve", reason=reason)
            row = operations.decide_to_reopen(of_operator(books), month, terms)
        else:
            row = operations.ask_to_reopen(of_operator(books), month, PeriodReopening(reason=reason))
    _tell(row, output)


def periods_documents(month: _Month, output: _Output = "text", home: Home = None) -> None:
    """Show what was booked of a month, line by line: the actual cost at its close, and every adjustment by team and cause."""
    from api.queries import of_operator, period_lines
    from ledger import money

    with open_books(home) as books:
        rows = period_lines(of_operator(books), month)
    if output == "json":
        out_rows(row.model_dump() for row in rows)
        return
    for row in rows:
        amounts = [money.text(amount) or "-" for amount in (row.billed_cost, row.effective_cost)]
        names = (row.team or "(no team)", row.provider or "-", row.invoice_id or "-", row.cost_class, row.basis)
        out("  ".join((row.number, f"{row.cause:<16}", *names, *amounts, row.currency)))
    if not rows:
        say(f"Nothing is booked of {month}. Next: rootcost periods checklist {month}")


def _tell(row: PeriodRow, output: Literal["text", "json"]) -> None:
    if output == "json":
        out_json(row.model_dump())
    else:
        _show(row)


def _show(row: PeriodRow) -> None:
    numbers = ", ".join(f"{document.number} ({document.kind})" for document in row.documents)
    details = [
        f"blocked by {', '.join(row.blocking)}" if row.blocking else "",
        f"closed by {row.closed_by} at {row.closed_at:%Y-%m-%d %H:%M}" if row.closed_at else "",
        f"booked: {numbers}" if numbers else "",
        f"{row.asked_by} asks to open it again: {row.asked_reason}" if row.asked_by else "",
    ]
    out("  ".join([row.month, f"{row.state:<12}", "; ".join(detail for detail in details if detail)]).rstrip())
