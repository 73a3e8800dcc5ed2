"""Spans alike in all but counts and ids: read by their shape they are the rows, and have the problems, of a full reading."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest.otel import bulk, shapes, spans
from ingest.otel.emitters import table
from ingest.sources import otlp
from ledger.errors import FormatError
from ledger.settings import IngestSettings

NAMES = [
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.response.id",
    "gen_ai.conversation.id", "session.id", "gen_ai.tool.call.id", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens", "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.total_tokens", "llm.token_count.prompt", "llm.token_count.completion", "openinference.span.kind", "error.type",
    "litellm.call_id", "aws.request_id", "gen_ai.agent.name", "gen_ai.request.temperature", "baggage.team", "user.id",
    "langfuse.session.id", "rootcost.usage.web_searches", "gen_ai.usage.cost", "tool_use_id", "metadata", "ai.usage.inputTokens",
]  # fmt: skip
VALUES: list[Any] = [
    0, 1, 7, 4711, -1, True, False, 1.0, 0.5, -0.0, "", "None", "chat", "invoke_agent", "openai", "gpt-4o", "claude-sonnet-4", "12", "x" * 600,
    "LLM", "é\u0000", '{"session_id": "s1", "usage_metadata": {"prompt_token_count": 3}}', ["a", "b"],
]  # fmt: skip
SCOPES = [
    "",
    "openinference.instrumentation.openai",
    "opentelemetry.instrumentation.openai_v2",
    "litellm",
    "agent_framework",
    "strands",
]
LIKELY = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.conversation.id": "c-1",
}

Scopes = list[tuple[str, list[tuple[str, dict[str, Any]]]]]
"""Spans by name and attributes, by scope."""

attributes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=5)
names_of_spans = st.sampled_from(["chat gpt-4o", "LLM", "run"])
scope_lists = st.lists(
    st.tuples(st.sampled_from(SCOPES), st.lists(st.tuples(names_of_spans, attributes.map(lambda a: LIKELY | a)), max_size=6)),
    max_size=3,
)
ALL_PAIRS: Scopes = [("", [("chat", LIKELY | {name: value}) for name in NAMES for value in (VALUES[3], *VALUES)])]


def repeated(scopes: Scopes, more: dict[str, Any]) -> Scopes:
    """Each span three times, once with more attributes."""
    return [
        (scope, [(name, values | extra) for name, values in entries for extra in ({}, more, {})]) for scope, entries in scopes
    ]


def export_of(spans_of_scopes: Scopes) -> bytes:
    export, number = ExportTraceServiceRequest(), 0
    for scope_name, entries in spans_of_scopes:
        resource = export.resource_spans.add()
        add_attributes(
            resource.resource, {"service.name": "support", "session.id": "r-1"} if number % 2 else {"service.name": "a"}
        )
        scope = resource.scope_spans.add()
        scope.scope.name = scope_name
        for name, values in entries:
            number += 1
            span = scope.spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=name)
            span.start_time_unix_nano, span.kind = 1_790_000_000 * 10**9 + number, 1 + number % 3
            span.end_time_unix_nano = span.start_time_unix_nano + (1000 if number % 7 else -1)
            span.parent_span_id = b"" if number % 3 else (number + 1).to_bytes(8, "big")
            span.status.code = 2 if number % 5 == 0 else 0
            add_attributes(span, values)
    body: bytes = export.SerializeToString()
    return body


def add_attributes(owner: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        field = owner.attributes.add(key=key).value
        if isinstance(value, list):
            for item in value:
                field.array_value.values.add(string_value=item)
        else:
            setattr(field, {bool: "bool_value", int: "int_value", float: "double_value"}.get(type(value), "string_value"), value)


def read(body: bytes) -> tuple[list[tuple[Any, ...]], list[str]]:
    reading = otlp.read_bodies([body, body], uri="u", settings=IngestSettings())
    return sorted(reading.frame.rows(), key=str), sorted(map(str, reading.problems))


@settings(max_examples=20, deadline=None)
@given(
    scope_lists,
    attributes,
)
@example(ALL_PAIRS, {})
def test_spans_read_by_their_shape_are_those_of_a_full_reading(scopes: Scopes, more: dict[str, Any]) -> None:
    body = export_of(repeated(scopes, more))
    by_shape = read(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "varying_attributes", lambda _: frozenset())
        full = read(body)
    assert by_shape == full


def test_a_shape_is_worked_out_once_and_ids_and_counts_are_each_span_s_own() -> None:
    entries = [("chat", LIKELY | {"gen_ai.usage.input_tokens": n + 1, "gen_ai.response.id": f"r-{n}"}) for n in range(30)]
    body = export_of([("", entries)])
    batch = otlp._batch(IngestSettings(), source="otlp", uri="u", raw_id="r")
    batch.add(otlp.decode_request(body))
    frame = batch.reading().frame

    assert len(batch._shapes) <= 12 < sum(number is not None for number in batch._shape_of_row)
    assert frame["input_tokens"].to_list() == list(range(1, 31))
    assert frame["provider_request_id"].to_list() == [f"r-{n}" for n in range(30)]
    assert frame["request_model"].unique().to_list() == ["gpt-4o"]


def read_in_bulk(bodies: list[bytes]) -> tuple[list[tuple[Any, ...]], list[str]]:
    raw_ids = [otlp.received_id(body) for body in bodies]
    reading = bulk.read_exports(bodies, raw_ids, otlp._table(IngestSettings()), source="otlp", uri="u")
    assert reading is not None
    return sorted(reading.frame.rows(), key=str), sorted(map(str, reading.problems))


@settings(max_examples=20, deadline=None)
@given(
    scope_lists,
    attributes,
)
@example(ALL_PAIRS, {})
def test_spans_read_in_bulk_are_those_of_a_full_reading(scopes: Scopes, more: dict[str, Any]) -> None:
    scope_entries = repeated(scopes, more)
    bodies = [export_of(scope_entries), export_of(scope_entries[:1])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "MIN_SPANS", 0)
        patch.setattr(bulk, "MIN_ALIKE", 1)
        in_bulk = read_in_bulk(bodies)
        patch.setattr(bulk, "MIN_SPANS", 10**9)
        one_by_one = otlp.read_bodies(bodies, uri="u", settings=IngestSettings())
    assert in_bulk == (sorted(one_by_one.frame.rows(), key=str), sorted(map(str, one_by_one.problems)))


def read_or_refuse(bodies: list[bytes], min_spans: int, patch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Rows and problems of bodies that are read in bulk from so many spans on; what is said where they are none."""
    patch.setattr(bulk, "MIN_SPANS", min_spans)
    try:
        reading = otlp.read_bodies(bodies, uri="u", settings=IngestSettings())
    except FormatError as error:
        return [], [str(error)]
    return sorted(map(str, reading.frame.rows())), sorted(map(str, reading.problems))


def test_damaged_bytes_in_bulk_are_those_of_a_full_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    body = export_of([("litellm", [("chat", LIKELY | {"gen_ai.usage.cost": 0.5 * n}) for n in range(4)])])
    draw = random.Random(3)
    monkeypatch.setattr(bulk, "MIN_ALIKE", 1)
    for _ in range(30):
        damaged = bytearray(body)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        bodies = [bytes(damaged), body]
        assert read_or_refuse(bodies, 0, monkeypatch) == read_or_refuse(bodies, 10**9, monkeypatch)


def test_attributes_that_decide_more_than_their_own_column_do_not_vary() -> None:
    varying = shapes.varying_attributes(table())

    assert {"gen_ai.usage.input_tokens", "gen_ai.response.id", "gen_ai.conversation.id", "gen_ai.tool.call.id"} <= varying
    assert not varying & {"gen_ai.operation.name", "gen_ai.request.model", "error.type", "openinference.span.kind", "metadata"}
