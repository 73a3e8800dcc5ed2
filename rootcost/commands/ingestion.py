"""Import commands: bills and logs, the registry, and the problems found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ingest.sources import discover
from rootcost.terminal.console import Home, open_books, out, out_rows, say, source_lock, steps, write_lock

Format = Literal["table", "json"]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    app.command(epilog="Example: rootcost ingest aws-cur s3://billing/exports/company-cur2/")(ingest)
    app.command(epilog="Example: rootcost problems --format json | jq '.[].remedy'")(problems)
    agents = typer.Typer(no_args_is_help=True, help="The registry: which team owns which agent, and since when.")
    agents.command("import", epilog="Example: rootcost agents import agents.csv")(agents_import)
    agents.command("list", epilog="Example: rootcost agents list --format json")(agents_list)
    app.add_typer(agents, name="agents")


def ingest(
    source: Annotated[str, typer.Argument(help=f"What it is: {', '.join(discover())}.", show_default=False)],
    uris: Annotated[list[str], typer.Argument(help="Files, folders, globs or s3://bucket/prefix.", show_default=False)],
    scope: Annotated[
        str,
        typer.Option(help="Name of the dataset, if its location does not name it. Restatements replace their own dataset only."),
    ] = "",
    replaces: Annotated[
        list[str] | None, typer.Option(help="A dataset that bills the same: this bill takes its place.", show_default=False)
    ] = None,
    beside_datasets: Annotated[
        list[str] | None,
        typer.Option("--beside", help="A dataset that seems to bill the same and does not: both are booked.", show_default=False),
    ] = None,
    home: Home = None,
) -> None:
    """Read bills or token logs into the ledger.

    A bill's month that is read again replaces itself; logs that are read again change nothing. Lines that cannot be used are
    listed by `rootcost problems`, and the rest goes on.
    """
    from ingest.bills.datasets import Decisions
    from ingest.run import ingest as run_ingest
    from rootcost.terminal import run_reports

    decisions = Decisions(tuple(replaces or ()), tuple(beside_datasets or ()))
    with open_books(home) as books, steps() as progress, source_lock(books, source):
        report = run_ingest(
            books,
            source,
            uris,
            scope=scope or None,
            decisions=decisions,
            progress=progress.of("Reading"),
            write_lock=lambda: write_lock(books),
        )
    run_reports.ingested(report)
    if not report.rows:
        say("Nothing was stored.")
    problems_command = "rootcost problems" if len(report.not_kept) < len(report.problems) else ""
    attribute_command = "rootcost attribute" if report.rows else ""
    if report.errors and problems_command and attribute_command:
        say("Next: rootcost problems; then rootcost attribute, which goes on with what could be read")
    elif step := (problems_command if report.errors or not attribute_command else attribute_command):
        say(f"Next: {step}")
    if report.errors:
        raise typer.Exit(1)


def problems(
    source: Annotated[str, typer.Option(help="Only those of one source.")] = "",
    severity: Annotated[
        Literal["", "error", "warning"], typer.Option(help="error: left out; warning: kept.", show_default=False)
    ] = "",
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List what was wrong with the input: where, which field, why, and what to do."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import tables

    with open_books(home) as books:
        page = queries.problems(of_operator(books), source=source or None, severity=severity or None).page()
    if output == "json":
        out_rows(row.model_dump() for row in page.rows)
    elif page.rows:
        tables.problems(page.rows)
    else:
        say("No problems.")


def agents_import(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with the columns agent, team, and if need be valid_from, valid_to, aliases, …", show_default=False
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, and tell what would change.")] = False,
    home: Home = None,
) -> None:
    """Add a CSV of agents and their owning teams to the registry.

    Columns: agent, team, valid_from, valid_to, aliases, credentials, principals, services, resources, account, region. Only the
    first two are needed; the plural ones take several names separated by semicolons. Earlier rows stay: an old month keeps its
    old owner.
    """
    from ledger import problems, registry

    with open_books(home) as books, write_lock(books):
        result = registry.import_csv(books, file, preview=dry_run)
        if not dry_run:
            problems.renew(books.store, "registry", {str(file)}, result.problems)
    from ledger.plurals import counted

    agents_count, names_count = counted(result.agents, "agent"), counted(result.names, "name")
    out(f"{agents_count} read: {names_count} {'would be ' if dry_run else ''}added or changed, {result.unchanged} unchanged")
    for change in result.changes if dry_run else ():
        owner = change.owner
        out(f"{owner.kind} {owner.name}: {change.earlier_team or 'nobody'} → {owner.team} from {owner.valid_from:%Y-%m-%d}")
    for problem in result.problems:
        say(f"{problem.uri} {problem.place}: {problem.field} {problem.reason} — {problem.remedy}")
    if not dry_run:
        say("Next: rootcost attribute")
    if any(problem.severity == "error" for problem in result.problems):
        raise typer.Exit(1)


def agents_list(
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List the registry: every name, its owner, and the time it holds for."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import tables

    with open_books(home) as books:
        agents = queries.agents(of_operator(books))
    if output == "json":
        out_rows(row.model_dump() for row in agents.registered)
        return
    tables.agents(agents)
