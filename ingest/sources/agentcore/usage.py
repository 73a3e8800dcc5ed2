"""AgentCore's usage logs: processor and memory of a session, by second.

Each record is a row, a child of a row for the session's day, so that a session is one chain and not thousands. The runtime's ARN is
the resource id of the bill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, localcontext
from typing import Any

from ingest.logs.json_fields import FieldError, decimal, text
from ingest.logs.rows import Row, trace_position
from ingest.otel.trace_stores import mapping
from ledger.money import text as decimal_text

CHANNEL = "agentcore-usage"
_SECONDS = Decimal(3600)
_METERS = (
    ("vcpu_seconds", ".vcpu.hours.used"),
    ("gb_seconds", ".memory.gb_hours.used"),
)
"""Suffixes of the metrics' names; runtimes, browsers and code interpreters have different prefixes."""
_DAY_US = 86_400_000_000


def is_usage(record: Mapping[str, Any]) -> bool:
    """Whether a record reports usage of resources."""
    return bool(_metrics(record))


def of_record(record: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a record: the session's day and the usage. Raises `FieldError` where time, resource or amount is invalid.

    >>> rows = list(of_record({"event_timestamp": 1791194400000, "resource_arn": "arn:aws:bedrock-agentcore:us-east-1:111122223333:runtime/a-1",
    ...     "attributes": {"session.id": "s-1", "agent.name": "a", "time_elapsed_seconds": 1},
    ...     "metrics": {"agent.runtime.vcpu.hours.used": Decimal("0.00025"), "agent.runtime.memory.gb_hours.used": Decimal("0.0005")}}))
    >>> rows[1]["other_usage"], rows[1]["region"], rows[1]["account_id"], rows[1]["parent_span_id"] == rows[0]["span_id"]
    ('{"gb_seconds": "1.8", "vcpu_seconds": "0.9"}', 'us-east-1', '111122223333', True)
    """
    about = mapping(record.get("attributes")) or record
    arn = text(record.get("resource_arn"))
    if arn is None:
        raise FieldError("resource_arn", "is missing", "deliver AgentCore's usage logs as they are")
    start = decimal(record.get("event_timestamp"))
    if start is None or not 10**12 <= start < 10**13:
        raise FieldError("event_timestamp", "is no time in milliseconds", "deliver AgentCore's usage logs as they are")
    began = int(start * 1000)
    used = {meter: decimal_text(amount) for meter, amount in _used(record) if amount}
    session = text(about.get("session.id")) or ""
    parts = arn.split(":", 5)
    trace = f"agentcore:{arn}:{session}"
    day = f"{trace}:{began // _DAY_US}"
    row: Row = {
        "channel": CHANNEL,
        "source": "agentcore",
        "emitter": "agentcore-usage",
        "provider": "aws.bedrock",
        "status": "ok",
        "service_name": text(mapping(record.get("resource")).get("service.name")) or text(record.get("service.name")),
        "agent_id": arn,
        "agent_name": text(about.get("agent.name")),
        "conversation_id": session or None,
        "account_id": (parts[4] if len(parts) > 5 else "") or text(about.get("account.id")),
        "region": (parts[3] if len(parts) > 5 else "") or text(about.get("region")),
    }
    yield (
        row
        | trace_position(trace, day)
        | {"name": "session", "operation": "invoke_agent", "start_time": began // _DAY_US * _DAY_US}
    )
    if used:
        own = f"{day}:{began}:{text(about.get('resource.id')) or ''}"
        yield (
            row
            | trace_position(trace, own, day)
            | {
                "name": "usage",
                "start_time": began,
                "end_time": began + _elapsed(about),
                "usage_scope": "leaf",
                "resource_id": arn,
                "other_usage": json.dumps(used, sort_keys=True),
            }
        )


def _metrics(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    metrics = mapping(record.get("metrics")) or record
    return [(meter, value) for name, value in metrics.items() for meter, end in _METERS if name.endswith(end)]


def _used(record: Mapping[str, Any]) -> Iterator[tuple[str, Decimal]]:
    for meter, value in _metrics(record):
        hours = decimal(value)
        if hours is None or hours < 0:
            raise FieldError("metrics", f"{meter} is no amount of use", "deliver AgentCore's usage logs as they are")
        with localcontext() as context:
            context.prec = 50
            yield meter, hours * _SECONDS


def _elapsed(about: Mapping[str, Any]) -> int:
    seconds = decimal(about.get("time_elapsed_seconds", about.get("elapsed_time_seconds")))
    return int(seconds * 1_000_000) if seconds is not None and 0 <= seconds < 86_400 else 0
