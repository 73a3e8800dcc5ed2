"""Where the spans of many trace exports lie in their bytes, and their fields and attributes, field_parts by columns.

Protobuf's decoder makes an object of every span, attribute and value. Here the lengths before them are followed for all spans at once, and
nothing is decoded that nobody asks for. What is laid out otherwise than every exporter does is left to protobuf: a span as a whole
(`is_odd`), or all exports (`WireError`). Field numbers are those of opentelemetry-proto 1.x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from ingest.otel.export_problems import EARLIEST_NS, LATEST_NS, NO_SPAN, NO_TRACE

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

STRING, BOOL, INT, DOUBLE = 0x0A, 0x10, 0x18, 0x21
"""Tags of the values of an attribute; values of lists are not read here."""
_PADDING: Final = bytes(32)
_LENGTH, _VARINT, _FIXED64, _FIXED32 = 2, 0, 1, 5
_TRACE, _SPAN, _STATE, _PARENT, _NAME, _KIND, _START, _END, _ATTRIBUTE, _STATUS, _FLAGS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16
_DROPPED_COUNTS: Final = (10, 12, 14)
_KINDS: Final = np.array([-1, 2, 2, 2, 2, 2, 0, 1, 1, 2, 0, 2, 0, 2, 0, 2, 5, -1])
"""How each field of a span is written, by its number."""
_KEY, _VALUE, _CODE = 0x0A, 0x12, 0x18
_ERROR, _REMOTE_PARENT = 2, 0x200
_MAX_SIZE: Final = 1 << 40
_INLINE: Final = 12
_MAX_BYTES: Final = 1 << 31


class WireError(ValueError):
    """Bytes that are no export, or one that is laid out as no exporter does it."""


class Group(NamedTuple):
    """The spans of one scope of one resource: the number of the export, the messages before them, and how many they are."""

    export: int
    resource: bytes
    scope: bytes
    spans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSpans:
    """The spans of some exports: `columns` has their fields, `attributes` where the attributes of span i lie, from ``first[i]`` on."""

    content: bytes = field(repr=False)
    groups: Sequence[Group] = field(repr=False)
    start_offsets: Places = field(repr=False)
    end_offsets: Places = field(repr=False)
    columns: pl.DataFrame = field(repr=False)
    is_odd: Mask = field(repr=False)
    attributes: WireAttributes = field(repr=False)
    first: Places = field(repr=False)
    """Of each span its first attribute, and at the end the number of all."""

    @property
    def height(self) -> int:
        """Number of spans."""
        return len(self.start_offsets)

    def message(self, row: int) -> bytes:
        """The bytes of a span."""
        return self.content[self.start_offsets[row] : self.end_offsets[row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireAttributes:
    """Attributes in the order of their spans: where each starts and stops, and its key and value; `kinds` are tags of values, 0 of what is odd."""

    content: bytes = field(repr=False)
    start_offsets: Places
    end_offsets: Places
    key_ends: Places
    kinds: Bytes
    value_begins: Places

    def whole(self) -> pl.Series:
        """The bytes of each attribute."""
        return slices(self.content, self.start_offsets, self.end_offsets)

    def keys(self) -> pl.Series:
        """The key of each attribute, as bytes."""
        return slices(self.content, self.start_offsets + 2, self.key_ends)

    def values(self, places: Places, kind: int) -> list[Any]:
        """The values of attributes of one kind. Raises `WireError` where text is not UTF-8."""
        start_offsets = self.value_begins[places]
        octets = np.frombuffer(self.content, np.uint8)
        if kind == STRING:
            texts = slices(self.content, start_offsets, self.end_offsets[places]).cast(pl.String, strict=False)
            if texts.null_count():
                raise WireError("an attribute that is not UTF-8")
            return texts.to_list()
        numbers = _numbers(octets, start_offsets, "<f8") if kind == DOUBLE else _varints(octets, start_offsets)[0].view(np.int64)
        return list((numbers != 0).tolist() if kind == BOOL else numbers.tolist())


def slices(content: bytes, start_offsets: Places, end_offsets: Places) -> pl.Series:
    """Parts of the bytes, as a column. Those of more than twelve bytes are not copied.

    >>> slices(b"a span of some bytes" + _PADDING, np.array([0, 2, 2]), np.array([1, 2, 20])).to_list()
    [b'a', b'', b'span of some bytes']
    """
    octets, sizes = np.frombuffer(content, np.uint8), end_offsets - start_offsets
    # Arrow's views: the size, then the bytes themselves, or the first four of them, the number of the buffer, and the place in it.
    views = np.zeros((len(sizes), 4), np.int32)
    views[:, 0] = sizes
    is_short = sizes <= _INLINE
    long, short = np.flatnonzero(~is_short), np.flatnonzero(is_short)
    views[long, 1] = _numbers(octets, start_offsets[long], "<i4")
    views[long, 3] = start_offsets[long]
    inline = octets[start_offsets[short, None] + np.arange(_INLINE)]
    inline[np.arange(_INLINE) >= sizes[short, None]] = 0
    views[short, 1:] = inline.view("<i4")
    buffers = [None, pa.py_buffer(views), pa.py_buffer(content)]
    return pl.Series(pa.Array.from_buffers(pa.binary_view(), len(sizes), buffers), dtype=pl.Binary)


def find_spans(exports: Sequence[bytes]) -> WireSpans:
    """The spans of trace exports in protobuf. Raises `WireError` where their bytes are laid out in a way that is not followed here."""
    content = b"".join((*exports, _PADDING))
    if len(content) > _MAX_BYTES:
        raise WireError("more bytes than places are counted")
    groups, start_offsets, end_offsets, at = list[Group](), list[int](), list[int](), 0
    for number, export in enumerate(exports):
        groups += _groups(content, at, at + len(export), number, start_offsets, end_offsets)
        at += len(export)
    octets = np.frombuffer(content, np.uint8)
    span_begins, span_ends = np.array(start_offsets, np.int64), np.array(end_offsets, np.int64)
    owners, numbers, field_begins, field_ends = _fields(octets, span_begins, span_ends)
    is_attribute = numbers == _ATTRIBUTE
    fields = _Fields(content, octets, len(span_begins), owners, numbers, field_begins, field_ends)
    order = np.argsort(owners[is_attribute], kind="stable")
    attribute_owners = owners[is_attribute][order]
    attributes = _attributes(content, octets, field_begins[is_attribute][order], field_ends[is_attribute][order])
    columns, is_odd = _columns(fields)
    is_odd[attribute_owners[attributes.kinds == 0]] = True
    first = np.searchsorted(attribute_owners, np.arange(len(span_begins) + 1))
    return WireSpans(
        content=content,
        groups=groups,
        start_offsets=span_begins,
        end_offsets=span_ends,
        columns=columns,
        is_odd=is_odd,
        attributes=attributes,
        first=first,
    )


# ── messages around spans ───────────────────────────────────────────────────────────────────────────────────────────────


def _groups(content: bytes, at: int, end: int, export: int, start_offsets: list[int], end_offsets: list[int]) -> Iterator[Group]:
    """The groups of one export; where their spans lie is added to `start_offsets` and `end_offsets`."""
    for number, begin, stop in _messages(content, at, end):
        if number != 1:
            raise WireError("a field that no export has")
        resource, scopes = _header_and_items(content, begin, stop)
        for scope_begin, scope_stop in scopes:
            scope, spans = _header_and_items(content, scope_begin, scope_stop)
            start_offsets += [span_begin for span_begin, _ in spans]
            end_offsets += [span_stop for _, span_stop in spans]
            yield Group(export, resource, scope, len(spans))


def _header_and_items(content: bytes, begin: int, end: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The first field of a message, and where those of its second one lie; the third, the address of a schema, is passed over."""
    header, items = None, list[tuple[int, int]]()
    for number, at, stop in _messages(content, begin, end):
        if number == 2:
            items.append((at, stop))
        elif number == 1 and header is None:
            header = content[at:stop]
        elif number != 3:
            raise WireError("a field that no resource or scope has, or one twice")
    return header or b"", items


def _messages(content: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the fields of a message that has none but messages and texts."""
    while at < end:
        tag, size = content[at], content[at + 1]
        if tag & 7 != _LENGTH or tag >= 0x80:
            raise WireError("a field that no export, resource or scope has")
        at += 2
        if size >= 0x80:
            size &= 0x7F
            for shift in (7, 14, 21, 28):
                octet = content[at]
                at += 1
                size |= (octet & 0x7F) << shift
                if octet < 0x80:
                    break
        begin, at = at, at + size
        if at > end:
            raise WireError("a message that is cut off")
        yield tag >> 3, begin, at


# ── fields of spans ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _varints(octets: Bytes, places: Places) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], Places]:
    """The numbers at these places, and how many bytes each takes.

    >>> numbers, widths = _varints(np.array([7, 0x96, 0x01, 0], np.uint8), np.array([0, 1]))
    >>> numbers.tolist(), widths.tolist()
    ([7, 150], [1, 2])
    """
    octet = octets[places]
    numbers, widths = (octet & 0x7F).astype(np.uint64), np.ones(len(places), np.int64)
    more = np.flatnonzero(octet >= 0x80)
    for width in range(1, 10):
        if not len(more):
            break
        octet = octets[places[more] + width]
        numbers[more] |= (octet & 0x7F).astype(np.uint64) << np.uint64(7 * width)
        widths[more] += 1
        more = more[octet >= 0x80]
    return numbers, widths


def _numbers(octets: Bytes, places: Places, dtype: str) -> np.ndarray[Any, Any]:
    """Numbers of eight or four bytes at any places."""
    kind = np.dtype(dtype)
    numbers = np.ndarray((len(octets) - kind.itemsize + 1,), kind, octets.data, strides=(1,))
    return numbers[places]


def _fields(octets: Bytes, start_offsets: Places, end_offsets: Places) -> tuple[Places, Places, Places, Places]:
    """All fields of all spans: the span, the number, begin and end of each; those of one span in their order."""
    owners = np.flatnonzero(start_offsets < end_offsets)
    at = start_offsets[owners]
    field_parts = [(owners[:0],) * 4]
    while len(owners):
        tags = octets[at].astype(np.int64)
        at = at + 1
        is_long = tags >= 0x80
        if is_long.any():
            high = octets[at].astype(np.int64)
            if (is_long & (high >= 0x80)).any():
                raise WireError("a field that no span has")
            tags = np.where(is_long, (tags & 0x7F) | (high << 7), tags)
            at = at + is_long
        kinds = tags & 7
        sizes, widths = _varints(octets, at)
        field_begins = at + np.where(kinds == _LENGTH, widths, 0)
        lengths = np.minimum(sizes, np.uint64(_MAX_SIZE)).astype(np.int64)
        field_ends = field_begins + np.select(
            [kinds == _LENGTH, kinds == _VARINT, kinds == _FIXED64, kinds == _FIXED32], [lengths, widths, 8, 4], default=_MAX_SIZE
        )
        limits = end_offsets[owners]
        if (field_ends > limits).any():
            raise WireError("a span that is cut off")
        # A field of another kind than its own is none that is known.
        numbers = np.where(kinds == _KINDS[np.minimum(tags >> 3, len(_KINDS) - 1)], tags >> 3, 0)
        field_parts.append((owners, numbers, field_begins, field_ends))
        is_open = field_ends < limits
        owners, at = owners[is_open], field_ends[is_open]
    owner_rows, all_numbers, all_begins, all_ends = (np.concatenate(parts) for parts in zip(*field_parts, strict=True))
    return owner_rows, all_numbers, all_begins, all_ends


class _Fields:
    """The fields of spans that occur once, by number."""

    def __init__(
        self,
        content: bytes,
        octets: Bytes,
        height: int,
        owners: Places,
        numbers: Places,
        start_offsets: Places,
        end_offsets: Places,
    ) -> None:
        self._owners, self._numbers, self._begins, self._ends = owners, numbers, start_offsets, end_offsets
        self.content, self.octets, self.height = content, octets, height

    def places(self, number: int) -> tuple[Places, Places]:
        """Where a field lies in each span; nowhere, from 0 to 0, in those that lack it."""
        start_offsets, end_offsets = np.zeros(self.height, np.int64), np.zeros(self.height, np.int64)
        at = np.flatnonzero(self._numbers == number)
        owners = self._owners[at]
        if np.bincount(owners, minlength=1).max(initial=0) > 1:
            raise WireError("a field of a span twice")
        start_offsets[owners], end_offsets[owners] = self._begins[at], self._ends[at]
        return start_offsets, end_offsets

    def texts(self, number: int) -> tuple[pl.Series, Places]:
        """The bytes of a field, and how many they are."""
        start_offsets, end_offsets = self.places(number)
        return slices(self.content, start_offsets, end_offsets), end_offsets - start_offsets

    def numbers(self, number: int, dtype: str = "") -> Places:
        """A field that is a number, 0 where it is absent; of a fixed width with `dtype`."""
        start_offsets, end_offsets = self.places(number)
        values = _numbers(self.octets, start_offsets, dtype) if dtype else _varints(self.octets, start_offsets)[0]
        return np.where(end_offsets > start_offsets, values, 0).astype(np.int64)

    def others(self, *read_numbers: int) -> Places:
        """Spans with fields of other numbers than these."""
        return self._owners[~np.isin(self._numbers, read_numbers)]


def _columns(fields: _Fields) -> tuple[pl.DataFrame, Mask]:
    """The fields of spans as columns, and which spans are odd: what `spans.SpanBatch` has something to say of, and links and events."""
    trace, trace_size = fields.texts(_TRACE)
    span, span_size = fields.texts(_SPAN)
    parent, parent_size = fields.texts(_PARENT)
    state, _ = fields.texts(_STATE)
    name, _ = fields.texts(_NAME)
    start, end = fields.numbers(_START, "<u8"), fields.numbers(_END, "<u8")
    status_begins, status_ends = fields.places(_STATUS)
    status_size = status_ends - status_begins
    kind, flags = fields.numbers(_KIND), fields.numbers(_FLAGS, "<u4")
    status_code = fields.octets[status_begins + 1]
    is_code = (status_size == 2) & (fields.octets[status_begins] == _CODE) & (status_code < 0x80)
    frame = pl.DataFrame(
        {
            "trace_id": trace,
            "span_id": span,
            "parent_id": parent,
            "trace_state": state,
            "name": name,
            "kind": kind,
            "start_ns": start,
            "end_ns": end,
            "failed": is_code & (status_code == _ERROR),
            "remote_parent": (flags & _REMOTE_PARENT) != 0,
        }
    )
    is_zero = (pl.col("trace_id") == NO_TRACE) | (pl.col("span_id") == NO_SPAN)
    is_odd = np.array(frame.select(is_zero).to_series().to_numpy())
    is_odd |= (trace_size != len(NO_TRACE)) | (span_size != len(NO_SPAN)) | ~np.isin(parent_size, (0, len(NO_SPAN)))
    is_odd |= (start < EARLIEST_NS) | (start >= LATEST_NS) | ((end != 0) & ((end < start) | (end >= LATEST_NS)))
    is_odd |= ((status_size != 0) & ~is_code) | (kind < 0)
    is_odd[
        fields.others(
            *(_TRACE, _SPAN, _STATE, _PARENT, _NAME, _KIND, _START, _END, _ATTRIBUTE, _STATUS, _FLAGS, *_DROPPED_COUNTS)
        )
    ] = True
    has_parent = (pl.col("parent_id").bin.size() > 0) & (pl.col("parent_id") != NO_SPAN)
    return frame.with_columns(parent_id=pl.when(has_parent).then("parent_id")), is_odd


# ── attributes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _attributes(content: bytes, octets: Bytes, start_offsets: Places, end_offsets: Places) -> WireAttributes:
    """The parts of attributes that have a short key, then one value that is no list."""
    key_ends = start_offsets + 2 + octets[np.minimum(start_offsets + 1, end_offsets)]
    is_plain = (octets[start_offsets] == _KEY) & (octets[start_offsets + 1] < 0x80) & (key_ends + 2 < end_offsets)
    value_places = np.where(is_plain, key_ends, 0)
    is_plain &= octets[value_places] == _VALUE
    sizes, widths = _varints(octets, value_places + 1)
    tags_at = value_places + 1 + widths
    is_plain &= (sizes >= 1) & (
        tags_at.astype(np.uint64) + np.minimum(sizes, np.uint64(_MAX_SIZE)) == end_offsets.astype(np.uint64)
    )
    tags_at = np.where(is_plain, tags_at, 0)
    kinds = octets[tags_at]
    lengths, number_widths = _varints(octets, tags_at + 1)
    value_begins = np.where(kinds == STRING, tags_at + 1 + number_widths, tags_at + 1)
    value_ends = np.select(
        [kinds == STRING, (kinds == BOOL) | (kinds == INT), kinds == DOUBLE],
        [
            value_begins + np.minimum(lengths, np.uint64(_MAX_SIZE)).astype(np.int64),
            value_begins + number_widths,
            value_begins + 8,
        ],
        default=0,
    )
    is_plain &= value_ends == end_offsets
    return WireAttributes(
        content=content,
        start_offsets=start_offsets,
        end_offsets=end_offsets,
        key_ends=np.where(is_plain, key_ends, start_offsets + 2),
        kinds=np.where(is_plain, kinds, 0).astype(np.uint8),
        value_begins=value_begins,
    )
