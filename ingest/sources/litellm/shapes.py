"""Recognises the format of a LiteLLM item, and converts the oldest format into the current one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ingest.logs.json_fields import FieldError, mapping, spelled_usage

PAYLOADS, SPEND_LOGS, OLD = "litellm", "litellm-spend-logs", "v1"
"""What callbacks write and what the gateway's database holds, both channels of `spans`; and the generic callback's old format."""

CALLBACK = "litellm-callback"
"""The channel of payloads that were received live: the same calls as in a bucket, but with different losses."""


def shape_of(item: Mapping[str, Any]) -> str:
    """Which of LiteLLM's formats an object is in. Raises `FieldError` for an object that is not a call."""
    if "request_id" in item and ("spend" in item or "startTime" in item) and "response_cost" not in item:
        return SPEND_LOGS
    if "call_type" in item and ("id" in item or "litellm_call_id" in item):
        return OLD if "modelParameters" in item and "usage" in item else PAYLOADS
    if "batch_id" in item and "lines" in item:
        raise FieldError(
            "lines", "line items of a batch", "none needed: the batch's own row states their sum, and it is counted there"
        )
    if "spend" in item and ("users" in item or "models" in item or "api_requests" in item):
        raise FieldError(
            "item", "a daily sum, not a call", "export raw rows: /spend/logs with summarize=false, or LiteLLM_SpendLogs"
        )
    fields = ", ".join(sorted(str(key)[:40] for key in item)[:6])
    raise FieldError(
        "item",
        f"neither a StandardLoggingPayload nor a SpendLogs row; it has {fields or 'no fields'}",
        "send what LiteLLM's callbacks write",
    )


_EXTRACTED_FIELDS = (
    "user_api_key_alias", "user_api_key_hash", "user_api_key_team_alias", "user_api_key_team_id", "user_api_key_user_id",
    "user_api_key_end_user_id", "litellm_call_id", "model_group", "agent_id", "session_id", "trace_id",
    "deployment", "api_base",
)  # fmt: skip


def from_old_format(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the generic callback's first format (values are Python reprs) as a current payload."""
    usage = item.get("usage")
    counts: Mapping[str, Any] = spelled_usage(usage) if isinstance(usage, str) else mapping(usage, "usage")
    if isinstance(usage, str) and not counts:
        counts = mapping(usage, "usage")
    raw_metadata = item.get("metadata")
    try:
        metadata = dict(mapping(raw_metadata, "metadata"))
    except FieldError:
        # It contains reprs of live objects, which cannot be parsed; known fields are extracted one by one.
        metadata = {
            key: match[1]
            for key in _EXTRACTED_FIELDS
            if (match := re.search(rf"'{key}': '([^'\\]{{1,512}})'", str(raw_metadata)))
        }
        if tags := re.search(r"'tags': (\[[^\]]{0,4096}\])", str(raw_metadata)):
            metadata["tags"] = tags[1]
    metadata["usage_object"] = counts
    model = str(metadata.get("deployment") or item.get("model") or "")
    return {
        "id": item.get("id"),
        "litellm_call_id": metadata.get("litellm_call_id"),
        "trace_id": metadata.get("session_id") or metadata.get("trace_id"),
        "call_type": str(item.get("call_type") or "").removeprefix("litellm."),
        "cache_hit": item.get("cache_hit"),
        "startTime": item.get("startTime"),
        "endTime": item.get("endTime"),
        "model": model,
        "custom_llm_provider": model.split("/", 1)[0] if "/" in model else None,
        "api_base": metadata.get("api_base"),
        "model_group": metadata.get("model_group"),
        "end_user": item.get("user"),
        "metadata": metadata,
        "response_cost": item.get("cost"),
        "status": "success",
    }
