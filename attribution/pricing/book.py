"""The price book: the tariffs of a model, under any of its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import polars as pl

from attribution.classification import names
from attribution.pricing.rates import Rate, Tariff, Tariffs

ORIGINS = ("contract", "list", "observed")
"""Who states a rate, in order of precedence."""
_TOOLS = "container"
"""The model name under which lists state the prices of a provider's own tools, whichever model uses them."""


class PriceBook:
    """The rates in force, looked up by the names that logs use.

    `prices` are rows of the `prices` table. A model is looked up as the log wrote it, with the provider's route before it and by itself, then by
    its bare name under the same provider; in the contract, in the list and in observed rates separately, since they may spell it differently.
    """

    def __init__(self, prices: pl.DataFrame) -> None:
        currency_counts = prices.group_by("currency").len().sort("len", "currency", descending=[True, False])
        self.currency: str = currency_counts["currency"][0] if currency_counts.height else "USD"
        """Currency of the book: that of most of its rates. Prices of two currencies are never added up. (RA-7)"""
        self.foreign = prices.filter(pl.col("currency") != self.currency)
        """Rates in any other currency: not used, and reported as a problem."""
        self.prices = prices = prices.filter(pl.col("currency") == self.currency)
        self._exact: dict[str, dict[str, list[str]]] = {origin: {} for origin in ORIGINS}
        self._bare: dict[str, dict[tuple[str, str], tuple[str, str]]] = {origin: {} for origin in ORIGINS}
        model_keys = prices.select("origin", "provider", "model").unique().sort("origin", "provider", "model")
        for origin, provider, model in model_keys.iter_rows():
            self._exact.setdefault(origin, {}).setdefault(model, []).append(provider)
            short = names.model(model)
            if short:
                bare = self._bare.setdefault(origin, {})
                key = (names.provider(provider) or provider, short)
                if key not in bare or (len(model), model) < (len(bare[key][1]), bare[key][1]):
                    bare[key] = (provider, model)
        self._tariffs_by_content: dict[tuple[Tariff, ...], Tariffs] = {}
        self._rows: dict[tuple[str, str, str], pl.DataFrame] | None = None

    @property
    def models(self) -> set[str]:
        """Every model of the book."""
        return {model for models in self._exact.values() for model in models}

    def key(self, provider: str | None, region: str | None, *models: str | None) -> str | None:
        """The book's own name of a model, or None: unpriced."""
        model_tariffs = self.tariffs(provider, region, *models)
        return model_tariffs.tariffs[0].model if model_tariffs.tariffs else None

    @cache  # noqa: B019 - a book lives as long as one run
    def tariffs(self, provider: str | None, region: str | None, *models: str | None) -> Tariffs:
        """The tariffs of a call's model, by the first of its names that any of them has."""
        return self._combine(self._find_tariff(origin, provider, region, models) for origin in ORIGINS)

    @cache  # noqa: B019
    def tool_tariffs(self, provider: str | None) -> Tariffs:
        """The tariffs of a provider's own tools, whichever model uses them."""
        route = (provider or "").lower()
        return self._combine(self._tariff(origin, route, f"{route}/{_TOOLS}") for origin in ORIGINS)

    def _combine(self, candidates: Iterable[Tariff | None]) -> Tariffs:
        """The tariffs that exist, in the order of ORIGINS, one object for equal ones; observed rates only where there is no other."""
        tariffs = [t for t in candidates if t is not None]
        preferred_tariffs = tuple([t for t in tariffs if t.origin != "observed"] or tariffs)
        return self._tariffs_by_content.setdefault(preferred_tariffs, Tariffs(preferred_tariffs))

    def _find_tariff(
        self, origin: str, provider: str | None, region: str | None, models: tuple[str | None, ...]
    ) -> Tariff | None:
        canonical = names.provider(provider)
        for model_name in models:
            if not model_name:
                continue
            matches = [
                (seller, name, names.provider(seller) == canonical, own)
                for name, own in _spellings(provider, region, model_name)
                for seller in self._exact[origin].get(name, ())
            ]
            # The call's own provider first: other sellers also list OpenAI's `gpt-4o` as `openai/gpt-4o`.
            own_matches = [(s, n) for s, n, is_same_provider, _ in matches if is_same_provider]
            offers = own_matches or [(s, n) for s, n, _, own in matches if not own]
            if offers:
                name = offers[0][1]
                seller = next((s for s, n in offers if n == name and s == provider), offers[0][0])
                return self._tariff(origin, seller, name)
            bare_match = self._bare[origin].get((canonical or "", names.model(model_name) or ""))
            if bare_match:
                return self._tariff(origin, *bare_match)
        return None

    @cache  # noqa: B019
    def _tariff(self, origin: str, provider: str, model: str) -> Tariff | None:
        if self._rows is None:
            parts = self.prices.partition_by("origin", "provider", "model", as_dict=True)
            self._rows = {(str(o), str(p), str(m)): part for (o, p, m), part in parts.items()}
        rows = self._rows.get((origin, provider, model))
        if rows is None:
            return None
        tariff = Tariff(origin, model)
        columns = ("meter", "rate", "service_tier", "context_above", "region", "valid_from", "valid_to", "recorded_at")
        for meter, *rate_fields in rows.select(c if c in rows.columns else pl.lit(None).alias(c) for c in columns).iter_rows():
            tariff.meters.setdefault(meter, []).append(Rate(*rate_fields))
        if "hours" in rows.columns:
            tariff.schedule = next(iter(rows["hours"].drop_nulls()), None)
        return tariff


def _spellings(provider: str | None, region: str | None, model: str) -> Iterator[tuple[str, bool]]:
    """Names to look up, and whether only a seller that is the called provider may have them.

    A name routed through the provider itself is that provider's: the price of `github_copilot/gpt-4o` is not OpenAI's price of gpt-4o.
    """
    route = (provider or "").lower()
    prefix, _, bare = model.partition("/")
    own = bool(bare) and prefix.lower() == route
    if route and region:
        yield f"{route}/{region}/{bare or model}", False
        yield f"{route}/{region}/{model}", False
    if own:
        yield model, False
    for name in dict.fromkeys((model, bare or model)):
        if route:
            yield f"{route}/{name}", False
        yield name, own and name == bare
