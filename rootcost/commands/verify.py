"""`rootcost verify`: whether what the ledger holds is what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_json, say, steps

if TYPE_CHECKING:
    from attribution.monitoring.recount import MonthRecount
    from ledger.problems import Problem
    from ledger.verify import TableReport


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(epilog="Example: rootcost verify; rootcost verify --format json | jq '.problems[].uri'")(verify)


def verify(
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """Check every file of the ledger against its checksum, the audit log as a chain, and the published months against their control totals.

    Each damaged file is named with what brings its rows back; nothing is changed. Files without a checksum (written by 0.1.0, or
    on S3) are read to their end. Reads all data: a minute for some ten gigabytes. Exit code 1 if something is damaged.
    """
    from attribution.monitoring.recount import recount
    from ledger.audit_heads import kept_heads
    from ledger.tables import TABLES
    from ledger.verify import SOURCE, audit_problems, database_problems, verify_table

    with open_books(home) as books, steps() as progress:
        show = progress.of("Verifying")
        reports = []
        for number, table in enumerate(TABLES.values()):
            show(table.name, number, len(TABLES))
            reports.append(verify_table(books.store, table))
        problems = [problem for report in reports for problem in report.problems] + list(database_problems(books.database))
        problems += audit_problems(books.database, kept_heads(books))
        # Sums of damaged files would be errors of reading, or differences that are named already.
        months = [] if any(problem.severity == "error" for problem in problems) else list(recount(books, source=SOURCE))
    problems += [problem for month in months for problem in month.problems]
    if output == "json":
        out_json(_as_json(reports, months, problems))
    else:
        _print(reports, months, problems)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(1)


def _as_json(reports: list[TableReport], months: list[MonthRecount], problems: list[Problem]) -> dict[str, object]:
    return {
        "tables": [
            {"table": r.table, "files": r.files, "bytes": r.size_bytes, "without_checksum": r.without_checksum}
            for r in reports
            if r.files or r.problems
        ],
        "months": [
            {"month": m.month, "bill_changed": m.bill_changed, "agrees": all(p.severity != "error" for p in m.problems)}
            | ({"settled": m.settled} if m.settled else {})
            for m in months
        ],
        "problems": [
            {"uri": p.uri, "place": p.place, "field": p.field, "reason": p.reason, "remedy": p.remedy, "severity": p.severity}
            for p in problems
        ],
    }


def _print(reports: list[TableReport], months: list[MonthRecount], problems: list[Problem]) -> None:
    from ledger.plurals import counted

    files, size_bytes = sum(r.files for r in reports), sum(r.size_bytes for r in reports)
    unlisted_count = sum(r.without_checksum for r in reports)
    without = f", {unlisted_count} of them without a checksum: read to their end" if unlisted_count else ""
    out(
        f"{counted(files, 'data file')} of {counted(sum(bool(r.files) for r in reports), 'table')}, {size_bytes:,} bytes{without}"
    )
    for month in months:
        remarks = [f" ({month.settled})"] if month.settled else []
        remarks += [" (the bill was restated since: only costs are compared)"] if month.bill_changed else []
        has_errors = any(problem.severity == "error" for problem in month.problems)
        out(f"{month.month}: control totals {'differ' if has_errors else 'agree'}{''.join(remarks)}")
    for problem in problems:
        say(f"{problem.uri} {problem.place}: {' '.join(filter(None, (problem.field, problem.reason)))} — {problem.remedy}")
    errors = sum(problem.severity == "error" for problem in problems)
    out(f"✗ {counted(errors, 'damage')} found" if errors else "✓ everything is as it was written")
