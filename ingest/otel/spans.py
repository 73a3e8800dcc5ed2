"""Builds rows of the `spans` table from decoded OpenTelemetry spans.

One pass over the spans: each attribute is looked up in the emitter table, parsed and stored in its column; ids, times and ranks are
then computed for the whole batch. A row depends only on its span and resource, so any batching of deliveries gives the same
rows (CA-3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ingest.logs.unread_usage import UnreadUsage
from ingest.otel.attribute_values import AttributeValueError, clean, parse_object, text, value_at
from ingest.otel.columns import EVENTS_CHANNEL, Ids, Times, with_derived_columns
from ingest.otel.count_semantics import CountSemantics, count_semantics
from ingest.otel.decode import DecodeFailure, Exported, RawSpan
from ingest.otel.emitters import CLAIMS, EXTRA, OTHER, PROCESS, PROVIDER_USAGE, Emitter, EmitterTable, Target
from ingest.otel.export_problems import LATEST_NS, NO_SPAN, NO_TRACE, ExportProblems, unusable
from ingest.otel.shapes import MAX_SHAPES, Shape, ShapeKeys, is_count, read_varying, varying_attributes, varying_targets
from ingest.otel.unread_attributes import UnreadAttributes
from ingest.source import Reading
from ledger.money import RATE
from ledger.tables import SPANS, USAGE_COLUMNS

_USAGE_COLUMNS = frozenset(USAGE_COLUMNS)
"""Columns that count tokens. Two attributes of one span that disagree about one of them are reported as a problem (F3)."""
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_VERSION_LENGTH = 40
"""Longer scope versions are cut."""
_ENTRY_KINDS = frozenset({"SERVER", "CONSUMER"})
FRAME_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("link_trace", "link_span"), pl.Binary),
    **dict.fromkeys(("trace_text", "span_text", "parent_text", "reported_cost"), pl.String),
}
"""Types of columns that are no columns of `spans` yet, or are text at first."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """Column values that a resource gives to each of its spans."""

    always: tuple[tuple[str, Any], ...]
    at_entry: tuple[tuple[str, Any], ...]
    facts: frozenset[str]
    process: str | None = None


class SpanBatch:
    """Collects the spans of several exports into one frame.

    The tags of `table` decide which baggage is read. Add exports with `add`; `reading` returns the rows.
    """

    def __init__(self, table: EmitterTable, *, source: str, uri: str, raw_id: str) -> None:
        self._table = table
        self._source = source
        self._problems = ExportProblems(source, uri)
        self._unread = UnreadUsage(source, uri, paths=())
        self._unread_attributes = UnreadAttributes(table.names_read)
        self._raw_id = raw_id
        self._raw_ids: list[str] = []
        self._ids: Ids = ([], [], [])
        self._times: Times = ([], [])
        self._values: dict[str, dict[int, Any]] = {slot: {} for slot in ("usage_scope", "emitter", "name", "status")}
        self._extras: dict[int, dict[str, Any]] = {}
        self._other: dict[int, dict[str, str]] = {}
        self._varying = frozenset() if table.content.is_kept else varying_attributes(table)
        self._keys = ShapeKeys(self._varying)
        self._shapes: dict[tuple[Any, ...], Shape] = {}
        self._shape_of_row: list[int | None] = []
        self._owners: dict[_Resource, int] = {}
        self._warnings = 0
        self.shape: Shape | None = None  # of the last span

    @property
    def height(self) -> int:
        """Rows so far."""
        return len(self._times[0])

    def add(self, export: Exported, *, place: str = "", raw_id: str = "") -> None:
        """Adds the spans of one export, from `place` (``line 7``) of the file or, with `raw_id`, as a delivery of its own."""
        self._problems.part = place
        self._raw_id = raw_id or self._raw_id
        failures: list[DecodeFailure] = list(export.failures)
        resource, owner, owner_number = None, _Resource((), (), frozenset()), -1
        for group in export.groups(self._table.span_attributes, self._table.resource_attributes, failures):
            if group.resource is not resource:
                resource, owner = group.resource, self._resource_of(group.resource)
                owner_number = self._owners.setdefault(owner, len(self._owners))
            by_scope = self._table.by_scope(group.scope)
            for span in group.spans:
                self._add_span(span, owner, by_scope, group.version, owner_number)
        for part in failures:
            self._problems.add(part.place, "span", part.reason, "the sender's exporter wrote it so; update it or report it there")

    def add_problem(self, place: str, field: str, reason: str, remedy: str) -> None:
        """Reports a part of the input that was left out as a whole."""
        self._problems.part = place
        self._problems.add("", field, reason, remedy)

    def reading(self) -> Reading:
        """The rows of `spans` and the problems."""
        return Reading(self._frame(), [*self._problems.problems(), *self._unread.problems()])

    def _resource_of(self, resource: dict[str, Any]) -> _Resource:
        best: dict[str, tuple[int, Any, bool]] = {}
        for attribute, value in resource.items():
            for target in self._table.resource_targets.get(attribute, ()):
                name = text(value)
                if name is not None and (target.slot not in best or target.rank < best[target.slot][0]):
                    best[target.slot] = (target.rank, name, target.entry)
        ids = {slot: value for slot, (_, value, _) in best.items() if slot.startswith(PROCESS)}
        host_process = "/".join(ids[slot] for slot in ("process.host", "process.pid") if slot in ids)
        return _Resource(
            always=tuple((slot, value) for slot, (_, value, entry) in best.items() if not entry and slot not in ids),
            at_entry=tuple((slot, value) for slot, (_, value, entry) in best.items() if entry),
            facts=frozenset(self._table.resource_facts & resource.keys()),
            process=ids.get("process.instance") or host_process or None,
        )

    def _add_span(self, span: RawSpan, owner: _Resource, by_scope: str | None, version: str, owner_number: int) -> None:
        if problem := unusable(span.trace_id, span.span_id, span.start_ns):
            self._problems.add(f"span {span.ordinal}", *problem)
            return
        unread = self._unread_attributes.take(span.attributes, is_event=span.is_event)
        row = len(self._times[0])
        trace_ids, span_ids, parent_ids = self._ids
        parent = self._parent(span)
        trace_ids.append(span.trace_id)
        span_ids.append(span.span_id)
        parent_ids.append(parent)
        self._raw_ids.append(self._raw_id)
        self._times[0].append(span.start_ns)
        self._times[1].append(self._end(span))

        entry = parent is None or span.kind in _ENTRY_KINDS or span.remote_parent
        key = self._keys.key_of(span, (owner_number, by_scope, version, entry)) if self._varying else None
        self.shape = shape = self._shapes.get(key) if key is not None else None
        if shape is not None and self._add_alike(row, span, shape):
            self._unread.add_fields(unread, shape.emitter.name)
            return
        self._shape_of_row.append(None)
        warnings = self._warnings
        emitter_name = span.emitter or self._table.recognise(by_scope, span.attributes, span.name)
        emitter = self._table.emitter(emitter_name, version)
        chosen = self._choose_values(span, emitter, entry) if span.attributes else {}
        self._unread.add_fields(unread, emitter.name)
        if span.name in self._table.names and ("operation" not in chosen or chosen["operation"][0] is None):
            chosen["operation"] = (self._table.canonical_operation("name", span.name), None)
        self._store(row, span, owner, entry, emitter_name, emitter, chosen)
        if version:
            self._set_value("emitter_version", row, clean(version)[:_VERSION_LENGTH] or None)
        if span.links:
            self._store_links(row, span)
        if span.is_event:
            self._set_value("channel", row, EVENTS_CHANNEL)
        if span.trace_text or span.span_text or span.parent_text:
            self._set_value("trace_text", row, clean(span.trace_text) or None)
            self._set_value("span_text", row, clean(span.span_text) or None)
            self._set_value("parent_text", row, clean(span.parent_text) or None)
        if key is not None and shape is None and warnings == self._warnings and len(self._shapes) < MAX_SHAPES:
            self._keep_shape(key, row, span, owner, emitter, chosen)

    def _add_alike(self, row: int, span: RawSpan, shape: Shape) -> bool:
        """Adds a span of a shape that another span had; False where it has to be read in full."""
        try:
            varying = read_varying(span, shape)
        except AttributeValueError:
            return False
        if varying is None:
            return False
        self._shape_of_row.append(shape.number)
        for slot, value in varying.columns.items():
            self._set_value(slot, row, value)
        if varying.extras:
            self._extras[row] = {**shape.extras, **varying.extras}
        if shape.has_usage:
            self._store_count_semantics(row, shape.emitter, {**shape.counts, **varying.counts}, shape.model)
        return True

    def _keep_shape(
        self,
        key: tuple[Any, ...],
        row: int,
        span: RawSpan,
        owner: _Resource,
        emitter: Emitter,
        chosen: dict[str, tuple[Any, Target | None]],
    ) -> None:
        """Keeps what was made of a span for further ones of its shape."""
        resource_slots = frozenset(slot for slot, _ in owner.always + owner.at_entry)
        varying = varying_targets(span, emitter, self._varying, resource_slots)
        if varying is None:
            return
        slots = {target.slot for _, target in varying}
        if any(is_count(slot) and slot not in chosen for slot in slots):
            return
        model_entry = chosen.get("response_model") or chosen.get("request_model")
        columns = {slot: column[row] for slot, column in self._values.items() if row in column and slot not in slots}
        columns |= {"other_usage": _as_json(self._other[row])} if row in self._other else {}
        self.shape = self._shapes[key] = Shape(
            number=len(self._shapes),
            emitter=emitter,
            model=model_entry[0] if model_entry else None,
            columns={slot: value for slot, value in columns.items() if slot not in CountSemantics._fields},
            extras={name: value for name, value in self._extras.get(row, {}).items() if EXTRA + name not in slots},
            counts={slot: entry for slot, entry in chosen.items() if isinstance(entry[0], int) and slot not in slots},
            varying=varying,
            has_usage=not _USAGE_COLUMNS.isdisjoint(chosen) or row in self._other,
        )

    def _parent(self, span: RawSpan) -> bytes | None:
        parent = span.parent_id
        if not parent or parent == NO_SPAN:
            return None
        if len(parent) != 8:
            reason = "no span id of 8 bytes; the span is taken as a root"
            self._warn(span, "parent_span_id", reason, "send 16 hex digits in JSON, 8 bytes in protobuf")
            return None
        return parent

    def _end(self, span: RawSpan) -> int | None:
        if span.end_ns == 0:
            return None
        if not span.start_ns <= span.end_ns < LATEST_NS:
            reason = "end before start" if 0 < span.end_ns < span.start_ns else "end time outside the years 2010 to 2100"
            self._warn(span, "end_time_unix_nano", reason, "set the sender's clock; the span is kept without an end")
            return None
        return span.end_ns

    def _warn(self, span: RawSpan, field: str, reason: str, remedy: str) -> None:
        self._warnings += 1
        self._problems.add(f"span {span.ordinal}", field, reason, remedy, severity="warning")

    def _choose_values(self, span: RawSpan, emitter: Emitter, entry: bool) -> dict[str, tuple[Any, Target | None]]:
        """One value per column: of several attributes for it, the one with the lowest rank."""
        chosen: dict[str, tuple[Any, Target | None]] = {}
        attributes = span.attributes
        targets = emitter.targets
        for attribute, value in attributes.items():
            inner: Mapping[str, Any] | None = None
            for target in targets.get(attribute, ()):
                slot, rank, reader, path, condition, _, _, at_entry = target
                if (condition and attributes.get(condition[0]) != condition[1]) or (at_entry and not entry):
                    continue
                try:
                    if path:
                        inner = parse_object(value) if inner is None else inner
                        column_value = None if inner is None else reader(value_at(inner, path))
                    else:
                        column_value = reader(value)
                except AttributeValueError as error:
                    self._warn(span, attribute, error.reason, error.remedy)
                    continue
                if column_value is None:
                    continue
                if slot == CLAIMS:
                    self._choose_claims(column_value, rank, target, chosen)
                    continue
                current = chosen.get(slot)
                if current is None:
                    chosen[slot] = (column_value, target)
                    continue
                if slot in _USAGE_COLUMNS and current[0] != column_value:
                    self._warn_of_disagreement(span, slot, current, column_value, target)
                if current[1] is None or rank < current[1].rank:
                    chosen[slot] = (column_value, target)
        return chosen

    def _warn_of_disagreement(
        self, span: RawSpan, slot: str, current: tuple[Any, Target | None], column_value: Any, target: Target
    ) -> None:
        first, second = (
            (current[0], column_value) if current[1] is None or current[1].rank < target.rank else (column_value, current[0])
        )
        reason = f"two attributes of one span disagree: {first} is taken, {second} is not"
        self._warn(span, slot, reason, "let one instrumentation report the usage")

    def _choose_claims(
        self, tag_values: Mapping[str, str], rank: int, target: Target, chosen: dict[str, tuple[Any, Target | None]]
    ) -> None:
        for slot, keys in (("claimed_agent", self._table.agent_tags), ("claimed_team", self._table.team_tags)):
            claim = next((tag_values[key] for key in keys if key in tag_values), None)
            current = chosen.get(slot)
            if claim is not None and (current is None or (current[1] is not None and rank < current[1].rank)):
                chosen[slot] = (claim, target)

    def _store(
        self,
        row: int,
        span: RawSpan,
        owner: _Resource,
        entry: bool,
        emitter_name: str | None,
        emitter: Emitter,
        chosen: dict[str, tuple[Any, Target | None]],
    ) -> None:
        values = self._values
        extras: dict[str, Any] = {}
        for slot, (value, _) in chosen.items():
            if value is None or slot.startswith(PROVIDER_USAGE):
                continue
            if slot in values:
                values[slot][row] = value
            elif slot.startswith(EXTRA):
                extras[slot[len(EXTRA) :]] = value
            elif slot.startswith(OTHER):
                self._other.setdefault(row, {})[slot[len(OTHER) :]] = value
            else:
                values[slot] = {row: value}
        for slot, value in owner.always if not entry else owner.always + owner.at_entry:
            if slot.startswith(EXTRA):
                extras.setdefault(slot[len(EXTRA) :], value)
            else:
                values.setdefault(slot, {}).setdefault(row, value)

        operation = chosen["operation"][0] if "operation" in chosen else None
        has_usage = (
            "input_tokens" in chosen or "output_tokens" in chosen or not _USAGE_COLUMNS.isdisjoint(chosen) or row in self._other
        )
        model_entry = chosen.get("response_model") or chosen.get("request_model")
        scope = emitter.rules.decide(
            operation=operation,
            kind=span.kind,
            name=span.name,
            usage=has_usage,
            model=model_entry is not None,
            attributes=span.attributes,
            resource=owner.facts,
        )
        if has_usage:
            self._store_count_semantics(row, emitter, chosen, model_entry[0] if model_entry else None)
        values["usage_scope"][row] = scope
        self._set_value("process", row, owner.process if scope == "cumulative" else None)
        values["emitter"][row] = emitter_name
        values["name"][row] = clean(span.name) or None
        values["status"][row] = "error" if span.failed or "error_type" in extras else "ok"
        if "th:" in span.trace_state:
            extras["sampling"] = clean(span.trace_state)
        if self._table.content.is_kept and (
            content := {k: v for k, v in span.attributes.items() if self._table.content.is_kept_content(k)}
        ):
            extras["content"] = content
        if extras:
            self._extras[row] = extras

    def _set_value(self, slot: str, row: int, value: Any) -> None:
        if value is not None:
            column = self._values.get(slot)
            if column is None:
                self._values[slot] = {row: value}
            else:
                column[row] = value

    def _store_count_semantics(
        self, row: int, emitter: Emitter, chosen: dict[str, tuple[Any, Target | None]], model: str | None
    ) -> None:
        for slot, value in zip(CountSemantics._fields, count_semantics(emitter, chosen, model), strict=True):
            if value is not None:
                self._set_value(slot, row, value)

    def _store_links(self, row: int, span: RawSpan) -> None:
        good = [(t, s) for t, s in span.links if len(t) == 16 and len(s) == 8 and t != NO_TRACE and s != NO_SPAN]
        if len(good) < len(span.links):
            self._warn(span, "links", "a link without a trace id and span id", "send the ids of the span it points to")
        if good:
            self._set_value("link_trace", row, good[0][0])
            self._set_value("link_span", row, good[0][1])
        if len(good) > 1:
            self._set_value("links", row, _as_json([[trace.hex(), target.hex()] for trace, target in good]))

    def _frame(self) -> pl.DataFrame:
        height = self.height
        if not height:
            return SPANS.empty()
        shape_numbers = pl.Series(self._shape_of_row, dtype=pl.UInt32)
        shapes = list(self._shapes.values())
        texts = {row: _as_json(extra) for row, extra in self._extras.items()}
        other = {row: _as_json(used) for row, used in self._other.items()}
        columns: dict[str, pl.Series] = {}
        for slot, values in (*self._values.items(), ("attributes", texts), ("other_usage", other)):
            shared_values = [shape.columns.get(slot) for shape in shapes] if slot != "attributes" else _extras_of(shapes)
            dtype = FRAME_TYPES.get(slot) or SPANS.schema[slot]
            column = pl.Series(slot, list(map(values.get, range(height))), dtype=dtype) if values else None
            if any(value is not None for value in shared_values):
                shared_column = pl.Series(slot, shared_values, dtype=dtype).gather(shape_numbers)
                column = shared_column if column is None else column.zip_with(column.is_not_null(), shared_column)
            if column is not None:
                columns[slot] = column.cast(RATE, strict=False) if slot == "reported_cost" else column
        frame = pl.DataFrame(list(columns.values())).with_columns(pl.Series("raw_id", self._raw_ids, dtype=pl.String))
        return with_derived_columns(frame, self._ids, self._times, self._source)


def _extras_of(shapes: Sequence[Shape]) -> list[str | None]:
    return [_as_json(shape.extras) if shape.extras else None for shape in shapes]
