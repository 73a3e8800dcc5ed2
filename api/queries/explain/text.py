"""The figure to explain, its ranked groups, and the wording of amounts, periods and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import polars as pl

from api.models import Basis, Link, Part, Remainder, View
from api.queries.gate import ScopedBooks
from ledger import money

Costs = dict[str, Decimal]
"""Currency to amount."""

UNKNOWN_NAMES = (None, "", "unknown")


@dataclass(frozen=True)
class Figure:
    """A figure: rows of `costs` with one column `cost` (its part of the row, null where unpriced) instead of the four cost columns.

    `calls` are rows of `calls` where the figure is about certain calls, `charges` rows of `charges` where it is about certain charges;
    None: about all of the rows. `most` is the maximum number of lines of a step.
    """

    books: ScopedBooks
    rows: pl.LazyFrame
    basis: Basis = "effective"
    view: View = "initiator"
    most: int = 20
    calls: pl.DataFrame | None = None
    charges: pl.DataFrame | None = None
    cost: Costs = field(default_factory=dict)
    estimated: Costs = field(default_factory=dict)

    @property
    def billed_rows(self) -> pl.LazyFrame:
        """Rows that a bill covers."""
        return self.rows.filter(pl.col("basis") == "billed")

    @property
    def estimated_rows(self) -> pl.LazyFrame:
        """Rows that no bill covers yet."""
        return self.rows.filter(pl.col("basis") == "estimated")


@dataclass(frozen=True, slots=True)
class TopGroups:
    """The groups of a figure's rows with the highest cost, the number of all groups and their sum."""

    top: list[dict[str, Any]]
    count: int
    sum: Costs

    def remainder(self) -> Remainder | None:
        """Count and sum of the groups that are not in `top`."""
        if self.count <= len(self.top):
            return None
        return Remainder(count=self.count - len(self.top), cost=minus(self.sum, total(self.top)))


def top_groups(rows: pl.LazyFrame, by: Sequence[str], most: int, *also: pl.Expr) -> TopGroups:
    """Rows summed by `by` and currency, limited to the `most` with the highest absolute cost. `also` are further aggregates."""
    keys = [*dict.fromkeys([*by, "currency"])]
    cost = pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum())
    groups = rows.group_by(keys).agg(cost.alias("cost"), *also)
    plainly = [key for key in keys if not key.endswith("_ids")]
    dearest = groups.sort(
        [pl.col("cost").abs(), *map(pl.col, plainly)], descending=[True, *(False for _ in plainly)], nulls_last=True
    ).head(most)
    totals = groups.group_by("currency").agg(pl.col("cost").sum(), priced=pl.col("cost").count(), groups=pl.len())
    top, whole = pl.collect_all([dearest, totals.sort("currency")])
    return TopGroups(
        top.to_dicts(),
        int(whole["groups"].sum()),
        {row["currency"]: row["cost"] for row in whole.iter_rows(named=True) if row["priced"]},
    )


def total(rows: Iterable[Mapping[str, Any]]) -> Costs:
    """Sum of `cost` by currency; unpriced rows are left out."""
    out: Costs = {}
    for row in rows:
        if row["cost"] is not None:
            out[row["currency"]] = out.get(row["currency"], Decimal(0)) + row["cost"]
    return out


def minus(whole: Costs, part: Costs) -> Costs:
    """The difference by currency."""
    return {currency: whole.get(currency, Decimal(0)) - part.get(currency, Decimal(0)) for currency in {*whole, *part}}


def nonzero(costs: Costs) -> Costs:
    """The currencies whose amount is not 0."""
    return {currency: cost for currency, cost in costs.items() if cost}


def cost_by_currency(rows: pl.LazyFrame) -> Costs:
    """Sum of all rows by currency."""
    frame = rows.filter(pl.col("cost").is_not_null()).group_by("currency").agg(pl.col("cost").sum()).sort("currency")
    return dict(frame.collect().iter_rows())


def amount(cost: Decimal | None, currency: str | None) -> str:
    """An amount in a sentence, with all its digits."""
    return "no price" if cost is None else f"{money.text(cost)} {currency}"


def amounts(costs: Costs) -> str:
    """Amounts of several currencies in a sentence."""
    return " and ".join(amount(cost, currency) for currency, cost in sorted(costs.items())) or "nothing"


def of_it(costs: Costs) -> str:
    """A part of the figure, as the subject of a sentence."""
    return f"{amounts(costs)} of it" if costs else "Usage without a price"


def dollars(row: Mapping[str, Any]) -> str:
    """The cost of a row, as the object of a sentence."""
    return "usage without a price" if row["cost"] is None else amount(row["cost"], row["currency"])


def count(number: Decimal | int | None) -> str:
    """A quantity in a sentence.

    >>> count(Decimal("10000.000")), count(3), count(None)
    ('10,000', '3', 'an unknown number')
    """
    if number is None:
        return "an unknown number"
    digits = money.text(Decimal(number)) or "0"
    whole, point, fraction = digits.partition(".")
    return f"{int(whole):,}{point}{fraction}"


def when(start: datetime, end: datetime | None = None) -> str:
    """An instant, or a period, in UTC."""
    first = f"{start:%Y-%m-%d %H:%M}"
    if end is None:
        return f"{first} UTC"
    return f"{first} to {f'{end:%H:%M}' if end.date() == start.date() else f'{end:%Y-%m-%d %H:%M}'} UTC"


def local(at: datetime, zone: str) -> str:
    """An instant in a timezone; midnight is written as its date.

    >>> from datetime import UTC
    >>> local(datetime(2026, 10, 1, tzinfo=UTC), "UTC"), local(datetime(2026, 10, 1, tzinfo=UTC), "Europe/Berlin")
    ('2026-10-01', '2026-10-01 02:00')
    """
    local_time = at.astimezone(ZoneInfo(zone))
    return (
        f"{local_time:%Y-%m-%d}"
        if not (local_time.hour or local_time.minute or local_time.second)
        else f"{local_time:%Y-%m-%d %H:%M}"
    )


def meter(name: str | None) -> str:
    """The name of a meter in a sentence."""
    return (name or "units").replace("_", " ")


def owner_name(agent: str | None, team: str | None) -> str:
    """An agent and its team in a sentence."""
    if agent in UNKNOWN_NAMES:
        return f"team {team}" if team else "nobody known"
    return f"{agent} of team {team}" if team else f"{agent} (no team known)"


def reason(words: str | None) -> str:
    """Reasons of a row in a sentence."""
    return ", ".join((word or "").replace("_", " ") for word in (words or "").split(","))


def link(kind: Literal["chain", "call", "charge"], ref: str) -> Link:
    """A reference to another figure."""
    return Link(kind=kind, ref=ref, address=f"/v1/explain/{quote(ref, safe='')}")


def cell_link(parameters: Iterable[tuple[str, str]]) -> Link:
    """A reference to a cell of a report."""
    query = urlencode([(name, value) for name, value in parameters if value or name == "filter"])
    return Link(kind="cell", ref=query, address=f"/v1/explain/cell?{query}")


def call_ref(row: Mapping[str, Any]) -> str:
    """The reference of a call: trace and span id, else the gateway's or the provider's id."""
    if row.get("trace_id") and row.get("span_id"):
        return f"{row['trace_id']}:{row['span_id']}"
    return row.get("gateway_call_id") or row.get("provider_request_id") or row.get("span_id") or "?"


def part(sentence: str, row: Mapping[str, Any], *, link: Link | None = None, **facts: Any) -> Part:
    """A line with the cost of a row."""
    return Part(sentence=sentence, cost=row["cost"], currency=row["currency"], facts=json_values(facts), link=link)


def json_values(value: Any) -> Any:
    """A value in JSON types: money as decimal strings, times as ISO 8601; null fields are left out."""
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, Decimal):
        return money.text(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value
