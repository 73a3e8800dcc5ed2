"""Cost explorer: cost by any dimension, filtered by clicking; every choice is in the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, cast

import streamlit as st

from api.client import ApiProblem
from api.models import Basis, CostRow, CostTable, Granularity, View
from ui import charts, controls, labels, widgets
from ui.api_requests import Answer, file_address, request, try_request
from ui.grid import Cell, Column, Grid, Row, draw

DRILL_DOWN = ("team", "agent", "model", "meter", "provider", "service")
MAX_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The query that the URL describes."""

    by: tuple[str, ...]
    view: View
    basis: Basis
    granularity: Granularity
    start: str | None
    end: str | None
    filters: Mapping[str, list[str]] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """The query as arguments of the API's client."""
        names = ("view", "basis", "granularity", "start", "end")
        return {"by": list(self.by), "filters": dict(self.filters), **{name: getattr(self, name) for name in names}}

    def href(self, *, by: Sequence[str] | None = None, filters: Mapping[str, Sequence[str]] | None = None) -> str:
        """This question with other groups or filters, as a link."""
        parameters = {name: controls.read(name) for name in ("month", "view", "basis", "granularity", "from", "until")}
        pairs = [f"{name}={value}" for name, values in (self.filters if filters is None else filters).items() for value in values]
        return widgets.link("explorer", by=",".join(self.by if by is None else by), filter=pairs, **parameters)


def page() -> None:
    """Renders the page."""
    st.title("Cost explorer")
    months = request(lambda api: api.overview(top=1)).value.months
    if not months:
        widgets.nothing_published()
        return
    question = choices(months)
    crumbs(question)
    why_changed(question)
    answer_table = request(lambda api: api.costs(**question.told()))
    answer(question, answer_table)


def choices(months: Sequence[str]) -> Question:
    """Everything that can be chosen."""
    with st.container(border=True):
        first, second, third = st.columns([1.3, 3, 1.3], vertical_alignment="bottom")
        with first:
            options = [*reversed(months), "all", "range"]
            names = {"all": "All months", "range": "From … to …"}
            month = controls.choose(
                "Period", "month", options, default=options[0], label_of=lambda m: names.get(m) or labels.month(m)
            )
        with second:
            by = controls.choose_several(
                "Group by",
                "by",
                list(labels.DIMENSIONS),
                default=("team", "agent"),
                label_of=labels.dimension,
                most=MAX_DIMENSIONS,
            )
        with third:
            granularity = controls.choose(
                "Over time",
                "granularity",
                list(labels.GRANULARITIES),
                default="total",
                label_of=lambda g: labels.GRANULARITIES[g],
            )
        first, second, third = st.columns([1.3, 3, 1.3], vertical_alignment="bottom")
        with first:
            view = controls.choose_view()
        with second:
            basis = controls.choose(
                "Cost column",
                "basis",
                list(labels.BASES),
                default="effective",
                label_of=lambda b: labels.BASES[b],
                help_text=labels.BASIS_HELP,
                buttons=True,
            )
        start, end = (
            (None, None) if month == "all" else between(months) if month == "range" else (month, controls.next_month(month))
        )
        question = Question(
            by=tuple(by),
            view=cast("View", view),
            basis=cast("Basis", basis),
            granularity=cast("Granularity", granularity),
            start=start,
            end=end,
            filters=controls.filters_of(controls.read_all("filter")),
        )
        with third:
            add_filter(question)
    return question


def between(months: Sequence[str]) -> tuple[str, str]:
    """A range of days, both included on the page, half-open for the API."""
    first = _day(controls.read("from")) or date.fromisoformat(f"{months[-1]}-01")
    last = _day(controls.read("until")) or date.fromisoformat(f"{controls.next_month(months[-1])}-01") - timedelta(days=1)
    for key, day in (("pick-from", first), ("pick-until", last)):
        st.session_state[key] = day

    def changed() -> None:
        for name in ("from", "until"):
            controls.write(name, str(st.session_state[f"pick-{name}"]))

    from_column, right, _ = st.columns([1, 1, 3])
    with from_column:
        st.date_input("From", key="pick-from", on_change=changed, format="YYYY-MM-DD")
    with right:
        st.date_input("To and including", key="pick-until", on_change=changed, format="YYYY-MM-DD")
    return str(min(first, last)), str(max(first, last) + timedelta(days=1))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None  # a hand-made URL; the page shows which range it took instead


def add_filter(question: Question) -> None:
    """Narrows down by a value picked from those there are."""
    with st.popover("Add a filter", width="stretch"):
        name = st.selectbox("Dimension", list(labels.DIMENSIONS), format_func=labels.dimension, key="filter-name")
        answer_table = try_request(lambda api: api.costs(by=[name], view=question.view, start=question.start, end=question.end))
        if isinstance(answer_table, ApiProblem):
            widgets.show_problem(answer_table)
            return
        values = list(dict.fromkeys(row.get(name) or "" for row in answer_table.value.rows))
        if not values:
            st.caption("Nothing was spent in this period.")
            return
        value = st.selectbox("is", values, format_func=lambda v: labels.value(name, v), key="filter-value")
        if st.button("Keep only these", key="filter-add"):
            controls.write("filter", [*controls.read_all("filter"), f"{name}={value}"])
            st.rerun()


def crumbs(question: Question) -> None:
    """Filters in force; each can be taken off."""
    if not question.filters:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown("Only")
        for number, (name, values) in enumerate(question.filters.items()):
            values_text = " or ".join(labels.value(name, value) for value in values)
            if st.button(
                widgets.plain(f"{labels.dimension(name)}: {values_text}") + "  ✕",
                key=f"drop-{number}",
                help="Take this filter off",
            ):
                controls.write("filter", [p for p in controls.read_all("filter") if p.partition("=")[0] != name])
                st.rerun()
        if st.button("Clear all", key="drop-all", type="tertiary"):
            controls.write("filter", [])
            st.rerun()
        agents = question.filters.get("agent", [])
        if (
            len(agents) == 1
            and agents[0]
            and question.view == "initiator"
            and st.button("Its chains", key="to-chains", type="tertiary")
        ):
            period = {"month": question.start or ""} if question.start and len(question.start) == 7 else {}
            st.switch_page(controls.PAGES["chains"], query_params={"agent": agents[0], **period})


def why_changed(question: Question) -> None:
    """A link to the period held against the one before it."""
    if question.start is None or question.end is None:
        return
    if len(question.start) == 7:
        before, after = controls.previous_month(question.start), question.start
    else:
        first, end = date.fromisoformat(question.start), date.fromisoformat(question.end)
        before, after = f"{first - (end - first)}/{first}", f"{first}/{end}"
    period = {"from": before, "to": after, "period": "" if len(after) == 7 else "range"}
    selection = {**period, "by": ",".join(question.by), "view": controls.read("view"), "basis": controls.read("basis")}
    filters = [f"{name}={value}" for name, values in question.filters.items() for value in values]
    st.page_link(
        controls.PAGES["compare"],
        label="Why it changed",
        query_params={name: value for name, value in {**selection, "filter": filters}.items() if value},
    )


def answer(question: Question, cost_table: Answer[CostTable]) -> None:
    """Totals, chart, table and files."""
    table = cost_table.value
    currencies = sorted(table.totals, key=lambda c: (-sum(row.currency == c for row in table.rows), c))
    if not currencies:
        widgets.empty_state(
            "Nothing here", "Nothing was spent in this period with these filters. Take a filter off or choose another period."
        )
        widgets.address(cost_table.address, key="explorer")
        return
    tiles = st.columns(max(4, len(currencies)))
    for tile, currency in zip(tiles, currencies, strict=False):
        with tile:
            widgets.amount_tile(
                f"Total, {labels.BASES[question.basis].lower()} cost",
                table.totals[currency],
                currency,
                delta=labels.parts_of(
                    widgets.money(table.totals_billed.get(currency), currency),
                    widgets.money(table.totals_estimated.get(currency), currency),
                )
                if table.totals_estimated.get(currency)
                else None,
                help_text=labels.CALENDARS[table.calendar],
            )
    for currency, amount in table.totals_omitted.items():
        st.caption(
            widgets.plain(
                f"{labels.BASES[question.basis]} cost is unknown for some rows: what costs {widgets.money(amount, currency)} in another "
                "cost column is not in this total."
            )
        )
    for currency in currencies:
        picture(question, [row for row in table.rows if row.currency == currency], currency)
    grid = Grid(
        columns(question, table),
        [row_of(question, table, row, to) for row, to in with_places(table.rows)],
        footer=[total_row(question, table, currency) for currency in currencies],
        label="Costs",
        caption=f"{len(table.rows):,} rows, {labels.CALENDARS[table.calendar]}",
        address=cost_table.address,
    )
    controls.go(draw(grid, key="costs"), page="explorer")
    files(question)


def label_of(question: Question, row: CostRow) -> str:
    """A row's name in a chart: its first dimension that is not filtered to one value."""
    name = next((n for n in question.by if len(question.filters.get(n, [])) != 1), question.by[0])
    return labels.value(name, row.get(name))


def picture(question: Question, rows: Sequence[CostRow], currency: str) -> None:
    """A chart of one currency."""
    priced_rows = [row for row in rows if row.cost is not None]
    if question.granularity == "total":
        sums: dict[str, Decimal] = {}
        for row in priced_rows:
            name = label_of(question, row)
            sums[name] = sums.get(name, Decimal(0)) + (row.cost or Decimal(0))
        charts.bars(sums, currency=currency, measure=f"{labels.BASES[question.basis]} cost", key=f"bars-{currency}")
        return
    points = [
        charts.Point(row.period_start, label_of(question, row), row.cost or Decimal(0), row.get("basis") != "estimated")
        for row in priced_rows
        if row.period_start
    ]
    charts.over_time(
        points,
        currency=currency,
        unit=question.granularity,
        measure=f"{labels.BASES[question.basis]} cost",
        key=f"time-{currency}",
    )


def columns(question: Question, table: CostTable) -> list[Column]:
    """Headings; the billed and the estimated part only where something is estimated."""
    time = [] if question.granularity == "total" else [Column("Start", shape="word")]
    dims = [Column(labels.dimension(name), link=number == 0) for number, name in enumerate(question.by)]
    parts = [Column(labels.PARTS[name], "right") for name in parts_of(table)]
    return [*time, *dims, Column(f"{labels.BASES[question.basis]} cost", "right"), *parts]


def parts_of(table: CostTable) -> list[Literal["cost_billed", "cost_estimated"]]:
    """Columns beside the cost: its parts, where some of it is estimated. (LA-1)"""
    return ["cost_billed", "cost_estimated"] if any(table.totals_estimated.values()) else []


def with_places(rows: Sequence[CostRow]) -> list[tuple[CostRow, int]]:
    """Each row with the decimal places its currency is shown with."""
    by_currency: dict[str, list[Decimal | None]] = {}
    for row in rows:
        by_currency.setdefault(row.currency, []).append(row.cost)
    to = {currency: widgets.column_places(amounts) for currency, amounts in by_currency.items()}
    return [(row, to[row.currency]) for row in rows]


def row_of(question: Question, table: CostTable, row: CostRow, to: int) -> Row:
    """One group; it leads to what it is made of."""
    time = (
        [] if question.granularity == "total" else [Cell(period(row.period_start, question.granularity), order=row.period_start)]
    )
    cells = [
        Cell(
            labels.value(name, row.get(name)),
            order=row.get(name) or "",
            tone="" if row.get(name) else "muted",
            title=row.get(name) or ("" if name == "reason" else labels.NAMELESS_HELP),
        )
        for name in question.by
    ]
    cost = replace(widgets.cost_cell(row.cost, row.currency, to_places=to), href=why(question, row))
    if row.omitted_rows and row.cost is not None:
        omission = f", {widgets.money(row.omitted_cost, row.currency)} in another column" if row.omitted_cost else ""
        cost = replace(cost, sub=f"without {widgets.count(row.omitted_rows)} unknown{omission}")
    parts = [widgets.money_cell(getattr(row, name), row.currency, to_places=to) for name in parts_of(table)]
    return Row([*time, *cells, cost, *parts], href=deeper(question, row))


def why(question: Question, row: CostRow) -> str:
    """Where a cost leads: to its explanation, which is asked for with the same question, kept to the row's own values."""
    filters = {**question.filters, **{name: [row.get(name) or ""] for name in question.by}, "currency": [row.currency]}
    pairs = [f"{name}={value}" for name, values in filters.items() for value in values]
    start, end = question.start, question.end
    if row.period_start:
        # A month is one of invoices, as the row is.
        start = row.period_start[:7] if question.granularity == "month" else row.period_start
        end = after(row.period_start, question.granularity)
    return widgets.link(
        "explain", by=",".join(question.by), view=question.view, basis=question.basis, start=start, end=end, filter=pairs
    )


def after(start: str, granularity: str) -> str:
    """Where a period ends that begins at `start`, an instant with its offset; days and months end at the zone's midnight.

    >>> after("2026-10-01T00:00:00+02:00", "month"), after("2026-10-05T06:00:00+00:00", "hour"), after("2026-10-31T00:00:00+01:00", "day")
    ('2026-11', '2026-10-05T07:00:00+00:00', '2026-11-01')
    """
    if granularity == "month":
        return controls.next_month(start[:7])
    if granularity == "day":
        return str(date.fromisoformat(start[:10]) + timedelta(days=1))
    return (datetime.fromisoformat(start) + timedelta(hours=1)).isoformat()


def deeper(question: Question, row: CostRow) -> str:
    """Link of a row: its values become filters, and the next dimension of `DRILL_DOWN` becomes the group."""
    filters = {**question.filters, **{name: [row.get(name) or ""] for name in question.by}}
    after = [name for name in DRILL_DOWN if name not in filters]
    return question.href(by=after[:1], filters=filters) if after else ""


def period(start: str | None, granularity: str) -> str:
    """Start of a period, as long as it is exact."""
    if not start:
        return "total"
    return start[:7] if granularity == "month" else start[:10] if granularity == "day" else start[:16].replace("T", " ")


def total_row(question: Question, table: CostTable, currency: str) -> Row:
    """The sum in one currency."""
    width = len(question.by) + (question.granularity != "total")
    sums = {"cost_billed": table.totals_billed, "cost_estimated": table.totals_estimated}
    amounts = [table.totals[currency], *(sums[name].get(currency) for name in parts_of(table))]
    return Row(
        [Cell(f"Total {currency}"), *[Cell()] * (width - 1), *(widgets.money_cell(amount, currency) for amount in amounts)],
        strong=True,
    )


def files(question: Question) -> None:
    """The same rows as files, which the browser fetches from the API."""
    with st.container(horizontal=True, gap="small"):
        for label, ending in (("CSV", "csv"), ("Parquet", "parquet"), ("JSON", "json")):
            st.link_button(
                f"Download {label}",
                file_address(lambda api, ending=ending: api.costs_file(ending, **question.told())),  # type: ignore[misc]
            )


page()
