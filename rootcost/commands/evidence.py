"""`rootcost evidence`: what a month's money stands on, how emitters count, and what was noticed, with its money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_json, out_rows, say, write_table, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.books import Books


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="Example: rootcost evidence; rootcost evidence --month 2026-10 --section emitters --format csv -o emitters.csv"
    )(evidence)


def evidence(
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="Invoice month, or all. Default: the newest published one.", show_default=False)
    ] = "",
    section: Annotated[
        Literal["", "figure", "emitters", "findings"],
        typer.Option(
            help="Only the figure, the emitters or the findings. Default: all of them; of a CSV the figure.", show_default=False
        ),
    ] = "",
    basis: Annotated[
        Literal["effective", "billed", "list", "contracted"], typer.Option(help="Which FOCUS cost column is summed.")
    ] = "effective",
    output: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="How to write it.")] = "table",
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.", show_default=False)
    ] = None,
    home: Home = None,
) -> None:
    """Show how much of a month's money stands on evidence, on the table, on inference and on nothing, and what decides it.

    Evidence: a record or the bill proves it. Table: the emitter table, the price list or a shared-cost rule of yours says it. Inference:
    it follows from other records. Nothing: nobody is known who caused it, or what it costs. The parts sum to the month's total, as
    rootcost costs has it. Below: how each emitter counts and whether its totals and costs agree with our reading, and what was
    noticed, each with its money and what to do.
    """
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import evidence_tables

    with open_books(home) as books:
        months = [run.month for run in queries.published(of_operator(books))]
        if output == "csv":
            write_table(
                queries.evidence_table(of_operator(books), section or "figure", month=month or None, basis=basis), output, file
            )
        elif output == "json" and section:
            _write_section(books, section, month or None, basis, file)
        else:
            report = queries.evidence(of_operator(books), month=month or None, basis=basis)
            if output == "json":
                _write_document(report.model_dump(), file)
            elif report.rows or report.emitters or report.findings:
                evidence_tables.evidence(report, section, path=file)
    _tell_unpublished(months, month)


def _tell_unpublished(months: Sequence[str], month: str) -> None:
    """Says so where the month asked for has no figure."""
    if not months:
        say("Nothing is attributed yet. Next: rootcost ingest, then rootcost attribute (or: rootcost demo)")
    elif month not in ("", "all", *months):
        say(f"{month} is not published. Published: {', '.join(months)}")


def _write_section(
    books: Books,
    section: Literal["figure", "emitters", "findings"],
    month: str | None,
    basis: Literal["effective", "billed", "list", "contracted"],
    file: Path | None,
) -> None:
    """The rows of a section as a JSON list."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal.tables import rows_as_json

    rows = queries.evidence_table(of_operator(books), section, month=month, basis=basis).iter_rows(named=True)
    if file is None:
        out_rows(rows)
    else:
        write_text(rows_as_json(rows), file)


def _write_document(document: dict[str, object], file: Path | None) -> None:
    """The whole report as JSON."""
    if file is None:
        out_json(document)
        return
    import json

    from rootcost.terminal.console import plain

    write_text(json.dumps(plain(document), indent=2, ensure_ascii=False), file)
