"""Portkey: exports of its logs, JSON lines.

* ``req_units`` and ``res_units`` are Portkey's own counts; where the export holds the response, the provider's own usage in it goes before them,
  since only that has cached and reasoning tokens.
* ``cost`` is Portkey's estimate, in cents. An answer from Portkey's cache costs nothing.
* ``trace_id`` and ``metadata`` are the client's word; ``virtual_key`` is the provider's key that was used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from ingest.logs.answers import answer_parts, last_fields, last_text, usage_counts
from ingest.logs.exports import LogExport
from ingest.logs.json_fields import FieldError, count, decimal, instant, rate, text
from ingest.logs.labels import claims, labels_of
from ingest.logs.rows import Row, trace_position
from ledger.settings import IngestSettings

CHANNEL = "portkey"
_REMEDY = "request the export with the field {name}"
_EMBEDDINGS = re.compile(r"/embeddings(?:$|\?)")
_HITS = frozenset({"hit", "semantic hit", "semantic_hit"})
_DAY_MS = 86_400_000


def _rows(value: object, settings: IngestSettings) -> Iterator[Row]:
    """The row of a request. Raises `FieldError` for an invalid record.

    >>> record = {"id": "r-1", "created_at": "2026-10-05T09:00:00.000Z", "ai_org": "openai", "ai_model": "gpt-4o", "req_units": 1200, "res_units": 80,
    ...     "total_units": 1280, "cost": 0.38, "cost_currency": "USD", "trace_id": "t-1", "metadata": {"team": "Care"}}
    >>> row = next(_rows(record, IngestSettings()))
    >>> row["input_tokens"], row["reported_cost"], row["claimed_team"]
    (1200, Decimal('0.003800000000000000'), 'Care')
    """
    if (
        not isinstance(value, Mapping)
        or not {"id", "created_at"} & value.keys()
        or not {"ai_org", "ai_model", "req_units"} & value.keys()
    ):
        raise FieldError("record", "is no record of Portkey's logs", "name an export of its logs, JSON lines")
    call_id, start = text(value.get("id")), instant(value.get("created_at"), "created_at")
    if call_id is None or start is None:
        name = "created_at" if call_id else "id"
        raise FieldError(name, "is missing", _REMEDY.format(name=name))
    parts = answer_parts(_inner(value, "response"))
    usage = last_fields(parts, "usage") or last_fields(parts, "usageMetadata")
    labels, target, status = (
        labels_of(_metadata(value)),
        text(value.get("request_url")),
        decimal(value.get("response_status_code")),
    )
    own, trace = f"portkey_{call_id}", text(value.get("trace_id"))
    milliseconds = decimal(value.get("response_time"))
    is_error = status >= 400 if status is not None else str(value.get("is_success")).lower() in ("0", "false")
    attributes = {name: text(value.get(name)) for name in ("config", "prompt_slug", "mode")} | {"labels": labels}
    yield {
        "channel": CHANNEL,
        "source": "portkey",
        "emitter": "portkey",
        "gateway_call_id": call_id,
        **trace_position(trace or own, own),
        "start_time": start,
        "end_time": start + (int(milliseconds * 1000) if milliseconds is not None and 0 <= milliseconds < _DAY_MS else 0),
        "operation": "embeddings" if target and _EMBEDDINGS.search(target) else "chat",
        "usage_scope": "leaf",
        "status": "error" if is_error else "ok",
        "provider": text(value.get("ai_org")),
        "request_model": text(value.get("ai_model")),
        "response_model": last_text(parts, "model"),
        "provider_request_id": last_text(parts, "id"),
        "api_base": target.split("?", 1)[0] if target else None,
        "credential": text(value.get("virtual_key")),
        "end_user": labels.get("_user"),
        "cache_hit": True if str(value.get("cache_status")).strip().lower() in _HITS else None,
        "reported_cost": _cost(value),
        **claims(labels, settings),
        **_usage(value, usage),
        "attributes": json.dumps({k: v for k, v in attributes.items() if v}, sort_keys=True, ensure_ascii=False)
        if any(attributes.values())
        else None,
    }


def _usage(record: Mapping[str, Any], usage: Mapping[str, Any]) -> Row:
    """The provider's own usage, where the export has it; else Portkey's counts. Zeros in all of them stand where nothing is known."""
    if counts := usage_counts(usage):
        return counts | {"count_evidence": "provider"}
    counts = {
        "input_tokens": count(record.get("req_units"), "req_units"),
        "output_tokens": count(record.get("res_units"), "res_units"),
        "total_tokens": count(record.get("total_units"), "total_units"),
    }
    return counts if any(counts.values()) else {}


def _cost(record: Mapping[str, Any]) -> Decimal | None:
    cents = rate(record.get("cost"), "cost")
    currency = (text(record.get("cost_currency")) or "USD").upper()
    return cents / 100 if cents and currency == "USD" else None


def _inner(record: Mapping[str, Any], name: str) -> object:
    """A request's or response's body: under a name with a point, in the object, or the object itself."""
    if (body := record.get(f"{name}.body")) is not None:
        return body
    holder = record.get(name)
    return holder["body"] if isinstance(holder, Mapping) and holder.get("body") is not None else holder


def _metadata(record: Mapping[str, Any]) -> object:
    """Metadata as an object, or as lists of names and values."""
    metadata = record.get("metadata")
    holder = metadata if isinstance(metadata, Mapping) else {}
    names, values = (record.get(f"metadata.{part}", holder.get(part)) for part in ("key", "value"))
    return dict(zip(map(str, names), values, strict=False)) if isinstance(names, list) and isinstance(values, list) else metadata


SOURCE = LogExport(
    name="portkey",
    title="Portkey's logs: exports, JSON lines",
    noun="export of Portkey's logs",
    remedy="export its logs with the fields id, created_at, ai_org, ai_model, req_units, res_units, total_units, cost, trace_id, metadata",
    addresses=("portkey-logs.jsonl", "s3://exports/portkey/"),
    rows=_rows,
)
