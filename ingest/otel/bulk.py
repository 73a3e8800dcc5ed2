"""Many exports at once: spans alike in all but ids, times and counts are made rows by columns; the others are read one by one.

Spans are alike if they have the same bytes but for ids, times and the attributes that vary (`ingest.otel.shapes`). One of them is read as a
span, which gives its `Shape`, and the columns of all follow from that and from the attributes that vary. Rows and problems are those of
`SpanBatch.add` for each export.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ingest.otel import wire
from ingest.otel.attribute_values import AttributeValueError
from ingest.otel.columns import with_derived_columns
from ingest.otel.count_semantics import CountSemantics, count_semantics
from ingest.otel.decode import DecodeFailure, Group, RawSpan, attributes_of, proto_spans
from ingest.otel.emitters import EXTRA, PROVIDER_USAGE, EmitterTable, Target
from ingest.otel.shapes import COUNTS, MAX_SHAPES, Entry, Shape, varying_attributes
from ingest.otel.spans import FRAME_TYPES, SpanBatch
from ingest.otel.unread_attributes import UnreadAttributes
from ingest.otel.wire import Places, WireError, WireSpans
from ingest.source import Reading
from ledger.hashing import GOLDEN_GAMMA, splitmix64
from ledger.money import RATE
from ledger.tables import SPANS

MIN_SPANS: Final = 2000
"""Fewer spans are read one by one."""
MIN_ALIKE: Final = 64
"""As are those of which fewer are alike."""
_PARTS_OF_COUNTS: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
)
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def read_exports(
    exports: Sequence[bytes], raw_ids: Sequence[str], table: EmitterTable, *, source: str, uri: str
) -> Reading | None:
    """The rows of protobuf exports, each a delivery with its raw id; None where they are to be read one by one."""
    if table.content.is_kept:
        return None
    try:
        spans = wire.find_spans(exports)
        if spans.height < MIN_SPANS:
            return None
        reader = _Reader(spans, raw_ids, table, source, uri)
        alike_rows, is_read = reader.alike()
        other_reading = reader.others(np.flatnonzero(~is_read))
    except (WireError, DecodeError):
        return None
    return Reading(pl.concat([*alike_rows, other_reading.frame]), other_reading.problems)


@dataclass(frozen=True, slots=True)
class _Context:
    """What the messages around a span say."""

    resource: dict[str, Any]
    scope: str
    version: str


class _Selection(NamedTuple):
    """Some spans of an export, to be read one by one: an `ingest.otel.decode.Exported`."""

    parts: Sequence[Group]
    failures: Sequence[DecodeFailure] = ()

    def groups(
        self, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
    ) -> Iterator[Group]:
        """The spans by scope."""
        return iter(self.parts)


class _Column(NamedTuple):
    """The values of an attribute that varies: the column that it is for, and whether it invalidates any row."""

    target: Target
    values: list[Any]
    is_valid: np.ndarray[Any, np.dtype[np.bool_]]


class _Reader:
    def __init__(self, spans: WireSpans, raw_ids: Sequence[str], table: EmitterTable, source: str, uri: str) -> None:
        self._spans, self._raw_ids, self._table, self._source, self._uri = spans, raw_ids, table, source, uri
        sizes = [group.spans for group in spans.groups]
        self._group_of = np.repeat(np.arange(len(sizes)), sizes)
        self._export_of = np.array([group.export for group in spans.groups], np.int64)[self._group_of]
        first_rows = np.concatenate([[0], np.cumsum(np.bincount(self._export_of, minlength=len(raw_ids)))])
        self._ordinals = np.arange(spans.height) - first_rows[self._export_of] + 1
        self._contexts: dict[tuple[bytes, bytes], int] = {}
        self._context_list: list[_Context] = []
        self._context_of_group = np.array([self._context(group.resource, group.scope) for group in spans.groups], np.int64)
        self._varying = varying_attributes(table)
        self._unread = UnreadAttributes(table.names_read)

    def _context(self, resource: bytes, scope: bytes) -> int:
        number = self._contexts.setdefault((resource, scope), len(self._context_list))
        if number == len(self._context_list):
            names = self._table.resource_attributes
            header = InstrumentationScope.FromString(scope)
            resource_attributes = attributes_of(Resource.FromString(resource).attributes, names)
            self._context_list.append(_Context(resource_attributes, header.name, header.version))
        return number

    # ── spans that are read one by one ──────────────────────────────────────────────────────────────────────────────────

    def others(self, rows: Places) -> Reading:
        """The spans in these rows, in their order."""
        batch = SpanBatch(self._table, source=self._source, uri=self._uri, raw_id="")
        for export in np.unique(self._export_of[rows]).tolist():
            selected_rows = rows[self._export_of[rows] == export]
            batch.add(self._selection(selected_rows), raw_id=self._raw_ids[export])
        return batch.reading()

    def _selection(self, rows: Places) -> _Selection:
        """Spans of one export."""
        parts = list[Group]()
        for number in np.unique(self._group_of[rows]).tolist():
            context = self._context_list[self._context_of_group[number]]
            spans = [self._raw_span(row) for row in rows[self._group_of[rows] == number].tolist()]
            parts.append(Group(context.resource, context.scope, iter(spans), context.version))
        return _Selection(parts)

    def _raw_span(self, row: int) -> RawSpan:
        message = Span.FromString(self._spans.message(row))
        return next(proto_spans([message], self._table.span_attributes, int(self._ordinals[row]) - 1))

    # ── spans that are alike ────────────────────────────────────────────────────────────────────────────────────────────

    def alike(self) -> tuple[list[pl.DataFrame], np.ndarray[Any, np.dtype[np.bool_]]]:
        """The rows of spans that are alike, and which spans these are."""
        is_read = np.zeros(self._spans.height, np.bool_)
        parts, shapes, rows_read = list[pl.DataFrame](), list[Shape](), list[Places]()
        batch = SpanBatch(self._table, source=self._source, uri=self._uri, raw_id="")
        for rows in self._classes():
            if len(shapes) >= MAX_SHAPES:
                break
            shape = self._shape(batch, int(rows[0]))
            if shape is None:
                continue
            part, valid_rows = self._columns(rows, shape)
            parts.append(part.with_columns(__shape=pl.lit(len(shapes), dtype=pl.UInt32)))
            shapes.append(shape)
            rows_read.append(valid_rows)
        if not parts:
            return [], is_read
        rows = np.concatenate(rows_read)
        is_read[rows] = True
        return [self._frame(pl.concat(parts, how="diagonal"), rows, shapes)], is_read

    def _classes(self) -> list[Places]:
        """The rows of spans that are alike, as far as they are not odd, and many enough."""
        spans, attributes = self._spans, self._spans.attributes
        keys = attributes.keys()
        key_codes = _first_equal(keys)
        varying = [name.encode() for name in self._varying]
        is_varying = keys.is_in(pl.Series(varying, dtype=pl.Binary).implode()).to_numpy()
        words = np.zeros(len(keys), np.int64)
        at = np.flatnonzero(~is_varying)
        words[at] = at[_first_equal(attributes.whole().gather(at))] * 2
        words[is_varying] = (key_codes[is_varying] << 8 | attributes.kinds[is_varying]) * 2 + 1
        owners = np.repeat(np.arange(spans.height), np.diff(spans.first))
        places = (np.arange(len(words)) - spans.first[owners]).astype(np.uint64)
        hashes = splitmix64(splitmix64(words.view(np.uint64) + GOLDEN_GAMMA) + (places + np.uint64(1)) * GOLDEN_GAMMA)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
        frame = spans.columns.select(
            "name",
            "trace_state",
            "kind",
            "failed",
            "remote_parent",
            context=pl.Series(self._context_of_group[self._group_of]),
            has_parent=pl.col("parent_id").is_not_null(),
            count=pl.Series(np.diff(spans.first)),
            attributes=pl.Series(sums[spans.first[1:]] - sums[spans.first[:-1]]),
        )
        frame = frame.with_row_index("row").filter(~pl.Series(spans.is_odd))
        groups = frame.group_by(pl.exclude("row"), maintain_order=True).agg("row").filter(pl.col("row").list.len() >= MIN_ALIKE)
        return [rows.to_numpy().astype(np.int64) for rows in groups["row"]]

    def _shape(self, batch: SpanBatch, row: int) -> Shape | None:
        """The shape of spans like this one; None where each of them is to be read by itself."""
        selection = self._selection(np.array([row]))
        (span,) = spans = list(selection.parts[0].spans)
        if len(span.attributes) != len(self._names(row)) or self._unread.may_be_in(span.attributes):
            return None
        batch.add(_Selection([selection.parts[0]._replace(spans=iter(spans))]))
        return batch.shape

    def _names(self, row: int) -> list[str]:
        """The names of a span's attributes that are read, in their order."""
        first, end = self._spans.first[row : row + 2].tolist()
        start_offsets, end_offsets = (
            self._spans.attributes.start_offsets[first:end] + 2,
            self._spans.attributes.key_ends[first:end],
        )
        content = self._spans.content
        return [content[begin:stop].decode() for begin, stop in zip(start_offsets.tolist(), end_offsets.tolist(), strict=True)]

    def _columns(self, rows: Places, shape: Shape) -> tuple[pl.DataFrame, Places]:
        """The columns that vary of spans of one shape, and the rows of those that have no invalid value."""
        names = self._names(int(rows[0]))
        columns = [self._column(rows, names.index(attribute), target) for attribute, target in shape.varying]
        is_valid = np.ones(len(rows), np.bool_)
        for column in columns:
            is_valid &= column.is_valid
        if not is_valid.all():
            kept_places = np.flatnonzero(is_valid).tolist()
            columns = [column._replace(values=[column.values[i] for i in kept_places]) for column in columns]
        rows = rows[is_valid]
        series = {
            target.slot: pl.Series(values, dtype=FRAME_TYPES.get(target.slot) or SPANS.schema[target.slot])
            for target, values, _ in columns
            if not target.slot.startswith((EXTRA, PROVIDER_USAGE))
        }
        extras = [(target.slot[len(EXTRA) :], values) for target, values, _ in columns if target.slot.startswith(EXTRA)]
        if extras:
            series["attributes"] = pl.Series(_extra_texts(shape.extras, extras, len(rows)), dtype=pl.String)
        if shape.has_usage:
            counts = [(column.target, column.values) for column in columns if _is_count(column.target.slot)]
            series |= _semantics(shape, counts, len(rows))
        return pl.DataFrame(series) if series else pl.select(__none=pl.repeat(None, len(rows))), rows

    def _column(self, rows: Places, place: int, target: Target) -> _Column:
        attributes = self._spans.attributes
        at = self._spans.first[rows] + place
        values = attributes.values(at, int(attributes.kinds[at[0]]))
        is_valid = np.ones(len(rows), np.bool_)
        try:
            column_values = [target.reader(value) for value in values]
        except AttributeValueError:
            column_values = [_read_or_none(target, value) for value in values]
            is_valid[[_is_invalid(target, value) for value in values]] = False
        if _is_count(target.slot):
            is_valid &= np.array([value is not None for value in column_values], np.bool_)
        return _Column(target, column_values, is_valid)

    def _frame(self, varying: pl.DataFrame, rows: Places, shapes: Sequence[Shape]) -> pl.DataFrame:
        """The rows of `spans`: what each shape shares, and what varies."""
        numbers = varying["__shape"]
        columns = {name: varying[name] for name in varying.columns if not name.startswith("__")}
        for slot in dict.fromkeys([*(slot for shape in shapes for slot in shape.columns), "attributes"]):
            shared_values = [shape.columns.get(slot) for shape in shapes] if slot != "attributes" else _shared_extras(shapes)
            if all(value is None for value in shared_values):
                continue
            dtype = FRAME_TYPES.get(slot) or SPANS.schema[slot]
            shared_column = pl.Series(slot, shared_values, dtype=dtype).gather(numbers)
            own_column = columns.get(slot)
            columns[slot] = shared_column if own_column is None else own_column.zip_with(own_column.is_not_null(), shared_column)
        frame = pl.DataFrame(
            {name: column.cast(RATE, strict=False) if name == "reported_cost" else column for name, column in columns.items()}
        )
        raw_ids = pl.Series(list(self._raw_ids), dtype=pl.String).gather(self._export_of[rows])
        spans = self._spans.columns[rows]
        ids = spans["trace_id"], spans["span_id"], spans["parent_id"]
        times = spans["start_ns"], spans.select(pl.when(pl.col("end_ns") != 0).then("end_ns")).to_series()
        return with_derived_columns(frame.with_columns(raw_id=raw_ids), ids, times, self._source)


def _first_equal(values: pl.Series) -> Places:
    """For each value the place of the first that equals it."""
    frame = values.to_frame("value").with_row_index("place")
    return frame.select(pl.col("place").first().over("value")).to_series().to_numpy().astype(np.int64)


def _is_count(slot: str) -> bool:
    return slot in COUNTS or slot.startswith(PROVIDER_USAGE)


def _is_invalid(target: Target, value: Any) -> bool:
    try:
        target.reader(value)
    except AttributeValueError:
        return True
    return False


def _read_or_none(target: Target, value: Any) -> Any:
    return None if _is_invalid(target, value) else target.reader(value)


def _extra_texts(shared_extras: Mapping[str, Any], extras: Sequence[tuple[str, list[Any]]], height: int) -> list[str | None]:
    """The further attributes of each row as JSON; None where nothing varies."""
    names = [name for name, _ in extras]
    texts = list[str | None]()
    for values in zip(*(column for _, column in extras), strict=True):
        own = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        texts.append(_as_json({**shared_extras, **own}) if own else None)
    assert len(texts) == height
    return texts


def _shared_extras(shapes: Sequence[Shape]) -> list[str | None]:
    return [_as_json(shape.extras) if shape.extras else None for shape in shapes]


def _semantics(shape: Shape, counts: Sequence[tuple[Target, list[int]]], height: int) -> dict[str, pl.Series]:
    """How the counts of each row are read. Where nothing is cached or reasoned, that does not depend on the counts. (CA-5)"""

    def of_row(row: int) -> CountSemantics:
        own: dict[str, Entry] = {target.slot: (values[row], target) for target, values in counts}
        return count_semantics(shape.emitter, {**shape.counts, **own}, shape.model)

    has_parts = np.zeros(height, np.bool_)
    own_slots = {target.slot for target, _ in counts}
    if any(entry[0] for slot, entry in shape.counts.items() if slot in _PARTS_OF_COUNTS and slot not in own_slots):
        has_parts[:] = True
    for target, values in counts:
        if target.slot in _PARTS_OF_COUNTS:
            has_parts |= np.array(values, np.int64) != 0
    plain_rows = np.flatnonzero(~has_parts)
    plain = of_row(int(plain_rows[0])) if len(plain_rows) else None
    rows = [of_row(row) if has_parts[row] or plain is None else plain for row in range(height)]
    return {
        name: pl.Series([row[number] for row in rows], dtype=SPANS.schema[name])
        for number, name in enumerate(CountSemantics._fields)
    }
