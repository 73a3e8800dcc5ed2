"""The company's services and their shared operations: calling a model, through the gateway or directly, and reading the vector store."""

from __future__ import annotations

from typing import NamedTuple

from rootcost.demo.company import AGENT_RUNTIME, GATEWAY_ROLE, UNKNOWN_KEY, VECTOR_STORE, Model
from rootcost.demo.gateway import GatewayCall, Key, Usage
from rootcost.demo.recorder import SECOND, Person, Recorder
from rootcost.demo.shapes import inverse, shares
from rootcost.demo.wire import CLIENT, INTERNAL, SERVER, Attribute, Origin

CHAT_IN, CHAT_OUT = inverse("chat_input_tokens"), inverse("chat_output_tokens")
AGENT_IN, AGENT_OUT = inverse("agent_input_tokens"), inverse("agent_output_tokens")
REUSE = inverse("prefix_reuse_share")
_TENANTS = ("harbour-line", "coldstore-ag", "petal-and-stem", "nordkai", "almond-works", "tessera", "lumen-parts", "fjordbox")
TENANTS_BY_WEIGHT = [
    _TENANTS[min(i, 7)] for i, share in enumerate(shares("client_share_by_rank")) for _ in range(max(1, round(share * 200)))
]

THROTTLED = "ThrottlingException: rate exceeded, please wait before trying again"


def _service(name: str, scope: str = "brightwater.telemetry", *extra: Attribute) -> Origin:
    return Origin(
        (("service.name", name), ("service.namespace", "brightwater"), ("deployment.environment.name", "production"), *extra),
        scope,
        "2.3.0",
    )


CARE_WEB, DISPATCH_WEB, CONTRACT_PORTAL = _service("care-web"), _service("dispatch-web"), _service("contract-portal")
SUPPORT, RESEARCH = _service("support-bot"), _service("research-service")
KNOWLEDGE = _service("mcp-knowledge")
CODE_RUNNER = _service("coder-runner")
PROXY = Origin((("service.name", "litellm"), ("deployment.environment", "production"), ("model_id", "litellm")), "litellm", "")
INTAKE, POSTING = _service("invoice-intake"), _service("ledger-posting")
RUNTIME = _service("contract-review", "strands.telemetry.tracer", ("aws.bedrock.agentcore.runtime.arn", AGENT_RUNTIME))
PLANNER, INDEXER, HACKDAY = _service("route-planner"), _service("doc-indexer"), _service("hackday")

KEYS = {
    "support": Key("care-support-bot", "Care"),
    "coder": Key("engineering-coder", "Engineering"),
    "posting": Key("finance-ledger", "Finance"),
    "writer": Key("growth-lead-writer", "Growth"),
    "notebook": Key("data-notebooks", "Data"),
    "legacy": Key(UNKNOWN_KEY, None),
}


class CallSite(NamedTuple):
    """Context of a call: service, parent span, end user and agent."""

    origin: Origin
    trace: bytes
    parent: bytes
    who: Person
    executor: Person


class GrowingPrompt:
    """The prompt of an agent's loop: every step repeats the earlier messages, and caches what the provider allows."""

    __slots__ = ("model", "prompt", "seen")

    def __init__(self, model: Model, prompt: int, seen_share: float) -> None:
        self.model = model
        self.prompt = max(24, prompt)
        self.seen = int(self.prompt * seen_share) if model.caches else 0

    def step(self, output: int, added_tokens: int) -> Usage:
        """The usage of the next call, after which its answer and `added_tokens` tokens join the prompt."""
        prompt, cache_read = self.prompt, min(self.seen, self.prompt - 16)
        output = max(1, output)
        fresh = prompt - cache_read
        if self.model.caches and self.model.on_aws and fresh > 1024:
            cache_written = fresh - fresh // 12
            usage = Usage(fresh - cache_written, cache_read, cache_written, output)
            self.seen = cache_read + cache_written
        elif self.model.caches and not self.model.on_aws:
            cache_read -= cache_read % 128
            usage = Usage(prompt - cache_read, cache_read, 0, output)
            self.seen = prompt
        else:
            usage = Usage(fresh, cache_read, 0, output)
        self.prompt = min(prompt + output + added_tokens, 180_000)
        return usage


def duration(r: Recorder, output: int, pace: float = 1.0) -> int:
    """The time to generate a number of tokens, in nanoseconds."""
    return int(pace * (0.35 + output * (0.008 + 0.012 * r.dice.uniform())) * SECOND)


def gateway_call(
    r: Recorder,
    seat: CallSite,
    model: Model,
    usage: Usage,
    key: Key,
    at: int,
    *,
    extra: tuple[Attribute, ...] = (),
    through_proxy: bool = False,
    end_user: str = "",
) -> int:
    """A call through LiteLLM: the client's span, the gateway's payload, and if `through_proxy` the gateway's own spans.

    One in fifty is throttled and tried again. Returns when it ended.
    """
    place, trace_id = (seat.trace, seat.parent), seat.trace.hex()
    if r.dice.chance(0.02):
        end = at + int(1.2 * SECOND)
        call_id = r.dice.uuid()
        r.chat_span(seat.origin, place, model, None, (at, end), extra, error=THROTTLED)
        r.logged(
            GatewayCall(call_id, call_id, trace_id, model, key, Usage(), at / 1e9, end / 1e9, (), end_user, failure=THROTTLED)
        )
        at = end + int((0.5 + r.dice.uniform()) * SECOND)
        extra = (*extra, ("http.request.resend_count", 1))
    end = at + duration(r, usage.output_tokens)
    response_id, call_id = "chatcmpl-" + r.dice.uuid(), r.dice.uuid()
    span = r.chat_span(seat.origin, place, model, usage, (at, end), extra, response_id=response_id)
    if through_proxy:
        _proxy_spans(r, (seat.trace, span), model, usage, key, (at, end), (response_id, call_id))
    r.logged(GatewayCall(response_id, call_id, trace_id, model, key, usage, at / 1e9, end / 1e9, (), end_user))
    r.used(model, GATEWAY_ROLE if model.on_aws else "", seat.who, seat.executor, at, usage)
    return end


def _proxy_spans(
    r: Recorder, place: tuple[bytes, bytes], model: Model, usage: Usage, key: Key, times: tuple[int, int], ids: tuple[str, str]
) -> None:
    """LiteLLM's own OpenTelemetry spans of the call, below the client's span; `ids` are the response's and the call's."""
    edge, end = times[0] + SECOND // 250, times[1] - SECOND // 500
    server = r.span(PROXY, place, "Received Proxy Server Request", SERVER, (edge, end))
    constant_attributes = (
        ("gen_ai.system", model.gateway_provider),
        ("gen_ai.request.model", f"{model.gateway_provider}/{model.name}"),
        ("llm.request.type", "acompletion"),
    )
    own: tuple[Attribute, ...] = (
        ("litellm.call_id", ids[1]),
        ("gen_ai.response.id", ids[0]),
        ("gen_ai.response.model", model.name),
        ("gen_ai.usage.input_tokens", usage.prompt_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
        ("gen_ai.usage.total_tokens", usage.prompt_tokens + usage.output_tokens),
        ("metadata.user_api_key_alias", key.alias),
        ("metadata.user_api_key_team_alias", key.team or ""),
    )
    r.span(
        PROXY,
        (place[0], server),
        "litellm_request",
        INTERNAL,
        (edge + SECOND // 500, end - SECOND // 500),
        constant_attributes,
        own,
    )


def direct_call(
    r: Recorder,
    seat: CallSite,
    model: Model,
    usage: Usage,
    principal: str,
    at: int,
    *,
    extra: tuple[Attribute, ...] = (),
    plain: bool = False,
    inclusive: bool = True,
    operation: str = "chat",
    pace: float = 1.0,
) -> int:
    """A call straight to the provider, recorded by OpenTelemetry alone. `pace` 2 takes twice as long. Returns its end."""
    end = at + duration(r, usage.output_tokens, pace)
    place, response_id = (seat.trace, seat.parent), r.dice.uuid()
    r.chat_span(
        seat.origin,
        place,
        model,
        usage,
        (at, end),
        extra,
        response_id=response_id,
        plain=plain,
        inclusive=inclusive,
        operation=operation,
    )
    r.used(model, principal, seat.who, seat.executor, at, usage)
    return end


def agent_attributes(name: str) -> tuple[Attribute, ...]:
    """Attributes of an agent's span."""
    return (("gen_ai.operation.name", "invoke_agent"), ("gen_ai.agent.name", name))


def repeated(usage: Usage) -> tuple[Attribute, ...]:
    """Usage attributes of a wrapper span: the sum over the calls below it."""
    return (("gen_ai.usage.input_tokens", usage.prompt_tokens), ("gen_ai.usage.output_tokens", usage.output_tokens))


def query_store(r: Recorder, origin: Origin, place: tuple[bytes, bytes], at: int, busy: int) -> int:
    """A read of the vector store, which is billed by the hour; returns when it ended."""
    attributes = (("db.system.name", "opensearch"), ("db.operation.name", "search"), ("rootcost.resource.id", VECTOR_STORE))
    r.span(origin, place, "search knowledge", CLIENT, (at, at + busy), attributes)
    r.resource_seconds.append((at // (3600 * SECOND), VECTOR_STORE, busy / 1e9))
    return at + busy + SECOND // 50
