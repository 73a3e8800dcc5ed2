"""Rates: which one applies to a meter of a sale, and which one replaces a rate that the book lacks.

A tariff is what one origin of the price book (contract, list, observed) charges for one model. A sale is how the model was used:
service tier, region, size of the prompt, time. Of the rates a tariff states for a meter, the one for the call's own region precedes
the one for any; then the largest context size the prompt exceeds, which reprices the whole request; then the call's own tier
before `standard`; then the latest. Every meter is looked up by itself. A meter without a rate is sold at the rate of the meter it refines.

The rules are LiteLLM's, which follow the providers; where they differ the docstrings say so, and
`tests/data/pricing/differences.csv` lists every model that shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

STANDARD, BATCH, OFF_PEAK, REGIONAL = "standard", "batch", "off_peak", "regional"

_TIERS = {
    "": STANDARD,
    "default": STANDARD,
    "auto": STANDARD,
    "on_demand": STANDARD,
    "standard_only": STANDARD,
    "batches": BATCH,
    "on_demand_priority": "priority",
    "on_demand_flex": "flex",
}
_TIER_ALIASES = {"fast": "priority"}
"""A tier with two names: Anthropic's fast mode has rates of its own, elsewhere fast is priority."""

REFINES: Mapping[str, str] = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "cache_write_12h_tokens": "cache_write_5m_tokens",
    "cache_read_audio_tokens": "cache_read_tokens",
    "cache_read_image_tokens": "cache_read_tokens",
    "cache_write_audio_tokens": "cache_write_5m_tokens",
    "reasoning_tokens": "output_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "input_video_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
    "output_video_tokens": "output_tokens",
    "output_images_512": "output_images",
    "output_images_0.5k": "output_images",
    "output_images_1024": "output_images",
    "output_images_1k": "output_images",
    "output_images_1536": "output_images",
    "output_images_2k": "output_images",
    "output_images_4k": "output_images",
    "output_video_seconds_480p": "output_video_seconds",
    "output_video_seconds_720p": "output_video_seconds",
    "output_video_seconds_768p": "output_video_seconds",
    "output_video_seconds_1080p": "output_video_seconds",
    "output_video_seconds_2k": "output_video_seconds",
    "output_video_seconds_4k": "output_video_seconds",
    "annotated_pages": "pages",
    "web_searches_low": "web_searches",
    "web_searches_high": "web_searches",
}
"""A meter without a rate in any tariff is sold at the rate of the meter it refines."""

_HALF = Decimal("0.5")
_HALVED = ("input_tokens", "output_tokens", "output_image_tokens", "cache_write_1h_tokens")
"""Sold in a batch at half the standard rate where no batch rate is stated."""
_HALVED_WITH_INPUT = ("cache_read_tokens", "cache_write_5m_tokens")
"""The same, but only where the input has no batch rate either; where it has one, cached input is plain input of the batch."""


class Rate(NamedTuple):
    """One row of the price book, for one meter of one model."""

    rate: Decimal
    service_tier: str
    context_above: int
    region: str
    valid_from: datetime
    valid_to: datetime | None
    recorded_at: datetime


class Sale(NamedTuple):
    """How a model was used, as far as prices depend on it."""

    service_tier: str
    regions: tuple[str, ...]
    prompt_above: int
    at: datetime
    off_peak: bool = False


def service_tier(tier_name: str | None) -> str:
    """The tier as the price book names it.

    >>> service_tier(None), service_tier("default"), service_tier("ON_DEMAND_PRIORITY"), service_tier("batches")
    ('standard', 'standard', 'priority', 'batch')
    """
    name = (tier_name or "").strip().lower()
    return _TIERS.get(name, name)


@dataclass(eq=False)
class Tariff:
    """The rates of one model from one origin of the price book, by meter."""

    origin: str
    model: str
    meters: dict[str, list[Rate]] = field(default_factory=dict)
    schedule: str | None = None

    def stated(self, meter: str, sale: Sale, tiers: Sequence[str]) -> Decimal | None:
        """The rate this tariff states for the meter in one of the tiers, the first preferred; None where it states none."""
        best, chosen = None, None
        for row in self.meters.get(meter, ()):
            if (
                row.service_tier in tiers
                and row.region in sale.regions
                and row.context_above <= sale.prompt_above
                and row.valid_from <= sale.at
                and (row.valid_to is None or sale.at < row.valid_to)
            ):
                order = (
                    -sale.regions.index(row.region),
                    row.context_above,
                    -tiers.index(row.service_tier),
                    row.valid_from,
                    row.recorded_at,
                )
                if best is None or order > best:
                    best, chosen = order, row.rate
        return chosen


@dataclass(frozen=True, eq=False)
class Tariffs:
    """The tariffs of a model, in order of precedence.

    A contract applies to the meters it names, with its own tiers and context sizes; the list to all others. Observed rates are used only where
    neither has the model.
    """

    tariffs: tuple[Tariff, ...]
    _rate_cache: dict[tuple[str, Sale], Decimal | None] = field(default_factory=dict, repr=False)

    @cached_property
    def thresholds(self) -> tuple[int, ...]:
        """Context sizes at which some token rate changes, ascending."""
        rate_lists = (rows for t in self.tariffs for meter, rows in t.meters.items() if meter != "queries")
        return tuple(sorted({r.context_above for rows in rate_lists for r in rows} - {0}))

    @cached_property
    def schedule(self) -> str | None:
        """When off-peak rates apply; None: there are none."""
        return next((t.schedule for t in self.tariffs if t.schedule), None)

    @cached_property
    def boundaries(self) -> frozenset[datetime]:
        """Instants at which some rate begins or ends."""
        rows = [r for t in self.tariffs for rows in t.meters.values() for r in rows]
        return frozenset({r.valid_from for r in rows} | {r.valid_to for r in rows if r.valid_to is not None})

    @cached_property
    def meters(self) -> frozenset[str]:
        """Every meter that some tariff names."""
        return frozenset(meter for t in self.tariffs for meter in t.meters)

    def sells(self, *meters: str) -> bool:
        """Whether some tariff names one of the meters."""
        return not self.meters.isdisjoint(meters)

    def prices_tier(self, tier: str) -> bool:
        """Whether some rate is stated for a tier. A batch has customary rates where none is stated. (ES-2)"""
        tier_names = {tier, _TIER_ALIASES.get(tier, tier)}
        rates = (row for t in self.tariffs for rows in t.meters.values() for row in rows)
        return tier in (STANDARD, BATCH) or any(row.service_tier in tier_names for row in rates)

    def rate(self, meter: str, sale: Sale) -> Decimal | None:
        """Price of one unit; None: unpriced.

        Input costs 3 and, for prompts above 200 000 tokens, 6; the cache has no rate, and priority costs 9 whatever the size:

        >>> since = datetime(1970, 1, 1, tzinfo=UTC)
        >>> rows = [Rate(Decimal(r), tier, above, "", since, None, since)
        ...         for r, tier, above in [("3", "standard", 0), ("6", "standard", 200_000), ("9", "priority", 0)]]
        >>> book = Tariffs((Tariff("list", "m", {"input_tokens": rows}),))
        >>> [book.rate(m, Sale(t, ("",), above, since)) for m, t, above in [
        ...     ("cache_read_tokens", "standard", 0), ("input_tokens", "priority", 0), ("input_tokens", "priority", 200_000),
        ...     ("input_tokens", "flex", 200_000), ("input_tokens", "batch", 0), ("output_tokens", "standard", 0)]]
        [Decimal('3'), Decimal('9'), Decimal('6'), Decimal('6'), Decimal('1.5'), None]
        """
        cache_key = (meter, sale)
        if cache_key not in self._rate_cache:
            self._rate_cache[cache_key] = self._rate(meter, sale)
        return self._rate_cache[cache_key]

    def _rate(self, meter: str, sale: Sale) -> Decimal | None:
        if sale.service_tier == BATCH:
            return self._batch_rate(meter, sale)
        own = self._stated_rate(meter, sale)
        if meter == "output_tokens" and not own:
            # Models that only generate pictures have a rate for picture tokens only.
            pictures = self._stated_rate("output_image_tokens", sale)
            return own if pictures is None else pictures
        if own is None and meter in REFINES:
            return self.rate(REFINES[meter], sale)
        return own

    def _stated_rate(self, meter: str, sale: Sale) -> Decimal | None:
        """The rate stated for the meter itself."""
        if sale.off_peak and (off_peak_rate := self._first_stated(meter, sale, (OFF_PEAK,))) is not None:
            return off_peak_rate
        coarser_meter = REFINES.get(meter, "")
        if (
            sale.off_peak
            and meter in ("cache_read_tokens", "cache_write_5m_tokens")
            and self._first_stated(meter, sale, (STANDARD,)) is None
        ):
            return self._first_stated(coarser_meter, sale, (OFF_PEAK,))
        tier = sale.service_tier
        tiers = tuple(dict.fromkeys((tier, _TIER_ALIASES.get(tier, tier), STANDARD)))
        if meter == "reasoning_tokens" and tier != STANDARD:
            # A tier with a rate for output and none for reasoning sells reasoning as output.
            tier_only = tiers[:-1]
            own = self._first_stated(meter, sale, tier_only)
            if own is not None or self._first_stated("output_tokens", sale._replace(prompt_above=0), tier_only) is not None:
                return own
        return self._first_stated(meter, sale, tiers)

    def _first_stated(self, meter: str, sale: Sale, tiers: Sequence[str]) -> Decimal | None:
        return next((rate for t in self.tariffs if (rate := t.stated(meter, sale, tiers)) is not None), None)

    def _batch_rate(self, meter: str, sale: Sale) -> Decimal | None:
        """In a batch: the batch rate of the prompt's size, else of any size, else half the standard rate where that is customary."""
        own = self._first_stated(meter, sale, (BATCH,))
        if own is not None:
            return own
        coarser_meter = REFINES.get(meter)
        is_halved = meter in _HALVED or (
            meter in _HALVED_WITH_INPUT and self._first_stated("input_tokens", sale, (BATCH,)) is None
        )
        if is_halved or coarser_meter is None or not meter.endswith("_tokens"):
            standard = self._first_stated(meter, sale, (STANDARD,))
            if standard is not None:
                return standard * _HALF if is_halved else standard
        if meter == "output_tokens":
            return self._batch_rate("output_image_tokens", sale) if self.sells("output_image_tokens") else None
        return None if coarser_meter is None else self._batch_rate(coarser_meter, sale)


@lru_cache(maxsize=256)
def off_peak_windows(schedule: str) -> tuple[tuple[ZoneInfo, frozenset[int] | None, tuple[tuple[time, time], ...]], ...]:
    """Off-peak hours as (timezone of the weekdays, weekdays 1–7 or None for all, UTC intervals). An unknown timezone counts as UTC."""
    rules = []
    for rule in json.loads(schedule):
        try:
            zone = ZoneInfo(rule.get("timezone") or "UTC")
        except (ValueError, ZoneInfoNotFoundError):
            zone = ZoneInfo("UTC")
        days = rule.get("weekdays")
        spans = []
        for span in rule["hours_utc"]:
            start, _, end = span.partition("-")
            spans.append((time.fromisoformat(start.strip()), time.fromisoformat(end.strip())))
        rules.append((zone, None if days is None else frozenset(days), tuple(spans)))
    return tuple(rules)


def is_off_peak(schedule: str, at: datetime) -> bool:
    """Whether off-peak rates apply at an instant. An interval may pass midnight; one that ends where it starts is the whole day.

    >>> nights = '[{"hours_utc": ["16:30-00:30"], "weekdays": null, "timezone": null}]'
    >>> [is_off_peak(nights, datetime(2026, 11, 2, h, m, tzinfo=UTC)) for h, m in [(16, 29), (16, 30), (0, 29), (0, 30)]]
    [False, True, True, False]
    """
    now = at.astimezone(UTC).time()
    for zone, days, spans in off_peak_windows(schedule):
        if days is not None and at.astimezone(zone).isoweekday() not in days:
            continue
        for start, end in spans:
            if start <= now < end if start < end else now >= start or now < end:
                return True
    return False
