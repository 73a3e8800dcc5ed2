"""`rootcost explain`: the steps behind a figure, for a chain, a call, a charge, or any cell of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out_json

if TYPE_CHECKING:
    from api.queries import CostQuery


def add_to(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="Example: rootcost explain 0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331; "
        "rootcost explain --month 2026-10 --group-by team --where team=Care --where model=claude-sonnet-4-6; "
        "rootcost explain --month 2026-10 --where cost_class=unallocated --view executor --format json"
    )(explain)


def explain(
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="CHAIN|CALL|CHARGE",
            help="Id of a chain, of a call (trace:span, gateway call id, provider request id, span id) or of a charge. "
            "Without one, the options name a cell: the same as those of `rootcost costs`.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option("--by", "--group-by", help="How to break the cell down: dimensions, comma-separated.", show_default=False),
    ] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="DIM=VALUE",
            help="Only cost of this value; repeatable. An empty value is unknown.",
            show_default=False,
        ),
    ] = None,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only this month.", show_default=False)] = "",
    start: Annotated[
        str, typer.Option("--from", help="First day, month or instant counted: 2026-10, 2026-10-05.", show_default=False)
    ] = "",
    end: Annotated[
        str, typer.Option("--to", help="First one not counted: --from 2026-10 --to 2026-11 is October.", show_default=False)
    ] = "",
    view: Annotated[
        Literal["initiator", "executor"], typer.Option(help="initiator: who caused it; executor: who burned it.")
    ] = "initiator",
    granularity: Annotated[
        Literal["total", "hour", "day", "month"], typer.Option(help="How the breakdown is cut in time.")
    ] = "total",
    basis: Annotated[
        Literal["effective", "billed", "list", "contracted"], typer.Option(help="Which FOCUS cost column is explained.")
    ] = "effective",
    most: Annotated[int, typer.Option(min=1, max=1000, help="Most lines a step lists; the others are counted and summed.")] = 10,
    rules: Annotated[bool, typer.Option("--rules", help="Show the id of each step's rule (docs/concepts.md).")] = False,
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")] = "text",
    home: Home = None,
) -> None:
    """Explain a figure step by step: where its dollars come from.

    Charge, pool, rate, call, span, executor, initiator, owner, rule, run: the dollars of each step add up to the figure.
    """
    from api import queries
    from api.queries import of_operator
    from ledger.errors import UsageError

    names_cell = bool(by or filters or month or start or end)
    if (ref is None) != names_cell:
        raise UsageError(
            "say what to explain" if ref is None else "a chain, call or charge is whole; options name a cell instead",
            where="CHAIN|CALL|CHARGE",
            remedy="give an id, or a cell: rootcost explain --month 2026-10 --where team=Care",
        )
    tree = None
    with open_books(home) as books:
        if ref is None:
            query = _cell(by, filters or [], month, start, end, view, granularity, basis, timezone=books.settings.report.timezone)
            story = queries.explain_cell(of_operator(books), query, most=most)
        else:
            story = queries.explain(of_operator(books), ref, basis=basis, most=most)
            tree = queries.chain(of_operator(books), ref) if story.kind == "chain" and output == "text" else None
    if output == "json":
        out_json(story.model_dump())
        return
    from rootcost.terminal import explanation

    explanation.explanation(story, tree, rules=rules)


def _cell(
    by: str, filters: list[str], month: str, start: str, end: str, view: str, granularity: str, basis: str, *, timezone: str
) -> CostQuery:
    from api.queries import CostQuery
    from api.queries.costs import parse_month
    from ledger.errors import UsageError
    from ledger.periods import month_end

    if month:
        if start or end:
            raise UsageError("a month is a range already", where="--month", remedy="give --month, or --from and --to")
        parse_month(month)
        start, end = month, f"{month_end(month):%Y-%m}"
    return CostQuery.parse(
        by=by,
        view=view,
        start=start or None,
        end=end or None,
        granularity=granularity,
        basis=basis,
        filters=filters,
        timezone=timezone,
    )
