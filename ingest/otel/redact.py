"""The door for trace exports: what may come in, checked and stripped so quickly that a sender never waits for the ledger.

Ids, names, times and mapped attributes of good spans come in, as the protobuf they came in. Prompts, answers, tool arguments and
whatever nobody asks for stay outside: they are not even written to disk. Reading what came in is for later (`otlp.read_bodies`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.otel.attribute_values import Amiss, at, opened
from ingest.otel.decode import from_protobuf
from ingest.otel.emitters import EmitterTable
from ingest.otel.faults import Faults, unusable
from ledger.problems import Problem


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came in: a protobuf trace export of `spans` spans, and what was left outside, and why."""

    content: bytes
    spans: int
    problems: Sequence[Problem]

    @property
    def rejected(self) -> int:
        """How many spans were left outside: what OTLP's partial success reports."""
        return sum(problem.rows for problem in self.problems)


def admit(body: bytes, table: EmitterTable, *, source: str, uri: str) -> Admitted:
    """Lets in what is good of a trace export in protobuf. Raises `FormatError` where nothing in it is one."""
    export = from_protobuf(body)
    problems = Faults(source, uri)
    for part in export.lost:
        problems.tell(part.place, "span", part.reason, "the sender's exporter wrote it so; update it or report it there")
    redactor = _Strip(table)
    span_count = ordinal = 0
    for resource_spans in export.body.resource_spans:
        redactor.holder(resource_spans.resource.attributes, table.wanted_of_resource)
        for scope_spans in resource_spans.scope_spans:
            spans = scope_spans.spans
            del scope_spans.scope.attributes[:]
            bad = []
            for position, span in enumerate(spans):
                ordinal += 1
                if problem := unusable(span.trace_id, span.span_id, span.start_time_unix_nano):
                    problems.tell(f"span {ordinal}", *problem)
                    bad.append(position)
                else:
                    redactor.span(span)
            _without(spans, bad)
            span_count += len(spans)
    export.body.DiscardUnknownFields()
    return Admitted(export.body.SerializeToString() if span_count else b"", span_count, problems.problems())


class _Strip:
    """Takes from spans what nobody asks for."""

    def __init__(self, table: EmitterTable) -> None:
        self._wanted, self._inner = table.wanted, table.inner
        self._whole = table.plain

    def span(self, span: Any) -> None:
        attributes, whole = span.attributes, self._whole
        partly = [position for position, pair in enumerate(attributes) if pair.key not in whole]
        if partly:
            self._reduce(attributes, partly)
        if span.events:
            del span.events[:]
        if span.status.message:
            span.status.message = ""
        for link in span.links:
            del link.attributes[:]

    def holder(self, attributes: Any, attribute_names: frozenset[str]) -> None:
        _without(attributes, [position for position, pair in enumerate(attributes) if pair.key not in attribute_names])

    def _reduce(self, attributes: Any, partly: list[int]) -> None:
        surplus = []
        for position in partly:
            pair = attributes[position]
            if pair.key not in self._wanted:
                surplus.append(position)
            elif paths := self._inner.get(pair.key):
                _only(pair.value, paths)
        _without(attributes, surplus)


def _without(items: Any, positions: list[int]) -> None:
    for position in reversed(positions):
        del items[position]


def _only(value: Any, paths: Sequence[tuple[str, ...]]) -> None:
    """Leaves of the JSON in a value what lies at these places; text that is none is left, as it is told of when it is read."""
    try:
        inner = opened(value.string_value)
    except Amiss:
        value.string_value = value.string_value[:64]
        return
    leaves: dict[str, Any] = {}
    for path in paths:
        leaf = at(inner, path) if inner is not None else None
        if leaf is None:
            continue
        node = leaves
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = leaf
    value.string_value = json.dumps(leaves, default=str)
