"""Usage of LiteLLM other than the common token counts, as `spans.other_usage`: meters and quantities."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ingest.sources.litellm.values import first_count, first_positive
from ledger.money import exact_decimal, text

_METER_PATHS = (
    ("input_video_tokens", ("prompt_tokens_details", "video_tokens")),
    ("output_video_tokens", ("completion_tokens_details", "video_tokens")),
    ("cache_read_audio_tokens", ("prompt_tokens_details", "cached_tokens_details", "audio_tokens")),
    ("cache_read_image_tokens", ("prompt_tokens_details", "cached_tokens_details", "image_tokens")),
    ("input_characters", ("prompt_tokens_details", "character_count")),
    ("input_images", ("prompt_tokens_details", "image_count")),
    ("input_video_seconds", ("prompt_tokens_details", "video_length_seconds")),
    ("input_audio_seconds", ("prompt_tokens_details", "audio_length_seconds")),
    ("queries", ("prompt_tokens_details", "query_count")),
    ("web_searches", ("prompt_tokens_details", "web_search_requests")),
    ("web_searches", ("server_tool_use", "web_search_requests")),
    ("web_searches", ("server_side_tool_usage_details", "web_search_calls")),
    ("browser_pages", ("server_tool_use", "browser_open_requests")),
    ("map_queries", ("prompt_tokens_details", "google_maps_grounding_requests")),
    ("citation_tokens", ("citation_tokens",)),
)
"""Paths of each meter in LiteLLM's usage; of several paths for one meter the first that is not 0 is used."""


def other_usage(usage: Mapping[str, Any]) -> str | None:
    """The JSON object, or None where it would be empty; invalid quantities are left out.

    >>> other_usage({"prompt_tokens": 9, "server_tool_use": {"web_search_requests": 2}, "prompt_tokens_details": {"image_count": 0}})
    '{"web_searches": "2"}'
    """
    quantities: dict[str, str] = {}
    for meter, path in _METER_PATHS:
        value: object = usage.get(path[0])
        if not value:
            continue
        for step in path[1:]:
            value = value.get(step) if isinstance(value, (dict, Mapping)) else None
        if value is None:
            continue
        number = exact_decimal(str(value)) if isinstance(value, (int, Decimal, float)) and not isinstance(value, bool) else None
        if number and number > 0:
            quantities.setdefault(meter, text(number) or "0")
    return json.dumps(quantities) if quantities else None


def with_images(meters: str | None, pictures: object) -> str | None:
    """The JSON object with the pictures of the answer's list, where usage counts no pictures of an answer.

    >>> with_images(None, [{"url": "a"}, {"url": "b"}]), with_images('{"output_images": "1"}', [{}, {}]), with_images(None, "cut")
    ('{"output_images": "2"}', '{"output_images": "1"}', None)
    """
    quantities = json.loads(meters or "{}")
    if not isinstance(pictures, (list, tuple)) or not pictures or any(meter.startswith("output_images") for meter in quantities):
        return meters
    return json.dumps({**quantities, "output_images": str(len(pictures))})


def token_counts(
    item: Mapping[str, Any], usage: Mapping[str, Any], part: Callable[[Mapping[str, Any], str], Mapping[str, Any]]
) -> dict[str, int | None]:
    """The counts of an item as columns of `spans`; `part` gives a nested object. LiteLLM's own names come before the provider's."""
    prompt_parts = part(usage, "prompt_tokens_details") or part(usage, "input_tokens_details")
    answer_parts = part(usage, "completion_tokens_details") or part(usage, "output_tokens_details")
    lifetimes = part(prompt_parts, "cache_creation_token_details")
    return {
        "input_tokens": first_positive(item, "prompt_tokens", usage, "prompt_tokens", usage, "input_tokens"),
        "output_tokens": first_positive(item, "completion_tokens", usage, "completion_tokens", usage, "output_tokens"),
        "total_tokens": first_positive(item, "total_tokens", usage, "total_tokens"),
        "cache_read_tokens": first_count(prompt_parts, "cached_tokens", usage, "cache_read_input_tokens"),
        "cache_write_tokens": first_count(
            prompt_parts, "cache_creation_tokens", prompt_parts, "cache_write_tokens", usage, "cache_creation_input_tokens"
        ),
        "cache_write_5m_tokens": first_count(lifetimes, "ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": first_count(lifetimes, "ephemeral_1h_input_tokens"),
        "reasoning_tokens": first_count(answer_parts, "reasoning_tokens"),
        "input_audio_tokens": first_count(prompt_parts, "audio_tokens"),
        "output_audio_tokens": first_count(answer_parts, "audio_tokens"),
        "input_image_tokens": first_count(prompt_parts, "image_tokens"),
        "output_image_tokens": first_count(answer_parts, "image_tokens"),
    }
