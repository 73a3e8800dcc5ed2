"""Dimensions: by what usage and cost are told apart, under canonical names. (RA-1, RA-1a)"""

from __future__ import annotations

import polars as pl

from attribution import identity, names
from attribution.pricing import PriceBook
from ledger.settings import Settings

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team", "method", "workflow", "tenant", "environment")
WHAT = ("provider", "account", "region", "service", "model", "service_tier", "context_above", "resource", "principal")

USAGE_KEYS = ("rollup_id", "month", "hour", *WHO, *WHAT, "reason", "source", "unpriced")
"""What tells one row of `usage_hourly` from another, beside the meter. A call without a price never hides among priced ones. (ES-2)"""

WORDS = (
    "channel", "source", "name", "service_name", "agent_id", "agent_name", "claimed_agent", "claimed_team", "conversation_id",
    "credential", "resource_id", "account_id", "region", "provider", "environment", "workflow", "tenant",
)  # fmt: skip
"""Words of a span, few of them distinct: kept as codes, since a month has millions of spans."""


def named(calls: pl.DataFrame, registry: pl.DataFrame, settings: Settings, book: PriceBook) -> pl.DataFrame:
    """Canonical names, and what logs leave unsaid filled from the registry and the settings. (RA-1, RA-1a)"""
    providers = names.spelled(calls["provider"], names.provider)
    models = pl.concat([calls["response_model"], calls["request_model"]])
    display = names.ModelNames(book.models, [m for m in models.unique() if m is not None])
    calls = calls.with_columns(
        provider=providers,
        model=pl.coalesce(
            names.spelled(calls["response_model"], display.display), names.spelled(calls["request_model"], display.display)
        ),
        service=pl.lit(None, dtype=pl.String),
        resource=pl.col("resource_id"),
        service_tier=pl.col("service_tier").fill_null("standard"),
    )
    calls = own_place(calls)
    placed = identity.owner_at(calls, registry, name="credential", at="start_time", kinds=("credential",))
    calls = calls.with_columns(
        account=pl.coalesce("account_id", placed["account"]), region=pl.coalesce("region", placed["region"])
    )
    return fill_defaults(calls, settings)


_PLACES = {
    "AWS": (r"^\d+$", r"^[a-z]{2}(-[a-z]+)+-\d$"),
    "Google Cloud": (r".", r"^([a-z]+(-[a-z]+)+\d+|global|us|eu)$"),
    "Microsoft": (r".", r"^[a-z]+\d*$"),
}
"""What accounts and regions of a cloud look like. A span's resource says where its *caller* runs, which need not be whose bill the call is
on: a name that cannot be the called provider's is the caller's, and no other provider has accounts that a span would know."""


def own_place(calls: pl.DataFrame) -> pl.DataFrame:
    """Keeps account and region only where they can be the called provider's own."""
    for column, at in (("account_id", 0), ("region", 1)):
        fits = pl.lit(value=False)
        for provider, patterns in _PLACES.items():
            fits = fits | ((pl.col("provider") == provider) & pl.col(column).str.contains(patterns[at]))
        calls = calls.with_columns(pl.when(fits | pl.col("provider").is_null()).then(pl.col(column)).alias(column))
    return calls


def fill_defaults(frame: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Account and region of a provider's calls, where only the settings know."""
    for default in settings.attribution.defaults:
        mine = pl.col("provider") == names.provider(default.provider)
        frame = frame.with_columns(
            account=pl.when(mine & pl.col("account").is_null() & pl.lit(bool(default.account)))
            .then(pl.lit(default.account))
            .otherwise("account"),
            region=pl.when(mine & pl.col("region").is_null() & pl.lit(bool(default.region)))
            .then(pl.lit(default.region))
            .otherwise("region"),
        )
    return frame


def usage_key() -> pl.Expr:
    """All of USAGE_KEYS in 64 bits."""
    return pl.struct(USAGE_KEYS).hash(seed=727).reinterpret(signed=True)
