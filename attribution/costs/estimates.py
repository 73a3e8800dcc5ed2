"""Estimates: usage that no bill covers yet, at list price times the share of list price that bills came to. (ES-1, ES-1a, ES-2)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import polars as pl

from attribution.classification.skus import UNGROUPED
from attribution.columns import WHAT, WHO
from attribution.costs import hour_ends
from attribution.costs.charge_groups import sells_meter, sells_model
from attribution.costs.sellers import has_no_provider
from attribution.costs.token_matching import without_caller_place
from ledger.money import MONEY, proportion
from ledger.periods import month_end
from ledger.settings import Defaults
from ledger.tables import COSTS

_FINE = timedelta(hours=25)
"""Hourly and daily charges arrive in order of time: the latest says how far the bill has come. A charge of a month does not."""

ACCOUNT_NOT_BILLED = "account_not_billed"
"""Reason of usage whose account is on no bill of its provider, in hours that the bill covers. (ES-1a)"""


def coverage(groups: pl.DataFrame, month: str) -> pl.DataFrame:
    """Until when the bill covers metered usage: provider, account (null: charges without one), model (null: any), `covered_until`.

    A charge covers what it can hold: up to its period's end, or to `complete_until` where its file was read before that. (ES-1a)
    Hourly and daily charges of models, classified or not, cover all of their provider and account; a charge of a longer period covers its own
    model only. One of a longer period whose model is not known covers its provider and account once it is final: it may be what the usage
    cost, which would otherwise be counted twice. While the provider may still restate it, it covers nothing, so estimates go on, and
    `maybe_counted_twice` reports it. (ES-1) An account that the bill has no usage of, but other charges, is covered as far as its provider.
    Nothing is covered beyond the month.
    """
    until = pl.min_horizontal("pool_end", pl.lit(month_end(month)), "complete_until")
    usage_groups = groups.filter(_bears_usage()).with_columns(until=until)
    short = pl.col("period_end") - pl.col("period_start") <= _FINE
    whole = short | (pl.col("model").is_null() & pl.col("final"))
    fine = usage_groups.filter(whole).with_columns(model=pl.lit(None, dtype=pl.String))
    coarse = usage_groups.filter(~short, pl.col("model").is_not_null())
    keys = ["provider", "account", "model"]
    coverage_rows = pl.concat([fine, coarse]).group_by(keys).agg(covered_until=pl.col("until").max())
    other_accounts = groups.select("provider", "account").drop_nulls().unique()
    other_accounts = other_accounts.join(coverage_rows, on=["provider", "account"], how="anti")
    as_provider = other_accounts.join(_of_providers(coverage_rows), on="provider").select(coverage_rows.columns)
    return pl.concat([coverage_rows, as_provider])


def _of_providers(coverage_rows: pl.DataFrame) -> pl.DataFrame:
    """Coverage whatever the account."""
    return coverage_rows.group_by("provider", "model").agg(pl.col("covered_until").max())


def _bears_usage() -> pl.Expr:
    """Whether a charge may pay for tokens: an unclassified charge may in part, reserved capacity is paid instead of tokens. A runtime and searches
    of the web do not.
    """
    is_matched = pl.col("role").is_in(["tokens", "driver"]) & (sells_meter() | sells_model())
    tokens = is_matched & pl.col("model").is_not_null()
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


def with_coverage(usage: pl.DataFrame, coverage_rows: pl.DataFrame, defaults: Sequence[Defaults] = ()) -> pl.DataFrame:
    """Usage with `covered`: whether the bill already covers the hour of the row, or the later one of its end. (ES-1, ES-1a, RA-3)

    By its account where the bill has that account, else, if nobody states one, by its provider. An account that its provider's bill does
    not have is covered by charges without an account only; where the bill has come to its hour, the row has the reason `account_not_billed`.
    An account that only the caller states counts if the bill has it. (RA-1d)

    >>> from datetime import UTC, datetime
    >>> rows = pl.DataFrame({"provider": ["AWS"] * 3, "account": ["1", "2", None], "model": ["m"] * 3, "reason": [None, "retry", None],
    ...     "hour": [datetime(2026, 11, 3, 10, tzinfo=UTC)] * 3}, schema_overrides={"reason": pl.String})
    >>> bill = pl.DataFrame({"provider": ["AWS"], "account": ["1"], "model": [None], "covered_until": [datetime(2026, 11, 4, tzinfo=UTC)]},
    ...     schema_overrides={"model": pl.String})
    >>> with_coverage(rows, bill).select("account", "covered", "reason").rows()
    [('1', True, None), ('2', False, 'retry,account_not_billed'), (None, True, None)]
    """
    accounts = coverage_rows.select("provider", "account").drop_nulls().unique().with_columns(billed=pl.lit(value=True))
    frame = hour_ends.with_ends(usage).select(
        "provider",
        "account",
        "model",
        hour_ends.last_hour().alias("hour"),
        firm=without_caller_place(usage, defaults)["account"],
    )
    for name in ("account", "firm"):
        frame = frame.join(
            accounts.rename({"account": name, "billed": f"{name}_billed"}),
            on=["provider", name],
            how="left",
            maintain_order="left",
        )
    frame = frame.with_columns(account=pl.when("account_billed").then("account").otherwise("firm"))
    is_billed = pl.any_horizontal("account_billed", "firm_billed").fill_null(value=False)
    is_stated = pl.col("account").is_not_null()
    frame = frame.with_columns(by_account=pl.when(is_billed).then("account"))
    by_account = _is_before(frame, coverage_rows, ["provider", "by_account"], ["provider", "account"])
    by_provider = _is_before(frame, _of_providers(coverage_rows), ["provider"], ["provider"])
    has_accounts = frame["provider"].is_in(accounts["provider"].implode()).fill_null(value=False)
    names_account, has_bill = frame.select(is_stated, has_bill=is_billed).get_columns()
    is_covered = (names_account & by_account) | (~names_account & by_provider)
    lacks_bill = names_account & ~has_bill & has_accounts & by_provider & ~is_covered
    flag = pl.when(lacks_bill).then(pl.lit("account_not_billed"))
    return usage.with_columns(
        covered=is_covered, reason=pl.concat_str("reason", flag, separator=",", ignore_nulls=True).replace("", None)
    )


def _is_before(frame: pl.DataFrame, coverage_rows: pl.DataFrame, keys: list[str], coverage_keys: list[str]) -> pl.Series:
    """Whether the hour of each row lies before the end of the coverage of its keys: of all models, or of its own."""
    of_all = coverage_rows.filter(pl.col("model").is_null()).select(*coverage_keys, of_all="covered_until")
    of_own = coverage_rows.filter(pl.col("model").is_not_null()).select(*coverage_keys, "model", of_own="covered_until")
    frame = frame.join(of_all, left_on=keys, right_on=coverage_keys, how="left", nulls_equal=True, maintain_order="left")
    model_keys = [*keys, "model"], [*coverage_keys, "model"]
    frame = frame.join(of_own, left_on=model_keys[0], right_on=model_keys[1], how="left", nulls_equal=True, maintain_order="left")
    return frame.select((pl.col("hour") < pl.max_horizontal("of_all", "of_own")).fill_null(value=False)).to_series()


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
        rate_rows = comparable_rates(rates).filter(pl.col("model").is_not_null())
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


def not_on_bill(usage: pl.DataFrame, *, run_id: str, month: str, currency: str, is_implausible: bool = False) -> pl.DataFrame:
    """Usage rows of hours that the bill covers without naming them, as costs of 0 with the reason `not_on_bill`.

    So are quantities that cannot be, with the reason `implausible_usage`. (RA-2b)

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
        reason=pl.when(has_no_provider())
        .then(pl.lit("no_provider"))
        .otherwise(pl.lit("implausible_usage") if is_implausible else pl.lit("not_on_bill")),
        rule=pl.when(has_no_provider()).then(pl.lit("RA-1b")).otherwise(pl.lit("RA-2b" if is_implausible else "RA-2")),
        charge_category=pl.lit("Usage"),
        currency=pl.lit(currency),
        billed_cost=zero,
        effective_cost=zero,
        list_cost=zero,
        contracted_cost=zero,
    )
    return COSTS.conform(costs.select(c for c in COSTS.schema if c in costs.columns))
