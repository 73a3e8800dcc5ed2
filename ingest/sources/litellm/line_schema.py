"""What is read of a payload that stands in a line, as a schema for `json_columns.parse`; and the parts whose keys nobody knows beforehand.

Arrow passes over fields outside a schema. In three parts any key may occur: usage, the cost breakdown, the headers of the answer. Their
text is taken out of the line, and with its numbers left out few different ones remain: each is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import polars as pl
import pyarrow as pa

from ingest.logs.json_columns import TEXT, record
from ingest.logs.json_fields import parse_json
from ingest.logs.request_ids import MAX_HEADERS

COUNT: Final = pa.int64()
AMOUNT: Final = pa.decimal256(70, 30)
"""An amount, also one beyond all costs: where a number has more digits than a narrower decimal, Arrow passes over the overflow."""
NO_FIELD: Final = " "
_ANY: Final = record(**{NO_FIELD: TEXT})
"""A part of which only its presence is asked."""
_MAX_BREAKDOWN_KEYS: Final = 64

USAGE_TEXTS: Final = ("service_tier", "speed", "inference_geo")
_PROMPT_COUNTS: Final = (
    "cached_tokens", "cache_creation_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "video_tokens", "character_count",
    "image_count", "query_count", "web_search_requests", "google_maps_grounding_requests",
)  # fmt: skip
_PROMPT: Final = record(
    **dict.fromkeys(_PROMPT_COUNTS, COUNT),
    video_length_seconds=AMOUNT,
    audio_length_seconds=AMOUNT,
    cache_creation_token_details=record(ephemeral_5m_input_tokens=COUNT, ephemeral_1h_input_tokens=COUNT),
    cached_tokens_details=record(audio_tokens=COUNT, image_tokens=COUNT),
)
_ANSWER: Final = record(**dict.fromkeys(("reasoning_tokens", "audio_tokens", "image_tokens", "video_tokens"), COUNT))
_USAGE_COUNTS: Final = (
    "prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "citation_tokens",
)  # fmt: skip
_USAGE: Final = record(
    **dict.fromkeys(_USAGE_COUNTS, COUNT),
    prompt_tokens_details=_PROMPT,
    input_tokens_details=_PROMPT,
    completion_tokens_details=_ANSWER,
    output_tokens_details=_ANSWER,
    server_tool_use=record(web_search_requests=COUNT, browser_open_requests=COUNT),
    server_side_tool_usage_details=record(web_search_calls=COUNT),
    **dict.fromkeys(USAGE_TEXTS, TEXT),
)
_ERROR: Final = record(error_code=TEXT, error_class=TEXT, error_rate_limit_type=TEXT, error_rate_limit_category=TEXT)
_MAP_ENTRY: Final = record(model_map_key=TEXT, model_map_value=record(mode=TEXT))
_METADATA_TEXTS: Final = (
    "user_api_key_alias", "user_api_key_hash", "user_api_key", "user_api_key_team_alias", "user_api_key_team_id", "user_api_key_end_user_id",
    "user_api_key_user_id", "user_api_key_org_id", "user_api_key_project_alias", "user_api_key_project_id", "billing_agent_id",
    "actor_agent_id", "agent_id", "target_agent_id",
)  # fmt: skip
_METADATA: Final = {
    **dict.fromkeys(_METADATA_TEXTS, TEXT),
    "attempted_retries": AMOUNT,
    "billed_retry_attempt": TEXT,
    "tags": pa.list_(TEXT),
    "usage_object": _USAGE,
    "requester_metadata": record(session_id=TEXT, agent_id=TEXT, agent_name=TEXT, headers=record(traceparent=TEXT, baggage=TEXT)),
    "user_api_key_auth_metadata": record(agent_id=TEXT, agent_name=TEXT),
    **dict.fromkeys(
        (
            "additional_usage_values",
            "cost_breakdown",
            "mcp_tool_call_metadata",
            "spend_logs_metadata",
            "model_map_information",
            "error_information",
        ),
        _ANY,
    ),
}
RARE: Final = (
    "metadata.cost_breakdown", "metadata.mcp_tool_call_metadata", "metadata.model_map_information", "metadata.error_information",
    "response_cost_failure_debug_info", "zero_cost_diagnostic",
)  # fmt: skip
_TEXTS: Final = (
    "id", "litellm_call_id", "trace_id", "session_id", "call_type", "status", "model", "model_group", "model_id", "custom_llm_provider",
    "api_base", "api_key", "team_id", "end_user", "user", "organization_id", "agent_id", "billing_agent_id", "mcp_namespaced_tool_name",
)  # fmt: skip
BREAKDOWN_TEXTS: Final = ("service_tier", "vertex_location")
HEADER_IDS: Final = ("request-id", "x-request-id", "llm_provider-request-id", "llm_provider-x-request-id")
ATTEMPTS: Final = "x-litellm-attempted-retries"


def schema(breakdown_amounts: Iterable[str], header_ids: Iterable[str] = HEADER_IDS) -> pa.Schema:
    """The fields that `rows.of_item` reads of a payload, with these amounts and these headers with ids."""
    return pa.schema(
        {
            **dict.fromkeys(_TEXTS, TEXT),
            "cache_hit": pa.bool_(),
            "stream": pa.bool_(),
            "startTime": AMOUNT,
            "endTime": AMOUNT,
            "saved_cache_cost": AMOUNT,
            "response_cost": AMOUNT,
            **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT),
            "request_tags": pa.list_(TEXT),
            "metadata": record(**_METADATA),
            "hidden_params": record(
                model_id=TEXT,
                api_base=TEXT,
                litellm_model_name=TEXT,
                usage_object=_ANY,
                additional_headers=record(**{ATTEMPTS: AMOUNT}, **dict.fromkeys(header_ids, TEXT)),
            ),
            "cost_breakdown": record(**dict.fromkeys(BREAKDOWN_TEXTS, TEXT), **dict.fromkeys(breakdown_amounts, AMOUNT)),
            "model_parameters": record(service_tier=TEXT),
            "model_map_information": _MAP_ENTRY,
            "error_information": _ERROR,
            "response_cost_failure_debug_info": _ANY,
            "zero_cost_diagnostic": _ANY,
            "response": record(
                id=TEXT, model=TEXT, service_tier=TEXT, usage=record(service_tier=TEXT, speed=TEXT, inference_geo=TEXT)
            ),
        }
    )


# ── parts with keys of any name ─────────────────────────────────────────────────────────────────────────────────────────

_STRING = r'"(?:[^"\\]|\\.)*"'
_FLAT = rf'\{{(?:[^"{{}}\[]|{_STRING})*\}}'
_INNER = rf'\{{(?:[^"{{}}\[]|{_STRING}|{_FLAT})*\}}'
_NESTED = rf'\{{(?:[^"{{}}\[]|{_STRING}|{_INNER})*\}}'
OPEN_PARTS: Final = {
    "metadata.usage_object": _NESTED,
    "cost_breakdown": _FLAT,
    "hidden_params.additional_headers": _FLAT,
    "metadata.spend_logs_metadata": _FLAT,
}
_NUMBER: Final = r":\s*-?(?:[1-9][0-9.eE+-]*|0\.0*[1-9][0-9.eE+-]*)"
_REQUEST_ID: Final = r'(?i)request[-_]?id"'
_ESCAPED_LETTER: Final = r"\\u00[2-7]"


def open_parts(lines: pl.Series) -> pl.DataFrame:
    """The texts of the open parts of lines of JSON, null where a part is absent or may stand in several places; and skeletons of two.

    A key in quotes that no backslash precedes is a key, wherever it stands: inside text quotes are escaped. `escaped` are lines that may
    spell a key otherwise.
    """
    line = pl.col("line")
    texts, places = list[pl.Expr](), list[pl.Expr]()
    for path, pattern in OPEN_PARTS.items():
        name = path.rpartition(".")[2]
        texts.append(line.str.extract(rf'[{{,\s]"{name}"\s*:\s*({pattern})').alias(path))
        places.append(line.str.count_matches(rf'"{name}"\s*:\s*\{{').alias(path))
    frame = pl.DataFrame({"line": lines})
    first_parts, counts = frame.select(texts), frame.select(*places, escaped=line.str.contains(_ESCAPED_LETTER))
    parts = first_parts.select(pl.when(counts[path] == 1).then(path).alias(path) for path in OPEN_PARTS)
    skeletons = {
        f"{path} skeleton": pl.col(path).str.replace_all(_NUMBER, ":1") for path in ("metadata.usage_object", "cost_breakdown")
    }
    return parts.with_columns(**skeletons, escaped=counts["escaped"])


class Skeletons:
    """The different forms of an open part, its numbers left out: each is parsed once."""

    def __init__(self, skeletons: pl.Series) -> None:
        self._objects = {text: _parsed(text) for text in skeletons.unique().drop_nulls().to_list()}

    def where(self, condition: Callable[[Mapping[str, Any]], bool]) -> list[str]:
        """The skeletons whose object meets a condition."""
        return [text for text, part in self._objects.items() if condition(part)]

    def numbers(self) -> list[str]:
        """The names of numbers in any of them."""
        names = dict.fromkeys(
            name for part in self._objects.values() for name, value in part.items() if type(value) in (int, Decimal)
        )
        return [name for name in names if name.isascii()][:_MAX_BREAKDOWN_KEYS]


@lru_cache(maxsize=4096)
def _parsed(skeleton: str) -> Mapping[str, Any]:
    try:
        part = parse_json(skeleton)
    except (ValueError, RecursionError):
        return {"": ""}  # nobody knows this key, so that the line is read by itself
    return part if isinstance(part, dict) else {"": ""}


def has_odd_headers(headers: pl.Expr, known_ids: pl.Expr) -> pl.Expr:
    """Whether an answer may have an id in a header that is not known, or more headers than are looked at."""
    return (headers.str.count_matches(_REQUEST_ID) != known_ids) | (headers.str.count_matches('":', literal=True) > MAX_HEADERS)
