"""CA-1 to CA-5: which signals are one call, and what it used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tests.oracle.chains import Key, Node, Row, enclosing
from tests.oracle.names import LOG_MODELS

REPORTED = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
)
Usage = dict[str, int]
"""Disjoint meters and how much of each. (CA-5)"""


@dataclass
class Call:
    """One provider request attempt, or a wrapper that stands for requests nobody reported. (CA-2)"""

    place: Node
    signals: list[Row]
    usage: Usage | None
    flags: set[str] = field(default_factory=set)

    def told(self, column: str) -> Any:
        """What any signal says, the most complete first. (CA-1)"""
        return next((s[column] for s in by_completeness(self.signals) if s.get(column) is not None), None)

    @property
    def reports(self) -> bool:
        """Whether any signal of it says how much was used, be it nothing at the provider."""
        return any(s.get(column) is not None for s in self.signals for column in REPORTED)

    @property
    def cache_hit(self) -> bool:
        return any(s.get("cache_hit") for s in self.signals)


def calls(nodes: Mapping[Key, Node]) -> list[Call]:
    """Every call once, with what it used."""
    leaves = [node for node in nodes.values() if _is_leaf(node)]
    _mark_ids_of_others(_signals(leaves))
    found = [_merged(group) for group in _same_call(leaves)]
    found = [call for call in found if not _is_echo(call, found, nodes)]
    return _handed_down(found, _wrappers(nodes, found), nodes)


def _is_leaf(node: Node) -> bool:
    return any(s.get("usage_scope") == "leaf" for s in node.signals)


def _same_call(leaves: Sequence[Node]) -> list[list[Node]]:
    """CA-1. Signals with one (trace, span) are one node already; here those with one gateway call id, then with one response."""
    groups = [[node] for node in leaves]
    groups = _joined(groups, _gateway_ids)
    copied = _copied(groups)
    sole = _sole_calls(leaves, copied)
    joined = _joined(groups, lambda group: {proof for proof in _responses(group, sole) if proof not in copied})
    return [part for group in joined for part in _without_bridges(group)]


def _signals(group: Sequence[Node]) -> list[Row]:
    return [s for node in group for s in node.signals]


Proof = tuple[Any, ...]


def _mark_ids_of_others(signals: Sequence[Row]) -> None:
    """Adds `other_ids`: of the ids of a row, those that the gateway logged before for another key, with its own key. (CA-1a)

    Reading: a span is its key's where the gateway has that key under the id, and otherwise the first key's.
    """
    keys_by_id: dict[str, list[str]] = {}
    for signal in sorted(signals, key=lambda s: (s["start_time"], s.get("credential") or "")):
        if signal["channel"] == "litellm" and signal.get("credential"):
            for name in {signal.get("gateway_call_id"), *request_ids(signal)} - {None}:
                keys_by_id.setdefault(str(name), []).append(signal["credential"])
    for signal in signals:
        key = signal.get("credential")
        signal["other_ids"] = {name: key for name, keys in keys_by_id.items() if key in keys and key != keys[0]}


def _own(signal: Row, name: str) -> str:
    """The id, told apart from the same id of another key."""
    other = signal.get("other_ids", {})
    return f"{name}|{other[name]}" if name in other else name


def _responses(group: Sequence[Node], sole: Mapping[Proof, tuple[Proof, datetime]]) -> set[Proof]:
    """The ids of a request together with model and prompt. Output proves nothing: a stream that was cut has less of it. (CA-1a)

    Reading: prompts are equal if the whole prompt is; who tells of cached tokens, too, or counts them in another way, does not tell of
    another call. An answer out of a cache is another call than the one it repeats. A signal without a prompt belongs to the only
    call that has its id: by its own id first, then by that of the call which started nearest to it.
    """
    proofs: set[Proof] = set()
    for s in _signals(group):
        hit = bool(s.get("cache_hit"))
        if s.get("input_tokens") is not None:
            proofs |= {(_own(s, name), prompt, _family(s), hit) for name in request_ids(s) for prompt in _prompts(s)}
            continue
        calls_by_id = {name: sole[key] for name in request_ids(s) if (key := (_own(s, name), _family(s), hit)) in sole}
        if calls_by_id:
            proofs.add(
                min((n != s.get("provider_request_id"), abs(s["start_time"] - at), n, p) for n, (p, at) in calls_by_id.items())[
                    -1
                ]
            )
    return proofs


def _family(signal: Row) -> str | None:
    called = LOG_MODELS.get(signal.get("response_model") or "")
    return called.model if called else None


def request_ids(signal: Row) -> list[str]:
    """All ids by which another source may name the same request."""
    further = json.loads(signal.get("request_ids") or "[]")
    return sorted({i for i in (signal.get("provider_request_id"), *further) if i})


def _sole_calls(leaves: Sequence[Node], copied: set[Proof]) -> dict[Proof, tuple[Proof, datetime]]:
    """By id, model and hit: what proves the only call that has the id, and when that call started."""
    starts: dict[tuple[Any, Any], dict[Proof, datetime]] = {}
    for leaf in leaves:
        for signal in leaf.signals:
            for proof in _responses([replace(leaf, signals=[signal])], {}) - copied:
                call_starts = starts.setdefault((proof[0], proof[3]), {})
                call_starts[proof] = min(signal["start_time"], call_starts.get(proof, signal["start_time"]))
    return {
        (request, p[2], hit): (p, at) for (request, hit), calls in starts.items() if len(calls) == 1 for p, at in calls.items()
    }


def _without_bridges(group: list[Node]) -> list[list[Node]]:
    """A call has one gateway id: where a signal tied the calls of two, the ties of requests are undone."""
    if len({s["gateway_call_id"] for s in _signals(group) if s.get("gateway_call_id")}) < 2:
        return [group]
    return _joined([[node] for node in group], _gateway_ids)


def _gateway_ids(group: Sequence[Node]) -> set[Proof]:
    return {("gateway", _own(s, s["gateway_call_id"])) for s in _signals(group) if s.get("gateway_call_id")}


def _prompts(signal: Row) -> set[int]:
    """What the whole prompt may have been."""
    told, inclusive = signal["input_tokens"], signal.get("input_includes_cache")
    cached = sum(signal.get(c) or 0 for c in ("cache_read_tokens", "cache_write_tokens"))
    return {told} if inclusive else {told + cached} if inclusive is False else {told, told + cached}


def _copied(groups: Sequence[Sequence[Node]]) -> set[tuple[Any, ...]]:
    """Responses that came under several gateway call ids. Reading: they were repeated out of a cache, and prove nothing."""
    seen: dict[tuple[Any, ...], set[str]] = {}
    for group in groups:
        ids = {s["gateway_call_id"] for s in _signals(group) if s.get("gateway_call_id")}
        for proof in _responses(group, {}):
            seen.setdefault(proof, set()).update(ids)
    return {proof for proof, ids in seen.items() if len(ids) > 1}


def _joined(groups: list[list[Node]], proofs: Any) -> list[list[Node]]:
    """Groups that share a proof become one, until none do."""
    out: list[list[Node]] = []
    for group in groups:
        mine = proofs(group)
        touching = [other for other in out if proofs(other) & mine]
        out = [other for other in out if other not in touching]
        out.append([*(node for other in touching for node in other), *group])
    return out


def _merged(group: Sequence[Node]) -> Call:
    """One call of all its signals. It stands where its innermost span stands; each figure comes from whoever tells it.

    Reading: a gateway's row knows at most its trace, so any span comes before it, and a provider's log, in no trace but its own, after it; of two traces, the one that came first has the call, the
    other replays it.
    """
    spans = [node for node in group if node.told["channel"] == "otlp"]
    spans = spans or [node for node in group if node.told["trace_id"] != node.told["span_id"]] or list(group)
    first = min(spans, key=lambda node: (node.told["start_time"], node.told["trace_id"])).told["trace_id"]
    spans = [node for node in spans if node.told["trace_id"] == first]
    # Reading: a request is made last, so of the spans of one trace the one that started last is nearest to it.
    place = min(spans, key=lambda node: (-node.told["start_time"].timestamp(), node.key[1]))
    call = Call(place, _signals(group), None)
    if call.cache_hit:
        # It used nothing at the provider and costs 0. (CA-4)
        call.flags.add("cache_hit")
        return call
    call.usage = disjoint(_figures(call.signals), call.flags)
    if call.usage is None:
        call.flags.add("usage_absent")
    if (call.told("attempt") or 0) > 0:
        call.flags.add("retry")
    return call


def _figures(signals: Sequence[Row]) -> Row:
    """What the signals of a call report, each figure by the most complete signal that has it; output by the one that counts most. (CA-1a)"""

    ranked = by_completeness(signals)
    figures = {c: next((s[c] for s in ranked if s.get(c) is not None), None) for c in _FIGURES}
    first = next((s for s in ranked if s.get("input_tokens") is not None), None)
    if first is not None:
        figures |= {c: first.get(c) for c in ("input_tokens", "input_includes_cache", "total_tokens")}
    told = [s for s in ranked if s.get("output_tokens") is not None]
    if told:
        most = max(told, key=_whole_output)
        figures |= {c: most.get(c) for c in ("output_tokens", "output_includes_reasoning")}
    if first is not None and first.get("output_tokens") != figures["output_tokens"]:
        figures["total_tokens"] = None
    return figures


def by_completeness(signals: Sequence[Row]) -> list[Row]:
    """Signals in the order in which they are believed: who reports most, a gateway before a span, then in a fixed order."""

    def completeness(s: Row) -> tuple[Any, ...]:
        order = {"litellm": 0, "otlp": 3}
        return -sum(s.get(c) is not None for c in REPORTED), order.get(s["channel"], 9), -s["rank"], s["trace_key"], s["span_key"]

    return sorted(signals, key=completeness)


def _whole_output(signal: Row) -> int:
    apart = signal.get("output_includes_reasoning") is False
    return int(signal["output_tokens"]) + (int(signal.get("reasoning_tokens") or 0) if apart else 0)


def _is_echo(outer: Call, found: Sequence[Call], nodes: Mapping[Key, Node]) -> bool:
    """Whether a call only repeats the next one below it, or all the next ones together. (CA-2b)

    Reading: of two instrumentations of one request the inner one counts, and two requests are told from one by their ids (the
    provider's, else the gateway's), their model and what they used; and where an agent or a tool is at work in between, they are two.
    """
    if not outer.reports:
        return False
    below = [call for call in found if call.reports and outer.place.key in enclosing(call.place.key, nodes)]
    nearest = []
    for inner in below:
        between = enclosing(inner.place.key, nodes) - enclosing(outer.place.key, nodes) - {outer.place.key}
        if not any(call.place.key in between for call in below) and not _other_work(between, found, nodes):
            nearest.append(inner)
    alike = [inner for inner in nearest if _may_be_one(outer, inner)]
    if any(_same_usage(outer, inner) for inner in alike):
        return True
    return len(nearest) > 1 and len(alike) == len(nearest) and _is_sum(outer, alike)


def _other_work(between: set[Key], found: Sequence[Call], nodes: Mapping[Key, Node]) -> bool:
    """Whether one of these spans is of a tool or of an agent that the spans above it do not name."""
    reporting = {call.place.key for call in found if call.reports}
    for key in between - reporting:
        row = nodes[key].told
        if row.get("operation") in ("execute_tool", "invoke_agent") or row.get("tool_name") is not None:
            return True
        agent = _agent(nodes[key])
        if agent is not None:
            above = sorted(enclosing(key, nodes), key=lambda k: -len(enclosing(k, nodes)))
            nearest = next((a for a in (_agent(nodes[k]) for k in above) if a is not None), None)
            if nearest != agent:
                return True
    return False


def _agent(node: Node) -> str | None:
    """What the span calls its agent; what it leaves unsaid a gateway's row of the same span may say."""
    rows = [node.told, *node.signals]
    name = next((r[c] for c in ("agent_name", "agent_id") for r in rows if r.get(c) is not None), None)
    return None if name is None else str(name)


def _may_be_one(outer: Call, inner: Call) -> bool:
    ids = {_id(outer), _id(inner)} - {None}
    models = {call.told("response_model") for call in (outer, inner)} - {None}
    return len(ids) < 2 and len(models) < 2


def _same_usage(outer: Call, inner: Call) -> bool:
    """Prompt and output agree, as far as both tell them, and one of them is more than nothing."""
    one, other = _figures(outer.signals), _figures(inner.signals)
    equal = []
    for sizes in (_sizes_in, _sizes_out):
        first, second = sizes(one), sizes(other)
        if first and second and not first & second:
            return False
        equal.append(bool(first & second) and (sizes is _sizes_in or max(second) > 0))
    return any(equal)


def _is_sum(outer: Call, parts: Sequence[Call]) -> bool:
    figures = [_figures(call.signals) for call in parts]
    for sizes in (_sizes_in, _sizes_out):
        parts_of = [sizes(f) for f in figures]
        if not all(parts_of):
            return False
        if not sizes(_figures(outer.signals)) & {sum(map(min, parts_of)), sum(map(max, parts_of))}:
            return False
    return sum(min(_sizes_in(f)) for f in figures) > 0


def _sizes_in(figures: Row) -> set[int]:
    return set() if figures["input_tokens"] is None else _prompts(figures)


def _sizes_out(figures: Row) -> set[int]:
    if figures["output_tokens"] is None:
        return set()
    plain, whole = figures["output_tokens"], figures["output_tokens"] + (figures["reasoning_tokens"] or 0)
    is_part = figures["output_includes_reasoning"]
    return {plain} if is_part else {whole} if is_part is False else {plain, whole}


def _id(call: Call) -> str | None:
    found = call.told("provider_request_id") or call.told("gateway_call_id")
    return None if found is None else str(found)


_FIGURES = (*REPORTED, "input_includes_cache", "output_includes_reasoning")


def disjoint(told: Mapping[str, Any], flags: set[str]) -> Usage | None:
    """Counts as reported, as meters that do not overlap; None if nothing was reported. (CA-4, CA-5)

    1 000 tokens of input, 400 of them read from the cache, of an emitter that includes them:

    >>> disjoint({"input_tokens": 1000, "cache_read_tokens": 400, "input_includes_cache": True, "output_tokens": 5}, set())
    {'input_tokens': 600, 'cache_read_tokens': 400, 'output_tokens': 5}
    """
    if all(told.get(column) is None for column in REPORTED if column != "total_tokens"):
        return None
    read = told.get("cache_read_tokens")
    long, short = told.get("cache_write_1h_tokens"), told.get("cache_write_5m_tokens")
    written = told.get("cache_write_tokens")
    if written is not None:
        # What is said to be written without a lifetime, beyond what has one, is of the short kind.
        short = max(written - (long or 0), short or 0)
    cached = (read or 0) + (short or 0) + (long or 0)
    total_in, total_out, thought = told.get("input_tokens"), told.get("output_tokens"), told.get("reasoning_tokens")

    beyond = (told.get("total_tokens") or 0) - (total_in or 0) - (total_out or 0)
    inclusive, tokens_beside = told.get("input_includes_cache"), _tokens_beside(beyond, read or 0, cached - (read or 0), total_in)
    if tokens_beside and not thought:
        # The total counts one of reads and writes beside the input, whatever the table says of both. (CA-5)
        flags |= {"count_contradiction"} if inclusive is not None else set()
    elif inclusive is None and total_in is not None and cached:
        # A total of just input and output is no proof: some emitters add the two up themselves.
        inclusive = beyond != cached
        if inclusive and total_in >= cached:
            flags.add("input_semantics_unknown")
    if inclusive and total_in is not None and cached and not thought and beyond == cached:
        # The record counts the cached tokens beside the input, whatever the table says. (CA-5)
        inclusive = False
        flags.add("count_contradiction")
    included_tokens = cached - tokens_beside if tokens_beside and not thought else cached if inclusive else 0
    plain = None if total_in is None else total_in - included_tokens
    # Reading: who does not say whether output includes reasoning means that it does, as OpenTelemetry has it.
    said = (
        None if total_out is None else total_out - ((thought or 0) if told.get("output_includes_reasoning") is not False else 0)
    )
    meters = {
        "input_tokens": plain,
        "cache_read_tokens": read,
        "cache_write_5m_tokens": short,
        "cache_write_1h_tokens": long,
        "output_tokens": said,
        "reasoning_tokens": thought,
    }
    return {meter: count for meter, count in meters.items() if count is not None}


def _tokens_beside(surplus: int, read_tokens: int, write_tokens: int, total_in: int | None) -> int:
    """Reads or writes, where a total counts just one of them beside the input; 0 if it does not."""
    if (
        total_in is None
        or not read_tokens
        or not write_tokens
        or read_tokens == write_tokens
        or surplus not in (read_tokens, write_tokens)
    ):
        return 0
    return surplus if read_tokens + write_tokens - surplus <= total_in else 0


def _wrappers(nodes: Mapping[Key, Node], leaves: Sequence[Call]) -> list[Call]:
    """CA-2: aggregates and counters, innermost first, so that an outer one sees what an inner one already stands for.

    A wrapper whose descendants all report costs nothing. Where some of them are silent, or there are none, what it
    says beyond what they report is its residual, never negative, meter by meter, and flagged.
    """
    wrappers = [n for n in nodes.values() if n.told.get("usage_scope") in ("aggregate", "cumulative")]
    counted = list(leaves)
    found: list[Call] = []
    for node in sorted(wrappers, key=lambda n: -len(enclosing(n.key, nodes))):
        said = _own_stretch(node, wrappers)
        if said is None:
            continue
        below = [call for call in counted if any(node.key in enclosing(place, nodes) for place in _places(call))]
        # A hit of the gateway's cache speaks too: it used nothing at the provider, whatever the wrapper repeats of it. (CA-4)
        reporting = [call for call in below if call.reports or call.cache_hit]
        silent = [call for call in below if not (call.reports or call.cache_hit)]
        if reporting and not silent:
            continue
        rest = _beyond(said, [call.usage or {} for call in reporting], node.told)
        if any(rest.values()):
            call = Call(node, list(node.signals), rest, {"aggregate_residual" if reporting else "aggregate_only"})
            found.append(call)
            counted.append(call)
    return found


def _handed_down(leaves: Sequence[Call], residuals: Sequence[Call], nodes: Mapping[Key, Node]) -> list[Call]:
    """CA-2a: what a wrapper says beyond its parts was used by the silent calls below it, in equal parts.

    Reading: of the wrappers above a silent call the nearest with a residual counts. The earlier calls get the smaller of two
    parts that cannot be equal; running sums, as for money. A call that names no model is one of its wrapper's.
    """
    unshared: list[Call] = []
    for residual in residuals:
        takers = [
            call for call in leaves if not (call.reports or call.cache_hit) and _nearest(call, residuals, nodes) is residual
        ]
        takers.sort(key=lambda call: (call.place.order, call.place.key))
        for place, call in enumerate(takers):
            call.usage = {
                meter: count * (place + 1) // len(takers) - count * place // len(takers)
                for meter, count in (residual.usage or {}).items()
            }
            call.flags = (call.flags - {"usage_absent"}) | residual.flags
            if call.told("response_model") is None:
                call.signals = [*call.signals, *residual.signals]
        if not takers:
            unshared.append(residual)
    return [*leaves, *unshared]


def _nearest(call: Call, residuals: Sequence[Call], nodes: Mapping[Key, Node]) -> Call | None:
    above = [r for r in residuals if r.place.key in enclosing(call.place.key, nodes)]
    return max(above, key=lambda r: len(enclosing(r.place.key, nodes)), default=None)


def _beyond(said: Usage, parts: Sequence[Usage], wrapper: Row) -> Usage:
    """What a wrapper says beyond its parts.

    Reading: what the parts tell of cached or reasoning tokens beyond what the wrapper tells of them is in its whole, unless
    it says that it leaves them out.
    """
    told: Usage = {}
    for part in parts:
        for meter, count in part.items():
            told[meter] = told.get(meter, 0) + count
    for whole, details, says in (
        ("input_tokens", ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"), "input_includes_cache"),
        ("output_tokens", ("reasoning_tokens",), "output_includes_reasoning"),
    ):
        if wrapper.get(says) is not False:
            told[whole] = told.get(whole, 0) + sum(max(0, told.get(d, 0) - said.get(d, 0)) for d in details)
    return {meter: max(0, count - told.get(meter, 0)) for meter, count in said.items()}


def _places(call: Call) -> Iterable[Key]:
    """Every span that told of a call: each of them lies below the wrappers above it. A gateway's row of a call that has a span has no place."""
    spans = [s for s in call.signals if not s["channel"].startswith("litellm")]
    return {(s["trace_key"], s["span_key"]) for s in spans} | {call.place.key}


def _own_stretch(node: Node, wrappers: Sequence[Node]) -> Usage | None:
    """What a wrapper says of its own invocation; a counter that runs on says the difference to its last stand. (CA-2a)

    Reading: a counter belongs to one agent of one service, and stands in the order of its spans' starts. Its last stand is the latest
    of the last ones in its conversation, in its trace and in its process that are not above it; two conversations that are both named
    have two counters. Where there is none it was started anew.
    """
    said = _says(node)
    if said is None or node.told["usage_scope"] == "aggregate":
        return said
    earlier = [n for n in wrappers if _counter(n) == _counter(node) and n.order < node.order and _says(n) is not None]
    lasts: list[Node] = []
    for relation in (_one_conversation, _one_trace, _one_process):
        candidates = [n for n in earlier if relation(n.told, node.told)]
        if candidates:
            lasts.append(max(candidates, key=lambda n: n.order))
    fitting = [n for n in lasts if not any(count < (_says(n) or {}).get(meter, 0) for meter, count in said.items())]
    last = (_says(max(fitting, key=lambda n: n.order)) if fitting else None) or {}
    return {meter: count - last.get(meter, 0) for meter, count in said.items()}


def _one_conversation(one: Row, other: Row) -> bool:
    return one.get("conversation_id") is not None and one["conversation_id"] == other.get("conversation_id")


def _one_trace(one: Row, other: Row) -> bool:
    return one["trace_key"] == other["trace_key"] and _unnamed_conversation(one, other)


def _one_process(one: Row, other: Row) -> bool:
    has_process = one.get("process") is not None or one.get("service_name") is not None
    return has_process and one.get("process") == other.get("process") and _unnamed_conversation(one, other)


def _unnamed_conversation(one: Row, other: Row) -> bool:
    return one.get("conversation_id") is None or other.get("conversation_id") is None


def _says(node: Node) -> Usage | None:
    return disjoint({column: node.told.get(column) for column in _FIGURES}, set())


def _counter(node: Node) -> tuple[Any, ...]:
    told = node.told
    return told["usage_scope"], told.get("agent_id") or told.get("agent_name"), told.get("service_name")
