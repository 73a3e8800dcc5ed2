"""Spans that differ in counts and ids only: what follows from all their other attributes is worked out once a batch.

An instrumentation writes the same model, agent, server and parameters call after call. A `Shape` is such a set of attributes with what
`SpanBatch` made of the first span that had it; a further span only reads the attributes whose values vary. Whatever could make a
difference otherwise (a problem, a second attribute for the same column, a link, an invalid value) leaves the span to the full reading.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ingest.otel.decode import RawSpan
from ingest.otel.emitters import EXTRA, PROVIDER_USAGE, Emitter, EmitterTable, Target, rows_of
from ledger.tables import USAGE_COLUMNS

MAX_SHAPES: Final = 4096
"""Shapes of one batch that are kept; beyond them spans are read in full."""
_MAX_PARTS: Final = 64
_PLAIN: Final = frozenset({str, int, bool, float})
COUNTS: Final = frozenset(USAGE_COLUMNS)
"""Columns that count usage."""
_VARYING_SLOTS: Final = COUNTS | {
    "conversation_id", "provider_request_id", "request_ids", "gateway_call_id", "reported_cost", "end_user",
    "attributes.tool_call_id", "attributes.arguments_digest", "attributes.run_id", "attributes.aws_request_id",
}  # fmt: skip

Entry = tuple[Any, Target | None]
"""A column's value, and the attribute it was read from."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all spans of one shape share."""

    number: int
    emitter: Emitter
    model: str | None
    columns: Mapping[str, Any] = field(repr=False)
    """Values of columns other than the varying ones."""
    extras: Mapping[str, Any] = field(repr=False)
    counts: Mapping[str, Entry] = field(repr=False)
    """Whole numbers among them, by which the counts are read. (CA-5)"""
    varying: tuple[tuple[str, Target], ...] = field(repr=False)
    has_usage: bool


class Varying(NamedTuple):
    """What one span has of the attributes that vary: column values, extras, and counts with their attributes."""

    columns: dict[str, Any]
    extras: dict[str, Any]
    counts: dict[str, Entry]


def is_count(slot: str) -> bool:
    """Whether a column counts usage, or is the provider's own count."""
    return slot in COUNTS or slot.startswith(PROVIDER_USAGE)


@lru_cache(maxsize=16)
def varying_attributes(table: EmitterTable) -> frozenset[str]:
    """Attributes of which only the value's own columns depend on the value: no condition, sign or rule looks at it."""
    emitters = [table.emitter(row["emitter"]) for row in rows_of("emitters")] + [table.emitter(None)]
    pairs = [(attribute, target) for emitter in emitters for attribute, targets in emitter.targets.items() for target in targets]
    decisive = {
        attribute
        for attribute, target in pairs
        if target.path or target.condition or target.entry or not (target.slot in _VARYING_SLOTS or is_count(target.slot))
    }
    decisive |= {target.condition[0] for _, target in pairs if target.condition}
    signs = [sign for row in rows_of("emitters") for column in ("marks", "hints") for sign in row[column].split(";")]
    return frozenset({attribute for attribute, _ in pairs} - decisive - {sign.partition("=")[0] for sign in signs if "=" in sign})


class ShapeKeys:
    """Makes the keys of spans' shapes: the names of all attributes, and the values of those that do not vary."""

    def __init__(self, varying: frozenset[str]) -> None:
        self._varying = varying
        self._getters: dict[tuple[str, ...], Callable[[dict[str, Any]], tuple[Any, ...]]] = {}

    def key_of(self, span: RawSpan, context: Hashable) -> tuple[Any, ...] | None:
        """The key of a span's shape; None for a span that shares none."""
        attributes = span.attributes
        if span.links or span.is_event or span.trace_text or span.span_text or span.parent_text:
            return None
        names = tuple(attributes)
        getter = self._getters.get(names)
        if getter is None:
            if len(names) > _MAX_PARTS or len(self._getters) >= MAX_SHAPES:
                return None
            getter = self._getters[names] = _getter([name for name in names if name not in self._varying])
        values = getter(attributes)
        types = tuple(map(type, values))  # equal numbers of different types are different values
        if not _PLAIN.issuperset(types):
            return None
        if float in types:
            values = tuple(map(repr, values))
        return context, span.name, span.kind, span.failed, span.trace_state, span.emitter, names, values, types


def _getter(names: Sequence[str]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda attributes: tuple(attributes[name] for name in names)


def varying_targets(
    span: RawSpan, emitter: Emitter, varying: frozenset[str], resource_slots: frozenset[str]
) -> tuple[tuple[str, Target], ...] | None:
    """The varying attributes of a span and their columns; None where another attribute, or the resource, gives such a column, too."""
    slots = [target.slot for attribute in span.attributes for target in emitter.targets.get(attribute, ())]
    pairs = [(name, target) for name in span.attributes if name in varying for target in emitter.targets.get(name, ())]
    is_shared = any(slots.count(target.slot) > 1 or target.slot in resource_slots for _, target in pairs)
    return None if is_shared else tuple(pairs)


def read_varying(span: RawSpan, shape: Shape) -> Varying | None:
    """The varying columns of a span; None where a count is absent. Raises `AttributeValueError` for an invalid value."""
    columns, extras, counts = dict[str, Any](), dict[str, Any](), dict[str, Entry]()
    attributes = span.attributes
    for attribute, target in shape.varying:
        slot, column_value = target.slot, target.reader(attributes[attribute])
        if slot in COUNTS or slot.startswith(PROVIDER_USAGE):
            if column_value is None:
                return None
            counts[slot] = (column_value, target)
            if slot in COUNTS:
                columns[slot] = column_value
        elif column_value is None:
            continue
        elif slot.startswith(EXTRA):
            extras[slot[len(EXTRA) :]] = column_value
        else:
            columns[slot] = column_value
    return Varying(columns, extras, counts)
