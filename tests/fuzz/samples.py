"""Sound inputs to be spoilt: what the tests of each source read, cut to some lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tests.support.paths import DATA

_MAX_LINES, _MAX_BYTES = 12, 60_000


class Sample(NamedTuple):
    """The bytes of a file of a source. `has_own_lines`: each of its lines is read on its own."""

    source: str
    name: str
    content: bytes
    has_own_lines: bool = False


_LINES = {
    "litellm": "litellm_payloads/cost_cases.jsonl",
    "bedrock-logs": "bedrock_logs/*.jsonl",
    "vertex": "vertex/calls.jsonl",
    "helicone": "helicone/sample.jsonl",
    "langsmith": "langsmith/sample.jsonl",
    "portkey": "portkey/sample.jsonl",
    "azure-openai-logs": "azure_openai_logs/sample.jsonl",
    "gcp": "gcp/export.jsonl",
}
_TABLES = {
    "focus": "focus_sample/focus_sample_1000.csv",
    "cursor": "cursor/sample.csv",
    "openrouter": "openrouter/sample.csv",
    "github-copilot": "github_copilot/sample.csv",
    "openai-console": "openai_console/sample.csv",
    "anthropic-console": "anthropic_console/sample.csv",
    "aws-cur": "aws_cur_anonymous/aws_cur_legacy_anonymous.csv",
    "azure": "azure_exports/EA_ActualCost_Small.csv",
}
_DOCUMENTS = {
    "claude-code": "claude_code/ccusage-alpha.jsonl",
    "codex": "codex/session-alpha.jsonl",
    "copilot-cli": "copilot_cli/sample.jsonl",
    "gemini-cli": "gemini_cli/sample.jsonl",
    "opencode": "opencode/sample.jsonl",
    "agentcore": "agentcore/usage.jsonl",
    "otlp": "otlp_genai_replays/openllmetry_openai.otlp.jsonl",
    "jaeger": "jaeger/genaiTestTrace.json",
    "zipkin": "zipkin/yelp.json",
    "phoenix": "phoenix/vercel-v6-spans.json",
    "langfuse": "langfuse/openai-agents-2025-09-30.trace.json",
    "openai": "openai_costs/costs-1.json",
    "anthropic": "anthropic_costs/costs-1.json",
    "github-copilot-api": "github_copilot_api/month.json",
}


@cache
def samples() -> tuple[Sample, ...]:
    """All samples, in the same order always."""
    return tuple(_samples())


def _samples() -> Iterator[Sample]:
    for files, has_own_lines in ((_LINES, True), (_TABLES, True), (_DOCUMENTS, False)):
        for source, pattern in files.items():
            path = min(DATA.glob(pattern))
            yield Sample(source, path.name, _start(path), has_own_lines)
    for name in (
        "custom-success-01.standard_logging_object.json",
        "custom-success-01.spendlogs_row.json",
        "003-litellm_generic.json",
    ):
        yield Sample("litellm", name, (DATA / "litellm_proxy_captures" / name).read_bytes())
    yield Sample("otlp", "export.bin", (DATA / "otel_sdk_captures" / "otlp-http-protobuf.bin").read_bytes())
    yield Sample("otlp", "export.json", (DATA / "otel_sdk_captures" / "otlp-http-json.json").read_bytes())
    yield Sample("otlp", "gateway.bin", (DATA / "litellm_otlp" / "001-v1_traces.bin").read_bytes())
    for source in ("focus", "aws-cur"):
        yield Sample(source, "bill.parquet", _parquet(DATA / _TABLES[source]))


def _start(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix not in (".csv", ".jsonl"):
        return content
    lines = content.splitlines(keepends=True)[:_MAX_LINES]
    while len(lines) > 2 and sum(map(len, lines)) > _MAX_BYTES:
        lines.pop()
    return b"".join(lines)


def _parquet(path: Path) -> bytes:
    file = io.BytesIO()
    pl.read_csv(io.BytesIO(_start(path)), infer_schema=False).write_parquet(file)
    return file.getvalue()
