"""Translates LiteLLM's names into the terms of OpenTelemetry and FOCUS: operations, tiers, endpoints, ids, tags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from ingest.logs.json_fields import text
from ledger import ids

_OPERATIONS = {
    "completion": "chat",
    "responses": "chat",
    "aresponses_websocket": "chat",
    "anthropic_messages": "chat",
    "realtime": "chat",
    "create_interaction": "chat",
    "text_completion": "text_completion",
    "embedding": "embeddings",
    "generate_content": "generate_content",
    "generate_content_stream": "generate_content",
    "image_generation": "image_generation",
    "image_edit": "image_generation",
    "search": "retrieval",
    "vector_store_search": "retrieval",
    "query": "retrieval",
    "call_mcp_tool": "execute_tool",
    "send_message": "invoke_agent",
    "create_video": "video_generation",
    "video_generation": "video_generation",
}
_PROVIDER_CALLS = frozenset(
    {
        *(name for name in _OPERATIONS if name not in ("call_mcp_tool", "send_message", "vector_store_search", "query")),
        *(
            "moderation",
            "transcription",
            "speech",
            "rerank",
            "ocr",
            "decisions",
            "systemone",
            "video_edit",
            "video_remix",
            "video_extension",
        ),
    }
)
_KNOWN = _PROVIDER_CALLS | frozenset(_OPERATIONS) | {"create_batch", "retrieve_batch", "cancel_batch", "llm_passthrough_route"}
_STANDARD_TIERS = frozenset({"default", "standard", "auto", "on_demand", "ondemand", "normal"})
_SUFFIX = re.compile(r"_cache_hit[0-9.]*\Z")
_BILLS_EARLIER = re.compile(r"(_batch_cost|_background[a-z_]*|_[a-z_]*cost)\Z")
_REGION = r"[a-z]{2}(?:-[a-z]+)+-?\d{1,2}"
_REGION_IN_HOST = re.compile(
    rf"(?:\A|\.)(?:bedrock|bedrock-runtime|bedrock-runtime-fips|bedrock-mantle|bedrock-agent-runtime|runtime\.sagemaker)\.({_REGION})\."
    rf"|\A({_REGION})-aiplatform\.googleapis\.com\Z"
)
_AWS_REGION = re.compile(r"\A(?:us|eu|ap|ca|sa|me|af|il|mx|cn|us-gov|us-iso)(?:-[a-z]+)+-\d\Z")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]+):(\d{12})?:\S+")
_VERTEX_PROJECT = re.compile(r"/projects/([^/]+)/locations/([^/]+)")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")


_cached = lru_cache(maxsize=4096)
"""The same names occur in most calls; caching them makes reading a log several times faster."""


@_cached
def base_call_type(call_type: str) -> str:
    """The call type without the prefix of its asynchronous form.

    >>> base_call_type("acompletion"), base_call_type("_arealtime"), base_call_type("anthropic_messages")
    ('completion', 'realtime', 'anthropic_messages')
    """
    bare = call_type.removeprefix("_")
    return bare[1:] if bare[:1] == "a" and bare[1:] in _KNOWN else bare


@_cached
def operation(call_type: str) -> str | None:
    """OpenTelemetry's gen_ai.operation.name; LiteLLM's own name where the conventions have none.

    >>> operation("acompletion"), operation("aembedding"), operation("call_mcp_tool"), operation("arerank"), operation("")
    ('chat', 'embeddings', 'execute_tool', 'rerank', None)
    """
    base = base_call_type(call_type)
    return _OPERATIONS.get(base, base) or None


@_cached
def usage_scope(call_type: str, *, used: bool) -> str | None:
    """``leaf`` for one request to a provider; None for work of the gateway itself and for calls of tools and agents.

    Unknown call types (pass-through routes, newer versions) are requests if they report usage. The usage of an agent repeats the calls it
    made, which are logged themselves (CA-2).

    >>> usage_scope("acompletion", used=False), usage_scope("call_mcp_tool", used=False), usage_scope("asend_message", used=True)
    ('leaf', None, 'aggregate')
    """
    base = base_call_type(call_type)
    if base == "send_message":
        return "aggregate" if used else None
    return "leaf" if base in _PROVIDER_CALLS or used else None


def makes_images(call_type: str) -> bool:
    """Whether the provider answers with a list of pictures.

    >>> makes_images("aimage_generation"), makes_images("image_edit"), makes_images("acompletion")
    (True, True, False)
    """
    return operation(call_type) == "image_generation"


def is_batch_retrieval(call_type: str) -> bool:
    """Whether the item is a poll of a batch's state; with usage it is the cost of the batch."""
    return base_call_type(call_type) == "retrieve_batch"


def tier(tier_name: str | None) -> str | None:
    """The service tier, None for the standard one.

    >>> tier("priority"), tier("default"), tier("Flex"), tier(None)
    ('priority', None, 'flex', None)
    """
    name = tier_name.lower() if tier_name else None
    return None if name in _STANDARD_TIERS else name


@_cached
def answering_model(response_model: str | None, group: str | None, sent: str | None, provider: str | None) -> str | None:
    """The model that answered: the one in the answer, unless that is only the gateway's alias; then the model of the deployment.

    >>> answering_model("gpt-4o-2024-08-06", "fast", "openai/gpt-4o", "openai")
    'gpt-4o-2024-08-06'
    >>> answering_model("fast", "fast", "openai/gpt-4o", "openai")
    'gpt-4o'
    """
    deployment_model = sent.removeprefix(f"{provider}/") if sent and provider else sent
    return response_model if response_model and response_model != group else deployment_model or response_model


@_cached
def endpoint(url: str | None) -> str | None:
    """An address without credentials, query and closing slash.

    >>> endpoint("https://user:secret@api.example.com/v1/?key=abc")
    'https://api.example.com/v1'
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None  # an invalid address may contain a secret
    if not host:
        return None
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}{port}{parts.path}".rstrip("/")


@_cached
def region(model: str | None, base: str | None) -> str | None:
    """The cloud region, where the endpoint's host, its path or the model's name states it unambiguously.

    >>> region("bedrock/us-east-1/anthropic.claude-v2", None), region(None, "https://bedrock-runtime.eu-west-1.amazonaws.com/model/x")
    ('us-east-1', 'eu-west-1')
    >>> region("openai/gpt-4o", "https://api.openai.com/v1") is None
    True
    """
    if base:
        parts = urlsplit(base)
        if host_match := _REGION_IN_HOST.search(parts.hostname or ""):
            return host_match[1] or host_match[2]
        if (parts.hostname or "").endswith("googleapis.com") and (path_match := _VERTEX_PROJECT.search(parts.path)):
            return path_match[2]
    if model:
        if arn := _ARN.search(model):
            return arn[1]
        if model.startswith(("bedrock/", "sagemaker/")):
            return next((part for part in model.split("/")[1:-1] if _AWS_REGION.match(part)), None)
    return None


@_cached
def account(model: str | None, base: str | None) -> str | None:
    """The cloud account or project, where an ARN or a path names it.

    >>> account("bedrock/arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/ab12", None)
    '111122223333'
    """
    if model and (arn := _ARN.search(model)):
        return arn[2]
    if base and "googleapis.com/" in base and (path_match := _VERTEX_PROJECT.search(base)):
        return path_match[1]
    return None


@_cached
def resource(model: str | None) -> str | None:
    """The inference profile or provisioned model, where the model was called by its ARN."""
    match = _ARN.search(model) if model else None
    return match[0] if match else None


def bare_request_id(request_id: str | None) -> str | None:
    """The provider's id of the response, without the suffix that LiteLLM appends to make its rows unique.

    >>> bare_request_id("chatcmpl-1_cache_hit1795361507.42"), bare_request_id("batch_7_batch_cost"), bare_request_id("chatcmpl-1")
    ('chatcmpl-1', 'batch_7', 'chatcmpl-1')
    """
    return None if request_id is None else _BILLS_EARLIER.sub("", _SUFFIX.sub("", request_id)) or request_id


def key_name(key: str | None) -> str | None:
    """A key's alias or hash unchanged; an API key itself, which must not be stored, as the hash that LiteLLM uses.

    >>> key_name("search-prod"), key_name("sk-1234")[:8]
    ('search-prod', '88dc28d0')
    """
    return hashlib.sha256(key.encode()).hexdigest() if key and key.startswith("sk-") else key


def is_cache_hit_id(request_id: str | None) -> bool:
    """Whether an id is that of an answer from the gateway's own cache."""
    return request_id is not None and _SUFFIX.search(request_id) is not None


def bills_earlier_work(request_id: str) -> bool:
    """Whether a row bills work that another row of the same call started: a batch, a background response."""
    return _BILLS_EARLIER.search(request_id) is not None


def batch_id(request_id: str | None) -> str | None:
    """The batch of a row; all rows of one batch are in one trace."""
    return bare_request_id(request_id)


def traceparent(header: str | None) -> tuple[str, str] | None:
    """Trace and span id of a W3C traceparent header; None where it is not valid.

    >>> traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    ('0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331')
    """
    match = _TRACEPARENT.match(header.lower()) if header else None
    return (match[1], match[2]) if match and ids.is_trace_id(match[1]) and ids.is_span_id(match[2]) else None


def claims(tags: Iterable[object], labels: Mapping[str, Any], baggage: str | None) -> dict[str, str]:
    """Claims of the caller from tags, labels and baggage, by lower-case key; of several values for one key the first is used.

    >>> claims(["team:ads", "agent: planner", "User-Agent: curl", 7], {"agent": "x", "env": "prod"}, "env=dev,shop=a%20b")
    {'team': 'ads', 'agent': 'planner', 'user-agent': 'curl', 'env': 'prod', 'shop': 'a b'}
    """
    value_by_key: dict[str, str] = {}
    for tag in tags:
        key, colon, value = (text(tag) or "").partition(":")
        if colon and value.strip():
            value_by_key.setdefault(key.strip().lower(), value.strip())
    for key, label in labels.items():
        if label_text := text(label):
            value_by_key.setdefault(str(key).strip().lower(), label_text)
    for member in (baggage or "").split(","):
        key, equals, value = member.partition(";")[0].partition("=")
        if equals and (label_text := text(unquote(value))):
            value_by_key.setdefault(key.strip().lower(), label_text)
    return value_by_key


def first_claim(value_by_key: Mapping[str, str], keys: Iterable[str]) -> str | None:
    """The value of the first of these keys that is present; keys are compared whole."""
    return next((value_by_key[key.lower()] for key in keys if key.lower() in value_by_key), None)
