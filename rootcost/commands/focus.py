"""`rootcost focus`: FOCUS files of allocated costs, and the check of any FOCUS file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, say

if TYPE_CHECKING:
    from rootcost.focus.validator import Report

_Version = Annotated[
    Literal["", "1.2", "1.3", "1.4"], typer.Option("--version", help="Version of FOCUS. Default: guessed from the columns.")
]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    group = typer.Typer(no_args_is_help=True, help="FOCUS files: check one, or write allocated costs as one.")
    group.command("validate", epilog="Example: rootcost focus validate focus.csv.gz --version 1.3 --format json")(validate)
    group.command("export", epilog="Example: rootcost focus export --version 1.3 --month 2026-10 --out exports/2026-10")(export)
    app.add_typer(group, name="focus")


def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet; may be compressed by gzip, zstandard or xz.")],
    version: _Version = "",
    is_excerpt: Annotated[
        bool, typer.Option("--excerpt", help="Judge only the columns that are there: for examples and parts of a dataset.")
    ] = False,
    max_rows: Annotated[int, typer.Option("--rows", min=1, help="Rows that are named of each rule and column.")] = 5,
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")] = "text",
    home: Home = None,
) -> None:
    """Check a file of FOCUS Cost and Usage, version 1.2, 1.3 or 1.4: each fault by row, column and rule, with what to do.

    Exit code 0 if it is valid, 1 if not. Rows are data rows, from 1.
    """
    from rootcost.focus.validator import validate as check

    del home  # a file is checked without a ledger
    report = check(file, version or None, is_excerpt=is_excerpt, max_rows=max_rows)
    if output == "json":
        out_json(_document(report))
    else:
        _print(report)
    if not report.is_valid:
        raise typer.Exit(1)


def export(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Invoice month.", show_default=False)],
    target: Annotated[str, typer.Option("--out", metavar="DIR", help="A folder, or s3://bucket/prefix.", show_default=False)],
    version: Annotated[Literal["1.2", "1.3", "1.4"], typer.Option("--version", help="Version of FOCUS.")] = "1.3",
    grain: Annotated[Literal["agent", "team"], typer.Option(help="Who the parts of a charge are told by.")] = "agent",
    view: Annotated[
        Literal["initiator", "executor"], typer.Option(help="initiator: who caused it; executor: who burned it.")
    ] = "initiator",
    file_format: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Format of the data.")] = "parquet",
    home: Home = None,
) -> None:
    """Write a month's charges, each split among those that it was allocated to, as FOCUS Cost and Usage, with a manifest.

    The parts of a charge sum to the charge, and the parts of a recipient to what it was allocated, to the last digit. What is written is checked as by
    rootcost focus validate; exit code 1 if something is found.
    """
    from rootcost.focus.export import ExportQuery
    from rootcost.focus.export import export as write_export
    from rootcost.focus.parts import PartsQuery

    with open_books(home) as books:
        written_export = write_export(books, ExportQuery(month, version, PartsQuery(grain, view), file_format), target)
    manifest = written_export.manifest
    for currency, totals in manifest["totals"].items():
        say(f"{currency}: BilledCost {totals['BilledCost']}, EffectiveCost {totals['EffectiveCost']}")
    say(f"Written: {manifest['rows']:,} rows of {manifest['charges']:,} charges to {target}, run {manifest['run']}")
    if not written_export.report.is_valid:
        _print(written_export.report)
        raise typer.Exit(1)


def _document(report: Report) -> dict[str, object]:
    names = ("rule", "column", "count", "rows", "values", "remedy")
    faults = [{name: getattr(fault, name) for name in names} for fault in report.faults]
    terms = {"file": report.file, "version": report.version, "rows": report.rows, "columns": report.columns}
    return {**terms, "valid": report.is_valid, "faults": faults}


def _print(report: Report) -> None:
    for fault in report.faults:
        for row, value in zip(fault.rows, fault.values, strict=True):
            out(f"row {row}, {fault.column}, {fault.rule}: {'null' if value is None else repr(value)} — {fault.remedy}")
        if not fault.rows:
            out(f"{fault.column}, {fault.rule} — {fault.remedy}")
        elif fault.count > len(fault.rows):
            out(f"… and {fault.count - len(fault.rows):,} more rows: {fault.column}, {fault.rule}")
    state = "valid" if report.is_valid else f"{sum(fault.count for fault in report.faults):,} faults"
    say(f"{report.file}: FOCUS {report.version}, {report.rows:,} rows, {report.columns} columns: {state}")
