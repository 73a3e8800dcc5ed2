"""Converts one model of LiteLLM's price map to rates: the stated ones, and those derived from its tables and multipliers.

The price book has neither multipliers nor tables. A surcharge for a region or for speed becomes rates of that region or tier; a table
by prompt size becomes rates by context size, complete in each range, because ranges do not fall back to each other; off-peak hours become
a tier with a schedule; a rate that LiteLLM assumes where the map states none (half the input rate for what Fireworks reads from its cache)
is written as a rate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ingest.prices.litellm_keys import NESTED, Meaning, is_price, meaning

REGIONAL, OFF_PEAK, FAST = "regional", "off_peak", "fast"
_MULTIPLIERS = {
    "regional_processing_uplift_multiplier_eu": "eu",
    "regional_processing_uplift_multiplier_us": "us",
    "regional_endpoint_uplift_multiplier": REGIONAL,
}
_GEOGRAPHY, _SPEED = "provider_specific_entry", "fast"
_GEOGRAPHIES = ("us", "eu")
_IN_RANGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
)
"""The rates that a table by prompt size replaces."""
_BY_TOKEN = re.compile(r"_tokens\Z|_characters\Z|\Ainput_(images|audio_seconds|video_seconds)\Z")
_NO_TOKEN = ("citation_tokens", "computer_use_input_tokens", "computer_use_output_tokens")
_SIZED = re.compile(r"(?:\A|/)(?:[\w.]+/)?\d+-x-\d+/")
"""Models whose name contains the size of the generated image: their price of an input image is that of the generated one."""
_INCLUSIVE = "xai"
"""Providers whose larger context tier begins at the threshold, not above it."""
_HALF_CACHED = "fireworks_ai"
_BY_PROMPT = ("gemini", "vertex_ai")
"""Providers that price web search per prompt, unless the model states per query."""


class Rate(NamedTuple):
    """One rate of a model: its meter, and the key of the map it was read from."""

    key: str
    meaning: Meaning
    region: str
    rate: Decimal
    hours: str | None = None


Number = Callable[[str, object], Decimal | None]
"""A value of the map as a number; None, with a problem reported, where it is not a number."""


class Entry:
    """Reads one entry of the map. `number` parses a price, `seen` is called with every price key, `differing` with a rate that
    contradicts an earlier one.
    """

    def __init__(
        self,
        model: str,
        entry: Mapping[str, Any],
        number: Number,
        report_key: Callable[[str], None],
        report_contradiction: Callable[[str, Decimal, str, Decimal], None],
    ) -> None:
        self.model, self.entry = model, entry
        self.provider: str = entry["litellm_provider"]
        self.mode = str(entry.get("mode") or "")
        self._number, self._seen, self._differing = number, report_key, report_contradiction

    def rates(self) -> list[Rate]:
        """All rates, one for each meter, tier and context size."""
        rates_by_meaning: dict[Meaning, Rate] = {}
        for key, key_meaning, value in self._listed_rates():
            rate = self._number(key, value)
            if rate is None:
                continue
            earlier = rates_by_meaning.get(key_meaning)
            if earlier is not None and earlier.rate and rate and earlier.rate != rate:
                self._differing(key, rate, earlier.key, earlier.rate)
            elif earlier is None or (rate and not earlier.rate):
                rates_by_meaning[key_meaning] = Rate(key, key_meaning, "", rate)
        base = self._ranges(self._with_half_cached(rates_by_meaning))
        return self._multiplied([*base, *self._off_peak(base)])

    def _listed_rates(self) -> Iterator[tuple[str, Meaning, object]]:
        for key, value in self.entry.items():
            if not is_price(key):
                continue
            self._seen(key)
            if key in NESTED and isinstance(value, Mapping):
                for part, rate in value.items():
                    if (key_meaning := meaning(f"{key}.{part}")) is not None and rate is not None:
                        yield key, self._as_sold(key_meaning), rate
            elif value is not None and key not in NESTED and (key_meaning := meaning(key, self.mode)) is not None:
                yield key, self._as_sold(key_meaning), value

    def _as_sold(self, key_meaning: Meaning) -> Meaning:
        """The meter by which this provider prices it."""
        meter, above = key_meaning.meter, key_meaning.context_above
        if self.provider == _INCLUSIVE and above:
            above -= 1
        if (
            meter == "input_images"
            and self.mode == "image_generation"
            and (_SIZED.search(self.model) or not self._sells("image_token"))
        ):
            meter = "output_images" if "output_cost_per_image" not in self.entry else meter
        if meter.startswith(("web_searches", "map_queries")) and self._by_prompt():
            meter = "grounded_map_prompts" if meter == "map_queries" else "grounded_prompts"
        return key_meaning._replace(meter=meter, context_above=above)

    def _sells(self, word: str) -> bool:
        return any(word in key for key in self.entry if is_price(key))

    def _by_prompt(self) -> bool:
        googles = self.provider.startswith(_BY_PROMPT) and "claude" not in self.model
        return googles and self.entry.get("web_search_billing_unit") != "per_query"

    def _with_half_cached(self, rates_by_meaning: dict[Meaning, Rate]) -> list[Rate]:
        cache_read, plain = Meaning("cache_read_tokens", "standard", 0), Meaning("input_tokens", "standard", 0)
        if self.provider == _HALF_CACHED and cache_read not in rates_by_meaning and plain in rates_by_meaning:
            rates_by_meaning[cache_read] = rates_by_meaning[plain]._replace(
                meaning=cache_read, rate=rates_by_meaning[plain].rate / 2
            )
        return list(rates_by_meaning.values())

    def _ranges(self, base: list[Rate]) -> list[Rate]:
        """The rates with those that a table by prompt size replaces exchanged for the table's; a range applies above its lower end."""
        tiers = self.entry.get("tiered_pricing")
        ranges = sorted(self._tiers(tiers), key=lambda tier_range: tier_range[0]) if isinstance(tiers, list) else []
        if not ranges:
            return base
        if all("queries" in rates for _, rates in ranges):
            return base + [
                r._replace(meaning=r.meaning._replace(context_above=above)) for above, rates in ranges for r in rates.values()
            ]
        ranges = [(above, rates) for above, rates in ranges if "input_tokens" in rates]
        range_rates = [rate for above, rates in ranges for rate in self._complete(above, rates, ranges)]
        replaced_meters = {rate.meaning.meter for rate in range_rates} | {
            "cache_read_tokens",
            "cache_write_5m_tokens",
            "cache_write_1h_tokens",
        }
        return [r for r in base if r.meaning.meter not in replaced_meters] + range_rates if range_rates else base

    def _tiers(self, tiers: list[Any]) -> Iterator[tuple[int, dict[str, Rate]]]:
        keys = set()
        for tier in tiers:
            if not isinstance(tier, Mapping):
                continue
            bounds = tier.get("range") or tier.get("max_results_range")
            lower = bounds[0] if isinstance(bounds, list) and len(bounds) == 2 else None
            if isinstance(lower, bool) or not isinstance(lower, (int, Decimal)):
                continue
            above = int(lower) if "range" in tier else max(int(lower) - 1, 0)
            rates = {}
            for key, value in tier.items():
                if key == "range":
                    continue
                keys.add(name := f"tiered_pricing.{key}")
                key_meaning = meaning(key, self.mode)
                if key_meaning is not None and value is not None and (rate := self._number(name, value)) is not None:
                    rates[key_meaning.meter] = Rate(name, key_meaning._replace(context_above=above), "", rate)
            yield above, rates
        for name in sorted(keys):
            self._seen(name)

    def _complete(self, above: int, rates: dict[str, Rate], ranges: list[tuple[int, dict[str, Rate]]]) -> Iterator[Rate]:
        """The rates of one range; a missing rate is the one of its base meter: input for cached input, output for reasoning."""
        stands_in = {
            "cache_read_tokens": "input_tokens",
            "cache_write_5m_tokens": "input_tokens",
            "reasoning_tokens": "output_tokens",
        }
        somewhere = {meter for _, rate in ranges for meter in rate}
        for meter in _IN_RANGE:
            rate = rates.get(meter) or (rates.get(stands_in.get(meter, "")) if meter in somewhere else None)
            if rate is not None:
                yield rate._replace(meaning=Meaning(meter, "standard", above))

    def _off_peak(self, base: list[Rate]) -> Iterator[Rate]:
        """Rates of the hours in which the model is cheaper."""
        block = self.entry.get("off_peak_pricing")
        if not isinstance(block, Mapping) or not (hours := schedule(block)):
            return
        half = self.provider == _HALF_CACHED and "cache_read_input_token_cost" not in {**block, **self.entry}
        for key, value in block.items():
            key_meaning = meaning(key, self.mode)
            if key_meaning is not None and value is not None and (rate := self._number("off_peak_pricing", value)) is not None:
                yield Rate("off_peak_pricing", key_meaning._replace(service_tier=OFF_PEAK), "", rate, hours)
                if key_meaning.meter == "input_tokens" and half:
                    cache_meaning = key_meaning._replace(meter="cache_read_tokens", service_tier=OFF_PEAK)
                    yield Rate("off_peak_pricing", cache_meaning, "", rate / 2, hours)

    def _multiplied(self, base: list[Rate]) -> list[Rate]:
        """The rates, and the rates with surcharges: for a region, for speed, for both."""
        rates = list(base)
        tokens = [r for r in base if _BY_TOKEN.search(r.meaning.meter) and r.meaning.meter not in _NO_TOKEN]
        special = self.entry.get(_GEOGRAPHY)
        special = special if isinstance(special, Mapping) else {}
        if _SPEED in special and (faster := self._number(_GEOGRAPHY, special[_SPEED])) is not None:
            fast = [
                r._replace(key=_GEOGRAPHY, meaning=r.meaning._replace(service_tier=FAST), rate=r.rate * faster)
                for r in tokens
                if r.meaning.service_tier == "standard"
            ]
            rates += fast
            tokens += fast
        surcharges = [(key, region, self.entry.get(key)) for key, region in _MULTIPLIERS.items()]
        surcharges += [(_GEOGRAPHY, region, special.get(region)) for region in _GEOGRAPHIES]
        for key, region, value in surcharges:
            if value is not None and (factor := self._number(key, value)) is not None:
                rates += [r._replace(key=key, region=region, rate=r.rate * factor) for r in tokens]
        return rates


def schedule(block: Mapping[str, Any]) -> str | None:
    """The hours of off-peak rates in the format of the price book's column `hours`; None where they cannot be parsed.

    >>> schedule({"windows": [{"hours_utc": "00:00-00:00", "weekdays": [6, 7]}], "weekday_timezone": "Asia/Shanghai"})
    '[{"hours_utc": ["00:00-00:00"], "weekdays": [6, 7], "timezone": "Asia/Shanghai"}]'
    """
    rules = [{"hours_utc": block.get("hours_utc")}, *(w for w in block.get("windows") or () if isinstance(w, Mapping))]
    entries = []
    for rule in rules:
        spans = rule.get("hours_utc")
        spans = [spans] if isinstance(spans, str) else spans if isinstance(spans, list) else []
        windows = [s for s in spans if isinstance(s, str) and re.fullmatch(r"\s*[0-2]\d:[0-5]\d\s*-\s*[0-2]\d:[0-5]\d\s*", s)]
        if windows:
            days = rule.get("weekdays")
            days = [d for d in days if isinstance(d, int) and 1 <= d <= 7] if isinstance(days, list) else None
            entries.append({"hours_utc": windows, "weekdays": days, "timezone": block.get("weekday_timezone")})
    return json.dumps(entries) if entries else None
