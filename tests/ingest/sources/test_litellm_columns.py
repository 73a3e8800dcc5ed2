"""LiteLLM's payloads by columns: the same rows and problems as payload by payload, whatever stands in a line."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingest.logs import json_columns
from ingest.source import Reading
from ingest.sources.litellm import columns, rows
from ingest.sources.litellm.source import read_body
from ledger.settings import IngestSettings
from tests.support.paths import DATA

PAYLOADS = [
    json.loads(path.read_text()) for path in sorted((DATA / "litellm_proxy_captures").glob("*.standard_logging_object.json"))
] + [json.loads(line) for line in (DATA / "litellm_payloads" / "cost_cases.jsonl").read_text().splitlines()[:40]]
TRUSTED = IngestSettings(trusted_sources=("litellm",))
W3C, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USAGE = "metadata.usage_object"
PATHS = [
    "id", "litellm_call_id", "trace_id", "session_id", "call_type", "status", "model", "model_group", "model_id", "custom_llm_provider", "api_base",
    "api_key", "team_id", "end_user", "user", "organization_id", "agent_id", "billing_agent_id", "mcp_namespaced_tool_name", "cache_hit", "stream",
    "startTime", "endTime", "saved_cache_cost", "response_cost", "prompt_tokens", "completion_tokens", "total_tokens", "request_tags", "metadata",
    "hidden_params", "hidden_params.additional_headers", "hidden_params.additional_headers.x-request-id", "hidden_params.usage_object",
    "hidden_params.additional_headers.apim-request-id", "hidden_params.additional_headers.x-litellm-attempted-retries",
    "hidden_params.litellm_model_name", "hidden_params.api_base", "cost_breakdown", "cost_breakdown.input_cost", "cost_breakdown.new_cost",
    "cost_breakdown.service_tier", "cost_breakdown.vertex_location", "cost_breakdown.additional_costs", "model_parameters",
    "model_parameters.service_tier", "model_map_information", "model_map_information.model_map_value.mode", "error_information",
    "error_information.error_code", "response", "response.id", "response.model", "response.service_tier", "response.usage.speed",
    "response.usage.inference_geo", "response_cost_failure_debug_info", "zero_cost_diagnostic", "request_id", "modelParameters", "data",
    f"{USAGE}", f"{USAGE}.prompt_tokens", f"{USAGE}.input_tokens", f"{USAGE}.completion_tokens", f"{USAGE}.total_tokens", f"{USAGE}.speed",
    f"{USAGE}.cache_read_input_tokens", f"{USAGE}.cache_creation_input_tokens", f"{USAGE}.server_tool_use.web_search_requests",
    f"{USAGE}.prompt_tokens_details", f"{USAGE}.prompt_tokens_details.cached_tokens", f"{USAGE}.prompt_tokens_details.video_length_seconds",
    f"{USAGE}.prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens", f"{USAGE}.input_tokens_details",
    f"{USAGE}.input_tokens_details.cached_tokens", f"{USAGE}.completion_tokens_details.reasoning_tokens", f"{USAGE}.surprise_tokens",
    "metadata.additional_usage_values", "metadata.cost_breakdown", "metadata.spend_logs_metadata", "metadata.tags", "metadata.attempted_retries",
    "metadata.billed_retry_attempt", "metadata.mcp_tool_call_metadata", "metadata.model_map_information", "metadata.requester_metadata",
    "metadata.requester_metadata.session_id", "metadata.requester_metadata.agent_name", "metadata.requester_metadata.headers.traceparent",
    "metadata.requester_metadata.headers.baggage", "metadata.user_api_key_alias", "metadata.user_api_key_hash", "metadata.user_api_key_user_id",
    "metadata.user_api_key_auth_metadata.agent_id", "metadata.user_api_key_end_user_id", "metadata.user_api_key_team_id", "messages",
]  # fmt: skip
VALUES = [
    "null", "true", "false", "{}", "[]", '""', '"None"', '" a  b "', '"\\u00e9t\\u00e9"', '"a\\"b\\\\c"', '"\\u0061"', '"\\ud800"', "0", "0.0", "-1", "7", "7.0",
    "7.5", '"7"', "1e3", "1e-7", "2.2500000000000001e-06", "0.030000000000000002", "99999999.5", "123456789.5", "1e-19", "1e-31", "9223372036854775808",
    "1795361505.9247855", "1795361505.9247845", '"2026-11-22T15:31:45.924785+00:00"', "7258118400", f'"{W3C}"', f'"{W3C.upper()}"', '"sk-1234"',
    f'"00-{W3C}-{SPAN}-01"', f'"00-{W3C.upper()}-{SPAN}-01"', f'"00-{"0" * 32}-{SPAN}-01"', '"agent=planner,env=dev"', '"chatcmpl-1_cache_hit1795361507.42"',
    '"batch_7_batch_cost"', '"resp_background"', '"fast"', '"priority"', '"failure"', '"acall_mcp_tool"', '"aretrieve_batch"', '"aresponses"', '"chat"',
    '["team:ads", "agent: x", null, 7]', '["a\\u001fb"]', '"[\'team:ads\']"', '{"agent": "x", "n": 7}', '{"a": {"b": [1]}}', '{"x-request-id": "r9"}',
    '{"spend_logs_metadata": {"agent": "y"}}', '{"cost_breakdown": {"input_cost": 4}, "usage_object": {"prompt_tokens": 5}}', '{"speed": "fast"}',
    '{"x-request-id": ["r1", "r2"], "X_Request_ID": "r3"}', '{"a-REQUEST_ID": "r4", "note": "my request-id\\""}', '{"input_cost": 0.10, "note": "x"}',
    '{"input_cost": 1e-07, "discount_amount": -0.50, "zero": 0, "off": null}', '{"prompt_tokens": 9, "text_tokens": 3, "nothing": 0}', '"' + "x" * 4097 + '"',
]  # fmt: skip


def line_of(base: int, changes: list[tuple[str, str]]) -> str:
    payload: Any = copy.deepcopy(PAYLOADS[base])
    raw_values = dict[str, str]()
    for number, (path, value) in enumerate(changes):
        *outer, name = path.split(".")
        part = payload
        for step in outer:
            if not isinstance(part.get(step), dict):
                part[step] = {}
            part = part[step]
        part[name] = f"@{number}@"
        raw_values[f'"@{number}@"'] = value
    line = json.dumps(payload)
    for mark, value in raw_values.items():
        line = line.replace(mark, value)
    return line


def read(lines: list[str], *, by_columns: bool, ingest_settings: IngestSettings) -> Reading:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MIN_LINES", 1 if by_columns else 10**9)
        patch.setattr(json_columns, "parse", partial(PARSE, few=1))
        return read_body("\n".join([FIRST, *lines]).encode(), raw_id="r", uri="u", settings=ingest_settings)


PARSE, FIRST = json_columns.parse, line_of(0, [])
payload_lines = st.builds(
    line_of,
    st.integers(0, len(PAYLOADS) - 1),
    st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(VALUES)), max_size=3),
)


@pytest.mark.slow
@given(st.lists(payload_lines, min_size=2, max_size=5), st.sampled_from([IngestSettings(), TRUSTED]))
@example([line_of(n, []) for n in range(len(PAYLOADS))], TRUSTED)
@example([line_of(0, [("metadata.spend_logs_metadata", value)]) for value in ('{"agent": "x"}', '{"agent": "y"}')], TRUSTED)
@example(
    [line_of(0, [("metadata.requester_metadata.headers.traceparent", f'"00-{W3C}-{SPAN}-01"'), ("trace_id", f'"{W3C}"')])] * 2,
    TRUSTED,
)
@example(['{"call_type": "acompletion", "id": "a"', "null", "", "[1]", *[line_of(1, [])] * 2], IngestSettings())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_payloads_are_the_same_rows_by_columns_and_one_by_one(lines: list[str], ingest_settings: IngestSettings) -> None:
    by_columns = read(lines, by_columns=True, ingest_settings=ingest_settings)
    one_by_one = read(lines, by_columns=False, ingest_settings=ingest_settings)
    assert by_columns.problems == one_by_one.problems
    assert by_columns.frame.rows(named=True) == one_by_one.frame.rows(named=True)


def test_payloads_as_litellm_writes_them_are_read_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line_of(n % 3, [("id", f'"chatcmpl-{n}"'), ("litellm_call_id", f'"call-{n}"')]) for n in range(100)]
    of_item = Mock(side_effect=rows.of_item)
    monkeypatch.setattr(rows, "of_item", of_item)
    reading = read_body("\n".join(lines).encode(), raw_id="r", uri="u", settings=IngestSettings())
    assert reading.frame["gateway_call_id"].to_list() == [f"call-{n}" for n in range(100)]
    assert reading.frame["raw_id"].unique().to_list() == ["r"]
    assert of_item.call_count == 3, "one payload is read of those that agree in all but a call's own fields"
