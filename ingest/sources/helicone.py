"""Helicone: requests from its export tool and its API.

* Counts are Helicone's own: whether its prompt tokens count cached ones differs by provider and version, and is left to its cost, if the price
  book reproduces that for one reading only. Where the export holds the response's body, the provider's own usage in it goes before them.
* ``cost`` is Helicone's estimate. A request with a ``cache_reference_id`` was answered from Helicone's cache, and costs nothing.
* Properties, user and session are the client's word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.logs.answers import answer_parts, last_fields, last_text, usage_counts
from ingest.logs.exports import LogExport
from ingest.logs.json_fields import FieldError, count, decimal, instant, rate, text
from ingest.logs.labels import claims, labels_of
from ingest.logs.rows import Row, trace_position
from ledger.settings import IngestSettings

CHANNEL = "helicone"
_REMEDY = "export the requests as JSON lines: npx @helicone/export --format jsonl"
_NO_ID = "00000000-0000-0000-0000-000000000000"
_NO_PROVIDERS = frozenset({"custom", "unknown"})
_EMBEDDINGS = re.compile(r"/embeddings(?:$|\?)")
_DAY_MS = 86_400_000


def _rows(value: object, settings: IngestSettings) -> Iterator[Row]:
    """The row of a request. Raises `FieldError` for an invalid record.

    >>> record = {"request_id": "r-1", "request_created_at": "2026-10-05 09:00:00.000", "provider": "ANTHROPIC", "request_model": "claude-sonnet-4-6",
    ...     "prompt_tokens": 26, "prompt_cache_read_tokens": 48854, "completion_tokens": 85, "request_properties": {"Helicone-Session-Id": "s-1"}}
    >>> row = next(_rows(record, IngestSettings()))
    >>> row["input_tokens"], row["cache_read_tokens"], row["input_includes_cache"], row["conversation_id"]
    (26, 48854, False, 's-1')
    """
    if not isinstance(value, Mapping) or not {"request_id", "request_created_at"} & value.keys():
        raise FieldError("record", "is no request of Helicone", _REMEDY)
    call_id, start = text(value.get("request_id")), instant(value.get("request_created_at"), "request_created_at")
    if call_id is None or start is None:
        raise FieldError("request_created_at" if call_id else "request_id", "is missing", _REMEDY)
    parts = answer_parts(value.get("response_body"))
    usage = last_fields(parts, "usage") or last_fields(parts, "usageMetadata")
    labels = labels_of(value.get("request_properties") or value.get("properties"))
    own, provider = f"helicone_{call_id}", text(value.get("provider"))
    status, target = decimal(value.get("response_status")), text(value.get("target_url")) or text(value.get("request_path"))
    yield {
        "channel": CHANNEL,
        "source": "helicone",
        "emitter": "helicone",
        "gateway_call_id": call_id,
        **trace_position(own, own),
        "start_time": start,
        "end_time": _end_time(value, start),
        "operation": "embeddings" if target and _EMBEDDINGS.search(target) else "chat",
        "usage_scope": "leaf",
        "status": None if status is None else "ok" if 0 <= status < 400 else "error",
        "provider": provider.lower() if provider and provider.lower() not in _NO_PROVIDERS else None,
        "request_model": text(value.get("model_override")) or text(value.get("request_model")) or text(value.get("model")),
        "response_model": text(value.get("response_model")) or last_text(parts, "model"),
        "provider_request_id": last_text(parts, "id"),
        "api_base": target.split("?", 1)[0] if target and "://" in target else None,
        "end_user": text(value.get("request_user_id")),
        "cache_hit": True if text(value.get("cache_reference_id")) not in (None, _NO_ID, call_id) else None,
        "reported_cost": rate(value.get("cost"), "cost") or None,
        **claims(labels, settings),
        **_usage(value, usage),
        "attributes": json.dumps({"labels": labels}, sort_keys=True, ensure_ascii=False) if labels else None,
    }


def _end_time(record: Mapping[str, Any], start: int) -> int:
    milliseconds = decimal(record.get("delay_ms")) or decimal(record.get("latency"))
    return start + int(milliseconds * 1000) if milliseconds is not None and 0 <= milliseconds < _DAY_MS else start


def _usage(record: Mapping[str, Any], usage: Mapping[str, Any]) -> Row:
    """The provider's own usage, where the export has it; else Helicone's counts. Zeros in all of them stand where nothing is known."""
    if counts := usage_counts(usage):
        return counts | {"count_evidence": "provider"}
    names = {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "cache_read_tokens": "prompt_cache_read_tokens",
        "cache_write_tokens": "prompt_cache_write_tokens",
        "reasoning_tokens": "reasoning_tokens",
        "total_tokens": "total_tokens",
    }
    counts = {column: count(record.get(name), name) for column, name in names.items()}
    if not any(counts.values()):
        return {}
    cached_tokens = (counts["cache_read_tokens"] or 0) + (counts["cache_write_tokens"] or 0)
    is_beside = counts["input_tokens"] is not None and cached_tokens > counts["input_tokens"]
    return counts | {"input_includes_cache": False if is_beside else None}


SOURCE = LogExport(
    name="helicone",
    title="Helicone's requests: its export tool and API, JSON",
    noun="export of Helicone's requests",
    remedy=_REMEDY + "; a CSV has neither cached tokens nor providers",
    addresses=("helicone-export.jsonl", "s3://exports/helicone/"),
    rows=_rows,
)
