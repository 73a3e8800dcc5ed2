"""Estimates: usage that no bill covers yet, at list price times the share of list price that bills came to. (ES-1, ES-2)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import polars as pl

from attribution.classification.skus import UNGROUPED
from attribution.columns import WHAT, WHO
from attribution.costs.sellers import has_no_provider
from ledger.money import MONEY, proportion
from ledger.periods import month_end
from ledger.tables import COSTS, TOKEN_METERS

_FINE = timedelta(hours=25)
"""Hourly and daily charges arrive in order of time: the latest says how far the bill has come. A charge of a month does not."""


def coverage(groups: pl.DataFrame, month: str) -> pl.DataFrame:
    """Until when the bill covers metered usage: provider, account (null: any), model (null: any), `covered_until`.

    Hourly and daily charges of models, classified or not, cover all of their provider and account; a charge of a longer period covers its own
    model only. One of a longer period whose model is not known covers its provider and account once it is final: it may be what the usage
    cost, which would otherwise be counted twice. While the provider may still restate it, it covers nothing, so estimates go on, and
    `maybe_counted_twice` reports it. (ES-1) Nothing is covered beyond the month.
    """
    usage_groups = groups.filter(_bears_usage()).with_columns(until=pl.min_horizontal("pool_end", pl.lit(month_end(month))))
    short = pl.col("period_end") - pl.col("period_start") <= _FINE
    whole = short | (pl.col("model").is_null() & pl.col("final"))
    fine = usage_groups.filter(whole).with_columns(model=pl.lit(None, dtype=pl.String))
    coarse = usage_groups.filter(~short, pl.col("model").is_not_null())
    coverage_rows = pl.concat([fine, coarse]).select("provider", "account", "model", "until")
    anywhere = coverage_rows.with_columns(account=pl.lit(None, dtype=pl.String))
    return pl.concat([coverage_rows, anywhere]).group_by("provider", "account", "model").agg(covered_until=pl.col("until").max())


def _bears_usage() -> pl.Expr:
    """Whether a charge may pay for tokens: an unclassified charge may in part, reserved capacity is paid instead of tokens. A runtime does not."""
    tokens = (pl.col("role") == "tokens") | ((pl.col("role") == "driver") & pl.col("meter").is_in(TOKEN_METERS))
    unknown = (pl.col("unclassified") | (pl.col("sku_rule") == UNGROUPED)) & (pl.col("role") == "other")
    may_bear_tokens = unknown | (pl.col("ai") & (pl.col("charge_category") == "Usage") & pl.col("provisioned"))
    return tokens.fill_null(value=False) | may_bear_tokens.fill_null(value=False)


def maybe_counted_twice(groups: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """Provisional charges of a long period that name no model, where usage of their provider is estimated: the cost may be counted twice.

    Provider, account and SKU of each, with the number of its charges. It ends when the bill becomes final, or when the SKU is classified.
    """
    long = pl.col("period_end") - pl.col("period_start") > _FINE
    estimated_providers = costs.filter(pl.col("basis") == "estimated").select("provider").unique()
    open_charges = groups.filter(_bears_usage() & long & pl.col("model").is_null() & ~pl.col("final"))
    keys = ["provider", "account", "sku_meter"]
    return (
        open_charges.join(estimated_providers, on="provider", how="semi")
        .group_by(keys)
        .agg(pl.col("charges").sum())
        .sort(keys, nulls_last=True)
    )


def is_covered(usage: pl.DataFrame, coverage_rows: pl.DataFrame) -> pl.Series:
    """Whether the bill already covers the hour of each usage row: by its account where the bill has that account, else by its provider."""
    frame = usage.select("provider", "account", "model", "hour")
    billed_accounts = coverage_rows.filter(pl.col("account").is_not_null()).select("provider", "account").unique()
    is_billed_account = frame.join(
        billed_accounts.with_columns(known=pl.lit(value=True)), on=["provider", "account"], how="left", maintain_order="left"
    )["known"]
    frame = frame.with_columns(account=pl.when(is_billed_account.fill_null(value=False)).then("account"))
    for name, keys in (("__any", ["provider", "account"]), ("__own", ["provider", "account", "model"])):
        has_scope = pl.col("model").is_null() if name == "__any" else pl.col("model").is_not_null()
        part = coverage_rows.filter(has_scope).select(*keys, pl.col("covered_until").alias(name))
        frame = frame.join(part, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return frame.select(covered=(pl.col("hour") < pl.max_horizontal("__any", "__own")).fill_null(value=False)).to_series()


def comparable_rates(rates: pl.DataFrame) -> pl.DataFrame:
    """Rates of pools whose usage is all priced and not beyond the bill, with `paid`: effective cost, or billed cost where that is 0."""
    comparable_rows = rates.filter(
        (pl.col("list_at_book") > 0) & (pl.col("denominator") > 0) & ~pl.col("flag").fill_null("").str.contains("overlogged")
    )
    comparable_rows = comparable_rows.with_columns(
        paid=pl.when(pl.col("effective_cost") > 0).then("effective_cost").otherwise("billed_cost")
    )
    return comparable_rows.filter(pl.col("paid") > 0)


def paid_to_list_ratios(books: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What was really paid per dollar of list cost, by currency, provider and model, and by provider (model null).

    `books` are frames of rates, this bill's first: an earlier bill counts where a later has none. Computed from pools whose usage is all priced
    and not beyond the bill: effective cost of the logged part (billed, where a bill leaves EffectiveCost 0) over its list cost.
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "currency": pl.String,
        "provider": pl.String,
        "model": pl.String,
        "ratio": MONEY,
    }
    out: list[dict[str, object]] = []
    for rates in books:
        rate_rows = comparable_rates(rates)
        for keys in (["currency", "provider", "model"], ["currency", "provider"]):
            for key, pools in rate_rows.group_by(keys, maintain_order=True):
                parts = pools.select("paid", "logged_quantity", "denominator").iter_rows()
                paid = sum((proportion(a, q, d) for a, q, d in parts), Decimal(0))
                list_cost = Decimal(str(pools["list_at_book"].sum()))
                key_columns = {**dict(zip(keys, key, strict=True)), "model": key[2] if len(key) == 3 else None}
                out.append({**key_columns, "ratio": proportion(Decimal(1), paid, list_cost)})
    return pl.DataFrame(out, schema=schema).unique(["currency", "provider", "model"], keep="first", maintain_order=True)


def estimate_costs(usage: pl.DataFrame, ratios: pl.DataFrame, *, run_id: str, month: str, currency: str) -> pl.DataFrame:
    """Usage rows no bill covers, as costs with basis ``estimated``; unpriced ones have null cost, never 0.

    `currency` is the price book's.
    """
    if not usage.height:
        return COSTS.empty()
    currency_ratios = ratios.filter(pl.col("currency") == currency)
    frame = usage.join(
        currency_ratios.filter(pl.col("model").is_not_null()).select("provider", "model", own="ratio"),
        on=["provider", "model"],
        how="left",
    )
    frame = frame.join(
        currency_ratios.filter(pl.col("model").is_null()).select("provider", any="ratio"), on="provider", how="left"
    )
    factor = pl.coalesce("own", "any", pl.lit(1).cast(MONEY))
    paid = (pl.col("list_cost") * factor).cast(MONEY)
    is_unpriced = pl.col("list_cost").is_null()
    costs = frame.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        period_start=pl.col("hour"),
        usage_hour=pl.col("hour"),
        period_end=pl.col("hour") + timedelta(hours=1),
        cost_class=pl.lit("metered"),
        basis=pl.lit("estimated"),
        reason=pl.when(is_unpriced).then(pl.lit("unpriced")).otherwise("reason"),
        rule=pl.when(is_unpriced).then(pl.lit("ES-2")).otherwise(pl.lit("ES-1")),
        charge_category=pl.lit("Usage"),
        currency=pl.lit(currency),
        billed_cost=paid,
        effective_cost=paid,
        contracted_cost=paid,
    )
    cost_columns = [c for c in COSTS.schema if c in costs.columns]
    assert set(WHO) <= set(cost_columns)
    assert set(WHAT) <= set(cost_columns)
    return COSTS.conform(costs.select(cost_columns))


def not_on_bill(usage: pl.DataFrame, *, run_id: str, month: str, currency: str) -> pl.DataFrame:
    """Usage rows of hours that the bill covers without naming them, as costs of 0 with the reason `not_on_bill`.

    Adding an estimate would count money twice, since what the bill could not name is among its unallocated rows.
    """
    if not usage.height:
        return COSTS.empty()
    zero = pl.lit(0).cast(MONEY)
    costs = usage.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        period_start=pl.col("hour"),
        usage_hour=pl.col("hour"),
        period_end=pl.col("hour") + timedelta(hours=1),
        cost_class=pl.lit("metered"),
        basis=pl.when(has_no_provider()).then(pl.lit("estimated")).otherwise(pl.lit("billed")),
        reason=pl.when(has_no_provider()).then(pl.lit("no_provider")).otherwise(pl.lit("not_on_bill")),
        rule=pl.when(has_no_provider()).then(pl.lit("RA-1b")).otherwise(pl.lit("RA-2")),
        charge_category=pl.lit("Usage"),
        currency=pl.lit(currency),
        billed_cost=zero,
        effective_cost=zero,
        list_cost=zero,
        contracted_cost=zero,
    )
    return COSTS.conform(costs.select(c for c in COSTS.schema if c in costs.columns))
