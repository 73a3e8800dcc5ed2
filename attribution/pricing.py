"""List prices: what the public price book asks for a call, as of the day it was made. (ES-1, ES-2)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import polars as pl

from attribution import names
from ledger.money import MONEY, RATE
from ledger.tables import TOKEN_METERS

_FALLBACK = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "reasoning_tokens": "output_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}
"""A meter the book has no rate for is sold at the rate of the meter it refines, as LiteLLM does."""


class PriceBook:
    """The rates in force, looked up by the names logs use.

    `prices` are rows of the `prices` table. A model is looked for as the log wrote it, then with the provider's route before it,
    then by its bare name under the same provider.
    """

    def __init__(self, prices: pl.DataFrame) -> None:
        self.prices = prices
        self._exact = set(prices["model"].unique())
        bare: dict[tuple[str, str], list[str]] = {}
        for provider, model in prices.select("provider", "model").unique().sort("provider", "model").iter_rows():
            short = names.model(model)
            if short:
                bare.setdefault((names.provider(provider) or provider, short), []).append(model)
        self._bare = {key: min(found, key=lambda m: (len(m), m)) for key, found in bare.items()}

    @property
    def currency(self) -> str:
        """What the book is written in."""
        return next(iter(self.prices["currency"].unique().sort()), "USD")

    @property
    def models(self) -> set[str]:
        """Every model the book names."""
        return self._exact

    @cache  # noqa: B019 - a book lives as long as one run
    def key(self, provider: str | None, region: str | None, *models: str | None) -> str | None:
        """The book's own name of a model, or None: unpriced."""
        for written in models:
            if written:
                for candidate in _spellings(provider, region, written):
                    if candidate in self._exact:
                        return candidate
                found = self._bare.get((names.provider(provider) or "", names.model(written) or ""))
                if found:
                    return found
        return None


def _spellings(provider: str | None, region: str | None, model: str) -> Iterator[str]:
    bare = model.split("/", 1)[1] if "/" in model else model
    for name in dict.fromkeys((model, bare)):
        if provider:
            route = provider.lower()
            if region:
                yield f"{route}/{region}/{name}"
            yield f"{route}/{name}"
        yield name


def add_list_cost(calls: pl.DataFrame, book: PriceBook) -> pl.DataFrame:
    """Adds `list_cost` (MONEY; null: unpriced), its parts ``__cost_<meter>``, `context_above` and `price_key` to metered calls.

    `calls` has the disjoint token meters, prompt_tokens, provider, region, request_model, response_model, service_tier, start_time
    and cache_hit. Above a context threshold the whole request is repriced. A gateway cache hit costs 0.
    """
    named = calls.select("provider", "region", "request_model", "response_model").unique()
    keys = pl.Series([book.key(p, r, b, a) for p, r, a, b in named.iter_rows()], dtype=pl.String)
    frame = calls.join(named.with_columns(price_key=keys), on=named.columns, how="left", nulls_equal=True, maintain_order="left")
    frame = frame.with_columns(context_above=_context(frame, book), __tier=pl.col("service_tier").fill_null("standard"))
    asked = frame.select("price_key", "__tier", "context_above", day=pl.col("start_time").dt.truncate("1h")).unique()
    rates = _rates(asked, book.prices)
    frame = frame.with_columns(day=pl.col("start_time").dt.truncate("1h")).join(
        rates, on=["price_key", "__tier", "context_above", "day"], how="left", maintain_order="left"
    )
    free = pl.col("cache_hit").fill_null(value=False)
    frame = frame.with_columns(
        pl.when(free | (pl.col(m) == 0))
        .then(pl.when(pl.col(m).is_not_null()).then(pl.lit(0).cast(RATE)))
        .otherwise(pl.col(m).cast(pl.Decimal(38, 0)) * pl.col(f"__rate_{m}"))
        .cast(MONEY)
        .alias(f"__cost_{m}")
        for m in TOKEN_METERS
    )
    used = [pl.col(m).is_not_null() for m in TOKEN_METERS]
    unknown = pl.any_horizontal(pl.col(m).is_not_null() & pl.col(f"__cost_{m}").is_null() for m in TOKEN_METERS)
    total = pl.sum_horizontal(pl.col(f"__cost_{m}").fill_null(0) for m in TOKEN_METERS)
    return frame.with_columns(list_cost=pl.when(pl.any_horizontal(used) & ~unknown).then(total.cast(MONEY))).drop(
        "__tier", "day", *(f"__rate_{m}" for m in TOKEN_METERS)
    )


def _context(frame: pl.DataFrame, book: PriceBook) -> pl.Expr:
    """The highest threshold of the model that the prompt exceeds."""
    tiers = book.prices.filter(pl.col("context_above") > 0).select("model", "context_above").unique()
    out = pl.lit(0, dtype=pl.Int64)
    for (threshold,), models in sorted(tiers.group_by(["context_above"]), key=lambda item: item[0]):
        names_above: Iterable[str] = models["model"].to_list()
        above = (pl.col("prompt_tokens") > threshold) & pl.col("price_key").is_in(list(names_above))
        out = pl.when(above.fill_null(value=False)).then(pl.lit(threshold, dtype=pl.Int64)).otherwise(out)
    return out


def _rates(asked: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """A rate a meter for every (model, tier, context, hour) asked for, with the fallbacks key by key: tier, then context, then meter."""
    models = prices.join(asked.select(model="price_key").unique(), on="model", how="semi").filter(pl.col("region") == "")
    hours = asked.drop_nulls("price_key")
    dated = hours.join(models, left_on="price_key", right_on="model").filter(pl.col("valid_from") <= pl.col("day"))
    chosen = (
        dated.filter(pl.col("service_tier").eq(pl.col("__tier")) | pl.col("service_tier").eq("standard"))
        .filter(pl.col("context_above_right").eq(pl.col("context_above")) | pl.col("context_above_right").eq(0))
        .sort(
            pl.col("context_above_right") == pl.col("context_above"),
            pl.col("service_tier") == pl.col("__tier"),
            "valid_from",
            "recorded_at",
            descending=True,
        )
        .unique(["price_key", "__tier", "context_above", "day", "meter"], keep="first", maintain_order=True)
    )
    wide = chosen.pivot("meter", index=["price_key", "__tier", "context_above", "day"], values="rate", aggregate_function="first")
    for meter in TOKEN_METERS:
        if meter not in wide.columns:
            wide = wide.with_columns(pl.lit(None, dtype=RATE).alias(meter))
    for meter, coarser in _FALLBACK.items():
        wide = wide.with_columns(pl.coalesce(meter, coarser).alias(meter))
    return wide.select("price_key", "__tier", "context_above", "day", *(pl.col(m).alias(f"__rate_{m}") for m in TOKEN_METERS))
