"""What a month will cost."""

from __future__ import annotations

from typing import Annotated

import typer

from rootcost.commands.reports import CostBasis, CostView, Filters, Groups, TableFile, TableFormat
from rootcost.terminal.console import Home, open_books, out_rows, say, write_table, write_text


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="Example: rootcost forecast --by currency; rootcost forecast --by team,model --where team=Care --format json"
    )(forecast)


def forecast(
    by: Groups = "",
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="Month of use. Default: the current one.", show_default=False)
    ] = "",
    view: CostView = "initiator",
    basis: CostBasis = "effective",
    filters: Filters = None,
    output: TableFormat = "table",
    file: TableFile = None,
    home: Home = None,
) -> None:
    """Tell what the month will have cost at its end, by team, agent, model or any other dimension, with an interval.

    Learned from each group's own half year before. The interval holds the month's cost four times in five; it is left out where the past is
    too short to say. Intervals do not add up: --by currency is the forecast of the whole.
    """
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import cost_tables, tables

    with open_books(home) as books:
        shape = queries.CostQuery.parse(
            by=by, view=view, basis=basis, filters=filters or [], timezone=books.settings.report.timezone
        )
        frame = queries.forecasts(of_operator(books), queries.ForecastQuery(shape, month or None))
    if output == "json" and file is None:
        out_rows(frame.iter_rows(named=True))
    elif output == "json":
        write_text(tables.rows_as_json(frame.iter_rows(named=True)), file)
    elif output in ("csv", "parquet"):
        write_table(frame, output, file)
    elif frame.height:
        cost_tables.forecast(frame, shape.dimensions, path=file)
    if not frame.height:
        say(
            "No cost is known of this month or the half year before it. Next: rootcost ingest, then rootcost attribute (or: rootcost demo)"
        )
