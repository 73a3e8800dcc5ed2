"""The meaning of the keys of LiteLLM's price map: meter, service tier, and context tier.

A key is a stem and suffixes: ``cache_creation_input_token_cost_above_1hr_above_200k_tokens_batches`` is the rate of writes to the
one-hour cache in the batch tier, for requests of more than 200,000 prompt tokens. The stems are data (`price_stems.csv`); the
meaning of a few depends on the model's mode. Stems of quantities the ledger does not measure are not imported; `why_not` gives the
reason of each.
"""

from __future__ import annotations

import csv
import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple


class Meaning(NamedTuple):
    """What one key prices."""

    meter: str
    service_tier: str
    context_above: int


_TIERS = {"batches": "batch"}
_TIER = re.compile(r"_(batches|flex|priority|balanced|ultrafast|decisions)\Z")
_CONTEXT = re.compile(r"_above_(\d{1,6})k_tokens\Z")
_PRICE = re.compile(r"cost|pricing|multiplier|_billing_unit\Z|search_free_requests\Z|provider_specific_entry\Z")
NESTED = ("search_context_cost_per_query", "guardrail_cost_per_unit")
"""Keys whose value is an object of rates."""

_REASONS = (
    (r"tiered_pricing\.max_results_range", "the range of its tier, not a rate"),
    (r"search_context_cost|web_search_billing_unit", "states whether web search is priced per search or per prompt; not a rate"),
    (r"search_free", "an allowance of the whole account, which a single call cannot know"),
    (r"explicit_cache", "LiteLLM does not apply it: explicit caches are not reported separately"),
    (r"_interval", "depends on the length of the clip, which is not reported"),
    (r"_dbu_", "priced in Databricks units, not in money"),
    (r"provider_specific_entry", "routing hints of the gateway, except for its multipliers of region and speed"),
)


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a CSV file beside this module."""
    text = (files("ingest.prices") / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _stems() -> dict[tuple[str, str], str]:
    return {(row["stem"], row["mode"]): row["meter"] for row in table("price_stems")}


@lru_cache(maxsize=8192)
def meaning(key: str, mode: str = "") -> Meaning | None:
    """The meter and tiers of a key, for a model of the given mode; None where the ledger has no meter for it.

    >>> meaning("output_cost_per_token_above_200k_tokens_priority")
    Meaning(meter='output_tokens', service_tier='priority', context_above=200000)
    >>> meaning("input_cost_per_second").meter, meaning("input_cost_per_second", "audio_transcription").meter
    ('seconds', 'input_audio_seconds')
    >>> meaning("input_dbu_cost_per_token") is None
    True
    """
    stem, tier, above = key, "standard", 0
    if match := _TIER.search(stem):
        tier, stem = _TIERS.get(match[1], match[1]), stem[: match.start()]
    if match := _CONTEXT.search(stem):
        above, stem = int(match[1]) * 1000, stem[: match.start()]
    stems = _stems()
    meter = stems.get((stem, mode)) or stems.get((stem, ""))
    return None if meter is None else Meaning(meter, tier, above)


def is_price(key: str) -> bool:
    """Whether a key of the map is a price, or a table of prices.

    >>> is_price("input_cost_per_token"), is_price("supports_vision"), is_price("tiered_pricing")
    (True, False, True)
    """
    return _PRICE.search(key) is not None


def why_not(key: str) -> str:
    """Why a price key is not imported.

    >>> why_not("input_dbu_cost_per_token")
    'priced in Databricks units, not in money'
    """
    return next((reason for pattern, reason in _REASONS if re.search(pattern, key)), "no meter of the ledger fits it")
