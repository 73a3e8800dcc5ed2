"""Why cost changed between two periods."""

from __future__ import annotations

from typing import Annotated

import typer

from rootcost.commands.reports import CostBasis, CostView, Filters, Groups, TableFile, TableFormat
from rootcost.terminal.console import Home, open_books, out_rows, say, write_table, write_text


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="Example: rootcost compare --from 2026-09 --to 2026-10; rootcost compare --from 2026-W47 --to 2026-W48 --by agent,model --format json"
    )(compare)


def compare(
    before: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PERIOD",
            help="The earlier period: 2026-09, 2026-10-05, 2026-W41, 2026-Q3, 2026, or a range as 2026-10-01/2026-10-08.",
            show_default=False,
        ),
    ],
    after: Annotated[
        str, typer.Option("--to", metavar="PERIOD", help="The later period, in the same forms.", show_default=False)
    ],
    by: Groups = "",
    view: CostView = "initiator",
    basis: CostBasis = "effective",
    filters: Filters = None,
    output: TableFormat = "table",
    file: TableFile = None,
    home: Home = None,
) -> None:
    """Tell why cost rose or fell between two periods: more calls, more tokens a call, prices, another mix, retries, what is new and what is gone.

    The effects of a group sum to the change of its cost, to the last digit. Months, quarters and years are those of invoices, days and weeks those
    of use.
    """
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import comparison_tables, tables

    with open_books(home) as books:
        query = queries.ComparisonQuery.parse(
            before, after, by=by, view=view, basis=basis, filters=filters or [], timezone=books.settings.report.timezone
        )
        table = queries.comparison_table(of_operator(books), query)
        frame = queries.comparison(of_operator(books), query) if output in ("csv", "parquet") else None
    rows = [{**{name: row.get(name) for name in query.groups}, "effect": row.effect, "cost": row.cost} for row in table.rows]
    if frame is not None:
        write_table(frame, output, file)
    elif output == "json" and file is None:
        out_rows(iter(rows))
    elif output == "json":
        write_text(tables.rows_as_json(iter(rows)), file)
    elif table.rows:
        comparison_tables.comparison(table, path=file)
    if table.totals_change and not table.rows:
        say("Nothing has changed: every group costs the same in both periods.")
    elif not table.totals_change:
        say("Neither period has any cost. Next: rootcost costs --granularity month, which shows the months that have some")
