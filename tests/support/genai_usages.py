"""Usage objects as providers' own responses state them, read into the usage columns of `spans`: one dialect a kind of API.

The readers know names and whether counts include each other, as those of our sources do; what the numbers mean is left to
`attribution.usage.metering`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from attribution.pricing import PriceBook, add_list_cost
from attribution.usage.metering import disjoint_meters
from ledger.tables import SPANS, USAGE_COLUMNS

Usage = Mapping[str, Any]


def dig(told: Any, *path: str) -> Any:
    """A value deep inside, None where any step is missing."""
    for step in path:
        told = told.get(step) if isinstance(told, Mapping) else None
    return told


def messages(body: Usage) -> dict[str, Any]:
    """Anthropic's Messages: input tokens stand beside the cached ones."""
    usage = body["usage"]
    return {
        "input_tokens": usage.get("input_tokens"),
        "cache_read_tokens": usage.get("cache_read_input_tokens"),
        "cache_write_tokens": usage.get("cache_creation_input_tokens"),
        "cache_write_1h_tokens": dig(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "input_includes_cache": False,
    }


def converse(body: Usage) -> dict[str, Any]:
    """Amazon Bedrock's Converse."""
    usage = body["usage"]
    return {
        "input_tokens": usage.get("inputTokens"),
        "cache_read_tokens": usage.get("cacheReadInputTokens"),
        "cache_write_tokens": usage.get("cacheWriteInputTokens"),
        "output_tokens": usage.get("outputTokens"),
        "input_includes_cache": False,
    }


def chat(body: Usage) -> dict[str, Any]:
    """OpenAI's Chat Completions, and the many that follow it: details are parts of the totals."""
    usage = body["usage"]
    return {
        "input_tokens": usage.get("prompt_tokens"),
        "cache_read_tokens": dig(usage, "prompt_tokens_details", "cached_tokens"),
        "cache_write_tokens": dig(usage, "prompt_tokens_details", "cache_write_tokens"),
        "input_audio_tokens": dig(usage, "prompt_tokens_details", "audio_tokens"),
        "output_tokens": usage.get("completion_tokens"),
        "reasoning_tokens": dig(usage, "completion_tokens_details", "reasoning_tokens"),
        "output_audio_tokens": dig(usage, "completion_tokens_details", "audio_tokens"),
        "input_includes_cache": True,
    }


def chat_of_claude(body: Usage) -> dict[str, Any]:
    """Chat Completions of Anthropic: cached tokens at the top."""
    return chat(body) | {"cache_read_tokens": body["usage"].get("cached_tokens")}


def responses(body: Usage) -> dict[str, Any]:
    """OpenAI's Responses."""
    usage = body["usage"]
    return {
        "input_tokens": usage.get("input_tokens"),
        "cache_read_tokens": dig(usage, "input_tokens_details", "cached_tokens"),
        "cache_write_tokens": dig(usage, "input_tokens_details", "cache_write_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "reasoning_tokens": dig(usage, "output_tokens_details", "reasoning_tokens"),
        "input_includes_cache": True,
    }


def embeddings(body: Usage) -> dict[str, Any]:
    """OpenAI's Embeddings: a prompt, and nothing generated."""
    return {"input_tokens": body["usage"].get("prompt_tokens"), "input_includes_cache": True}


def gemini(body: Usage) -> dict[str, Any]:
    """Google's generateContent: thoughts stand beside the answer, tool results beside the prompt."""
    usage = body["usageMetadata"]

    def audio(details: str) -> int | None:
        return next((d.get("tokenCount") for d in usage.get(details) or () if d.get("modality") == "AUDIO"), None)

    heard = [n for n in (audio("promptTokensDetails"), audio("toolUsePromptTokensDetails")) if n is not None]
    kept = audio("cacheTokensDetails")  # audio that came from the cache is in both lists
    prompt = [n for n in (usage.get("promptTokenCount"), usage.get("toolUsePromptTokenCount")) if n is not None]
    return {
        "input_tokens": sum(prompt) if prompt else None,
        "cache_read_tokens": usage.get("cachedContentTokenCount"),
        "input_audio_tokens": sum(heard) - (kept or 0) if heard else None,
        "other_usage": None if kept is None else json.dumps({"cache_read_audio_tokens": kept}),
        "output_tokens": usage.get("candidatesTokenCount"),
        "reasoning_tokens": usage.get("thoughtsTokenCount"),
        "output_audio_tokens": audio("candidatesTokensDetails"),
        "input_includes_cache": True,
        "output_includes_reasoning": False,
    }


def cohere(body: Usage) -> dict[str, Any]:
    """Cohere's chat: what is billed."""
    billed = body["usage"]["billed_units"]
    return {
        "input_tokens": billed.get("input_tokens"),
        "output_tokens": billed.get("output_tokens"),
        "input_includes_cache": True,
    }


DIALECTS: Mapping[tuple[str, str], Callable[[Usage], dict[str, Any]]] = {
    ("anthropic", "default"): messages,
    ("anthropic", "chat"): chat_of_claude,
    ("minimax", "default"): messages,
    ("aws", "default"): converse,
    ("google", "default"): gemini,
    ("cohere", "default"): cohere,
}
"""Which API a provider's flavour is, where its name does not say it."""
BY_NAME = {"anthropic": messages, "responses": responses, "embeddings": embeddings, "chat": chat, "default": chat}


def reader(provider: str, flavour: str) -> Callable[[Usage], dict[str, Any]]:
    """The dialect of a provider's API."""
    return DIALECTS.get((provider, flavour), BY_NAME[flavour])


def calls(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Calls as the pricer takes them: provider, model and start as told, usage columns as read, the rest absent."""
    absent = {
        **dict.fromkeys(USAGE_COLUMNS),
        **dict.fromkeys(("region", "service_tier", "request_model", "cache_hit", "other_usage", "reported_cost", "end_time")),
        "output_includes_reasoning": True,
        "start_time": datetime(2026, 8, 21, 12, tzinfo=UTC),
    }
    schema = {c: SPANS.schema[c] for c in (*absent, "provider", "response_model", "input_includes_cache")}
    return pl.DataFrame([absent | row for row in rows], schema=schema)


def priced(rows: list[dict[str, Any]], book: PriceBook) -> pl.DataFrame:
    """The same, metered and priced by the engine."""
    return add_list_cost(disjoint_meters(calls(rows).lazy()).collect(), book)
