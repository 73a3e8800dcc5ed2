"""Report commands: attribute, costs, balance, runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ledger.plurals import counted
from rootcost.terminal.console import (
    Home,
    attribution_lock,
    open_books,
    out,
    out_rows,
    say,
    steps,
    write_lock,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    from attribution.usage.build import Executor

_From = Annotated[
    str, typer.Option("--from", help="First day, month or instant counted: 2026-10, 2026-10-05.", show_default=False)
]
_To = Annotated[
    str, typer.Option("--to", help="First one not counted: --from 2026-10 --to 2026-11 is October.", show_default=False)
]

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="DIM=VALUE",
        help="Keep rows of this value only; repeatable. An empty value is unknown.",
        show_default=False,
    ),
]
Groups = Annotated[
    str,
    typer.Option(
        help="Dimensions, comma-separated. Default: the view's team and agent. currency: the whole.", show_default=False
    ),
]
CostView = Annotated[
    Literal["initiator", "executor"], typer.Option("--view", help="initiator: who caused it; executor: who burned it.")
]
CostBasis = Annotated[
    Literal["effective", "billed", "list", "contracted"], typer.Option("--basis", help="Which FOCUS cost column is summed.")
]
TableFile = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.", show_default=False)
]
TableFormat = Annotated[Literal["table", "json", "csv", "parquet"], typer.Option("--format", help="How to write it.")]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    app.command(
        epilog="Example: rootcost attribute --from 2026-10 --to 2026-11; rootcost attribute --again --from 2026-10 --to 2026-11"
    )(attribute)
    app.command(
        epilog="Example: rootcost costs --by initiator_team,model --from 2026-10 --to 2026-11 --granularity day --format csv"
    )(costs)
    app.command(epilog="Example: rootcost balance --format json")(balance)
    app.command(epilog="Example: rootcost runs; rootcost runs 20261101T060000-1c8f9a3e 20261103T060000-77d0b512")(runs)


def attribute(
    start: _From = "",
    end: _To = "",
    cluster: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Draw the spans on the workers of this Dask scheduler: tcp://127.0.0.1:8786.",
            show_default=False,
        ),
    ] = "",
    rebuild: Annotated[
        bool, typer.Option("--again", help="Rebuild months although nothing has changed: read their spans and draw all anew.")
    ] = False,
    home: Home = None,
) -> None:
    """Trace every charge to the agent and team that caused it, and check that the books balance.

    Months are rebuilt whose bill, usage, registry, prices or settings have changed, or whose figures come from another version of
    RootCost, which may conclude otherwise. A run that does not balance is not published: the last good one stays in force, and the exit code is 3.
    """
    from attribution.monitoring import anomalies, budgets
    from attribution.run import attribute as run_attribution
    from ledger.errors import UsageError
    from ledger.settled_months import settled_months
    from rootcost.pricebook import at_hand
    from rootcost.service.changed_months import facts_by_month, within
    from rootcost.terminal import run_reports
    from rootcost.terminal.left_out import missing_bill_lines

    with open_books(home) as books:
        known_months = {*facts_by_month(books), *settled_months(books.database)}
        months = within(known_months, start, end, timezone="UTC") if start or end else None
        if months == []:
            raise UsageError(
                "no bill and no log lies in this range", where="--from, --to", remedy="--to is the first month not counted"
            )
        with steps() as progress, attribution_lock(books), _executor(cluster) as executor:
            with write_lock(books):
                has_facts = bool(facts_by_month(books))
                imported_book = at_hand(books) if has_facts else None
            if imported_book:
                say(
                    f"The price book was empty: {imported_book.added:,} prices of {imported_book.book.split(' sha256')[0]} are in it now"
                )
            report = run_attribution(
                books, months, cause="command", progress=progress.of("Attributing"), executor=executor, force=rebuild
            )
            alerts = budgets.evaluate(books)
            anomalies.detect(books, report.months)
        run_reports.attributed(report, alerts)
        if warning := missing_bill_lines(books):
            out(warning)
        if has_facts:
            say("Next: rootcost costs, or rootcost serve")


@contextmanager
def _executor(cluster: str) -> Iterator[Executor | None]:
    """Who draws the spans: the workers of a cluster, or (None) this process."""
    if not cluster:
        yield None
        return
    from attribution.usage.dask_executor import DaskExecutor

    with DaskExecutor(cluster) as workers:
        yield workers


def costs(
    by: Annotated[
        str, typer.Option(help="Dimensions, comma-separated. Default: the view's team and agent.", show_default=False)
    ] = "",
    view: CostView = "initiator",
    start: _From = "",
    end: _To = "",
    granularity: Annotated[
        Literal["total", "hour", "day", "month"], typer.Option(help="How time is cut, in the reporting timezone.")
    ] = "total",
    basis: CostBasis = "effective",
    calendar: Annotated[
        Literal["", "invoice", "usage"],
        typer.Option(
            help="invoice: months of invoices, which tie out with the bill; usage: the time of use. "
            "Default: invoice for whole months, usage for days and hours.",
            show_default=False,
        ),
    ] = "",
    filters: Filters = None,
    currency: Annotated[
        str,
        typer.Option(
            help="Show all of it in this currency, at the imported rate of each day.", metavar="CODE", show_default=False
        ),
    ] = "",
    output: TableFormat = "table",
    file: TableFile = None,
    home: Home = None,
) -> None:
    """Show costs by team, agent, model or any other dimension.

    One row for each value: --by team is one row a team, --by team,cost_class,reason tells its classes and reasons apart. Every row says
    how much of it is billed and how much estimated. Currencies are never mixed, unless --currency names one: then each amount is
    exchanged at the rate of its day (rootcost exchange import), and the rates are named.
    """
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import cost_tables, tables

    with open_books(home) as books:
        query = queries.CostQuery.parse(
            by=by,
            view=view,
            start=start or None,
            end=end or None,
            granularity=granularity,
            basis=basis,
            filters=filters or [],
            calendar=calendar or None,
            timezone=books.settings.report.timezone,
        )
        frame, rates = (
            queries.costs_in(of_operator(books), query, currency) if currency else (queries.costs(of_operator(books), query), [])
        )
        runs = queries.published(of_operator(books))
    if output == "json" and file is None:
        out_rows(frame.iter_rows(named=True))
    elif output == "json":
        write_text(tables.rows_as_json(frame.iter_rows(named=True)), file)
    elif output in ("csv", "parquet"):
        write_table(frame, output, file)
    elif frame.height:
        is_in_time = bool(query.start or query.end or granularity != "total")
        shown_calendar = str(query.calendar) if is_in_time else ""
        cost_tables.costs(frame, basis=basis, calendar=shown_calendar, requested_columns=query.by, path=file)
    for rate_name, days in Counter(rate.label for rate in rates).items():
        say(f"Exchanged, {counted(days, 'day')}: {rate_name}")
    if not frame.height:
        say(
            "No costs in this range."
            if runs
            else "Nothing is attributed yet. Next: rootcost ingest, then rootcost attribute (or: rootcost demo)"
        )


def balance(
    month: Annotated[
        list[str] | None, typer.Option(metavar="YYYY-MM", help="Only this invoice month; repeatable.", show_default=False)
    ] = None,
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """Hold charges in against costs out, per currency, invoice month, provider and cost column. The difference is 0."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import tables
    from rootcost.terminal.left_out import missing_bill_lines

    with open_books(home) as books:
        frame = queries.balance(of_operator(books), month)
        warning = missing_bill_lines(books)
    if output == "json":
        out_rows(frame.iter_rows(named=True))
    elif frame.height:
        tables.balance(frame)
    if warning:
        (say if output == "json" else out)(warning)
    if not frame.height:
        say("No bill is attributed yet. Next: rootcost ingest, then rootcost attribute")
    if not (frame["difference"] == 0).all():
        raise typer.Exit(3)


def runs(
    pair: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OLD NEW]", help="Two runs: what moved between them, and why.", show_default=False),
    ] = None,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only this month of the two runs.", show_default=False)] = "",
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List attribution runs, or tell why two of them differ.

    A restated bill makes a new run and the old one stays readable; the difference is laid to its cause: restated charge, new usage,
    registry, price, rule, or the code of another version of RootCost.
    """
    from api import queries
    from api.queries import of_operator
    from ledger.errors import UsageError
    from rootcost.terminal import tables

    with open_books(home) as books:
        page = queries.runs(of_operator(books)).page(limit=1000)
        if not pair:
            if output == "json":
                out_rows(row.model_dump(mode="json") for row in page.rows)
            elif page.rows:
                tables.runs(page.rows)
            if not page.rows:
                say("No run yet. Next: rootcost ingest, then rootcost attribute")
            return
        if len(pair) != 2:
            raise UsageError("two runs are compared", where="OLD NEW", remedy="`rootcost runs` lists them")
        from attribution.monitoring.run_diff import compare

        differences = compare(books, pair[0], pair[1], month or None)
    if output == "json":
        out_rows({**asdict(d), "moved": d.moved} for d in differences)
    elif differences:
        tables.differences(differences)
    if not differences:
        say("The two runs say the same.")
