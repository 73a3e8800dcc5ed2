"""Reasons: flags of a call as names. `docs/concepts.md` has a sentence about each."""

from __future__ import annotations

import polars as pl

from attribution import factorize
from attribution.chains.ancestry import Paths
from attribution.chains.identity import Owners
from attribution.factorize import Codes
from attribution.usage.dimensions import EncodedRows
from ledger.tables import TOKEN_METERS


def call_reasons(calls: pl.DataFrame, paths: Paths, owners: Owners) -> EncodedRows:
    """The reasons of each path, comma-separated, as a row of a table with the column `reason`."""
    by_call = [Codes(part.code, part.size) for part in factorize.encode_columns(calls, ("usage_flag", "standing"))]
    by_call += [factorize.encode_flags(flag.to_numpy()) for flag in calls.select(_flags()) if flag.any()]
    of_owner, identity_reasons = factorize.distinct_rows(owners.table.select("identity_reason", "path_conflict"))
    parts = [
        Codes(of_owner[owners.code], identity_reasons.height),
        *(factorize.encode_flags(flag) for flag in (paths.has_cycle, paths.has_fan_in) if flag.any()),
        *(paths.by_path(part) for part in by_call),
    ]
    code, first = factorize.combine(len(paths.call), parts)
    row = paths.call[first]
    distinct_calls = calls[row].with_columns(
        owners.table["identity_reason"].gather(owners.code[first]),
        owners.table["path_conflict"].gather(owners.code[first]),
        has_cycle=pl.Series(paths.has_cycle[first]),
        has_fan_in=pl.Series(paths.has_fan_in[first]),
    )
    distinct_calls = distinct_calls.with_columns(_flags())
    texts = [
        "identity_reason",
        pl.when("has_cycle").then(pl.lit("cycle")),
        pl.when("has_fan_in").then(pl.lit("fan_in")),
        pl.when(pl.col("claim_conflict") | pl.col("path_conflict")).then(pl.lit("claim_conflict")),
        pl.when("id_conflict").then(pl.lit("id_conflict")),
        "usage_flag",
        pl.when("count_contradiction").then(pl.lit("count_contradiction")),
        pl.when("absurd_usage").then(pl.lit("absurd_usage")),
        pl.when("tier_at_standard").then(pl.lit("tier_at_standard")),
        "standing",
        pl.when("cache_hit").then(pl.lit("cache_hit")),
        pl.when("absent").then(pl.lit("usage_absent")),
        pl.when("again").then(pl.lit("retry")),
        pl.when("overhead").then(pl.lit("overhead")),
    ]
    number, table = factorize.distinct_rows(
        distinct_calls.select(reason=pl.concat_str(texts, separator=",", ignore_nulls=True).replace("", None).cast(pl.String))
    )
    return EncodedRows(number[code], table)


def _flags() -> list[pl.Expr]:
    """The boolean flags of a call."""
    has_usage = pl.any_horizontal(pl.col(m).is_not_null() for m in (*TOKEN_METERS, "__other"))
    return [
        pl.col("claim_conflict"),
        pl.col("id_conflict"),
        pl.col("count_contradiction").fill_null(value=False),
        pl.col("absurd_usage"),
        pl.col("tier_at_standard") & (pl.col("list_cost") > 0).fill_null(value=False),
        pl.col("cache_hit").fill_null(value=False),
        (~has_usage).alias("absent"),
        (pl.col("attempt") > 0).fill_null(value=False).alias("again"),
        (pl.col("phase") == "overhead").fill_null(value=False).alias("overhead"),
    ]
