"""Queries of costs by dimension and of the balance, over published runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, get_args
from zoneinfo import ZoneInfo

import polars as pl

from api.models import Basis, Calendar, CostRow, CostTable, Granularity, View
from api.models.costs import RateUsed
from api.queries.gate import WHOLE, ScopedBooks, WholeBooks, published, scan_runs
from api.queries.publication import one_publication
from ledger.calendars import time_of_use, used_within
from ledger.errors import UsageError
from ledger.periods import month_of, month_start, parse_bound
from ledger.tables import BALANCE, COST_CLASSES, COSTS

DIMENSIONS: tuple[str, ...] = tuple(c.name for c in COSTS.columns if c.dtype == pl.String and c.name != "run_id")
"""Columns of `costs` that rows can be grouped and filtered by."""

RELATIVE = {"agent": "{view}_agent", "team": "{view}_team"}
"""Dimensions that stand for the initiator's or the executor's column, depending on the view."""

COST_KEYS = ("currency",)
"""Keys of every row, asked for or not: currencies are never summed together. (RA-7)"""

COST_AMOUNTS = ("cost", "cost_billed", "cost_estimated")
"""Amounts of every row: the sum of the cost column, and its parts from bills and from estimates. (LA-1)"""

OMITTED = ("omitted_rows", "omitted_cost")
"""What the sum of a cost column leaves out, since the column is unknown there. (MO-1b)"""

BALANCE_KEYS = ("currency", "invoice_month", "provider", "cost_column", "charges_in", *COST_CLASSES, "difference", "rounding")

_TRUNCATE: Mapping[str, str] = {"hour": "1h", "day": "1d", "month": "1mo"}


def _one_of(value: str, choices: Iterable[str], parameter: str) -> str:
    allowed_values = tuple(choices)
    if value not in allowed_values:
        raise UsageError(f"{value!r} is not known", where=parameter, remedy=f"one of: {', '.join(allowed_values)}")
    return value


@dataclass(frozen=True, slots=True)
class CostQuery:
    """Dimensions, view, time range and filters of a cost report. An empty `by` means the view's team and agent.

    `calendar` says what `start`, `end` and `granularity` mean: months of invoices, or the time of use. None is the invoice month for reports by month
    or without a range, else the time of use; `parse` takes a range of whole months as invoice months, too. (TI-1a)

    Filters keep rows whose dimension equals one of the values exactly; "" matches unknown (null).
    """

    by: tuple[str, ...] = ()
    view: View = "initiator"
    start: datetime | None = None
    end: datetime | None = None
    granularity: Granularity = "total"
    basis: Basis = "effective"
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    calendar: Calendar | None = None

    def __post_init__(self) -> None:
        if self.calendar is None:
            by_invoice = self.granularity in ("month", "total") and self.start is None and self.end is None
            object.__setattr__(self, "calendar", "invoice" if by_invoice else "usage")
        _one_of(str(self.calendar), get_args(Calendar), "calendar")
        if self.calendar == "invoice" and self.granularity in ("hour", "day"):
            raise UsageError(
                "an invoice month has no hours and no days",
                where="calendar",
                remedy="ask for calendar usage, or for granularity month or total",
            )
        _one_of(self.view, get_args(View), "view")
        _one_of(self.granularity, get_args(Granularity), "granularity")
        _one_of(self.basis, get_args(Basis), "basis")
        for name in (*self.by, *self.filters):
            if name not in DIMENSIONS and name not in RELATIVE:
                raise UsageError(
                    f"{name!r} is no dimension",
                    where="by" if name in self.by else "filter",
                    remedy=f"valid are: agent, team, {', '.join(DIMENSIONS)}",
                )
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise UsageError("the range is empty", where="end", remedy="the range is [start, end): end must be later than start")

    @classmethod
    def parse(
        cls,
        *,
        by: str | Sequence[str] = (),
        view: str = "initiator",
        start: str | None = None,
        end: str | None = None,
        granularity: str = "total",
        basis: str = "effective",
        filters: Sequence[str] = (),
        calendar: str | None = None,
        timezone: str = "UTC",
    ) -> Self:
        """Parses the text of parameters: ``by="team,model"``, ``filters=["team=Care"]``, days and months in `timezone`.

        >>> CostQuery.parse(by="team,model", filters=["team=Care", "team=Dev"]).filters
        {'team': ('Care', 'Dev')}
        >>> CostQuery.parse(start="2026-10", end="2026-11").calendar, CostQuery.parse(start="2026-10-05", end="2026-11").calendar
        ('invoice', 'usage')
        """
        if not calendar and granularity in ("total", "month") and all(len(edge.strip()) == 7 for edge in (start, end) if edge):
            calendar = "invoice"
        names = [name.strip() for part in ([by] if isinstance(by, str) else by) for name in part.split(",")]
        conditions: dict[str, tuple[str, ...]] = {}
        for condition in filters:
            name, equals, value = condition.partition("=")
            if not equals:
                raise UsageError(f"{condition!r} is no filter", where="filter", remedy="write dimension=value, e.g. team=Care")
            conditions[name.strip()] = (*conditions.get(name.strip(), ()), value)
        return cls(
            by=tuple(dict.fromkeys(n for n in names if n)),
            view=view,  # type: ignore[arg-type]  # checked in __post_init__
            start=parse_bound(start, field="start", timezone=timezone) if start else None,
            end=parse_bound(end, field="end", timezone=timezone) if end else None,
            granularity=granularity,  # type: ignore[arg-type]
            basis=basis,  # type: ignore[arg-type]
            filters=conditions,
            calendar=calendar or None,  # type: ignore[arg-type]
        )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimensions of the rows: `by`, or the view's team and agent."""
        return self.by or ("team", "agent")

    @property
    def dimensions_in_time(self) -> tuple[str, ...]:
        """Dimensions, and `period_start` unless the granularity is total."""
        return (*self.dimensions, *(("period_start",) if self.granularity != "total" else ()))

    @property
    def keys(self) -> list[str]:
        """Columns that rows are grouped by: dimensions, `period_start`, and `COST_KEYS`."""
        return [*self.dimensions_in_time, *(n for n in COST_KEYS if n not in self.dimensions)]

    def parameters(self) -> list[tuple[str, str]]:
        """The query as parameters of `GET /v1/costs`."""
        instants = [(name, at.isoformat()) for name, at in (("start", self.start), ("end", self.end)) if at is not None]
        conditions = [("filter", f"{name}={value}") for name, values in self.filters.items() for value in values]
        shape = [("view", self.view), *instants, ("granularity", self.granularity), ("basis", self.basis)]
        if instants or self.granularity == "month":
            shape.append(("calendar", str(self.calendar)))
        usual = {("granularity", "total"), ("basis", "effective")}
        return [("by", ",".join(self.by)), *(pair for pair in shape if pair not in usual), *conditions]

    def column(self, dimension: str) -> str:
        """Column of `costs` a dimension stands for."""
        return RELATIVE.get(dimension, dimension).format(view=self.view)


@one_publication
def costs(books: ScopedBooks, query: CostQuery) -> pl.DataFrame:
    """Cost by the query's dimensions, then [period_start], currency: one row for each key. (LA-1)

    `cost` is MONEY, null only where no row of the group has the cost column; `cost_billed` and `cost_estimated` are its two parts.
    Where a group holds cost without the cost column, `omitted_rows` and `omitted_cost` say how much the sums leave out (`omitted_columns`).
    `period_start` is text, ISO 8601 with the reporting timezone's offset. Sorted by time, then by cost, highest first.
    """
    keys = [pl.col(query.column(name)).alias(name) for name in query.dimensions]
    time = [period(books, query)] if query.granularity != "total" else []
    other_keys = [pl.col(name) for name in COST_KEYS if name not in query.dimensions]
    rows = matching_costs(books, query).select(*keys, *time, *other_keys, part=part(query), amount=part_amount(query))
    return finished(rows.group_by(query.keys).agg(*part_sums()).collect(), query)


def part(query: CostQuery) -> pl.Expr:
    """Which part of a figure a row of `costs` is: billed, estimated, or omitted, since the cost column of it is unknown."""
    return pl.when(pl.col(f"{query.basis}_cost").is_null()).then(pl.lit("omitted")).otherwise("basis")


def part_amount(query: CostQuery) -> pl.Expr:
    """The amount of a row's part: its cost column; of an omitted row what it costs in another column, null if none is known."""
    return pl.coalesce(f"{query.basis}_cost", "effective_cost", "billed_cost", "contracted_cost", "list_cost")


def part_sums() -> list[pl.Expr]:
    """The amounts of a group of rows with `part` and `amount`. A part that the group does not have is 0, a sum of nothing known null."""
    is_omitted = pl.col("part") == "omitted"
    has_cost = (~is_omitted).any()
    sums = {"cost": ~is_omitted, "cost_billed": pl.col("part") == "billed", "cost_estimated": pl.col("part") == "estimated"}
    return [
        *(pl.when(has_cost).then(pl.col("amount").filter(rows).sum()).alias(name) for name, rows in sums.items()),
        is_omitted.sum().cast(pl.Int64).alias("omitted_rows"),
        pl.col("amount").filter(is_omitted).sum().alias("omitted_cost"),
    ]


def omitted_columns(frame: pl.DataFrame) -> list[str]:
    """`omitted_rows` and `omitted_cost` if a sum of the report leaves out cost whose cost column is unknown, else none. (MO-1b)

    `omitted_rows` counts such rows of `costs`, `omitted_cost` is what they cost in another column; what no column tells, as of an unpriced
    call, is counted only.
    """
    return list(OMITTED) if set(OMITTED) <= set(frame.columns) and frame["omitted_rows"].sum() else []


def finished(frame: pl.DataFrame, query: CostQuery) -> pl.DataFrame:
    """Grouped costs as a report: columns and rows in order, times as text."""
    names = [*query.dimensions, *(n for n in COST_KEYS if n not in query.dimensions)]
    order = ["cost", *names]
    descending = [True, *(False for _ in names)]
    if query.granularity != "total":
        order, descending = ["period_start", *order], [False, *descending]
    frame = frame.sort(order, descending=descending, nulls_last=True)
    if query.granularity != "total":
        frame = frame.with_columns(pl.col("period_start").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
        names = [*query.dimensions, "period_start", *names[len(query.dimensions) :]]
    return frame.select(*names, *COST_AMOUNTS, *omitted_columns(frame))


def matching_costs(books: ScopedBooks, query: CostQuery) -> pl.LazyFrame:
    """The published rows of `costs` that a query sums. "Billed" holds no estimate. (LA-1)"""
    frame = scan_runs(books, COSTS, published(books), query.view)
    if query.basis == "billed":
        frame = frame.filter(pl.col("basis") == "billed")
    if query.calendar == "invoice":
        frame = frame.filter(_is_invoiced(query, books.settings.report.timezone))
    elif query.start is not None or query.end is not None:
        frame = frame.filter(used_within(query.start, query.end, books.settings.report.timezone))
    for name, values in query.filters.items():
        frame = frame.filter(_equals(query.column(name), values))
    return frame


def _is_invoiced(query: CostQuery, timezone: str) -> pl.Expr:
    """Whether a row's invoice month lies in the query's range, both ends of which must be months."""
    condition = pl.lit(value=True)
    for name, instant in (("start", query.start), ("end", query.end)):
        if instant is None:
            continue
        local = instant.astimezone(ZoneInfo(timezone))
        if local != local.replace(day=1, hour=0, minute=0, second=0, microsecond=0):
            raise UsageError(
                f"{local.isoformat()} is no month, and invoices are of months",
                where=name,
                remedy="write it as 2026-10, or ask for calendar usage",
            )
        month = month_of(local)
        condition = condition & (pl.col("month") >= month if name == "start" else pl.col("month") < month)
    return condition


def cells(books: ScopedBooks, query: CostQuery) -> pl.LazyFrame:
    """The matching rows as dimensions, currency, `cost` and, unless the granularity is total, `period_start` as text."""
    names = [pl.col(query.column(name)).alias(name) for name in query.dimensions if name != "currency"]
    time = [period(books, query).dt.strftime("%Y-%m-%dT%H:%M:%S%:z")] if query.granularity != "total" else []
    return matching_costs(books, query).select(*names, *time, "currency", cost=pl.col(f"{query.basis}_cost"))


def period(books: ScopedBooks, query: CostQuery) -> pl.Expr:
    """`period_start`: the start of the period that a row of `costs` is reported in, in the reporting timezone. (TI-1a)"""
    zone = books.settings.report.timezone
    if query.calendar == "invoice":
        first = (pl.col("month") + "-01").str.to_datetime("%Y-%m-%d", time_unit="us")
        return first.dt.replace_time_zone(zone, ambiguous="earliest").alias("period_start")
    return time_of_use(zone).dt.truncate(_TRUNCATE[query.granularity]).alias("period_start")


def _equals(column: str, values: Sequence[str]) -> pl.Expr:
    non_empty = [v for v in values if v]
    mask = pl.col(column).is_in(pl.Series(non_empty, dtype=pl.String).implode()).fill_null(value=False)
    return mask | pl.col(column).is_null() | (pl.col(column) == "") if "" in values else mask


@one_publication
def cost_table(books: ScopedBooks, query: CostQuery) -> CostTable:
    """Costs as a document: rows, totals by currency, and the published runs."""
    return as_cost_table(books, query, costs(books, query))


def as_cost_table(books: ScopedBooks, query: CostQuery, frame: pl.DataFrame, rates: Sequence[RateUsed] = ()) -> CostTable:
    """The rows of a report as a document."""
    sums = [*COST_AMOUNTS, *omitted_columns(frame)]
    totals = frame.group_by("currency").agg(pl.col(sums).sum()).sort("currency")
    return CostTable.model_construct(
        by=list(query.dimensions),
        view=query.view,
        basis=query.basis,
        granularity=query.granularity,
        calendar=query.calendar or "usage",
        timezone=books.settings.report.timezone,
        start=query.start,
        end=query.end,
        runs={m.month: m.run_id for m in published(books)},
        totals=dict(totals.select("currency", "cost").iter_rows()),
        totals_billed=dict(totals.select("currency", "cost_billed").iter_rows()),
        totals_estimated=dict(totals.select("currency", "cost_estimated").iter_rows()),
        totals_omitted=dict(totals.filter(pl.col("omitted_rows") > 0).select("currency", "omitted_cost").iter_rows())
        if "omitted_rows" in sums
        else {},
        rates=list(rates),
        rows=[CostRow.model_construct(**{"period_start": None, **row}) for row in frame.iter_rows(named=True)],
    )


@one_publication
def balance(books: WholeBooks, months: Sequence[str] | None = None) -> pl.DataFrame:
    """Control totals of the published runs, one row for each (currency, invoice month, provider, cost column). (MO-2)

    `months` selects invoice months; None or empty: all. `rounding` is the amount lost by rounding on import, at full precision, as text.
    """
    requested_months = set(months or ())
    for month in requested_months:
        parse_month(month)
    in_force = [m for m in published(books) if not requested_months or m.month in requested_months]
    frame = scan_runs(books, BALANCE, in_force, WHOLE, month_column="invoice_month")
    return frame.select(BALANCE_KEYS).sort("invoice_month", "currency", "provider", "cost_column").collect()


def parse_month(text: str) -> datetime:
    """Start of a month given as YYYY-MM; raises `UsageError` for other texts."""
    try:
        if len(text) != 7:
            raise ValueError(text)
        return month_start(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no month", where="month", remedy="write it as 2026-10") from error
