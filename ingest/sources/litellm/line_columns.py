"""A call's own columns from parsed lines: ids, times, counts and costs; the same as `rows.of_item` has for one payload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
import polars as pl

from ingest.logs.json_fields import ABSENT_VALUES
from ingest.sources.litellm.line_schema import ATTEMPTS, BREAKDOWN_TEXTS, USAGE_TEXTS

USAGE: Final = "metadata.usage_object."
HEADERS: Final = "hidden_params.additional_headers."
TRACEPARENT: Final = "metadata.requester_metadata.headers.traceparent"
_SESSION: Final = "metadata.requester_metadata.session_id"
_END_USER: Final = "metadata.user_api_key_end_user_id"
OWN_TEXTS: Final = ("id", "litellm_call_id", "trace_id", "session_id", "end_user", _END_USER, _SESSION, "response.id")
OWN_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_OWN: Final = frozenset({*OWN_TEXTS, *OWN_COUNTS, "startTime", "endTime", "response_cost", "saved_cache_cost", TRACEPARENT})
_W3C_TRACE: Final = r"\A[0-9a-fA-F]{32}\z"
COUNTS: Final = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_5m_tokens",
    "cache_write_1h_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens",
)  # fmt: skip

OWN_COLUMNS: Final = (
    "start_time", "end_time", "gateway_call_id", "provider_request_id", "request_ids", "end_user", "span_id", "span_key", "trace_id",
    "trace_key", "conversation_id", *COUNTS, "input_includes_cache", "output_includes_reasoning",
)  # fmt: skip
CALLER_COLUMNS: Final = ("parent_span_id", "parent_key", "link_trace_key", "link_span_key")


def is_own(field: str) -> bool:
    """Whether a field is a call's own, and not one in which calls agree."""
    outer, _, name = field.rpartition(".")
    if field.startswith(USAGE):
        return name not in USAGE_TEXTS
    if outer == "cost_breakdown":
        return name not in BREAKDOWN_TEXTS
    return name != ATTEMPTS if field.startswith(HEADERS) else field in _OWN


def header_ids(fields: Iterable[str]) -> list[str]:
    """The fields that hold ids of the request in headers."""
    return [field for field in fields if field.startswith(HEADERS) and is_own(field)]


def of_calls(fields: pl.DataFrame, amounts: Sequence[str], *, is_trusted: bool) -> pl.DataFrame:
    """The own columns of calls that nothing is odd about, as columns of `spans`; `cost` and `traceparent` are parts of `attributes`."""
    text = {name: pl.when(~pl.col(name).is_in(ABSENT_VALUES)).then(name) for name in OWN_TEXTS}
    node = (
        pl.when(pl.col("status") == "failure")
        .then(pl.format("{}_failed", text["litellm_call_id"]))
        .otherwise(text["litellm_call_id"])
    )
    seconds = pl.col("start_time") // 1_000_000
    calls = fields.with_columns(
        start_time=_microseconds(pl.coalesce("startTime", "endTime")),
        end_time=_microseconds(pl.col("endTime")),
        gateway_call_id=text["litellm_call_id"],
        provider_request_id=pl.when(text["id"] != text["litellm_call_id"]).then(text["id"]),
        end_user=pl.coalesce(text["end_user"], text[_END_USER]),
        span_id=node,
        trace_id=pl.coalesce(text["trace_id"], node),
        __trace=text["trace_id"],
        __session=pl.coalesce(text["session_id"], text[_SESSION]),
        __request=text["id"],
        __response=text["response.id"],
        **_counts(),
    )
    calls = calls.with_columns(
        cost=_cost_object(fields, amounts),
        request_ids=_request_ids(header_ids(fields.columns)),
        conversation_id=pl.coalesce("__session", pl.when(~_is_trace_id(pl.col("__trace"))).then("__trace")),
        span_key=_hashed(calls.select(pl.format("{}|{}|{}", "span_id", "__request", seconds)).to_series()),
        trace_key=_trace_keys(calls["trace_id"]),
        traceparent=pl.format('"traceparent": "{}"', TRACEPARENT),
        **_semantics(),
    )
    return calls.with_columns(**_caller()) if is_trusted else calls


def _microseconds(moment: pl.Expr) -> pl.Expr:
    return moment.to_physical().cast(pl.Int64)


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _counts() -> dict[str, pl.Expr]:
    """`usage.token_counts`, by columns."""

    def usage(name: str) -> pl.Expr:
        return pl.col(f"{USAGE}{name}")

    def either(side: str, other: str, name: str) -> pl.Expr:
        return pl.coalesce(usage(f"{side}_tokens_details.{name}"), usage(f"{other}_tokens_details.{name}"))

    def prompt(name: str) -> pl.Expr:
        return either("prompt", "input", name)

    counts = {
        "input_tokens": _first_positive(pl.col("prompt_tokens"), usage("prompt_tokens"), usage("input_tokens")),
        "output_tokens": _first_positive(pl.col("completion_tokens"), usage("completion_tokens"), usage("output_tokens")),
        "total_tokens": _first_positive(pl.col("total_tokens"), usage("total_tokens")),
        "cache_read_tokens": pl.coalesce(prompt("cached_tokens"), usage("cache_read_input_tokens")),
        "cache_write_tokens": pl.coalesce(
            prompt("cache_creation_tokens"), prompt("cache_write_tokens"), usage("cache_creation_input_tokens")
        ),
        "cache_write_5m_tokens": prompt("cache_creation_token_details.ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": prompt("cache_creation_token_details.ephemeral_1h_input_tokens"),
        "reasoning_tokens": either("completion", "output", "reasoning_tokens"),
        "input_audio_tokens": prompt("audio_tokens"),
        "output_audio_tokens": either("completion", "output", "audio_tokens"),
        "input_image_tokens": prompt("image_tokens"),
        "output_image_tokens": either("completion", "output", "image_tokens"),
    }
    is_used = pl.any_horizontal(*(count > 0 for count in counts.values())).fill_null(value=False)
    is_translated = pl.max_horizontal("prompt_tokens", usage("prompt_tokens")).fill_null(0) > 0
    return {name: pl.when(is_used).then(count) for name, count in counts.items()} | {
        "__used": is_used,
        "__translated": is_translated,
    }


def _first_positive(*counts: pl.Expr) -> pl.Expr:
    return pl.coalesce(*(pl.when(count > 0).then(count) for count in counts), *counts)


def _semantics() -> dict[str, pl.Expr]:
    """Whether totals include cached and reasoning tokens; left open where the counts contradict it. (CA-5)"""
    count = {name: pl.col(name).fill_null(0) for name in COUNTS}
    lifetimes = count["cache_write_5m_tokens"] + count["cache_write_1h_tokens"]
    cached_tokens = pl.max_horizontal(count["cache_write_tokens"], lifetimes) + count["cache_read_tokens"]
    is_inclusive = (cached_tokens <= count["input_tokens"]) & (pl.col("__translated") | (cached_tokens == 0))
    has_reasoning = count["reasoning_tokens"] <= count["output_tokens"]
    return {
        "input_includes_cache": pl.when(pl.col("__used") & is_inclusive).then(pl.lit(value=True)),
        "output_includes_reasoning": pl.when(pl.col("__used") & has_reasoning).then(pl.lit(value=True)),
    }


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request_ids(headers: Sequence[str]) -> pl.Expr:
    """`request_ids.id_list`, by columns, of ids that need no escape in JSON."""
    ids = [pl.when(~pl.col(name).is_in(ABSENT_VALUES)).then(name) for name in headers] + [pl.col("__response")]
    distinct_ids = [
        pl.when(~(value.eq_missing(pl.col("provider_request_id")) | value.eq_missing(pl.col("gateway_call_id")))).then(value)
        for value in ids
    ]
    members_text = pl.concat_list(distinct_ids).list.drop_nulls().list.unique().list.sort().list.join('", "')
    return pl.when(members_text != "").then(pl.format('["{}"]', members_text))


def _is_trace_id(trace: pl.Expr) -> pl.Expr:
    return (trace.str.contains(_W3C_TRACE) & (trace.str.strip_chars("0") != "")).fill_null(value=False)


def _hashed(texts: pl.Series) -> pl.Series:
    """`ids.hashed` of each text."""
    digests = b"".join([blake2b(text.encode(), digest_size=8).digest() for text in texts.to_list()])
    return pl.Series(np.frombuffer(digests, ">i8").astype(np.int64))


def _trace_keys(traces: pl.Series) -> pl.Series:
    """`ids.trace_key` of each id."""
    is_w3c = traces.to_frame("trace").select(_is_trace_id(pl.col("trace"))).to_series()
    keys = traces.to_frame("trace").select(pl.when(is_w3c).then(_low_bits(pl.col("trace").str.slice(16))))
    if is_w3c.all():
        return keys.to_series()
    other_places = (~is_w3c).arg_true()
    return keys.to_series().scatter(other_places, _hashed(traces.gather(other_places)))


def _low_bits(digits: pl.Expr) -> pl.Expr:
    return digits.str.to_integer(base=16, dtype=pl.UInt64, strict=False).reinterpret(signed=True)


def _caller() -> dict[str, pl.Expr]:
    """The caller's own span, from its `traceparent` header. (CH-7)"""
    header = pl.col(TRACEPARENT).str.to_lowercase()
    span, span_key = header.str.slice(36, 16), _low_bits(header.str.slice(36, 16))
    caller_trace = _low_bits(header.str.slice(19, 16))
    is_parent = caller_trace == pl.col("trace_key")
    return {
        "parent_span_id": pl.when(is_parent).then(span),
        "parent_key": pl.when(is_parent).then(span_key),
        "link_trace_key": pl.when(~is_parent).then(caller_trace),
        "link_span_key": pl.when(~is_parent).then(span_key),
    }


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cost_object(fields: pl.DataFrame, amounts: Sequence[str]) -> pl.Expr:
    """The amounts of the cost breakdown that are not 0, as a member of `attributes`."""
    columns = {name: fields[f"cost_breakdown.{name}"] for name in sorted(amounts)}
    members = [
        pl.when(pl.col(f"cost_breakdown.{name}") != 0).then(
            pl.concat_str(
                pl.lit(f'{json.dumps(name)}: "'),
                pl.col(f"cost_breakdown.{name}").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end("."),
                pl.lit('"'),
            )
        )
        for name, column in columns.items()
        if (column != 0).any()
    ]
    if not members:
        return pl.lit(None, pl.String)
    members_text = pl.concat_str(members, separator=", ", ignore_nulls=True)
    return pl.when(members_text != "").then(pl.concat_str(pl.lit('"cost": {'), members_text, pl.lit("}")))
