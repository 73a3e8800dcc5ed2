"""Queries of costs by dimension and of the balance, over published runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, get_args

import polars as pl

from api.models import Basis, CostRow, CostTable, Granularity, View
from api.queries.published import published, scan_runs
from ledger import money
from ledger.books import Books
from ledger.errors import UsageError
from ledger.periods import month_start, parse_instant
from ledger.tables import BALANCE, COST_CLASSES, COSTS

DIMENSIONS: tuple[str, ...] = tuple(c.name for c in COSTS.columns if c.dtype == pl.String and c.name != "run_id")
"""Columns of `costs` that rows can be grouped and filtered by."""

RELATIVE = {"agent": "{view}_agent", "team": "{view}_team"}
"""Dimensions that stand for the initiator's or the executor's column, depending on the view."""

COST_KEYS = ("cost_class", "reason", "currency")
"""Keys of every row: cost classes and currencies are never summed together. (RA-7)"""

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

    Filters keep rows whose dimension equals one of the values exactly; "" matches unknown (null).
    """

    by: tuple[str, ...] = ()
    view: View = "initiator"
    start: datetime | None = None
    end: datetime | None = None
    granularity: Granularity = "total"
    basis: Basis = "effective"
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
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
        timezone: str = "UTC",
    ) -> Self:
        """Parses the text of parameters: ``by="team,model"``, ``filters=["team=Care"]``, days and months in `timezone`.

        >>> CostQuery.parse(by="team,model", filters=["team=Care", "team=Dev"]).filters
        {'team': ('Care', 'Dev')}
        """
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
            start=parse_instant(start, field="start", timezone=timezone) if start else None,
            end=parse_instant(end, field="end", timezone=timezone) if end else None,
            granularity=granularity,  # type: ignore[arg-type]
            basis=basis,  # type: ignore[arg-type]
            filters=conditions,
        )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimensions of the rows: `by`, or the view's team and agent."""
        return self.by or ("team", "agent")

    @property
    def dimensions_in_time(self) -> tuple[str, ...]:
        """Dimensions, and `period_start` unless the granularity is total."""
        return (*self.dimensions, *(("period_start",) if self.granularity != "total" else ()))

    def parameters(self) -> list[tuple[str, str]]:
        """The query as parameters of `GET /v1/costs`."""
        instants = [(name, at.isoformat()) for name, at in (("start", self.start), ("end", self.end)) if at is not None]
        conditions = [("filter", f"{name}={value}") for name, values in self.filters.items() for value in values]
        shape = [("view", self.view), *instants, ("granularity", self.granularity), ("basis", self.basis)]
        usual = {("granularity", "total"), ("basis", "effective")}
        return [("by", ",".join(self.by)), *(pair for pair in shape if pair not in usual), *conditions]

    def column(self, dimension: str) -> str:
        """Column of `costs` a dimension stands for."""
        return RELATIVE.get(dimension, dimension).format(view=self.view)


def costs(books: Books, query: CostQuery) -> pl.DataFrame:
    """Cost by the query's dimensions, then [period_start], cost_class, reason, currency.

    `cost` is MONEY, null only where no row of the group has the cost column. `period_start` is text, ISO 8601 with the
    reporting timezone's offset. Sorted by time, then by cost, highest first.
    """
    return _grouped(books, query).collect()


def matching_costs(books: Books, query: CostQuery) -> pl.LazyFrame:
    """The published rows of `costs` that a query sums."""
    frame = scan_runs(books, COSTS, published(books))
    if query.start is not None:
        frame = frame.filter(pl.col("period_start") >= query.start)
    if query.end is not None:
        frame = frame.filter(pl.col("period_start") < query.end)
    for name, values in query.filters.items():
        frame = frame.filter(_equals(query.column(name), values))
    return frame


def cells(books: Books, query: CostQuery) -> pl.LazyFrame:
    """The matching rows as dimensions, currency, `cost` and, unless the granularity is total, `period_start` as text."""
    names = [pl.col(query.column(name)).alias(name) for name in query.dimensions if name != "currency"]
    time = [_period(books, query).dt.strftime("%Y-%m-%dT%H:%M:%S%:z")] if query.granularity != "total" else []
    return matching_costs(books, query).select(*names, *time, "currency", cost=pl.col(f"{query.basis}_cost"))


def _period(books: Books, query: CostQuery) -> pl.Expr:
    local = pl.col("period_start").dt.convert_time_zone(books.settings.report.timezone)
    return local.dt.truncate(_TRUNCATE[query.granularity]).alias("period_start")


def _grouped(books: Books, query: CostQuery) -> pl.LazyFrame:
    keys = [pl.col(query.column(name)).alias(name) for name in query.dimensions]
    if query.granularity != "total":
        keys.append(_period(books, query))
    keys += [pl.col(name) for name in COST_KEYS if name not in query.dimensions]
    amount = pl.col(f"{query.basis}_cost")
    frame = matching_costs(books, query).group_by(keys).agg(cost=pl.when(amount.count() > 0).then(amount.sum()))
    names = [*query.dimensions, *(n for n in COST_KEYS if n not in query.dimensions)]
    order = [pl.col("cost"), *map(pl.col, names)]
    descending = [True, *(False for _ in names)]
    if query.granularity != "total":
        order, descending = [pl.col("period_start"), *order], [False, *descending]
    frame = frame.sort(order, descending=descending, nulls_last=True)
    if query.granularity != "total":
        frame = frame.with_columns(pl.col("period_start").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
        names = [*query.dimensions, "period_start", *names[len(query.dimensions) :]]
    return frame.select(*names, "cost")


def _equals(column: str, values: Sequence[str]) -> pl.Expr:
    non_empty = [v for v in values if v]
    mask = pl.col(column).is_in(pl.Series(non_empty, dtype=pl.String).implode()).fill_null(value=False)
    return mask | pl.col(column).is_null() | (pl.col(column) == "") if "" in values else mask


def cost_table(books: Books, query: CostQuery) -> CostTable:
    """Costs as a document: rows, totals by currency, and the published runs."""
    frame = costs(books, query)
    totals = frame.group_by("currency").agg(pl.col("cost").sum()).sort("currency")
    return CostTable.model_construct(
        by=list(query.dimensions),
        view=query.view,
        basis=query.basis,
        granularity=query.granularity,
        timezone=books.settings.report.timezone,
        start=query.start,
        end=query.end,
        runs={m.month: m.run_id for m in published(books)},
        totals=dict(totals.iter_rows()),
        rows=[CostRow.model_construct(**{"period_start": None, **row}) for row in frame.iter_rows(named=True)],
    )


def balance(books: Books, months: Sequence[str] | None = None) -> pl.DataFrame:
    """Control totals of the published runs, one row for each (currency, invoice month, provider, cost column). (MO-2)

    `months` selects invoice months; None or empty: all. `rounding` is the amount lost by rounding on import, at full precision, as text.
    """
    requested_months = set(months or ())
    for month in requested_months:
        parse_month(month)
    in_force = [m for m in published(books) if not requested_months or m.month in requested_months]
    frame = scan_runs(books, BALANCE, in_force, month_column="invoice_month")
    return frame.select(BALANCE_KEYS).sort("invoice_month", "currency", "provider", "cost_column").collect()


def parse_month(text: str) -> datetime:
    """Start of a month given as YYYY-MM; raises `UsageError` for other texts."""
    try:
        if len(text) != 7:
            raise ValueError(text)
        return month_start(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no month", where="month", remedy="write it as 2026-10") from error


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with money columns as decimal strings, for CSV and JSON."""
    amounts = [name for name, dtype in frame.schema.items() if dtype == money.MONEY]
    return frame.with_columns(pl.col(name).map_elements(money.text, return_dtype=pl.String) for name in amounts)
