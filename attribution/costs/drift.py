"""Drift: how far estimates were from the bill that came, by provider and model; beyond a limit it is an alert. (ES-3)

The estimate that a month's usage would have had before its bill was known (list cost times the ratio paid in earlier months) is compared
with what the bill says it cost. Pools that were logged beyond the bill, or priced in part, are left out.
"""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from attribution.costs.estimates import comparable_rates, paid_to_list_ratios
from ledger.money import MONEY, proportion

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "provider": pl.String,
    "model": pl.String,
    "currency": pl.String,
    "estimated": MONEY,
    "billed": MONEY,
    "drift": MONEY,
}


def measure_drift(rates: pl.DataFrame, past_rates: pl.DataFrame | None, *, currency: str) -> pl.DataFrame:
    """By provider and model, the estimate of the logged usage, what the bill says it cost, and drift = billed / estimated − 1.

    `rates` are this bill's, `past_rates` those that estimates would have used. Only in the price book's `currency`.
    """
    ratios = paid_to_list_ratios([] if past_rates is None else [past_rates])
    ratio_by_model = {
        (provider, model): ratio
        for rate_currency, provider, model, ratio in ratios.select("currency", "provider", "model", "ratio").iter_rows()
        if rate_currency == currency
    }
    rate_rows = comparable_rates(rates).filter(pl.col("currency") == currency, pl.col("model").is_not_null())
    sums: dict[tuple[str, str], list[Decimal]] = {}
    for provider, model, paid, list_cost, logged_quantity, denominator in rate_rows.select(
        "provider", "model", "paid", "list_at_book", "logged_quantity", "denominator"
    ).iter_rows():
        sums_of_model = sums.setdefault((provider, model), [Decimal(0), Decimal(0)])
        ratio = ratio_by_model.get((provider, model), ratio_by_model.get((provider, None), Decimal(1)))
        sums_of_model[0] += proportion(list_cost, ratio, Decimal(1))
        sums_of_model[1] += proportion(paid, logged_quantity, denominator)
    rows = [
        (
            provider,
            model,
            currency,
            estimated_cost,
            billed_cost,
            proportion(billed_cost - estimated_cost, Decimal(1), estimated_cost),
        )
        for (provider, model), (estimated_cost, billed_cost) in sorted(sums.items())
        if estimated_cost
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
