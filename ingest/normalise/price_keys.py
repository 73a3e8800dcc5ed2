"""What the keys of LiteLLM's price map mean: which meter, in which service tier, above how many prompt tokens.

A key is a stem and suffixes: ``cache_creation_input_token_cost_above_1hr_above_200k_tokens_batches`` is what writing to the
one-hour cache costs in the batch tier, for requests of more than 200,000 prompt tokens. Stems that name something the ledger
does not measure are not guessed at; `why_not` says of each what it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple


class Meaning(NamedTuple):
    """What one key prices."""

    meter: str
    service_tier: str
    context_above: int


_METERS = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
    "cache_read_input_token_cost": "cache_read_tokens",
    "input_cost_per_token_cache_hit": "cache_read_tokens",
    "cache_creation_input_token_cost": "cache_write_5m_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "input_cost_per_image_token": "input_image_tokens",
    "output_cost_per_image_token": "output_image_tokens",
    "input_cost_per_request": "requests",
    "input_cost_per_query": "requests",
    "input_cost_per_second": "seconds",
    "output_cost_per_second": "seconds",
    "cost_per_second": "seconds",
}
_TIERS = {"batches": "batch"}
_TIER = re.compile(r"_(batches|flex|priority|balanced|ultrafast|decisions)\Z")
_CONTEXT = re.compile(r"_above_(\d{1,6})k_tokens\Z")
_PRICE = re.compile(r"cost|pricing|multiplier|_billing_unit\Z|search_free_requests\Z|provider_specific_entry\Z")

_REASONS = (
    (r"uplift_multiplier", "a multiplier for regional endpoints, not a rate"),
    (r"off_peak_pricing", "rates by hour of the day; the ledger's rates hold all day"),
    (r"tiered_pricing\.(input_cost_per_query|max_results_range)", "rates by number of search results"),
    (r"search_context_cost|grounding_cost|web_search|search_free", "web searches made by the model are not metered"),
    (r"_above_12hr", "the twelve-hour cache has no meter"),
    (r"cache_(read|creation)_input_(audio|image)_token", "cached audio and images have no meter of their own"),
    (r"explicit_cache", "explicit caches have no meter of their own"),
    (r"per_audio_per_second|_interval", "seconds of media in a prompt have no meter"),
    (r"video", "video has no meter of its own"),
    (r"_dbu_", "priced in Databricks units, not in money"),
    (r"per_character", "characters are not metered"),
    (r"per_(image|pixel)", "images are metered in tokens only"),
    (r"per_second_", "seconds by resolution have no meter of their own"),
    (r"page|credit", "pages are not metered"),
    (r"code_interpreter|guardrail|file_search|vector_store|computer_use", "built-in tools are not metered"),
    (r"provider_specific_entry", "hints and multipliers of the gateway's own"),
)


@lru_cache(maxsize=4096)
def meaning(key: str) -> Meaning | None:
    """What a key prices; None where the ledger has no meter for it.

    >>> meaning("output_cost_per_token_above_200k_tokens_priority")
    Meaning(meter='output_tokens', service_tier='priority', context_above=200000)
    >>> meaning("cache_creation_input_token_cost_above_1hr"), meaning("ocr_cost_per_page")
    (Meaning(meter='cache_write_1h_tokens', service_tier='standard', context_above=0), None)
    """
    stem, tier, above = key, "standard", 0
    if found := _TIER.search(stem):
        tier, stem = _TIERS.get(found[1], found[1]), stem[: found.start()]
    if found := _CONTEXT.search(stem):
        above, stem = int(found[1]) * 1000, stem[: found.start()]
    meter = _METERS.get(stem)
    return None if meter is None else Meaning(meter, tier, above)


def is_price(key: str) -> bool:
    """Whether a key of the map has to do with money at all.

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
