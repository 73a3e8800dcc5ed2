"""Dimensions of usage: canonical provider, account, region, service, model, tier, resource and principal of each call. (RA-1, RA-1a)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import factorize
from attribution.as_of import AsOfIndex, owner_at
from attribution.classification import names
from attribution.columns import CALLER, CONTEXT, VARIANT, WHAT
from attribution.pricing import PriceBook
from ledger.hashing import Hashes, combine_hashes, row_hash
from ledger.settings import Defaults, Settings

_LOGGED = (
    "provider", "request_model", "response_model", "api_base", "account_id", "region", "provider_account", "provider_region", "service_tier",
    "resource_id", "principal",
)  # fmt: skip
"""The logged columns of a call from which the columns WHAT and CALLER are derived."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows of a small table, encoded: `code` is the row of `table` for each call or path."""

    code: factorize.Index
    table: pl.DataFrame


def call_dimensions(calls: pl.DataFrame, as_of: AsOfIndex, settings: Settings, book: PriceBook) -> EncodedRows:
    """The columns WHAT, CALLER and CONTEXT of each call: canonical names, gaps filled from the registry and the settings. (RA-1, RA-1a)"""
    by_key = ["credential"] if "credential" in as_of.kinds else []
    parts = factorize.encode_columns(calls, [*_LOGGED, *CONTEXT, *by_key])
    if by_key:
        parts.append(as_of.interval_codes(calls["start_time"]))
    code, first = factorize.combine(calls.height, parts)
    distinct_calls = calls.select(pl.col(*_LOGGED, *CONTEXT, "credential", "start_time").gather(first))
    number, table = factorize.distinct_rows(
        _canonical_names(distinct_calls, as_of, settings, book).select(*WHAT, *CALLER, *CONTEXT)
    )
    return EncodedRows(number[code], table)


def _canonical_names(calls: pl.DataFrame, as_of: AsOfIndex, settings: Settings, book: PriceBook) -> pl.DataFrame:
    # Names come from the price book alone: other logged spellings differ by partition. Those the book lacks are matched with the bill.
    display = names.ModelNames(book.models)
    calls = calls.with_columns(
        provider=pl.coalesce(
            names.map_distinct(calls["provider"], names.called_provider),
            *(names.map_distinct(calls[c], names.provider_by_form) for c in ("api_base", "response_model", "request_model")),
        ),
        model=pl.coalesce(
            names.map_distinct(calls["response_model"], display.display),
            names.map_distinct(calls["request_model"], display.display),
        ),
        service=pl.lit(None, dtype=pl.String),
        resource=pl.col("resource_id"),
        service_tier=pl.col("service_tier").fill_null("standard"),
    )
    calls = with_variant(calls, display)
    calls = drop_impossible_place(calls)
    credential_owner = owner_at(calls, as_of.timeline, name="credential", at="start_time", kinds=("credential",))
    calls = calls.with_columns(
        account=pl.coalesce("provider_account", credential_owner["account"]),
        region=pl.coalesce("provider_region", credential_owner["region"]),
        caller_account="account_id",
        caller_region="region",
    )
    return fill_defaults(with_caller_place(calls), settings.attribution.defaults)


def with_variant(calls: pl.DataFrame, display: names.ModelNames) -> pl.DataFrame:
    """Adds what the model's name states beside its family; the requested name counts where it is of the same family. (RA-1c)"""
    requested_models = names.map_distinct(calls["request_model"], display.display)
    is_same_family = calls.select(pl.col("model").eq_missing(requested_models)).to_series()

    def stated(column: str, key: str) -> pl.Series:
        return names.map_distinct(calls[column], lambda name: getattr(names.variant(name), key))

    return calls.with_columns(
        pl.coalesce(stated("response_model", key), pl.when(is_same_family).then(stated("request_model", key))).alias(key)
        for key in VARIANT
    )


_PLACE_PATTERNS = {
    "AWS": {"account": r"^\d+$", "region": r"^[a-z]{2}(-[a-z]+)+-\d$"},
    "Google Cloud": {"account": r".", "region": r"^([a-z]+(-[a-z]+)+\d+|global|us|eu)$"},
    "Microsoft": {"account": r".", "region": r"^[a-z]+\d*$"},
}
"""Patterns of account ids and regions by provider. The resource of a span says where its *caller* runs, which may be another cloud than the
one that bills the call: a name that cannot be the called provider's is dropped. Accounts of other known providers are never in spans. A
provider that nobody knows may be a misspelt one: its places are kept until it is inferred. (RA-1b)"""


def _possible_place(column: str, key: str) -> pl.Expr:
    """An account or region, null where it cannot be one of the row's provider."""
    known_providers = sorted({row["provider"] for row in names.table("providers")})
    is_possible = ~pl.col("provider").is_in(known_providers) | pl.col("provider").is_null()
    for provider, patterns in _PLACE_PATTERNS.items():
        is_possible = is_possible | ((pl.col("provider") == provider) & pl.col(column).str.contains(patterns[key]))
    return pl.when(is_possible).then(pl.col(column)).alias(column)


def drop_impossible_place(calls: pl.DataFrame) -> pl.DataFrame:
    """Sets accounts and regions to null where they cannot be those of the called provider."""
    keys = {"account_id": "account", "provider_account": "account", "region": "region", "provider_region": "region"}
    return calls.with_columns(_possible_place(column, key) for column, key in keys.items())


def with_inferred_place(usage: pl.DataFrame, is_inferred: pl.Series, defaults: Sequence[Defaults]) -> pl.DataFrame:
    """Usage whose provider was inferred, with the place that it would have had if the call had named the provider. (RA-1b, RA-1d)

    An application of another cloud, and a call that names no place, when the settings know the account:

    >>> usage = pl.DataFrame({"provider": ["AWS", "AWS"], "account": ["my-project", None], "region": ["us-east-1", None],
    ...     "caller_place": ["account,region", None]})
    >>> with_inferred_place(usage, pl.Series([True, True]), [Defaults(provider="aws", account="1111")]).rows()
    [('AWS', '1111', 'us-east-1', 'region'), ('AWS', '1111', None, None)]
    """
    keys = ("account", "region")
    possible_usage = usage.with_columns(_possible_place(key, key) for key in keys)
    is_stated = pl.col("caller_place").str.split(",").list
    stated_names = [pl.when(is_stated.contains(key) & pl.col(key).is_not_null()).then(pl.lit(key)) for key in keys]
    caller_place = pl.concat_str(stated_names, separator=",", ignore_nulls=True).replace("", None)
    placed_usage = fill_defaults(possible_usage.with_columns(caller_place=caller_place), defaults)
    return usage.with_columns(usage[name].zip_with(~is_inferred, placed_usage[name]) for name in (*keys, "caller_place"))


def with_caller_place(calls: pl.DataFrame) -> pl.DataFrame:
    """Fills null keys `account` and `region` from the caller's, and names those in `caller_place`. (RA-1d)

    >>> columns = ["account", "region", "caller_account", "caller_region"]
    >>> calls = pl.DataFrame([("1", None, "2", "eu-west-1"), (None, None, "2", "eu-west-1")], schema=columns, orient="row")
    >>> with_caller_place(calls).select("account", "region", "caller_place").rows()
    [('1', 'eu-west-1', 'region'), ('2', 'eu-west-1', 'account,region')]
    """
    stated_names = [
        pl.when(pl.col(key).is_null() & pl.col(f"caller_{key}").is_not_null()).then(pl.lit(key)) for key in ("account", "region")
    ]
    return calls.with_columns(
        *(pl.coalesce(key, f"caller_{key}").alias(key) for key in ("account", "region")),
        caller_place=pl.concat_str(stated_names, separator=",", ignore_nulls=True).replace("", None).cast(pl.String),
    )


def fill_defaults(frame: pl.DataFrame, defaults: Sequence[Defaults]) -> pl.DataFrame:
    """Fills null accounts and regions from the settings' defaults for the provider."""
    for default in defaults:
        is_provider = pl.col("provider") == names.provider(default.provider)
        frame = frame.with_columns(
            account=pl.when(is_provider & pl.col("account").is_null() & pl.lit(bool(default.account)))
            .then(pl.lit(default.account))
            .otherwise("account"),
            region=pl.when(is_provider & pl.col("region").is_null() & pl.lit(bool(default.region)))
            .then(pl.lit(default.region))
            .otherwise("region"),
        )
    return frame


def content_hashes(table: pl.DataFrame) -> Hashes:
    """A hash of each row's values: equal rows have equal hashes in every partition and process."""
    hashes: Hashes = table.select(row_hash()).to_series().to_numpy()
    return hashes


def usage_keys(*parts: Hashes) -> NDArray[np.int64]:
    """The usage key: a 64-bit hash of all columns that identify a row of `usage_hourly` except the meter.

    >>> keys = usage_keys(np.array([1, 1, 2], dtype=np.uint64), np.array([5, 5, 5], dtype=np.uint64))
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
    (True, False)
    """
    return combine_hashes(*parts).view(np.int64)
