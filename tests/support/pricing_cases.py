"""Random usages of every model of LiteLLM's price map, and what LiteLLM itself says they cost.

A case is one call: the model, how it was used (the columns a log would give us) and the same usage in LiteLLM's own terms. litellm is
imported here and nowhere in the product: it takes eight seconds.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PEAK, OFF_PEAK = datetime(2026, 11, 4, 2, 30, tzinfo=UTC), datetime(2026, 11, 4, 12, 30, tzinfo=UTC)
_TOKENLESS = {
    "image_generation",
    "image_edit",
    "audio_transcription",
    "audio_speech",
    "video_generation",
    "rerank",
    "search",
    "ocr",
}
_TIERS = ("priority", "flex", "batch", "default", "ultrafast", "balanced", "fast")


@dataclass
class Case:
    """One call of one model."""

    model: str
    kind: str
    call: dict[str, Any] = field(default_factory=dict)
    """Columns of `spans`, and `other`: the meters of `other_usage`."""
    asked: dict[str, Any] = field(default_factory=dict)
    """What the oracle needs to know beside."""


def cases(model: str, entry: Mapping[str, Any], seed: int) -> Iterator[Case]:
    """Several usages of a model, the same for the same seed."""
    chance = random.Random(f"{seed} {model}")
    mode = entry.get("mode") or "chat"
    if mode in ("guardrail", "vector_store") or model.endswith("/container"):
        return
    own = {"image_generation": _pictures, "image_edit": _pictures, "audio_transcription": _transcripts, "audio_speech": _speech}
    own |= {"video_generation": _videos, "rerank": _queries, "search": _queries, "ocr": _pages}
    if mode in own:
        yield from own[mode](chance, model, entry)
    if mode not in _TOKENLESS or "input_cost_per_token" in entry:
        yield from _tokens(chance, model, entry, mode)


def _count(chance: random.Random, most: int) -> int:
    """Small and large alike."""
    return min(most, int(10 ** chance.uniform(0, len(str(most)))))


def _tokens(chance: random.Random, model: str, entry: Mapping[str, Any], mode: str) -> Iterator[Case]:
    """Ten calls: four plain ones of all sizes, six each with its own mix of cache, reasoning, media, tier, place and tools."""
    priced = {key for key in entry if "cost" in key}
    makes_nothing = mode in ("embedding", "moderation", "rerank") or not (
        any(key.startswith("output") and "_token" in key and entry[key] for key in priced) or "tiered_pricing" in entry
    )
    caches = any("cache" in key for key in priced) or "tiered_pricing" in entry
    takes_tokens = "input_cost_per_token" in priced or not priced & set(_UNITS)
    for number in range(10 if takes_tokens else 0):
        prompt = _count(chance, 600_000)
        made = 0 if makes_nothing else _count(chance, 50_000)
        call: dict[str, Any] = {"input_tokens": prompt, "output_tokens": made, "start_time": chance.choice((PEAK, OFF_PEAK))}
        asked: dict[str, Any] = {}
        if number >= 4:
            left = prompt - (_cached(chance, prompt, call) if chance.random() < (0.2 if caches else 0.05) else 0)
            if chance.random() < 0.4 and not makes_nothing:
                call["reasoning_tokens"] = chance.randint(0, made // 2)
            if chance.random() < 0.4:
                _media(chance, entry, call, left, made)
            if chance.random() < 0.3:
                call["service_tier"] = chance.choice(_TIERS)
            if chance.random() < 0.4:
                _place(chance, entry, call, asked)
            if chance.random() < 0.3:
                _tools(chance, entry, call, asked)
        yield Case(model, f"tokens {number}", call, asked)
    if priced & set(_UNITS):
        other = {meter: _count(chance, 2000) for key, meter in _UNITS.items() if key in priced}
        prompt = _count(chance, 90_000) if "input_cost_per_token" in priced else 0
        made = 0 if makes_nothing else _count(chance, 5000)
        yield Case(model, "units", {"input_tokens": prompt, "output_tokens": made, "other": other, "start_time": PEAK})


_UNITS = {
    "input_cost_per_character": "input_characters",
    "input_cost_per_image": "input_images",
    "input_cost_per_video_per_second": "input_video_seconds",
    "input_cost_per_audio_per_second": "input_audio_seconds",
}


def _cached(chance: random.Random, prompt: int, call: dict[str, Any]) -> int:
    """Tokens read from and written to a cache; how many in all."""
    read = chance.randint(0, prompt // 2)
    call["cache_read_tokens"] = read
    if chance.random() < 0.5:
        return read
    written = chance.randint(0, (prompt - read) // 2)
    hour = chance.choice((0, 0, written, written // 3))
    call |= {"cache_write_5m_tokens": written - hour, "cache_write_1h_tokens": hour}
    return read + written


def _media(chance: random.Random, entry: Mapping[str, Any], call: dict[str, Any], left: int, made: int) -> None:
    for kind in ("audio", "image"):
        if f"input_cost_per_{kind}_token" in entry:
            call[f"input_{kind}_tokens"] = chance.randint(0, left // 3)
        if f"output_cost_per_{kind}_token" in entry:
            call[f"output_{kind}_tokens"] = chance.randint(0, made // 4)
    if "input_cost_per_video_token" in entry:
        call["other"] = {"input_video_tokens": chance.randint(0, left // 3)}


def _place(chance: random.Random, entry: Mapping[str, Any], call: dict[str, Any], asked: dict[str, Any]) -> None:
    special = entry.get("provider_specific_entry") or {}
    if "regional_processing_uplift_multiplier_eu" in entry:
        call["region"] = asked["data_residency"] = chance.choice(("eu", "us"))
    elif "regional_endpoint_uplift_multiplier" in entry:
        call["region"] = asked["vertex_location"] = chance.choice(("us-east5", "europe-west1", "global", "us", "eu"))
    elif "us" in special:
        call["region"] = asked["inference_geo"] = "us"
        if "fast" in special:
            call["service_tier"] = asked["speed"] = "fast"


def _tools(chance: random.Random, entry: Mapping[str, Any], call: dict[str, Any], asked: dict[str, Any]) -> None:
    if "search_context_cost_per_query" in entry:
        asked["searches"] = chance.randint(1, 9)
        meter = "web_searches_low" if entry["litellm_provider"] == "perplexity" else "web_searches"
        call["other"] = {**call.get("other", {}), meter: asked["searches"]}
    if "google_maps_grounding_cost_per_query" in entry:
        asked["maps"] = chance.randint(1, 4)
        call["other"] = {**call.get("other", {}), "map_queries": asked["maps"]}
    if "citation_cost_per_token" in entry:
        asked["citations"] = chance.randint(1, 900)
        call["other"] = {**call.get("other", {}), "citation_tokens": asked["citations"]}


def _pictures(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    count = chance.randint(1, 6)
    if not any(key in entry for key in ("input_cost_per_image", "output_cost_per_image", "input_cost_per_pixel")):
        return
    pixels = entry.get("input_cost_per_image") is None and entry.get("output_cost_per_image") is None
    size = next((part for part in model.split("/") if re.fullmatch(r"\d+-x-\d+", part)), "1024-x-1024")
    height, width = (int(side) for side in size.split("-x-"))
    other = {"output_pixels": height * width * count} if pixels else {"output_images": count}
    yield Case(model, "pictures", {"other": other, "start_time": PEAK}, {"pictures": count, "size": size})


def _transcripts(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    if "input_cost_per_second" in entry or "output_cost_per_second" in entry:
        for _ in range(2):
            seconds = round(chance.uniform(0.1, 4000), 3)
            yield Case(
                model, "transcript", {"other": {"input_audio_seconds": str(seconds)}, "start_time": PEAK}, {"seconds": seconds}
            )


def _speech(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    if entry.get("input_cost_per_character"):
        for _ in range(2):
            characters = _count(chance, 100_000)
            yield Case(
                model, "speech", {"other": {"input_characters": characters}, "start_time": PEAK}, {"characters": characters}
            )


def _videos(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    sizes = [k.removeprefix("output_cost_per_second_") for k in entry if k.startswith("output_cost_per_second_")]
    for size in ("", *sizes):
        seconds = chance.choice((4, 5, 8, 12, 7.5))
        meter = f"output_video_seconds_{size}" if size else "output_video_seconds"
        yield Case(
            model, f"video {size}", {"other": {meter: str(seconds)}, "start_time": PEAK}, {"seconds": seconds, "resolution": size}
        )


def _queries(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    if "input_cost_per_query" in entry:
        count = chance.randint(1, 20)
        yield Case(model, "queries", {"other": {"queries": count}, "start_time": PEAK}, {"queries": count})
    for results in (10, 26, 44) if "tiered_pricing" in entry else ():
        yield Case(
            model,
            f"queries {results}",
            {"other": {"queries": 2, "results": results}, "start_time": PEAK},
            {"queries": 2, "results": results},
        )


def _pages(chance: random.Random, model: str, entry: Mapping[str, Any]) -> Iterator[Case]:
    if "ocr_cost_per_credit" in entry:
        credits_ = chance.randint(1, 40)
        yield Case(model, "credits", {"other": {"credits": credits_}, "start_time": PEAK}, {"credits": credits_})
    elif "ocr_cost_per_page" in entry:
        pages, annotated = chance.randint(1, 400), chance.randint(0, 5)
        other = {"pages": pages, "annotated_pages": annotated}
        for tier in (None, "batch"):
            call = {"other": dict(other), "start_time": PEAK, "service_tier": tier}
            yield Case(model, f"pages {tier}", call, {"pages": pages, "annotated": annotated})
