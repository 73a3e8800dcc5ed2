"""Observed rates: unit prices computed from bills, for models that no price list has. (ES-1)"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal  # noqa: F401 - for the doctest

import polars as pl

from ledger.books import Books
from ledger.errors import UsageError
from ledger.money import unit_rate
from ledger.periods import month_start
from ledger.published import runs_in_force
from ledger.tables import PRICES, RATES

_WHAT = ("provider", "model", "meter", "service_tier", "context_above")


def observed_rates(books: Books, month: str) -> pl.DataFrame:
    """The rates that a month's bill comes to, as rows of `prices` valid from the month's first day; empty where no charge was matched.

    Raises `UsageError` if the month has no published run.
    """
    start = month_start(month)
    run_id = runs_in_force(books.database).get(month)
    if run_id is None:
        raise UsageError(f"{month} is not attributed yet", where="--month", remedy=f"run rootcost attribute --from {month} first")
    rates = books.store.scan(RATES, {"month": [month], "run_id": [run_id]}).collect()
    return rates_of_pools(rates, start, book=f"bill {month} run {run_id}")


def rates_of_pools(rates: pl.DataFrame, valid_from: datetime, *, book: str) -> pl.DataFrame:
    """Effective cost over billed quantity, summed over the pools of one model, meter and tier.

    Where regions pay differently each has a rate of its own beside the one over all. A pool without a billed quantity in the meter's unit
    counts by its logged quantity. What is sold in two currencies, or has a negative cost, has no rate.

    Two pools, 10 000 tokens for $0.03 and 20 000 for $0.03, are $0.000002 a token:

    >>> row = dict(provider="AWS", model="m", meter="input_tokens", service_tier="standard", context_above=0, region=None, currency="USD")
    >>> pools = [row | dict(effective_cost=Decimal("0.03"), billed_quantity=Decimal(10_000)),
    ...          row | dict(effective_cost=Decimal("0.03"), billed_quantity=Decimal(20_000))]
    >>> frame = pl.DataFrame(pools, schema={c: RATES.schema[c] for c in pools[0]})
    >>> rates_of_pools(frame, datetime(2026, 10, 1, tzinfo=UTC), book="by hand")["rate"].item()
    Decimal('0.000002000000000000')
    """
    pool_rows = rates.filter(pl.col("model").is_not_null() & pl.col("meter").is_not_null() & pl.col("provider").is_not_null())
    quantity_columns = [c for c in ("billed_quantity", "denominator") if c in pool_rows.columns]
    quantity = pl.coalesce(pl.when(pl.col(c) > 0).then(pl.col(c)) for c in quantity_columns)
    pool_rows = pool_rows.select(
        "provider",
        "model",
        "meter",
        pl.col("service_tier").fill_null("standard"),
        pl.col("context_above").fill_null(0),
        "currency",
        "effective_cost",
        region=pl.col("region").fill_null(""),
        quantity=quantity,
    ).drop_nulls(["quantity", "effective_cost"])
    everywhere = _sum_pools(pool_rows.with_columns(region=pl.lit("")))
    regional = _sum_pools(pool_rows.filter(pl.col("region") != ""))
    regional_prices = regional.group_by(_WHAT).agg(prices=pl.col("rate").n_unique()).filter(pl.col("prices") > 1)
    rate_rows = pl.concat([everywhere, regional.join(regional_prices.select(_WHAT), on=_WHAT, how="semi")])
    return PRICES.conform(
        rate_rows.select(
            pl.lit("observed").alias("origin"),
            pl.lit(book).alias("book"),
            *_WHAT,
            "region",
            "currency",
            "rate",
            pl.lit(valid_from).alias("valid_from"),
            pl.lit(datetime.now(UTC)).alias("recorded_at"),
        ).sort(*_WHAT, "region")
    )


def _sum_pools(pools: pl.DataFrame) -> pl.DataFrame:
    pool_sums = (
        pools.group_by(*_WHAT, "region", "currency")
        .agg(pl.col("effective_cost").sum(), pl.col("quantity").sum())
        .filter(pl.col("effective_cost") >= 0)
    )
    single_currency = pool_sums.group_by(*_WHAT, "region").agg(currencies=pl.len()).filter(pl.col("currencies") == 1)
    pool_sums = pool_sums.join(single_currency, on=[*_WHAT, "region"], how="semi").sort(*_WHAT, "region")
    rates = [unit_rate(cost, quantity) for cost, quantity in pool_sums.select("effective_cost", "quantity").iter_rows()]
    return pool_sums.with_columns(rate=pl.Series("rate", rates, dtype=PRICES.schema["rate"])).drop("effective_cost", "quantity")
