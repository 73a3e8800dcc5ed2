"""OTLP responses: empty on success, otherwise a partial success with the number of rejected items and the reasons."""

from __future__ import annotations

import json
from typing import Any

from api.receivers import ReceivedBatch, Signal

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_MAX_REASONS = 5
_PROTOBUF_FIELDS = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}
_JSON_FIELDS = {"traces": "rejectedSpans", "logs": "rejectedLogRecords", "metrics": "rejectedDataPoints"}


def encode_response(result: ReceivedBatch, signal: Signal, kind: str) -> bytes:
    """The body of a 2xx response, in the media type of the request.

    >>> from ledger.problems import Problem
    >>> missing = Problem("otlp", "request", "span 2", "trace_id", "no trace id", "send one")
    >>> encode_response(ReceivedBatch(problems=[missing], rejected=1), "traces", JSON)
    b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "span 2: trace_id: no trace id; send one"}}'
    """
    message = ". ".join(reasons(result))
    if kind == JSON:
        # proto3 JSON: 64-bit integers are strings, an empty message leaves the field out.
        partial = {_JSON_FIELDS[signal]: str(result.rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if message else {}).encode()
    if not message:
        return b""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    kinds: dict[Signal, Any] = {
        "traces": ExportTraceServiceResponse, "logs": ExportLogsServiceResponse, "metrics": ExportMetricsServiceResponse,
    }  # fmt: skip
    response = kinds[signal]()
    response.partial_success.error_message = message
    setattr(response.partial_success, _PROTOBUF_FIELDS[signal], result.rejected)
    payload: bytes = response.SerializeToString()
    return payload


def reasons(result: ReceivedBatch) -> list[str]:
    """The first different problems: place, field, reason and remedy."""
    messages = [
        ": ".join(filter(None, (p.place, p.field, p.reason))) + f"; {p.remedy}" for p in result.problems if p.severity == "error"
    ]
    return list(dict.fromkeys(messages))[:_MAX_REASONS]
