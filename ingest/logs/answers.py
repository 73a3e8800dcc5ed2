"""Answers of models as a log holds them: an object, a list of chunks, or the text of either or of a stream's events; and their usage.

Only the fields that bear on usage are looked up. What was said is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingest.logs.json_fields import count, decimal, parse_json, text
from ingest.logs.rows import Row

_EVENT = re.compile(r"^data:\s*(\{.*\})\s*$", re.MULTILINE)
_HOLDERS = ("response", "message")
"""Fields of a stream's event that hold the answer as far as it is known."""


def answer_objects(part: object) -> Iterator[Mapping[str, Any]]:
    r"""The objects of an answer or of a part of it: parsed, as JSON text, or as the text of events.

    >>> stream = 'event: a\ndata: {"type": "a", "usage": {"input_tokens": 9}}\n\ndata: {"usage": {"output_tokens": 4}}\n\ndata: [DONE]\n'
    >>> last_fields(list(answer_objects(stream)), "usage")
    {'input_tokens': 9, 'output_tokens': 4}
    """
    if isinstance(part, Mapping):
        yield part
    elif isinstance(part, str):
        is_stream = part.lstrip().startswith(("event:", "data:"))
        for document_text in _EVENT.findall(part) if is_stream else [part]:
            try:
                document = parse_json(document_text)
            except (ValueError, RecursionError):
                continue  # a fragment of an answer has no counts
            yield from (entry for entry in (document if isinstance(document, list) else [document]) if isinstance(entry, Mapping))


def answer_parts(body: object) -> list[Mapping[str, Any]]:
    """The objects of a whole answer, and the answers that events of a stream hold, in their order."""
    parts: list[Mapping[str, Any]] = []
    for chunk in body if isinstance(body, list) else [body]:
        for entry in answer_objects(chunk):
            parts += [inner for name in _HOLDERS if isinstance(inner := entry.get(name), Mapping)]
            parts.append(entry)
    return parts


def last_fields(parts: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Of the objects in a field of the parts, the last value of each of their fields that is not null."""
    objects = [part[name] for part in parts if isinstance(part.get(name), Mapping)]
    return {key: value for inner in objects for key, value in inner.items() if value is not None}


def last_text(parts: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The last text in a field of the parts."""
    return next((value for part in reversed(parts) if (value := text(part.get(name)))), None)


# ── usage, as providers write it ────────────────────────────────────────────────────────────────────────────────────────


def usage_counts(usage: Mapping[str, Any]) -> Row:
    """The counts of a provider's own usage, in whichever of the providers' forms it is; {} where it has none.

    OpenAI's input includes cached tokens, Anthropic's does not:

    >>> openai = usage_counts({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}})
    >>> openai["input_tokens"], openai["cache_read_tokens"], openai["input_includes_cache"]
    (100, 60, True)
    >>> anthropic = usage_counts({"input_tokens": 40, "output_tokens": 7, "cache_read_input_tokens": 60})
    >>> anthropic["input_tokens"], anthropic["cache_read_tokens"], anthropic["input_includes_cache"]
    (40, 60, False)

    Raises `FieldError` for a count that is none.
    """
    if "promptTokenCount" in usage or "candidatesTokenCount" in usage:
        counts = _gemini(usage)
    elif "prompt_tokens" in usage or "completion_tokens" in usage:
        counts = _openai(usage, "prompt_tokens", "completion_tokens")
    elif any(f"{side}_tokens_details" in usage for side in ("input", "output")):
        counts = _openai(usage, "input_tokens", "output_tokens")
    elif "input_tokens" in usage or "output_tokens" in usage:
        counts = _anthropic(usage)
    else:
        return {}
    counts["input_includes_cache"] = counts.get("input_includes_cache") if counts["input_tokens"] is not None else None
    counts["output_includes_reasoning"] = None if counts["output_tokens"] is None else True
    return counts


def _openai(usage: Mapping[str, Any], input_name: str, output_name: str) -> Row:
    """Chat completions and responses. Where Anthropic's cache fields are beside (a gateway's translation), the total says what input includes."""
    input_details, output_details = _inner(usage, f"{input_name}_details"), _inner(usage, f"{output_name}_details")
    cache_read = _first_count(input_details.get("cached_tokens"), usage.get("cache_read_input_tokens"), "cached_tokens")
    foreign_fields = any(usage.get(name) for name in ("cache_read_input_tokens", "cache_creation_input_tokens"))
    return {
        "input_tokens": count(usage.get(input_name), f"usage.{input_name}"),
        "cache_read_tokens": cache_read,
        "output_tokens": count(usage.get(output_name), f"usage.{output_name}"),
        "reasoning_tokens": count(output_details.get("reasoning_tokens"), "usage.reasoning_tokens"),
        "total_tokens": count(usage.get("total_tokens"), "usage.total_tokens"),
        "input_audio_tokens": count(input_details.get("audio_tokens"), "usage.audio_tokens"),
        "output_audio_tokens": count(output_details.get("audio_tokens"), "usage.audio_tokens"),
        "input_includes_cache": None if foreign_fields else True,
        **_cache_writes(usage),
    }


def _anthropic(usage: Mapping[str, Any]) -> Row:
    searches = decimal(_inner(usage, "server_tool_use").get("web_search_requests"))
    return {
        "input_tokens": count(usage.get("input_tokens"), "usage.input_tokens"),
        "cache_read_tokens": count(usage.get("cache_read_input_tokens"), "usage.cache_read_input_tokens"),
        "output_tokens": count(usage.get("output_tokens"), "usage.output_tokens"),
        "input_includes_cache": False,
        "other_usage": json.dumps({"web_searches": str(searches)}) if searches and searches > 0 else None,
        **_cache_writes(usage),
    }


def _cache_writes(usage: Mapping[str, Any]) -> Row:
    lifetimes = _inner(usage, "cache_creation")
    return {
        "cache_write_tokens": count(usage.get("cache_creation_input_tokens"), "usage.cache_creation_input_tokens"),
        "cache_write_5m_tokens": count(lifetimes.get("ephemeral_5m_input_tokens"), "usage.ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": count(lifetimes.get("ephemeral_1h_input_tokens"), "usage.ephemeral_1h_input_tokens"),
    }


def _gemini(usage: Mapping[str, Any]) -> Row:
    """Gemini: tokens that tools add to the prompt are billed as input, and output is the answer and the thoughts."""

    def token_count(name: str) -> int | None:
        return count(usage.get(name), f"usageMetadata.{name}")

    return {
        "input_tokens": sum_known(token_count("promptTokenCount"), token_count("toolUsePromptTokenCount")),
        "cache_read_tokens": token_count("cachedContentTokenCount"),
        "output_tokens": sum_known(token_count("candidatesTokenCount"), token_count("thoughtsTokenCount")),
        "reasoning_tokens": token_count("thoughtsTokenCount"),
        "total_tokens": token_count("totalTokenCount"),
        "input_includes_cache": True,
    }


def sum_known(*parts: int | None) -> int | None:
    """The sum of the counts that are there; None where none is.

    >>> sum_known(3, None), sum_known(None, None)
    (3, None)
    """
    counts = [part for part in parts if part is not None]
    return sum(counts) if counts else None


def _inner(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = usage.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _first_count(first: object, second: object, name: str) -> int | None:
    return count(second if first is None else first, f"usage.{name}")
