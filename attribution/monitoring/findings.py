"""Findings: what a run noticed that somebody should fix, as problems. (ES-2, CH-7, ID-2)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from attribution.costs.charge_groups import ABSURD, NEGATIVE
from attribution.costs.estimates import ACCOUNT_NOT_BILLED, maybe_counted_twice
from attribution.costs.sink import CostTotals
from ledger import money
from ledger.money import known_sum
from ledger.problems import Problem, to_frame
from ledger.store import Store
from ledger.tables import PROBLEMS

SOURCE = "attribution"


_MODEL_REASONS = (
    ("unpriced", "no price in the book", "`rootcost prices import` a newer list, or add a contract price"),
    (
        "not_on_bill",
        "logged, but the bill of that time does not name it",
        "check that the bill of this provider and account is ingested whole",
    ),
)
"""Reasons that are reported by model: reason, description, remedy."""

_FLAG_REASONS = (
    (
        "untrusted_claim",
        "root agent named only by an untrusted header or tag",
        "add the source to ingest.trusted_sources if its senders are yours",
    ),
    (
        "claim_conflict",
        "a gateway's client named an agent, trace or conversation of another team than its key's; it was dropped",
        "register the key to the right team, or add the source to ingest.trusted_sources if its senders are yours",
    ),
    (
        "id_conflict",
        "records of several keys bear one call id: each key pays for its own calls, and a batch is that of the key which began it",
        "let the gateway choose the ids, or have this client send ids of its own",
    ),
    (
        "overlogged",
        "more usage logged than billed: costs were scaled down to the bill",
        "look for calls logged twice, or a bill that is not complete yet",
    ),
    (
        "input_semantics_unknown",
        "cannot tell whether input tokens include cached ones; taken as inclusive",
        "name the emitter in the emitter table",
    ),
    (
        "no_provider",
        "names no provider, and none or several sell its model in that hour: estimated, or 0 where a bill of that day has such usage uncaptured",
        "let the sender state the provider (gen_ai.provider.name); `rootcost costs --by model,reason` has the money",
    ),
    (
        "provider_inferred",
        "names no provider; matched with the only bill that sells its model in that hour",
        "let the sender state the provider (gen_ai.provider.name)",
    ),
    (
        "cycle",
        "spans were each other's ancestors; the cycle was cut at the span that started last",
        "report it to the maintainers of the instrumentation",
    ),
    (
        "absurd_usage",
        "a token count below 0 or beyond 10^12 was ignored; all other counts of the call are used",
        "fix the sender",
    ),
)
"""Reasons that are reported once for all costs: reason, description, remedy."""


def findings_uri(month: str) -> str:
    """The address that the findings of a month are recorded under."""
    return f"attribution:{month}"


def publish_findings(
    store: Store, month: str, run_id: str, costs: CostTotals, groups: pl.DataFrame, more_problems: Sequence[Problem] = ()
) -> int:
    """Replaces the month's findings by this run's and by `more_problems`; returns how many there are."""
    uri = findings_uri(month)
    problems = [
        *more_problems,
        *(problem for texts in _MODEL_REASONS for problem in _models(uri, costs.reasons, *texts)),
        *(problem for texts in _FLAG_REASONS for problem in _flagged(uri, costs.reasons, *texts)),
        *_tiers_at_standard(uri, costs.reasons),
        *_accounts_not_billed(uri, costs.reasons),
        *_unclassified(uri, groups),
        *_odd_quantities(uri, groups),
        *_maybe_counted_twice(uri, groups, costs.sums),
    ]
    frame = to_frame(problems, run_id=run_id)
    other_problems = store.scan(PROBLEMS, {"source": [SOURCE]}).filter(pl.col("uri") != uri).collect()
    if frame.height or other_problems.height or store.scan(PROBLEMS, {"source": [SOURCE]}).limit(1).collect().height:
        store.replace(PROBLEMS, pl.concat([other_problems, frame]), {"source": SOURCE})
    return frame.height


def foreign_rates(rates: pl.DataFrame, currency: str, *, uri: str) -> list[Problem]:
    """Rates the price book cannot use, since they are in another currency. (RA-7)"""
    rows = rates.group_by("currency", "provider", "model").agg(pl.len()).sort("currency", "provider", "model")
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider} {model}",
            "currency",
            f"rate_in_another_currency: {count} rates in {rate_currency}, and the book is in {currency}: estimates go by its other prices",
            f"import these rates in {currency}",
            rows=count,
            severity="warning",
        )
        for rate_currency, provider, model, count in rows.iter_rows()
    ]


def _models(uri: str, costs: pl.DataFrame, reason: str, description: str, remedy: str) -> list[Problem]:
    rows = costs.filter(pl.col("reason") == reason).group_by("provider", "model", "currency").agg(*_money())
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider or '?'} {model or '?'}",
            "model",
            f"{reason}: {description}",
            remedy,
            rows=count,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for provider, model, currency, count, cost in rows.sort("provider", "model", "currency").iter_rows()
    ]


def _money() -> tuple[pl.Expr, pl.Expr]:
    """How many rows of costs have a reason, and the sum of what is known of their effective cost."""
    return pl.col("rows").sum(), known_sum("effective_cost")


def _flagged(uri: str, costs: pl.DataFrame, reason: str, description: str, remedy: str) -> list[Problem]:
    rows = (
        costs.filter(pl.col("reason").str.split(",").list.contains(reason)).group_by("currency").agg(*_money()).sort("currency")
    )
    return [
        Problem(
            SOURCE,
            uri,
            "costs" if rows.height == 1 else f"costs in {currency}",
            "reason",
            f"{reason}: {description}",
            remedy,
            rows=count,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for currency, count, cost in rows.iter_rows()
    ]


def _tiers_at_standard(uri: str, costs: pl.DataFrame) -> list[Problem]:
    """Estimates of a service tier that the price book does not price, by model and tier. (ES-2)"""
    is_estimate = pl.col("reason").str.split(",").list.contains("tier_at_standard") & (pl.col("basis") == "estimated")
    rows = costs.filter(is_estimate).group_by("provider", "model", "service_tier", "currency").agg(*_money())
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider or '?'} {model or '?'}",
            "service_tier",
            f"tier_at_standard: the price book has no price of the tier {tier!r}; estimated at the standard price",
            "`rootcost prices import` a newer list, or add a contract price for the tier",
            rows=count,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for provider, model, tier, currency, count, cost in rows.sort("provider", "model", "service_tier", "currency").iter_rows()
    ]


def _accounts_not_billed(uri: str, costs: pl.DataFrame) -> list[Problem]:
    """One finding for each account that the bill of its provider does not have, with what its usage is estimated at. (ES-1a)"""
    flagged_costs = costs.filter(pl.col("reason").str.split(",").list.contains(ACCOUNT_NOT_BILLED))
    keys = ["provider", "account", "currency"]
    sums = flagged_costs.group_by(keys).agg(pl.col("rows").sum(), known_sum("effective_cost")).sort(keys, nulls_last=True)
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider or '?'} {account}",
            "account",
            f"{ACCOUNT_NOT_BILLED}: the bill has other accounts of this provider and has come to these hours; estimated at "
            f"{money.text(cost) if cost is not None else 'an unknown sum'} {currency}",
            "ingest the bill of this account, or map the sender's account to the billed one in attribution.defaults or the registry",
            rows=count,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for provider, account, currency, count, cost in sums.iter_rows()
    ]


def _unclassified(uri: str, groups: pl.DataFrame) -> list[Problem]:
    unclassified_groups = groups.filter("unclassified")
    keys = ("provider", "sku_meter", "currency")
    rows = (
        unclassified_groups.group_by(keys).agg(pl.col("charges").sum(), known_sum("effective_cost")).sort(keys, nulls_last=True)
    )
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider} {sku or '?'}",
            "sku_meter",
            "unclassified_sku: sells a model, but no rule says which model or meter",
            "its cost is counted, as unallocated where it has no owner; `rootcost sources unclassified` writes a rule for it",
            rows=count,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for provider, sku, currency, count, cost in rows.iter_rows()
    ]


_ODD = {
    ABSURD: "larger than any bill can mean; it counts as absent",
    NEGATIVE: "negative quantity with a positive cost; the quantity is not compared with logs",
}


def _odd_quantities(uri: str, groups: pl.DataFrame) -> list[Problem]:
    rows = groups.filter(pl.col("odd").is_not_null()).group_by("odd", "provider", "sku_meter").agg(pl.col("charges").sum())
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider} {sku or '?'}",
            "consumed_quantity",
            f"{odd}: {_ODD[odd]}",
            "check the export; the charge's cost is attributed all the same",
            rows=count,
            severity="warning",
        )
        for odd, provider, sku, count in rows.sort("odd", "provider", "sku_meter", nulls_last=True).iter_rows()
    ]


def _maybe_counted_twice(uri: str, groups: pl.DataFrame, costs: pl.DataFrame) -> list[Problem]:
    return [
        Problem(
            SOURCE,
            uri,
            f"{provider} {account or '?'} {sku or '?'}",
            "sku_meter",
            "maybe_estimated_too: a provisional charge of a long period names no model; the usage it pays for may also be estimated",
            "report the SKU; when the bill is final, usage of its period is no longer estimated",
            rows=count,
            severity="warning",
        )
        for provider, account, sku, count in maybe_counted_twice(groups, costs).iter_rows()
    ]
