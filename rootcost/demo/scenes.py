"""What the company's agents do for people: each scene plays one request chain, span by span, call by call.

A scene knows who started it and what was used. It sends what services would send, with the flaws services have: retries, lost
spans, wrappers that repeat their children's usage.
"""

from __future__ import annotations

from rootcost.demo.actors import (
    AGENT_IN,
    AGENT_OUT,
    CARE_WEB,
    CHAT_IN,
    CHAT_OUT,
    CODE_RUNNER,
    KEYS,
    KNOWLEDGE,
    RESEARCH,
    REUSE,
    SUPPORT,
    TENANTS_BY_WEIGHT,
    CallSite,
    GrowingPrompt,
    agent_attributes,
    direct_call,
    duration,
    gateway_call,
    query_store,
    repeated,
)
from rootcost.demo.company import (
    CODER,
    EMBEDDING,
    GATEWAY_ROLE,
    GPT_41,
    GPT_MINI,
    HAIKU,
    LEAD_WRITER,
    PRICING_NOTEBOOK,
    RESEARCH_ROLE,
    RESEARCHER,
    SONNET,
    SUPPORT_BOT,
    Model,
)
from rootcost.demo.gateway import GatewayCall, Key, Usage
from rootcost.demo.recorder import NOBODY, SECOND, Person, Recorder, total
from rootcost.demo.wire import CLIENT, INTERNAL, SERVER, Attribute

_A2A: tuple[Attribute, ...] = (("rpc.system", "jsonrpc"), ("rpc.method", "message/send"))


def support_chat(r: Recorder, at: int) -> None:
    """A customer asks; the bot looks things up over MCP and sometimes calls the Data team's researcher over A2A."""
    dice, initiator, start = r.dice, Person.of(SUPPORT_BOT, r.day), at
    trace, root, agent = dice.octets(16), dice.octets(8), dice.octets(8)
    tenant, conversation = TENANTS_BY_WEIGHT[int(dice.uniform() * len(TENANTS_BY_WEIGHT))], f"conv-{dice.octets(6).hex()}"
    talks: tuple[Attribute, ...] = (("gen_ai.conversation.id", conversation),)
    seat = CallSite(SUPPORT, trace, agent, initiator, initiator)
    model = SONNET if dice.chance(0.5) else HAIKU
    talk = GrowingPrompt(model, 1800 + int(dice.draw(CHAT_IN) * 4), dice.draw(REUSE))
    through_proxy, usages = dice.chance(0.2), []
    at += SECOND // 20
    for step in range(dice.between(1, 4)):
        usage = talk.step(int(dice.draw(CHAT_OUT)), int(dice.draw(CHAT_IN)))
        at = gateway_call(r, seat, model, usage, KEYS["support"], at, extra=talks, through_proxy=through_proxy, end_user=tenant)
        usages.append(usage)
        if dice.chance(0.4):
            at = _search(r, (trace, agent), at)
        if step == 0 and dice.chance(0.22):
            at = _ask_researcher(r, (trace, agent), initiator, at)
    own_attributes = (*talks, *repeated(total(usages)))
    agent_span, times = agent_attributes(SUPPORT_BOT.name), (start + SECOND // 50, at)
    r.span(SUPPORT, (trace, root), "invoke_agent support-bot", INTERNAL, times, agent_span, own_attributes, span=agent)
    request_attributes = (("http.request.method", "POST"), ("http.route", "/chat"))
    by = (("enduser.id", f"u-{dice.octets(4).hex()}"), ("tenant.id", tenant))
    r.span(CARE_WEB, (trace, b""), "POST /chat", SERVER, (start, at + SECOND // 30), request_attributes, by, span=root)


def _search(r: Recorder, place: tuple[bytes, bytes], at: int) -> int:
    """A tool call over MCP that reads the vector store; returns when it ended."""
    busy = int((0.05 + 0.4 * r.dice.uniform()) * SECOND)
    end, tool = at + busy + SECOND // 25, ("gen_ai.tool.name", "search_knowledge")
    client_attributes = (("gen_ai.operation.name", "execute_tool"), tool, ("gen_ai.tool.type", "extension"))
    client = r.span(SUPPORT, place, "execute_tool search_knowledge", INTERNAL, (at, end), client_attributes)
    times, server_attributes = (at + SECOND // 100, end - SECOND // 100), (("mcp.method.name", "tools/call"), tool)
    server = r.span(KNOWLEDGE, (place[0], client), "tools/call search_knowledge", SERVER, times, server_attributes)
    return query_store(r, KNOWLEDGE, (place[0], server), at + SECOND // 50, busy)


def _ask_researcher(r: Recorder, place: tuple[bytes, bytes], initiator: Person, at: int) -> int:
    """Another team's agent works for this chain; once in a while the hop between them is lost on the way."""
    dice, executor, start, trace = r.dice, Person.of(RESEARCHER, r.day), at, place[0]
    context_lost, has_baggage = dice.chance(0.04), dice.chance(0.75)
    claimant = initiator if has_baggage or not context_lost else executor
    baggage: tuple[Attribute, ...] = (("rootcost.agent", initiator.agent),) if has_baggage else ()
    hop, server, agent = dice.octets(8), dice.octets(8), dice.octets(8)
    seat = CallSite(RESEARCH, trace, agent, claimant, executor)
    talk = GrowingPrompt(SONNET, 1500 + int(dice.draw(AGENT_IN) * 0.5), dice.draw(REUSE))
    usages: list[Usage] = []
    at += SECOND // 20
    at = direct_call(r, seat, EMBEDDING, Usage(dice.between(20, 400)), "", at, extra=baggage, operation="embeddings")
    at = query_store(r, RESEARCH, (trace, agent), at, int((0.1 + 0.5 * dice.uniform()) * SECOND))
    for _ in range(dice.between(2, 5)):
        usage = talk.step(int(dice.draw(AGENT_OUT)), int(dice.draw(CHAT_IN) * 2))
        if dice.chance(0.01):
            at = _broken_stream(r, seat, usages, usage, baggage, at)
        at = direct_call(r, seat, SONNET, usage, RESEARCH_ROLE, at, extra=baggage)
        usages.append(usage)
    agent_span, own_attributes = agent_attributes(RESEARCHER.name), baggage + repeated(total(usages))
    r.span(
        RESEARCH,
        (trace, server),
        "invoke_agent researcher",
        INTERNAL,
        (start + SECOND // 40, at),
        agent_span,
        own_attributes,
        span=agent,
    )
    r.span(RESEARCH, (trace, hop), "POST /a2a", SERVER, (start + SECOND // 60, at), _A2A, baggage, span=server)
    request_attributes = (*_A2A, ("server.address", "research-service"))
    r.span(
        SUPPORT,
        place,
        "a2a message/send researcher",
        CLIENT,
        (start, at + SECOND // 60),
        request_attributes,
        span=hop,
        is_lost=context_lost,
    )
    return at + SECOND // 50


def _broken_stream(r: Recorder, seat: CallSite, usages: list[Usage], usage: Usage, extra: tuple[Attribute, ...], at: int) -> int:
    """The stream broke half-way: the provider bills what it had produced, and the retry as well."""
    broken = usage._replace(output_tokens=usage.output_tokens // 2 + 1)
    end, error = at + duration(r, broken.output_tokens), "stream closed before the end"
    place, response_id = (seat.trace, seat.parent), r.dice.uuid()
    r.chat_span(seat.origin, place, SONNET, broken, (at, end), extra, response_id=response_id, error=error)
    r.used(SONNET, RESEARCH_ROLE, seat.who, seat.executor, at, broken)
    usages.append(broken)
    return end + SECOND


def coding_task(r: Recorder, at: int, *, steps: int = 0) -> None:
    """A long loop over a growing, mostly cached prompt. With many `steps`: a loop that nobody stopped."""
    dice, initiator = r.dice, Person.of(CODER, r.day)
    trace, agent, start = dice.octets(16), dice.octets(8), at
    seat = CallSite(CODE_RUNNER, trace, agent, initiator, initiator)
    model = SONNET if dice.chance(0.8) else HAIKU
    talk = GrowingPrompt(model, 6000 + int(dice.draw(AGENT_IN) * 1.2), dice.draw(REUSE))
    through_proxy, usages = dice.chance(0.35), []
    name = "coder-v2" if dice.chance(0.3) else CODER.name
    shell = (("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "run_shell"))
    for _ in range(steps or dice.between(4, 18)):
        usage = talk.step(int(dice.draw(AGENT_OUT)), int(dice.draw(CHAT_IN) * 1.5))
        at = gateway_call(r, seat, model, usage, KEYS["coder"], at + SECOND // 10, through_proxy=through_proxy)
        usages.append(usage)
        if dice.chance(0.6):
            busy = int((0.1 + 3 * dice.uniform()) * SECOND)
            r.span(CODE_RUNNER, (trace, agent), "execute_tool run_shell", INTERNAL, (at, at + busy), shell)
            at += busy
    agent_span, own_attributes = (*agent_attributes(name), ("gen_ai.workflow.name", "pull-request")), repeated(total(usages))
    r.span(CODE_RUNNER, (trace, b""), f"invoke_agent {name}", INTERNAL, (start, at), agent_span, own_attributes, span=agent)


def writing(r: Recorder, at: int) -> None:
    """Marketing copy. No telemetry at all: the gateway's log is all there is, with the agent in a request tag."""
    dice, initiator = r.dice, Person.of(LEAD_WRITER, r.day)
    session, tags = f"sess-{dice.octets(5).hex()}", (f"rootcost.agent:{initiator.agent}", "env:production")
    model = GPT_41 if dice.chance(0.45) else GPT_MINI
    talk = GrowingPrompt(model, 1500 + int(dice.draw(CHAT_IN) * 3), dice.draw(REUSE))
    for _ in range(dice.between(1, 3)):
        usage = talk.step(500 + int(dice.draw(CHAT_OUT) * 3), int(dice.draw(CHAT_IN) * 0.4))
        end, hit = at + duration(r, usage.output_tokens), dice.chance(0.03)
        ids = ("chatcmpl-" + dice.uuid(), dice.uuid())
        r.logged(GatewayCall(*ids, session, model, KEYS["writer"], usage, at / 1e9, end / 1e9, tags, cache_hit=hit))
        if not hit:
            r.used(model, "", initiator, initiator, at, usage)
        at = end + int(20 * dice.uniform() * SECOND)


def notebook(r: Recorder, at: int) -> None:
    """Somebody in a notebook with a registered gateway key, and nothing else that says who they are."""
    _bare_key(r, at, GPT_41, KEYS["notebook"], Person.of(PRICING_NOTEBOOK, r.day))


def legacy(r: Recorder, at: int) -> None:
    """A key nobody registered: the calls are known, their owner is not."""
    _bare_key(r, at, HAIKU, KEYS["legacy"], NOBODY)


def _bare_key(r: Recorder, at: int, model: Model, key: Key, initiator: Person) -> None:
    dice = r.dice
    talk = GrowingPrompt(model, 200 + int(dice.draw(CHAT_IN)), 0.0)
    usage = talk.step(int(dice.draw(CHAT_OUT)), 0)
    end = at + duration(r, usage.output_tokens)
    r.logged(GatewayCall("chatcmpl-" + dice.uuid(), dice.uuid(), dice.uuid(), model, key, usage, at / 1e9, end / 1e9))
    r.used(model, GATEWAY_ROLE if model.on_aws else "", initiator, initiator, at, usage)
