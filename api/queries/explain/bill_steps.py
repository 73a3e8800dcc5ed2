"""Steps about the bill: the charges of a figure, the pools they were rated in, and the resulting rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Part, Remainder, Step
from api.queries.explain import text
from api.queries.explain.text import Figure, amount, amounts, count, meter
from api.queries.gate import WHOLE, ScopedBooks, published, scan_runs
from ledger import money
from ledger.charge_groups import CHARGE_GROUP_KEY, with_group_key
from ledger.plurals import counted
from ledger.tables import CHARGES, COSTS, LOTS, RATES, RAW_FILES

GroupId = tuple[str, str, int]
"""Month, run and number of a charge group (`lot_id`)."""

_MAX_GROUPS = 20_000
"""Maximum number of charge groups of summed rows that are resolved; the others are counted in the remainder."""
_GROUP_FACTS = ("role", "model", "meter", "billed_quantity", "unit")


def charge_step(figure: Figure) -> Step | None:
    """The charges of the figure, and the amount from each. (RA-1)"""
    rows = figure.billed_rows.filter(pl.col("lot_id").is_not_null() | pl.col("lot_ids").is_not_null())
    whole = text.cost_by_currency(rows)
    if not whole and rows.head(1).collect().is_empty():
        return None
    group_costs = _costs_by_group(figure)
    charges = _charges_of(figure, group_costs)
    top_charges = charges[: figure.most]
    charge_count = int(_charge_groups(figure.books, list(group_costs))["charges"].sum())
    remainder = text.minus(whole, text.total(top_charges))
    sentence = (
        f"{amounts(whole)} of it comes from the bill: {counted(charge_count, 'charge')} in {counted(len(group_costs), 'charge group')}. "
        "A charge group is a set of charges with the same keys; within it, a charge counts in proportion to its amount."
    )
    return Step(
        step="charge",
        rule="RA-1",
        sentence=sentence,
        facts={"charges": charge_count, "lots": len(group_costs)},
        parts=[_charge_part(row) for row in top_charges],
        rest=Remainder(count=max(charge_count - len(top_charges), 0), cost=remainder)
        if charge_count > len(top_charges) or text.nonzero(remainder)
        else None,
        sum=whole,
    )


def _charge_part(row: Mapping[str, Any]) -> Part:
    whole = "" if row["cost"] == row["amount"] else f" of its {amount(row['amount'], row['currency'])}"
    link = text.link("charge", row["charge_id"])
    names = ("charge_id", "scope", "uri", "raw_id", "line", "billing_month", "charge_category", "amount", "lot_id", *_GROUP_FACTS)
    return text.part(
        f"{charge_line(row)}: {amount(row['cost'], row['currency'])}{whole}", row, link=link, **{n: row[n] for n in names}
    )


def file_name(uri: str) -> str:
    """A local path as the name of its file; other addresses are unchanged. The part's `uri` has the whole path.

    >>> file_name("/bills/october.csv"), file_name("s3://bills/cur/part-3.parquet")
    ('october.csv', 's3://bills/cur/part-3.parquet')
    """
    return uri.rsplit("/", 1)[-1] if uri.startswith("/") else uri


def charge_line(row: Mapping[str, Any]) -> str:
    """File, line and description of a charge."""
    seller = ", ".join(name for name in (row["provider_name"], row["service_name"]) if name)
    description = row["original_description"] or row["sku_meter"]
    file = file_name(row["uri"])
    place = f"line {row['line']} of {file}" if row["line"] is not None else f"a row of {file}"
    return f"{place} ({row['charge_id']}), {row['charge_category']} of {seller}{f', {description}' if description else ''}"


def _costs_by_group(figure: Figure) -> dict[GroupId, tuple[str, Decimal]]:
    """Amount of each charge group in the figure, highest first: from its own cost rows, and its share of rows that sum several groups."""
    single = figure.billed_rows.filter(pl.col("lot_id").is_not_null(), pl.col("cost").is_not_null())
    direct = single.group_by("month", "run_id", "lot_id", "currency").agg(pl.col("cost").sum()).collect()
    costs: dict[tuple[GroupId, str], Decimal] = {
        ((month, run, group), currency): cost for month, run, group, currency, cost in direct.iter_rows()
    }
    pooled_rows = figure.billed_rows.filter(pl.col("lot_ids").is_not_null(), pl.col("cost").is_not_null())
    rows = pooled_rows.group_by("month", "run_id", "lot_ids", "currency").agg(pl.col("cost").sum()).collect()
    rows = rows.sort(pl.col("cost").abs(), pl.col("lot_ids").list.first(), descending=[True, False])
    rows = rows.filter(pl.col("lot_ids").list.len().cum_sum() <= _MAX_GROUPS)
    unassigned_by_group = unassigned_costs(
        figure, [(m, r, group) for m, r, groups in rows.select("month", "run_id", "lot_ids").iter_rows() for group in groups]
    )
    for month, run, groups, currency, cost in rows.iter_rows():
        for group, share in zip(
            groups, by_weights(cost, [unassigned_by_group.get((month, run, n), Decimal(0)) for n in groups]), strict=True
        ):
            at = ((month, run, group), currency)
            costs[at] = costs.get(at, Decimal(0)) + share
    order = sorted(costs.items(), key=lambda item: (-abs(item[1]), item[0]))
    return {group: (currency, cost) for (group, currency), cost in order}


def by_weights(cost: Decimal, weights: Sequence[Decimal]) -> list[Decimal]:
    """A cost split by weights; evenly where the weights sum to 0."""
    if not weights:
        return []
    return money.share_out(cost, weights if sum(weights, Decimal(0)) else [Decimal(1)] * len(weights))


def unassigned_costs(figure: Figure, group_ids: Sequence[GroupId]) -> dict[GroupId, Decimal]:
    """The part of each charge group that no usage was matched to: its amount minus its own rows of `costs`. Summed rows consist of it. (RA-4)"""
    if not group_ids:
        return {}
    keys = _group_keys(group_ids)
    column = f"{figure.basis}_cost"
    spent = (
        scan_runs(figure.books, COSTS, published(figure.books), WHOLE)
        .join(keys.lazy(), on=["month", "run_id", "lot_id"], how="semi")
        .group_by("month", "run_id", "lot_id")
        .agg(spent=pl.col(column).sum())
        .collect()
    )
    groups = _charge_groups(figure.books, group_ids).join(spent, on=["month", "run_id", "lot_id"], how="left")
    groups = groups.with_columns(left=pl.col(column).fill_null(0) - pl.col("spent").fill_null(0))
    return {
        (m, r, n): unassigned_cost for m, r, n, unassigned_cost in groups.select("month", "run_id", "lot_id", "left").iter_rows()
    }


def _group_keys(group_ids: Sequence[GroupId]) -> pl.DataFrame:
    schema = {name: LOTS.schema[name] for name in ("month", "run_id", "lot_id")}
    return pl.DataFrame(list(dict.fromkeys(group_ids)), schema=schema, orient="row")


def _charge_groups(books: ScopedBooks, group_ids: Sequence[GroupId]) -> pl.DataFrame:
    return (
        scan_runs(books, LOTS, published(books), WHOLE)
        .join(_group_keys(group_ids).lazy(), on=["month", "run_id", "lot_id"], how="semi")
        .collect()
    )


def charges_in(books: ScopedBooks, groups: pl.DataFrame) -> pl.DataFrame:
    """The charges of these charge groups (rows of `lots`), by their keys: rows of `charges` with month, run_id, lot_id, uri and `original_description`."""
    if not groups.height:
        return CHARGES.empty().with_columns(pl.lit(None, dtype=pl.Int64).alias("lot_id"))
    months = groups["month"].unique().sort().to_list()
    candidates = books.whole.store.scan(CHARGES, {"billing_month": months}).filter(
        pl.col("charge_period_start").is_in(groups["charge_period_start"].unique().implode())
    )
    group_rows = groups.select("month", "run_id", "lot_id", *_GROUP_FACTS[:-1], *CHARGE_GROUP_KEY)
    # The description is not part of the key where the charge has a SKU, so it is kept in a column of its own.
    charges = with_group_key(candidates.with_columns(original_description="charge_description")).join(
        group_rows.lazy(),
        left_on=["billing_month", *CHARGE_GROUP_KEY],
        right_on=["month", *CHARGE_GROUP_KEY],
        nulls_equal=True,
        how="inner",
    )
    return with_files(books, charges.sort("lot_id", "charge_id").collect()).with_columns(month="billing_month")


def with_files(books: ScopedBooks, charges: pl.DataFrame) -> pl.DataFrame:
    """Charges with the address of the file each was read from, or its dataset where the address is unknown."""
    files = books.whole.store.scan(RAW_FILES).filter(pl.col("raw_id").is_in(charges["raw_id"].unique().implode()))
    files = files.group_by("source", "raw_id").agg(pl.col("uri").min())
    return charges.join(files.collect(), on=["source", "raw_id"], how="left", maintain_order="left").with_columns(
        uri=pl.coalesce("uri", "scope")
    )


def _charges_of(figure: Figure, group_costs: Mapping[GroupId, tuple[str, Decimal]]) -> list[dict[str, Any]]:
    """The charges of the largest charge groups with their amounts, highest first; limited to the figure's charges if it has some."""
    column = f"{figure.basis}_cost"
    dearest = list(group_costs)[: figure.most]
    rows: list[dict[str, Any]] = []
    charges_frame = charges_in(figure.books, _charge_groups(figure.books, dearest))
    charge_ids = None if figure.charges is None else set(figure.charges["charge_id"])
    by_group: dict[GroupId, list[dict[str, Any]]] = defaultdict(list)
    for row in charges_frame.iter_rows(named=True):
        if charge_ids is None or row["charge_id"] in charge_ids:
            by_group[row["month"], row["run_id"], row["lot_id"]].append(row)
    for group, charges in by_group.items():
        currency, cost = group_costs[group]
        amounts_of = [row[column] or Decimal(0) for row in charges]
        for row, share in zip(charges, by_weights(cost, amounts_of), strict=True):
            rows.append({**row, "cost": share, "currency": currency, "amount": row[column]})
    return sorted(rows, key=lambda row: (-abs(row["cost"]), row["charge_id"]))


def charge_group_of(books: ScopedBooks, charge: Mapping[str, Any]) -> pl.DataFrame:
    """The published charge group of a charge: a row of `lots`, or no row if its month is not attributed or was restated since."""
    key = with_group_key(pl.LazyFrame([charge], schema=CHARGES.schema)).select(CHARGE_GROUP_KEY).collect().row(0, named=True)
    months = [m for m in published(books) if m.month == charge["billing_month"]]
    rows = scan_runs(books, LOTS, months, WHOLE)
    for name, value in key.items():
        rows = rows.filter(pl.col(name).eq_missing(pl.lit(value, dtype=LOTS.schema[name])))
    return rows.collect()


def _rated_pools(figure: Figure) -> tuple[text.TopGroups, dict[tuple[str, str, str], dict[str, Any]]]:
    rated_rows = figure.billed_rows.filter(pl.col("pool_id").is_not_null(), pl.col("usage_key").is_not_null())
    groups = text.top_groups(rated_rows, ["month", "run_id", "pool_id"], figure.most, pl.col("quantity").sum())
    rows = scan_runs(figure.books, RATES, published(figure.books), WHOLE).filter(
        pl.col("pool_id").is_in(pl.Series([row["pool_id"] for row in groups.top], dtype=pl.String).implode())
    )
    return groups, {(row["month"], row["run_id"], row["pool_id"]): row for row in rows.collect().iter_rows(named=True)}


def _at(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["month"], row["run_id"], row["pool_id"]


def pool_steps(figure: Figure) -> list[Step]:
    """The pools in which charges were matched to calls, and the resulting rates. (RA-1, RA-1a, RA-2, RA-3)"""
    groups, rates = _rated_pools(figure)
    if not groups.count:
        return []
    pool_rates = [rates[_at(row)] for row in groups.top if _at(row) in rates]
    coarse = any(rate["level"] not in ("exact", *_DRIVEN) for rate in pool_rates)
    driven = any(rate["level"] in _DRIVEN for rate in pool_rates)
    pool = Step(
        step="pool",
        rule="RA-1a" if coarse else "RA-1",
        sentence=f"{amounts(groups.sum)} of it was rated in {counted(groups.count, 'pool')}: charges and calls that agree in all keys known on both sides.",
        parts=[_pool_part(row, rates.get(_at(row))) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )
    rate = Step(
        step="rate",
        rule="RA-2, RA-3" if driven and len(pool_rates) > 1 else "RA-3" if driven else "RA-2",
        sentence="The rate of a pool is its charges divided by its denominator D; each call is charged the rate for its usage.",
        parts=[_rate_part(row, rates[_at(row)], figure) for row in groups.top if _at(row) in rates],
        rest=groups.remainder(),
        sum=groups.sum if len(pool_rates) == len(groups.top) else {},
    )
    return [pool, rate]


def _pool_part(row: Mapping[str, Any], rate: Mapping[str, Any] | None) -> Part:
    if rate is None:
        return text.part(f"pool {row['pool_id']}: {amount(row['cost'], row['currency'])}", row, pool_id=row["pool_id"])
    keys = {
        name: rate[name] for name in ("provider", "account", "region", "model", "meter", "resource", "principal") if rate[name]
    }
    level = rate["level"]
    split_by = "use of the resource" if rate["resource"] else "what was logged of it"
    comparison = {"exact": "matched on all keys", **_DRIVEN}.get(level, f"matched {level}").format(split_by)
    sentence = f"{', '.join(keys.values())}, {text.when(rate['period_start'], rate['period_end'])}, {comparison}: {amount(row['cost'], row['currency'])}"
    return text.part(sentence, row, pool_id=row["pool_id"], level=level, flag=rate["flag"] or None, **keys)


_DRIVEN = {
    "driver": "split by {}",
    "model": "split over all calls of the model by list cost, or by quantity where a price is missing",
}
"""Levels of pools without a comparable quantity, in words. (RA-3)"""


def _rate_part(row: Mapping[str, Any], rate: Mapping[str, Any], figure: Figure) -> Part:
    whole, billed_quantity, logged_quantity, denominator = (
        rate[f"{figure.basis}_cost"], rate["billed_quantity"], rate["logged_quantity"], rate["denominator"],
    )  # fmt: skip
    unit, currency, flag = meter(rate["meter"]), row["currency"], rate["flag"] or ""
    if rate["level"] == "model":
        sentence = f"{amount(whole, currency)} was billed for calls of {rate['model']}, whatever they used of it"
        return text.part(
            f"{sentence}: {amount(row['cost'], currency)}", row, pool_id=rate["pool_id"], level="model", pool_cost=whole
        )
    sentence = f"{count(billed_quantity)} {unit} billed for {amount(whole, currency)}, {count(logged_quantity)} logged, so D is {count(denominator)}"
    price = million = None
    if denominator and whole is not None:
        price = money.proportion(whole, Decimal(1), denominator)
        million = money.proportion(whole, Decimal(1_000_000), denominator)
        sentence += f": {amount(million, currency)} a million"
    if "overlogged" in flag:
        sentence += ". More was logged than billed, so all calls are scaled down"
    elif rate["level"] != "driver" and denominator > logged_quantity and figure.books.sees_all:
        missing = money.proportion(whole or Decimal(0), denominator - logged_quantity, denominator)
        sentence += f". {count(denominator - logged_quantity)} were billed but not logged: their {amount(missing, currency)} is uncaptured usage"
    if row["quantity"]:
        sentence += f". This figure includes {count(row['quantity'])} of them"
    facts = {
        name: rate[name] for name in ("pool_id", "level", "billed_quantity", "logged_quantity", "denominator", "list_at_book")
    }
    return text.part(f"{sentence}: {amount(row['cost'], currency)}", row, flag=flag or None, rate=price, rate_per_million=million,
                      pool_cost=whole, quantity=row["quantity"], **facts)  # fmt: skip
