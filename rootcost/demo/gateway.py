"""What the company's LiteLLM proxy writes about a call: one StandardLoggingPayload a line, as its S3 batches hold them."""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

from rootcost.demo.company import US, Model
from rootcost.demo.pricebook import list_rates


class Key(NamedTuple):
    """A virtual key of the gateway."""

    alias: str
    team: str | None


class Usage(NamedTuple):
    """The disjoint tokens of one call."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    output_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """The prompt, cached parts included."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens


class GatewayCall(NamedTuple):
    """One call as the gateway saw it. Times in seconds since 1970."""

    response_id: str
    call_id: str
    trace_id: str
    model: Model
    key: Key
    usage: Usage
    start_s: float
    end_s: float
    tags: tuple[str, ...] = ()
    end_user: str = ""
    cache_hit: bool = False
    failure: str = ""


def payload(call: GatewayCall) -> str:
    """The call as one line of JSON.

    `prompt_tokens` includes cached tokens, and `response_cost` is LiteLLM's estimate at list price, as a float: it does not know
    the company's contract.
    """
    usage, is_failure = call.usage, bool(call.failure)
    prompt, total = usage.prompt_tokens, usage.prompt_tokens + usage.output_tokens
    cost = 0.0 if is_failure or call.cache_hit else estimate(call.model, usage)
    details = (
        f'{{"completion_tokens":{usage.output_tokens},"prompt_tokens":{prompt},"total_tokens":{total},'
        f'"completion_tokens_details":{{"reasoning_tokens":0}},'
        f'"prompt_tokens_details":{{"audio_tokens":null,"cached_tokens":{usage.cache_read_tokens}'
        f"{_written(call.model, usage)}}}}}"
    )
    before, after = _key_fragment(call.key)
    return (
        f'{{"id":"{call.response_id}","litellm_call_id":"{call.call_id}","trace_id":"{call.trace_id}","session_id":"",'
        f'"status":"{"failure" if is_failure else "success"}",{_model_fragment(call.model)},'
        f'"cache_hit":{"true" if call.cache_hit else "null"},'
        f'"saved_cache_cost":{estimate(call.model, usage) if call.cache_hit else 0.0},'
        f'"startTime":{call.start_s:.6f},"endTime":{call.end_s:.6f},"completionStartTime":{call.end_s:.6f},'
        f'"response_time":{call.end_s - call.start_s:.6f},"response_cost":{cost!r},'
        f'"prompt_tokens":{prompt},"completion_tokens":{usage.output_tokens},"total_tokens":{total},'
        f'"request_tags":{_tags(call.tags)},"end_user":"{call.end_user}",'
        f'"metadata":{{{before},"usage_object":{"null" if is_failure else details},{after}}},'
        f'"messages":[{{"role":"user","content":"(a prompt nobody should keep)"}}],"response":{{"id":"{call.response_id}"}},'
        f'"error_str":{_text(call.failure) if is_failure else "null"},"error_information":{_error(call.failure)}}}'
    )


def estimate(model: Model, usage: Usage) -> float:
    """Cost at list price as a gateway reckons it: floating point, no contract. Never booked by anyone."""
    rates = _float_rates(model)
    return (
        usage.input_tokens * rates[0]
        + usage.cache_read_tokens * rates[1]
        + usage.cache_write_5m_tokens * rates[2]
        + usage.output_tokens * rates[3]
    )


@cache
def _float_rates(model: Model) -> tuple[float, float, float, float]:
    rates = list_rates(model)
    return (
        float(rates.get("input_tokens", 0)),
        float(rates.get("cache_read_tokens", 0)),
        float(rates.get("cache_write_5m_tokens", 0)),
        float(rates.get("output_tokens", 0)),
    )


def _written(model: Model, usage: Usage) -> str:
    if not (model.on_aws and model.caches):
        return ""
    n = usage.cache_write_5m_tokens
    return (
        f',"cache_write_tokens":{n},"cache_creation_tokens":{n},'
        f'"cache_creation_token_details":{{"ephemeral_5m_input_tokens":{n},"ephemeral_1h_input_tokens":0}}'
    )


@cache
def _tags(tags: tuple[str, ...]) -> str:
    return json.dumps(tags)


@cache
def _text(text: str) -> str:
    return json.dumps(text)


@cache
def _error(failure: str) -> str:
    if not failure:
        return "null"
    return json.dumps({"error_code": "429", "error_class": "RateLimitError", "llm_provider": "bedrock", "error_message": failure})


@cache
def _key_fragment(key: Key) -> tuple[str, str]:
    """The identity part of `metadata`, in two halves: before and after the usage."""
    team_id = None if key.team is None else f"team-{key.team.lower()}"
    before: dict[str, object] = {
        "user_api_key_hash": f"{abs(hash_of(key.alias)):064x}",
        "user_api_key_alias": key.alias,
        "user_api_key_team_id": team_id,
        "user_api_key_team_alias": key.team,
        "user_api_key_user_id": "default_user_id",
        "user_api_key_request_route": "/v1/chat/completions",
        "user_api_key_auth_metadata": {},
    }
    after: dict[str, object] = {
        "requester_metadata": {},
        "spend_logs_metadata": None,
        "applied_guardrails": [],
        "mcp_tool_call_metadata": None,
    }
    return json.dumps(before)[1:-1], json.dumps(after)[1:-1]


def hash_of(text: str) -> int:
    """A stable number for a made-up key hash."""
    return int.from_bytes(text.encode().ljust(16, b"\0")[:16], "big") * 0x9E3779B97F4A7C15 % (1 << 251)


@cache
def _model_fragment(model: Model) -> str:
    region = model.region or US
    base = (
        f"https://bedrock-runtime.{region}.amazonaws.com/model/{model.name}/converse"
        if model.on_aws
        else "https://api.openai.com/v1/chat/completions"
    )
    group = model.name.rsplit(".", 1)[-1] if model.on_aws else model.name
    full = f"{model.gateway_provider}/{model.name}"
    out = {
        "call_type": "acompletion",
        "stream": False,
        "custom_llm_provider": model.gateway_provider,
        "model": full,
        "model_id": f"dep-{group}",
        "model_group": group,
        "api_base": base,
        "model_map_information": {"model_map_key": full, "model_map_value": None},
        "model_parameters": {"stream": False},
        "hidden_params": {"model_id": f"dep-{group}", "litellm_model_name": full, "api_base": base},
    }
    return json.dumps(out)[1:-1]
