"""Sellers: the provider of calls that name none, as the bill tells it. (RA-1b)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from attribution.classification import names
from attribution.costs.charge_groups import sells_meter, sells_model
from attribution.costs.pools import pool_hours
from attribution.pricing import PriceBook
from ledger.tables import COST_COLUMNS, TIME

NOTHING_SOLD = pl.DataFrame(schema={"provider": pl.String, "model": pl.String, "hour": TIME})
_TICK = timedelta(microseconds=1)


def unnamed_providers(families: pl.DataFrame, groups: pl.DataFrame, book: PriceBook) -> list[str | None]:
    """Providers in logs that name no provider: null, and names that neither the classification, the bill nor the price book has."""
    logged_names = families["provider"].unique().to_list()
    provider_names = {row["provider"] for row in names.table("providers")} | set(groups["provider"].drop_nulls().unique())
    if any(name not in provider_names for name in logged_names if name is not None):
        provider_names |= {names.provider(name) or "" for name in book.prices["provider"].unique()}
    return sorted((name for name in logged_names if name is None or name not in provider_names), key=str)


def seller_hours(groups: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Model and hour of all usage that the bill sells, with the only provider that sells it; null where there are several."""
    sold_tokens = pl.concat(
        [
            frame.filter(
                pl.col("role").is_in(["tokens", "driver"]),
                sells_meter() | sells_model(),
                pl.col("model").is_not_null() & pl.col("provider").is_not_null(),
            ).select("provider", "model", "pool_start", "pool_end")
            for frame in groups
        ]
    ).unique()
    if not sold_tokens.height:
        return NOTHING_SOLD
    hours = sold_tokens.join(pool_hours(sold_tokens), on=["pool_start", "pool_end"])
    sellers = hours.group_by("model", "hour").agg(pl.col("provider").unique().sort())
    only_seller = pl.when(pl.col("provider").list.len() == 1).then(pl.col("provider").list.first())
    return sellers.select(only_seller.alias("provider"), "model", "hour").sort("model", "hour")


def with_sellers(families: pl.DataFrame, unnamed_providers: Sequence[str | None], hours: pl.DataFrame) -> pl.DataFrame:
    """Families of usage; those without a provider are there once more under each provider that sells a model alone."""
    sellers = hours.select("provider").drop_nulls().unique()
    unnamed_families = families.filter(is_unnamed(unnamed_providers)).drop("provider").join(sellers, how="cross")
    return pl.concat([families, unnamed_families.select(families.columns)]).unique()


def is_unnamed(unnamed_providers: Sequence[str | None]) -> pl.Expr:
    """Whether the provider of a row is one of these, null among them."""
    stated_names = [name for name in unnamed_providers if name is not None]
    is_stated = pl.col("provider").is_in(stated_names).fill_null(value=False)
    return is_stated | pl.col("provider").is_null() if None in unnamed_providers else is_stated


def infer_providers(usage: pl.DataFrame, unnamed_providers: Sequence[str | None], hours: pl.DataFrame) -> pl.DataFrame:
    """Usage with the provider of each row that names none: the only one that sells its model in its hour, flagged; else as it is, flagged.

    >>> from datetime import UTC, datetime
    >>> hour = datetime(2026, 9, 1, 9, tzinfo=UTC)
    >>> usage = pl.DataFrame({"provider": [None, None], "model": ["m", "n"], "hour": [hour] * 2, "reason": [None, None]},
    ...     schema={"provider": pl.String, "model": pl.String, "hour": TIME, "reason": pl.String})
    >>> sold = pl.DataFrame({"provider": ["OpenAI"], "model": ["m"], "hour": [hour]}, schema=NOTHING_SOLD.schema)
    >>> infer_providers(usage, [None], sold).select("provider", "reason").rows()
    [('OpenAI', 'provider_inferred'), (None, 'no_provider')]
    """
    seller = hours.select("model", "hour", seller="provider", is_sold=pl.lit(value=True))
    frame = usage.join(seller, on=["model", "hour"], how="left", maintain_order="left")
    is_open = is_unnamed(unnamed_providers) & pl.col("model").is_not_null()
    # A provider that only its own logs name stays where nobody else sells its model.
    is_unknown = is_open & pl.col("seller").is_null() & (pl.col("provider").is_null() | pl.col("is_sold").fill_null(value=False))
    flag = (
        pl.when(is_open & pl.col("seller").is_not_null())
        .then(pl.lit("provider_inferred"))
        .when(is_unknown)
        .then(pl.lit("no_provider"))
    )
    return frame.with_columns(
        provider=pl.when(is_open).then(pl.coalesce("seller", "provider")).otherwise("provider"),
        reason=pl.concat_str(flag, "reason", separator=",", ignore_nulls=True).replace("", None),
    ).drop("seller", "is_sold")


def has_no_provider() -> pl.Expr:
    """Whether a row of usage has the reason `no_provider`."""
    return pl.col("reason").str.split(",").list.contains("no_provider").fill_null(value=False)


def is_beside_uncaptured(usage: pl.DataFrame, unmatched_groups: pl.DataFrame) -> pl.Series:
    """Whether a row without a provider may be what the bill of that day has beyond the logs: an estimate would count it twice."""
    days = (
        unmatched_groups.filter(
            pl.col("reason").is_in(["uncaptured_usage", "no_logged_use"]), pl.any_horizontal(pl.col(c) != 0 for c in COST_COLUMNS)
        )
        .select("model", day=pl.date_ranges(pl.col("pool_start").dt.date(), (pl.col("pool_end") - _TICK).dt.date()))
        .explode("day")
        .unique()
        .with_columns(is_uncaptured=pl.lit(value=True))
    )
    rows = usage.select("model", is_open=has_no_provider(), day=pl.col("hour").dt.date())
    rows = rows.join(days, on=["model", "day"], how="left", maintain_order="left")
    return rows.select(covered=pl.col("is_open") & pl.col("is_uncaptured").fill_null(value=False)).to_series()
