"""The list cost of calls: cells, readings, tokens and other usage combined."""

from __future__ import annotations

import polars as pl

from attribution.pricing.book import PriceBook
from attribution.pricing.cells import cells
from attribution.pricing.costs import Units, meter_costs, money, total_units
from attribution.pricing.other_usage import ROW, other_costs
from attribution.pricing.readings import resolve_readings
from ledger.money import MONEY
from ledger.tables import TOKEN_METERS


def add_list_cost(calls: pl.DataFrame, book: PriceBook) -> pl.DataFrame:
    """Adds `list_cost` (MONEY; null: unpriced), its parts ``__cost_<meter>``, `context_above`, `price_key` and `tier_at_standard` to metered calls.

    `calls` has the disjoint token meters, prompt_tokens, provider, region, request_model, response_model, service_tier, start_time
    and cache_hit, and may have other_usage, end_time, reported_cost and the flags of `metering.disjoint`: usage with two possible readings is
    read as its reported cost requires (CA-5). Above a context threshold the whole request is repriced. A gateway cache hit costs 0; what was
    not reported stays null; what the book has no rate for is null, and with it the call's `list_cost`.

    Usage that is not counted in tokens is in ``__other``, a list of (meter, quantity, list_cost), null for nearly every call; see
    `other_meters`. It is part of `list_cost`.
    """
    cell_table = cells(calls, book)
    calls, cell_table = resolve_readings(calls, cell_table, book)
    used = [m for m in TOKEN_METERS if calls[m].null_count() < calls.height]
    units = meter_costs(calls, cell_table, used)
    extra = other_costs(calls, cell_table)
    if extra.height:
        units = {m: _without_cost(calls[m], u, extra.filter(pl.col("instead_of") == m)["row"]) for m, u in units.items()}
        by_row = extra.group_by("row").agg(
            cost=pl.col("list_cost").sum().to_physical(),
            unknown=pl.col("list_cost").is_null().any(),
            other=pl.struct("meter", "quantity", "list_cost"),
        )
        at = calls.select(row=pl.int_range(pl.len(), dtype=pl.UInt32)).join(by_row, on="row", how="left", maintain_order="left")
        amount = total_units(calls, units, at["cost"], at["unknown"].fill_null(value=False))
        other = at["other"].cast(pl.List(ROW))
    else:
        amount, other = total_units(calls, units), pl.Series(dtype=pl.List(ROW))
    columns: list[pl.Series | pl.Expr] = [
        money(units[m].cost).alias(f"__cost_{m}") if m in units else pl.lit(None, dtype=MONEY).alias(f"__cost_{m}")
        for m in TOKEN_METERS
    ]
    other_column = other.alias("__other") if extra.height else pl.lit(None, dtype=pl.List(ROW)).alias("__other")
    out = calls.with_columns(
        *columns,
        other_column,
        money(amount).alias("list_cost"),
        context_above=cell_table.context_above,
        price_key=cell_table.price_key,
        tier_at_standard=cell_table.tier_at_standard,
    )
    if "__lifetime_unknown" in out.columns:
        out.drop_in_place("__lifetime_unknown")
    return out


def _without_cost(tokens: pl.Series, units: Units, rows: pl.Series) -> Units:
    """Tokens that cost 0 because the model is sold by another unit of the same usage."""
    rows = rows.filter(tokens.gather(rows).is_not_null())
    return units._replace(cost=units.cost.clone().scatter(rows, 0)) if len(rows) else units
