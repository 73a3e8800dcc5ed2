"""The price book as people ask about it: what it says of a model, how much of the usage it prices, and that it is never empty."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from ingest.prices.updates import ImportResult
    from ledger.books import Books


def at_hand(books: Books) -> ImportResult | None:
    """Brings the installed price map into a price book without a list; None where there is one already. It holds from 1970 on.

    Without a list, usage that no bill covers yet would be unpriced, but for what a contract names.
    """
    from ledger.tables import PRICES

    delta = books.store.delta(PRICES)
    if delta is not None and any(partition["origin"] == "list" for partition in delta.partitions()):
        return None
    from ingest.prices.books import read_prices
    from ingest.prices.updates import apply_update, compare

    return apply_update(books, compare(books, read_prices()))


def seen_models(books: Books) -> set[str]:
    """Every model name in the logs, as they write it."""
    from ledger.tables import SPANS

    names = pl.concat([books.store.scan(SPANS).select(model=c).unique() for c in ("request_model", "response_model")])
    return set(names.unique().collect()["model"].drop_nulls())


def history(books: Books, model: str, *, provider: str = "", meter: str = "") -> pl.DataFrame:
    """Every rate ever recorded for a model, or for all ("" as the model), oldest first within what it is for; `until` is when the next one takes over.

    A model is asked for as the list names it, or by its bare name, which all its spellings share: `claude-sonnet-4-6` is also
    `us.anthropic.claude-sonnet-4-6-v1:0`. `in_force` says which rate prices usage of this moment.
    """
    from attribution.classification import names
    from ledger.periods import now
    from ledger.tables import PRICES

    rows = books.store.scan(PRICES).collect()
    if model:
        model_names = rows.select("model").unique()["model"]
        alike = [name for name in model_names if name.lower() == model.lower()] or [
            n for n in model_names if names.model(n) == names.model(model)
        ]
        rows = rows.filter(pl.col("model").is_in(alike))
    if provider:
        provider_name = names.provider(provider)
        rows = rows.filter(
            pl.Series([p == provider or names.provider(p) == provider_name for p in rows["provider"]], dtype=pl.Boolean)
        )
    if meter:
        rows = rows.filter(pl.col("meter") == meter)
    group_columns = [c for c in PRICES.key if c != "valid_from"]
    rows = rows.sort(*group_columns, "valid_from", "recorded_at")
    following = pl.col("valid_from").shift(-1).over(group_columns)
    until = pl.min_horizontal(following, "valid_to")
    return rows.with_columns(
        until=until, in_force=(pl.col("valid_from") <= now()) & (until.is_null() | (until > now())).fill_null(value=True)
    )


def similar(books: Books, model: str) -> list[str]:
    """Names of the book that look like this one."""
    from attribution.classification import names
    from ledger.tables import PRICES

    bare = names.model(model) or model
    model_names = books.store.scan(PRICES).select(pl.col("model").unique()).collect()["model"]
    by_bare = {names.model(name) or name: name for name in sorted(model_names, key=len, reverse=True)}
    return [by_bare[match] for match in difflib.get_close_matches(bare, by_bare, n=3, cutoff=0.6)]


@dataclass(frozen=True)
class Coverage:
    """How much of what was logged has a price. `models`: provider, model, calls, tokens, unpriced_calls, unpriced_tokens, meters."""

    models: pl.DataFrame
    silent_calls: int

    @property
    def unpriced(self) -> pl.DataFrame:
        """The models with calls no price is known for, most tokens first."""
        return self.models.filter(pl.col("unpriced_calls") > 0).sort(
            "unpriced_tokens", "unpriced_calls", "provider", "model", descending=[True, True, False, False], nulls_last=True
        )

    def percent(self, measure: str) -> str:
        """Share of `calls` or `tokens` that are priced; never rounded up to all.

        >>> frame = pl.DataFrame({"calls": [2000], "unpriced_calls": [1]})
        >>> Coverage(frame, 0).percent("calls")
        '99.9'
        """
        total = int(self.models[measure].sum() or 0)
        priced_count = total - int(self.models[f"unpriced_{measure}"].sum() or 0)
        tenths = 1000 * priced_count // total if total else 1000
        return f"{tenths // 10}.{tenths % 10}"


def coverage(books: Books, months: Sequence[str] = ()) -> Coverage:
    """What the runs in force could price of the calls of these months; all published ones by default.

    A call that reported no usage at all has nothing to price: it is counted apart.
    """
    from api.queries.gate import WHOLE, of_operator, published, scan_rollups
    from ledger.tables import CALLS, TOKEN_METERS

    selected_months = [month for month in published(of_operator(books)) if not months or month.month in months]
    flags = pl.col("reason").fill_null("").str.split(",")
    used = [pl.col(m).fill_null(0) for m in TOKEN_METERS]
    calls = (
        scan_rollups(of_operator(books), CALLS, selected_months, WHOLE)
        .with_columns(
            tokens=pl.sum_horizontal(used),
            silent=flags.list.contains("usage_absent"),
            unpriced=flags.list.contains("unpriced"),
        )
        .collect()
    )
    priced_calls = calls.filter(~pl.col("silent"))
    models = (
        priced_calls.group_by("provider", "model")
        .agg(
            pl.len().cast(pl.Int64).alias("calls"),
            pl.col("tokens").sum(),
            pl.col("unpriced").sum().cast(pl.Int64).alias("unpriced_calls"),
            pl.col("tokens").filter("unpriced").sum().alias("unpriced_tokens"),
            pl.col("start_time").min().alias("first_seen"),
            pl.col("start_time").max().alias("last_seen"),
            *((pl.col(m) > 0).any().alias(f"__{m}") for m in TOKEN_METERS),
        )
        .sort("provider", "model", nulls_last=True)
    )
    meters = [pl.when(pl.col(f"__{m}")).then(pl.lit(m)) for m in TOKEN_METERS]
    models = models.with_columns(meters=pl.concat_str(meters, separator=" ", ignore_nulls=True)).drop(
        f"__{m}" for m in TOKEN_METERS
    )
    return Coverage(models, calls.height - priced_calls.height)
