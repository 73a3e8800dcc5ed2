"""Reader of the genai-prices price list: models by pattern, rates per million, with dates, context tiers and hours.

Semantics of the list: of several prices of one model the last whose condition is met is in force; a condition is a first day or hours
of the day (UTC). A tier applies to the whole request when its prompt has more tokens than `start`. A provider that resells other
providers' models falls back to their prices. Source: github.com/pydantic/genai-prices, `prices/data.json`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import polars as pl

from ledger.errors import UsageError
from ledger.money import RATE, unit_rate
from ledger.patterns import Pattern
from ledger.periods import parse_instant
from ledger.problems import Problem
from ledger.tables import PRICES, TIME

_METERS = {
    "input_mtok": ("input_tokens", 10**6),
    "output_mtok": ("output_tokens", 10**6),
    "cache_read_mtok": ("cache_read_tokens", 10**6),
    "cache_write_mtok": ("cache_write_5m_tokens", 10**6),
    "cache_write_5m_mtok": ("cache_write_5m_tokens", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 10**6),
    "output_reasoning_mtok": ("reasoning_tokens", 10**6),
    "input_audio_mtok": ("input_audio_tokens", 10**6),
    "output_audio_mtok": ("output_audio_tokens", 10**6),
    "cache_audio_read_mtok": ("cache_read_audio_tokens", 10**6),
    "input_image_mtok": ("input_image_tokens", 10**6),
    "output_image_mtok": ("output_image_tokens", 10**6),
    "requests_kcount": ("requests", 1000),
}
"""The meter of a price key, and its number of units. A meter without a key has the rate of the meter it refines."""

_LITERAL = ("equals", "starts_with")
_MAX_NESTING = 50


def is_book(document: object) -> bool:
    """Whether a JSON document is a genai-prices list.

    >>> is_book([{"id": "openai", "models": []}]), is_book({"gpt-4o": {}})
    (True, False)
    """
    return isinstance(document, list) and bool(document) and all(isinstance(p, Mapping) and "models" in p for p in document)


def read(
    document: list[Mapping[str, Any]], *, model_names: Collection[str] = frozenset(), book: str, uri: str
) -> tuple[pl.DataFrame, list[Problem]]:
    """Rates as rows of `prices`; `valid_from` is null where the list states no day.

    The list describes models by patterns. Each model is written under its own id, under the names its pattern states literally, and
    under the `model_names` that the pattern matches; where two patterns match a name, the first applies, as in genai-prices.
    """
    return _Reader(document, frozenset(model_names), uri).read()


class _Reader:
    def __init__(self, document: list[Mapping[str, Any]], model_names: frozenset[str], uri: str) -> None:
        self.providers = {str(p.get("id")): p for p in document}
        self.seen, self.uri = model_names, uri
        self.problems: list[Problem] = []
        self._reported: set[tuple[str, str]] = set()

    def read(self) -> tuple[pl.DataFrame, list[Problem]]:
        """See `read`."""
        rows = [row for provider in self.providers for row in self._provider(provider)]
        return pl.DataFrame(rows, schema=_SCHEMA, orient="row"), self.problems

    def _provider(self, provider: str) -> Iterator[tuple[Any, ...]]:
        fallbacks = _list(self.providers[provider].get("fallback_model_providers"))
        models = [
            (model, f"{seller} {model.get('id')}")
            for seller in dict.fromkeys((provider, *map(str, fallbacks)))
            for model in _list(self.providers.get(seller, {}).get("models"))
            if isinstance(model, Mapping)
        ]
        prices = [list(self._rates(m, place)) for m, place in models]
        ids = [str(m.get("id")) for m, _ in models]
        names = dict.fromkeys((*ids, *(name for m, _ in models for name in _literal_names(m.get("match")))))
        for name in (*names, *sorted(self.seen - names.keys())):
            position = next((n for n, (m, _) in enumerate(models) if _matches(m.get("match"), name.lower())), None)
            if position is None and name in ids:
                position = ids.index(name)
            for rate in prices[position] if position is not None else ():
                yield (provider, name, *rate)

    def _rates(self, model: Mapping[str, Any], place: str) -> Iterator[tuple[Any, ...]]:
        """Every rate of one model: meter, tier, context_above, region, currency, rate, valid_from, valid_to, hours."""
        prices_entry = model.get("prices")
        price_rules = (
            [c for c in prices_entry if isinstance(c, Mapping)] if isinstance(prices_entry, list) else [{"prices": prices_entry}]
        )
        conditions = [self._condition(conditional.get("constraint"), place) for conditional in price_rules]
        for number, (conditional, (start, hours)) in enumerate(zip(price_rules, conditions, strict=True)):
            # A later price replaces an earlier one completely, including tiers that it no longer has.
            end = next((later for later, _ in conditions[number + 1 :] if later is not None), None)
            tier = "standard" if hours is None else "off_peak"
            prices = conditional.get("prices")
            if not isinstance(prices, Mapping):
                self._problem(place, "prices", "is no object of prices", "each model states its prices")
                continue
            for key, value in prices.items():
                meter_unit = _METERS.get(key)
                if meter_unit is None:
                    self._problem(place, key, "no meter of the ledger fits it", "left out", "warning")
                    continue
                for above, price in _tiers(value):
                    if (rate := self._rate(place, key, price)) is not None:
                        per_one = unit_rate(rate, Decimal(meter_unit[1]))
                        yield (meter_unit[0], tier, above, "", "USD", per_one, start, end, hours)

    def _condition(self, constraint: object, place: str) -> tuple[datetime | None, str | None]:
        if not isinstance(constraint, Mapping):
            return None, None
        if "start_date" in constraint:
            try:
                return parse_instant(str(constraint["start_date"]), field="start_date"), None
            except UsageError as error:
                self._problem(place, "start_date", error.what, error.remedy)
        if {"start_time", "end_time"} <= constraint.keys():
            window = "-".join(str(constraint[edge])[:5] for edge in ("start_time", "end_time"))
            return None, json.dumps([{"hours_utc": [window]}])
        return None, None

    def _rate(self, place: str, key: str, price: object) -> Decimal | None:
        number = Decimal(price) if isinstance(price, int | Decimal) and not isinstance(price, bool) else None
        if number is None or not number.is_finite() or not 0 <= number < 10**20:
            self._problem(place, key, f"{str(price)[:40]!r} is no price", "state a number of US dollars from 0 up")
            return None
        return number

    def _problem(self, place: str, field: str, reason: str, remedy: str, severity: str = "error") -> None:
        if (place, field) not in self._reported:
            self._reported.add((place, field))
            self.problems.append(Problem("prices", self.uri, place, field, reason, remedy, severity=severity))


_COLUMNS = (
    *(
        "provider",
        "model",
        "meter",
        "service_tier",
        "context_above",
        "region",
        "currency",
        "rate",
        "valid_from",
        "valid_to",
        "hours",
    ),
)
_SCHEMA: Mapping[str, Any] = {c: PRICES.schema[c] for c in _COLUMNS} | {"rate": RATE, "valid_from": TIME, "valid_to": TIME}


def _tiers(value: object) -> Iterator[tuple[int, object]]:
    """A price by prompt size: (minimum prompt tokens, exclusive; price)."""
    if not isinstance(value, Mapping):
        yield 0, value
        return
    yield 0, value.get("base")
    for tier in _list(value.get("tiers")):
        start = tier.get("start") if isinstance(tier, Mapping) else None
        if isinstance(start, int) and start > 0:
            yield start, tier.get("price")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@cache
def _pattern(expression: str) -> Pattern | None:
    """The compiled regular expression; None where it is invalid, which matches nothing."""
    try:
        return Pattern(expression)
    except ValueError:
        return None


def _literal_names(clause: Any, depth: int = 0) -> Iterator[str]:
    """The names that a pattern states literally."""
    if not isinstance(clause, Mapping) or depth > _MAX_NESTING:
        return
    for kind, value in clause.items():
        if kind in _LITERAL:
            yield str(value)
        elif kind == "or":
            for part in _list(value):
                yield from _literal_names(part, depth + 1)


def _matches(clause: Any, name: str, depth: int = 0) -> bool:
    """Whether a pattern matches a lower-case name.

    >>> _matches({"or": [{"equals": "o3"}, {"and": [{"starts_with": "o3-"}, {"contains": "2025"}]}]}, "o3-2025-04-16")
    True
    """
    if not isinstance(clause, Mapping) or depth > _MAX_NESTING:
        return False
    ((kind, value),) = list(clause.items())[:1] or [("", "")]
    if kind in ("or", "and"):
        return (any if kind == "or" else all)(_matches(part, name, depth + 1) for part in _list(value))
    if kind == "regex":
        pattern = _pattern(str(value))
        return pattern is not None and pattern.search(name) is not None
    literal = str(value).lower()
    return {
        "equals": name == literal,
        "starts_with": name.startswith(literal),
        "ends_with": name.endswith(literal),
        "contains": literal in name,
    }.get(kind, False)
