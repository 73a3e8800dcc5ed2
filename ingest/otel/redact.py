"""Validates and redacts trace exports on receipt, before they are written to the spool.

Ids, names, times and mapped attributes of valid spans are kept, as protobuf. Prompts, answers, tool arguments (but for
two bytes of their hash) and all other attributes are removed and never written to disk. `otlp.read_bodies` makes rows of the stored exports later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from ingest.otel.attribute_values import AttributeValueError, parse_object, value_at
from ingest.otel.decode import from_protobuf
from ingest.otel.emitters import EmitterTable
from ingest.otel.export_problems import ExportProblems, unusable
from ingest.otel.tool_arguments import ARGUMENTS, DIGEST, arguments_digest
from ingest.time_bounds import TimeBounds
from ledger.problems import Problem

_KEY: Final = attrgetter("key")


@dataclass(frozen=True, slots=True)
class RedactedExport:
    """A redacted protobuf trace export of `spans` spans, and the problems of the spans that were rejected."""

    content: bytes
    spans: int
    problems: Sequence[Problem]

    @property
    def rejected(self) -> int:
        """Number of rejected spans, which OTLP's partial success reports."""
        return sum(problem.rows for problem in self.problems)


def redact_export(body: bytes, table: EmitterTable, *, source: str, uri: str, bounds: TimeBounds | None = None) -> RedactedExport:
    """The valid spans of a protobuf trace export with mapped attributes only. Raises `FormatError` for anything else."""
    export = from_protobuf(body)
    problems = ExportProblems(source, uri)
    for part in export.failures:
        problems.add(part.place, "span", part.reason, "the sender's exporter wrote it so; update it or report it there")
    redactor = _Redactor(table)
    first_ns, last_ns = bounds.range_ns() if bounds else (0, 0)
    span_count = ordinal = 0
    for resource_spans in export.body.resource_spans:
        redactor.keep_only(resource_spans.resource.attributes, table.resource_attributes)
        for scope_spans in resource_spans.scope_spans:
            spans = scope_spans.spans
            del scope_spans.scope.attributes[:]
            bad = []
            for position, span in enumerate(spans):
                ordinal += 1
                start_ns = span.start_time_unix_nano
                problem = unusable(span.trace_id, span.span_id, start_ns)
                if bounds and not first_ns <= start_ns <= last_ns:
                    problem = problem or bounds.violation(start_ns)
                if problem:
                    problems.add(f"span {ordinal}", *problem)
                    bad.append(position)
                else:
                    redactor.span(span)
            _delete_at(spans, bad)
            span_count += len(spans)
    export.body.DiscardUnknownFields()
    return RedactedExport(export.body.SerializeToString() if span_count else b"", span_count, problems.problems())


class _Redactor:
    """Removes unmapped attributes from spans."""

    def __init__(self, table: EmitterTable) -> None:
        self._span_attributes, self._inner_paths = table.span_attributes, table.inner_paths
        self._plain_attributes = table.plain_attributes

    def span(self, span: Any) -> None:
        attributes, whole = span.attributes, self._plain_attributes
        if not whole.issuperset(map(_KEY, attributes)):
            self._reduce(attributes, [position for position, pair in enumerate(attributes) if pair.key not in whole])
        if span.events:
            del span.events[:]
        if span.HasField("status") and span.status.message:
            span.status.message = ""
        for link in span.links:
            del link.attributes[:]

    def keep_only(self, attributes: Any, attribute_names: frozenset[str]) -> None:
        _delete_at(attributes, [position for position, pair in enumerate(attributes) if pair.key not in attribute_names])

    def _reduce(self, attributes: Any, partly: list[int]) -> None:
        surplus = []
        for position in partly:
            pair = attributes[position]
            if pair.key not in self._span_attributes:
                if pair.key in ARGUMENTS:
                    pair.key, pair.value.string_value = DIGEST, arguments_digest(pair.value.string_value or str(pair.value))
                else:
                    surplus.append(position)
            elif paths := self._inner_paths.get(pair.key):
                _keep_paths(pair.value, paths)
        _delete_at(attributes, surplus)


def _delete_at(items: Any, positions: list[int]) -> None:
    for position in reversed(positions):
        del items[position]


def _keep_paths(value: Any, paths: Sequence[tuple[str, ...]]) -> None:
    """Keeps only these paths of the JSON in a value. Invalid JSON is shortened and reported when it is read."""
    try:
        inner = parse_object(value.string_value)
    except AttributeValueError:
        value.string_value = value.string_value[:64]
        return
    leaves: dict[str, Any] = {}
    for path in paths:
        leaf = value_at(inner, path) if inner is not None else None
        if leaf is None:
            continue
        node = leaves
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = leaf
    value.string_value = json.dumps(leaves, default=str)
