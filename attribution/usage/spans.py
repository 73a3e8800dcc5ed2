"""Reading spans: the columns that attribution uses, and which of the rows are signals of a call."""

from __future__ import annotations

import polars as pl

from attribution.chains.calls import OTLP, drop_absurd_counts
from attribution.chains.nodes import is_gateway
from attribution.chains.span_index import SpanIndex
from attribution.factorize import non_null_columns
from ledger.names import RegisteredNames, clean, map_names
from ledger.tables import SPANS, USAGE_COLUMNS

_COLUMNS = (
    "channel", "source", "trace_key", "span_key", "parent_key", "link_trace_key", "link_span_key", "links", "trace_id", "span_id",
    "start_time", "end_time", "service_name", "process", "name", "emitter", "emitter_version",
    "usage_scope", "status", "agent_id", "agent_name", "claimed_agent", "claimed_team",
    "conversation_id", "credential", "credential_team", "principal", "tenant", "environment", "workflow", "gateway_call_id",
    "provider_request_id", "request_ids", "provider", "request_model", "response_model", "deployment_id", "api_base", "account_id",
    "region", "service_tier", "resource_id", "input_includes_cache", "output_includes_reasoning", "count_evidence", "count_contradiction",
    "cache_hit", "reported_cost", "attempt", "phase", "rank", "other_usage", *USAGE_COLUMNS,
)  # fmt: skip
"""The columns of `spans` that attribution reads."""

_COMMON = {
    "channel", "source", "trace_key", "span_key", "parent_key", "trace_id", "span_id", "start_time", "end_time", "service_name", "name",
    "usage_scope", "status", "agent_name", "provider", "request_model", "response_model", "input_tokens", "output_tokens",
    "input_includes_cache", "emitter", "rank",
}  # fmt: skip
_AGENT_NAMES, _TEAM_NAMES = ("agent_id", "agent_name", "claimed_agent"), ("claimed_team", "credential_team")
_OTHER_NAMES = ("workflow", "tenant", "environment")
_AGENT_OR_TOOL = ("execute_tool", "invoke_agent")
"""Operations of spans that begin work of another agent or of a tool. (CA-2b)"""
_CALLER_CHANNELS = (OTLP, "otlp-events")
"""Channels on which the caller reports, from wherever it runs."""
_SPARSE = tuple(c for c in _COLUMNS if c not in _COMMON)
"""Columns that are often null throughout."""


def read_spans(window: pl.LazyFrame, timeline: pl.DataFrame) -> pl.DataFrame:
    """The spans of a window with all columns of `_COLUMNS`, numbered by `row`; adds `claim_source`, the source of a claim, and
    `is_agent_or_tool`, whether the span is that of an invoked agent or a tool.

    Agents and teams have the names of the registry, `timeline`, where theirs differ only in case or space. (ID-3)

    A column without values becomes a null literal, which takes no memory and is skipped by later steps.
    """
    names = set(window.collect_schema().names())
    # Counting the values of sparse columns is far cheaper than reading millions of nulls. A window that lacks some of them has had its
    # empty columns dropped already (`Partition.scan`).
    value_counts: dict[str, int] = {}
    if names.issuperset(_SPARSE):
        value_counts = window.select(pl.col(c).count() for c in _SPARSE).collect(engine="streaming").row(0, named=True)
    # One chunk: numpy reads it without a copy, and columns in unlike chunks would be aligned again at every step.
    is_agent_or_tool = pl.any_horizontal(
        pl.lit(value=False),
        *([pl.col("operation").is_in(_AGENT_OR_TOOL)] if "operation" in names else []),
        *([pl.col("tool_name").is_not_null()] if "tool_name" in names else []),
    )
    columns = [c for c in _COLUMNS if c in names and value_counts.get(c, 1)]
    frame = window.select(*columns, is_agent_or_tool=is_agent_or_tool.fill_null(value=False)).collect().rechunk()
    frame = frame.with_columns(pl.lit(None, dtype=SPANS.schema[c]).alias(c) for c in _COLUMNS if c not in frame.columns)
    frame = _with_registered_names(frame, timeline)
    is_claim = pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()
    has_claims = frame["claimed_agent"].count() or frame["claimed_team"].count()
    source = pl.when(is_claim).then("source") if has_claims else pl.lit(None, dtype=pl.String)
    return frame.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int32), claim_source=source)


def _with_registered_names(frame: pl.DataFrame, timeline: pl.DataFrame) -> pl.DataFrame:
    """The rows with each name as the registry spells it, and absent where a text stands for an absent name. (ID-3)

    >>> spans = pl.DataFrame({c: ["n/a", "COORD ", "new"] for c in (*_AGENT_NAMES, *_TEAM_NAMES, *_OTHER_NAMES)})
    >>> timeline = pl.DataFrame({"kind": ["agent"], "name": ["coord"], "agent": ["coord"], "team": ["Care"]})
    >>> _with_registered_names(spans, timeline).select("agent_name", "tenant").rows()
    [(None, None), ('coord', 'COORD'), ('new', 'new')]
    """
    agents, teams = RegisteredNames.agents(timeline), RegisteredNames.teams(timeline)
    rules = {
        **dict.fromkeys(_AGENT_NAMES, agents.find),
        **dict.fromkeys(_TEAM_NAMES, teams.find),
        **dict.fromkeys(_OTHER_NAMES, clean),
    }
    named_columns = non_null_columns(frame, list(rules))
    return frame.with_columns(map_names(frame[column], rules[column]) for column in named_columns)


def with_provider_place(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `provider_account` and `provider_region`: the place as the provider's side states it, in its own log or in an ARN. (RA-1d)

    A span's own `cloud.account.id` and `cloud.region` say where its caller runs, which need not be where the call is billed.

    >>> row = {"request_model": "m", "account_id": "1111", "region": "us-east-1"}
    >>> arn = row | {"request_model": "arn:aws:bedrock:us-east-1:1111:application-inference-profile/p"}
    >>> spans = pl.DataFrame([row | {"channel": "otlp"}, arn | {"channel": "otlp"}, row | {"channel": "bedrock-logs"}])
    >>> with_provider_place(spans)["provider_region"].to_list()
    [None, 'us-east-1', 'us-east-1']
    """
    names = {"account_id": "provider_account", "region": "provider_region"}
    stated_columns = non_null_columns(rows, [name for name in names if name in rows.columns])
    is_provider_side = ~pl.col("channel").is_in(_CALLER_CHANNELS) | pl.col("request_model").str.starts_with("arn:").fill_null(
        value=False
    )
    if not stated_columns or not rows.select(is_provider_side.any()).item():
        return rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in names.values())
    return rows.with_columns(pl.when(is_provider_side).then(column).alias(name) for column, name in names.items())


def are_unique_spans(spans: pl.DataFrame, span_index: SpanIndex) -> bool:
    """Whether all rows are OpenTelemetry spans, each delivered once: then nothing has to be merged by span."""
    return bool((spans["channel"] == OTLP).all()) and not len(span_index.duplicates)


def select_signals(spans: pl.DataFrame, spans_are_unique: bool) -> pl.DataFrame:
    """The rows that report a call (usage, a usage scope, or a gateway's log row), without the columns that only chains need."""
    usage_columns = non_null_columns(spans, (*USAGE_COLUMNS, "other_usage", "usage_scope"))
    is_signal = pl.any_horizontal(pl.col(c).is_not_null() for c in usage_columns) if usage_columns else pl.lit(value=False)
    columns = spans.drop(
        "is_agent_or_tool", "parent_key", "link_trace_key", "link_span_key", "links", *(["name"] if spans_are_unique else [])
    )
    columns = with_provider_place(columns)
    return drop_absurd_counts(columns.filter(is_signal if spans_are_unique else is_signal | is_gateway()).rechunk())
