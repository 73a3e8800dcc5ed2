"""What the company's agents do on their own: invoices, contracts, routes, indexing. The money here is not only in tokens."""

from __future__ import annotations

from rootcost.demo.actors import (
    AGENT_IN,
    AGENT_OUT,
    CHAT_IN,
    CHAT_OUT,
    CONTRACT_PORTAL,
    DISPATCH_WEB,
    HACKDAY,
    INDEXER,
    INTAKE,
    KEYS,
    PLANNER,
    POSTING,
    RUNTIME,
    CallSite,
    GrowingPrompt,
    agent_attributes,
    direct_call,
    gateway_call,
)
from rootcost.demo.company import (
    AGENT_RUNTIME,
    CONTRACT_REVIEW,
    CONTRACT_ROLE,
    DOC_INDEXER,
    EMBEDDING,
    GPU_NODES,
    HACKDAY_ROLE,
    INVOICE_READER,
    INVOICE_ROLE,
    LEDGER_POSTER,
    LLAMA,
    NOVA_LITE,
    NOVA_PRO,
    ROUTE_PLANNER,
    SONNET_EU,
    UNREGISTERED,
)
from rootcost.demo.gateway import Usage
from rootcost.demo.recorder import SECOND, Person, Recorder, total
from rootcost.demo.wire import CONSUMER, INTERNAL, PRODUCER, SERVER, Attribute

_QUEUE: tuple[Attribute, ...] = (("messaging.system", "aws_sqs"), ("messaging.destination.name", "ledger-entries"))


def invoice(r: Recorder, at: int) -> None:
    """An invoice is read, and goes through a queue to another agent: two traces, one chain, joined by a span link."""
    dice, initiator = r.dice, Person.of(INVOICE_READER, r.day)
    trace, root, agent, start = dice.octets(16), dice.octets(8), dice.octets(8), at
    seat = CallSite(INTAKE, trace, agent, initiator, initiator)
    talk = GrowingPrompt(NOVA_LITE, 3000 + int(dice.draw(AGENT_IN) * 0.5), 0.0)
    for _ in range(dice.between(1, 3)):
        at = direct_call(r, seat, NOVA_LITE, talk.step(int(dice.draw(CHAT_OUT)), 300), INVOICE_ROLE, at + SECOND // 20)
    publish = r.span(INTAKE, (trace, agent), "send ledger-entries", PRODUCER, (at, at + SECOND // 100), _QUEUE)
    attributes = agent_attributes(INVOICE_READER.name)
    r.span(INTAKE, (trace, root), "invoke_agent invoice-reader", INTERNAL, (start, at + SECOND // 50), attributes, span=agent)
    times, trigger = (start - SECOND // 50, at + SECOND // 40), (("faas.trigger", "datasource"),)
    r.span(INTAKE, (trace, b""), "ObjectCreated invoices", CONSUMER, times, trigger, span=root)
    _posting(r, at + int((2 + 90 * dice.uniform()) * SECOND), initiator, (trace, publish))


def _posting(r: Recorder, at: int, initiator: Person, link: tuple[bytes, bytes]) -> None:
    """The other end of the queue: a trace of its own, linked to the message it consumes."""
    dice, executor, start = r.dice, Person.of(LEDGER_POSTER, r.day), at
    trace, root, agent = dice.octets(16), dice.octets(8), dice.octets(8)
    seat = CallSite(POSTING, trace, agent, initiator, executor)
    talk = GrowingPrompt(NOVA_PRO, 4000 + int(dice.draw(AGENT_IN)), 0.0)
    for _ in range(dice.between(1, 2)):
        usage = talk.step(int(dice.draw(CHAT_OUT)), 200)
        at = gateway_call(r, seat, NOVA_PRO, usage, KEYS["posting"], at + SECOND // 20)
    attributes = agent_attributes(LEDGER_POSTER.name)
    r.span(POSTING, (trace, root), "invoke_agent ledger-poster", INTERNAL, (start, at), attributes, span=agent)
    times = (start - SECOND // 100, at + SECOND // 100)
    r.span(POSTING, (trace, b""), "process ledger-entries", CONSUMER, times, _QUEUE, link=link, span=root)


def contract(r: Recorder, at: int) -> None:
    """A contract is reviewed in a hosted agent runtime in Frankfurt, whose SDK counts input without cached tokens."""
    dice, initiator, start = r.dice, Person.of(CONTRACT_REVIEW, r.day), at
    trace, root, entry, agent = dice.octets(16), dice.octets(8), dice.octets(8), dice.octets(8)
    seat = CallSite(RUNTIME, trace, agent, initiator, initiator)
    talk, usages = GrowingPrompt(SONNET_EU, 6000 + int(dice.draw(AGENT_IN)), 0.05), []
    for _ in range(dice.between(3, 8)):
        usage = talk.step(int(dice.draw(AGENT_OUT) * 1.4), int(dice.draw(CHAT_IN)))
        at = direct_call(r, seat, SONNET_EU, usage, CONTRACT_ROLE, at + SECOND // 8, inclusive=False)
        usages.append(usage)
    whole, attributes = total(usages), agent_attributes(CONTRACT_REVIEW.name)
    totals = (("gen_ai.usage.input_tokens", whole.input_tokens), ("gen_ai.usage.output_tokens", whole.output_tokens))
    r.span(RUNTIME, (trace, root), "POST /invocations", SERVER, (start, at), (("http.route", "/invocations"),), span=entry)
    r.span(RUNTIME, (trace, entry), "invoke_agent contract-review", INTERNAL, (start, at), attributes, totals, span=agent)
    times = (start - SECOND // 25, at + SECOND // 25)
    r.span(CONTRACT_PORTAL, (trace, b""), "POST /reviews", SERVER, times, (("http.route", "/reviews"),), span=root)
    r.resource_seconds.append((start // (3600 * SECOND), AGENT_RUNTIME, (at - start) / 1e9))


def routes(r: Recorder, at: int, *, nodes: int = 1) -> None:
    """Tomorrow's routes, planned by a model on the company's own GPU node: no token price, but hours of a machine."""
    dice, initiator, start = r.dice, Person.of(ROUTE_PLANNER, r.day), at
    trace, root, agent = dice.octets(16), dice.octets(8), dice.octets(8)
    seat, node = CallSite(PLANNER, trace, agent, initiator, initiator), GPU_NODES[int(dice.uniform() * nodes)]
    talk = GrowingPrompt(LLAMA, 1500 + int(dice.draw(AGENT_IN) * 0.3), 0.0)
    node_attributes: tuple[Attribute, ...] = (("rootcost.resource.id", node), ("host.id", node))
    for _ in range(dice.between(2, 4)):
        usage, call_start = talk.step(int(dice.draw(AGENT_OUT)), 200), at
        at = direct_call(r, seat, LLAMA, usage, "", at + SECOND // 20, extra=node_attributes, pace=12.0)
        r.resource_seconds.append((call_start // (3600 * SECOND), node, (at - call_start) / 1e9))
    attributes = agent_attributes(ROUTE_PLANNER.name)
    r.span(PLANNER, (trace, root), "invoke_agent route-planner", INTERNAL, (start, at), attributes, span=agent)
    times = (start - SECOND // 25, at + SECOND // 25)
    r.span(DISPATCH_WEB, (trace, b""), "POST /plans", SERVER, times, (("http.route", "/plans"),), span=root)


def indexing(r: Recorder, at: int) -> None:
    """The nightly job that embeds new documents; it writes its telemetry to files."""
    dice, initiator, start = r.dice, Person.of(DOC_INDEXER, r.day), at
    trace, root, agent = dice.octets(16), dice.octets(8), dice.octets(8)
    seat = CallSite(INDEXER, trace, agent, initiator, initiator)
    for _ in range(dice.between(10, 24)):
        usage = Usage(dice.between(1500, 8000))
        at = direct_call(r, seat, EMBEDDING, usage, "", at + SECOND // 40, plain=True, operation="embeddings")
    attributes, workflow = agent_attributes(DOC_INDEXER.name), (("gen_ai.workflow.name", "nightly-index"),)
    r.span(INDEXER, (trace, root), "invoke_agent doc-indexer", INTERNAL, (start, at), attributes, span=agent, plain=True)
    r.span(INDEXER, (trace, b""), "nightly index", INTERNAL, (start, at), workflow, span=root, plain=True)


def hackday(r: Recorder, at: int) -> None:
    """An agent that nobody registered. It spends all the same."""
    dice, initiator, start = r.dice, Person(UNREGISTERED, ""), at
    trace, agent = dice.octets(16), dice.octets(8)
    seat = CallSite(HACKDAY, trace, agent, initiator, initiator)
    talk = GrowingPrompt(NOVA_LITE, 300 + int(dice.draw(CHAT_IN)), 0.0)
    for _ in range(dice.between(1, 3)):
        usage = talk.step(int(dice.draw(CHAT_OUT)), 50)
        at = direct_call(r, seat, NOVA_LITE, usage, HACKDAY_ROLE, at + SECOND // 20, plain=True)
    attributes = agent_attributes(UNREGISTERED)
    r.span(HACKDAY, (trace, b""), f"invoke_agent {UNREGISTERED}", INTERNAL, (start, at), attributes, span=agent, plain=True)
