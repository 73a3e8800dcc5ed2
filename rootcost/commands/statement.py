"""`rootcost statement`: what a month books to a team, as a file for people or machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, say, write_bytes

if TYPE_CHECKING:
    from api.queries import WholeBooks
    from api.statements import StatementFormat


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="Example: rootcost statement Care --month 2026-10 --format pdf -o care.pdf; rootcost statement --all --month 2026-10 --out statements"
    )(statement)


def statement(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Invoice month.", show_default=False)],
    team: Annotated[
        str | None, typer.Argument(metavar="[TEAM]", help='The team; "" is what no team has.', show_default=False)
    ] = None,
    output: Annotated[Literal["json", "csv", "xlsx", "pdf"], typer.Option("--format", help="What to write.")] = "json",
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.", show_default=False)
    ] = None,
    is_for_all: Annotated[bool, typer.Option("--all", help="The statements of all teams, and of what no team has.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="With --all: where the files go, with control.json.", show_default=False),
    ] = None,
    is_accepted: Annotated[bool, typer.Option("--accept", help="Note that the team accepts it.")] = False,
    dispute: Annotated[
        str, typer.Option("--dispute", metavar="REASON", help="Note that the team disputes it, and why.", show_default=False)
    ] = "",
    home: Home = None,
) -> None:
    """Write the statement of a team: what a month books to it, why it changed, its share of shared cost, its agents.

    Of a closed month it sums what was booked, in cents that tie to the invoices, and is the same bytes each time. Of another month it is provisional.
    """
    from api import queries
    from api.models import NewStatementAnswer
    from api.queries import of_operator
    from api.statements import render
    from ledger.errors import UsageError
    from rootcost.terminal.tables import amount

    if is_accepted and dispute:
        raise UsageError("it is accepted or disputed", where="--accept, --dispute", remedy="give one of the two")
    if is_for_all == (team is not None):
        raise UsageError(
            "name a team, or ask for all", where="TEAM", remedy="rootcost statement Care --month …, or --all --out DIR"
        )
    with open_books(home) as books:
        whole = of_operator(books)
        if team is not None and (is_accepted or dispute):
            answer: Literal["accepted", "disputed"] = "accepted" if is_accepted else "disputed"
            terms = NewStatementAnswer(team=team, month=month, answer=answer, note=dispute)
            answer_row = queries.answer_statement(whole, terms)
            say(f"{answer_row.number}: {answer_row.answer}, {amount(answer_row.booked)} {answer_row.currency}")
            return
        if team is not None:
            content = render(queries.statement(whole, team, month), output)
            write_bytes(content, file, is_binary=output in ("xlsx", "pdf"))
            return
        if folder is None:
            raise UsageError("several files need a folder", where="--out", remedy="add --out DIR")
        _write_all(whole, month, output, folder)


def _write_all(books: WholeBooks, month: str, output: StatementFormat, folder: Path) -> None:
    """Every statement of a month, and what they come to beside the bill."""
    from api import queries
    from api.statements import file_name, render
    from rootcost.terminal.tables import amount, rows_as_json

    rows = queries.statements(books, month)
    if not rows:
        say(f"{month} has no statements: nothing is billed, or it is not attributed. Next: rootcost periods list")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(row.team for row in rows):
        document = queries.statement(books, name, month)
        write_bytes(render(document, output), folder / file_name(document, output))
    control = queries.statement_control(books, month)
    write_bytes(rows_as_json(row.model_dump() for row in control).encode() + b"\n", folder / "control.json")
    for row in control:
        say(
            f"{row.provider}, {row.currency}: statements {amount(row.booked)}, invoices {amount(row.invoices)}; "
            f"to the last digit they differ from the bill by {amount(row.difference)}"
        )
