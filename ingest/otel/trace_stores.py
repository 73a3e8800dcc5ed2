"""Trace stores (Jaeger, Zipkin, Phoenix, Langfuse): one source class, and their spans as exports for the OpenTelemetry reader.

These stores, and CloudWatch, keep what emitters sent: the same ids, the same attributes. Each source states only where these are in
its files; who sent them and what they mean is decided as for OTLP (`ingest.otel.spans` and the emitter table). A span that comes from
a store and over OTLP is one span.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, Literal

from ingest import policies
from ingest.logs import files
from ingest.logs.json_items import Damage, ItemStream
from ingest.otel.decode import DecodeFailure, Exported, Group, RawSpan
from ingest.otel.emitters import table
from ingest.otel.spans import SpanBatch
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings

BATCH_SPANS = 20_000
_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]+)\Z")
_MAX_DEPTH = 8
_MAX_ID_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSpan:
    """One span of a store. Ids are as written, times in nanoseconds since 1970 (0: absent), attributes flat or nested."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str = ""
    version: str = ""
    failed: bool = False
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StoredSpans:
    """The spans of one item of a file, as an export."""

    spans: Sequence[StoredSpan]
    failures: Sequence[DecodeFailure] = ()

    def groups(
        self, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
    ) -> Iterator[Group]:
        """The spans by service and scope, with the named attributes."""
        numbered_spans = enumerate(self.spans, 1)
        for (_, scope, version), members in groupby(numbered_spans, key=_scope_of_entry):
            scope_spans = list(members)
            resource = select_attributes(scope_spans[0][1].resource, resource_attribute_names)
            yield Group(resource, scope, (_raw(number, span, attribute_names) for number, span in scope_spans), version)


def _scope_of_entry(entry: tuple[int, StoredSpan]) -> tuple[int, str, str]:
    return id(entry[1].resource), entry[1].scope, entry[1].version


def _raw(number: int, span: StoredSpan, attribute_names: Container[str]) -> RawSpan:
    trace, trace_text = _id(span.trace_id, 16)
    own, own_text = _id(span.span_id, 8)
    parent, parent_text = _id(span.parent_id, 8)
    return RawSpan(
        trace_id=trace,
        span_id=own,
        parent_id=parent,
        name=span.name,
        kind=span.kind,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        failed=span.failed,
        trace_state="",
        remote_parent=False,
        links=tuple((_id(t, 16)[0], _id(s, 8)[0]) for t, s in span.links),
        attributes=select_attributes(span.attributes, attribute_names),
        ordinal=number,
        trace_text=trace_text,
        span_text=own_text,
        parent_text=parent_text,
    )


def _id(raw_id: str, size: int) -> tuple[bytes, str]:
    r"""An id's bytes, and its text where it is not an OpenTelemetry id: then the bytes end in the hash of `ledger.ids`.

    Stores drop leading zeros and shorten trace ids to their last 64 bits.

    >>> _id("1f", 8), _id("obs-1", 8)[1]
    ((b'\x00\x00\x00\x00\x00\x00\x00\x1f', ''), 'obs-1')
    """
    id_text = raw_id.strip()[:_MAX_ID_LENGTH]
    match = _HEX.match(id_text)
    if match and len(match[1]) <= 2 * size:
        return bytes.fromhex(match[1].zfill(2 * size)), ""
    if not id_text:
        return b"", ""
    return bytes(size - 8) + hashlib.blake2b(id_text.encode("utf-8", "replace"), digest_size=8).digest(), id_text


def select_attributes(attributes: Mapping[str, Any], names: Container[str], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """The requested attributes; nested ones are named by their path.

    >>> select_attributes({"llm": {"token_count": {"prompt": 7}}, "input.value": "hi"}, {"llm.token_count.prompt"})
    {'llm.token_count.prompt': 7}
    """
    values: dict[str, Any] = {}
    for key, value in attributes.items():
        name = f"{prefix}{key}"
        if value is not None and (
            name in names or ((".usage." in name or ".token_count." in name) and not isinstance(value, Mapping))
        ):
            values[name] = value
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            values |= select_attributes(value, names, f"{name}.", depth + 1)
    return values


@dataclass(slots=True, kw_only=True)
class TraceStore:
    """A source that reads the files a trace store exports. Each file is a batch of its own; its spans are read as OTLP spans are.

    `decode` turns one JSON item of a file into spans; None for an item of another kind. `regroup` may combine items before that.
    `noun` names an item in problems, `export` what a folder is expected to hold, `remedy` how to get a good file.
    """

    name: str
    title: str
    noun: str
    export: str
    remedy: str
    decode: Callable[[object], Exported | None]
    addresses: tuple[str, ...]
    patterns: tuple[str, ...] = files.JSON_FILES
    skip_folders: tuple[str, ...] = ()
    regroup: Callable[[ItemStream], ItemStream] = iter
    kind: Literal["bill", "log"] = "log"
    access: Access = field(init=False)

    def __post_init__(self) -> None:
        self.access = policies.export_access(self.addresses)

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every file is a batch of its own."""
        return files.file_batches(
            fetcher, uri, source=self.name, patterns=self.patterns, description=self.export, skip=self.skip_folders
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The spans of one file, in batches of some thousands. Raises `FormatError` where no item holds spans."""
        spans, readable_count, foreign_count = batch(settings, self.name, item), 0, 0
        for entry in self.regroup(files.items(item, description=self.noun, remedy=self.remedy)):
            if isinstance(entry, Damage):
                spans.add_problem(entry.place, entry.field, entry.reason, entry.remedy)
                continue
            export = self.decode(entry.value)
            if export is None:
                foreign_count += 1
                spans.add_problem(entry.place, "item", f"no {self.noun}", self.remedy)
                continue
            readable_count += 1
            spans.add(export, place=entry.place)
            if spans.height >= BATCH_SPANS:
                yield spans.reading()
                spans = batch(settings, self.name, item)
        if foreign_count and not readable_count:
            raise FormatError(f"no {self.noun}", where=item.uri, remedy=self.remedy)
        yield spans.reading()


def batch(settings: IngestSettings, source: str, item: RawObject) -> SpanBatch:
    """An empty batch for the spans of an item."""
    emitters = table(tuple(settings.agent_tags), tuple(settings.team_tags), settings.keep_content)
    return SpanBatch(emitters, source=source, uri=item.uri, raw_id=item.raw_id)


# ── values of exported files ─────────────────────────────────────────────────────────────────────────────────────────────


def text(value: object) -> str:
    """An id or a name as text; empty where there is none.

    >>> text("a"), text(None), text(12), text(["a"])
    ('a', '', '12', '')
    """
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """An object; empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> list[Any]:
    """An array; empty where there is none."""
    return value if isinstance(value, list) else []


def nanoseconds(value: object, unit: int = 1) -> int:
    """A number of `unit` nanoseconds as nanoseconds; 0 where it is absent, -1 where it is invalid, so that the time check reports the span.

    >>> nanoseconds(1770000000001000, 1000), nanoseconds("12"), nanoseconds(None), nanoseconds("soon")
    (1770000000001000000, 12, 0, -1)
    """
    if value is None or value == "":
        return 0
    if isinstance(value, bool):
        return -1
    if isinstance(value, str):
        return int(value) * unit if value.isascii() and value.isdigit() and len(value) < 21 else -1
    return int(value * unit) if isinstance(value, (int, Decimal)) and -(10**20) < value < 10**20 else -1


def instant(value: object) -> int:
    """A time in ISO 8601 (UTC where it names no zone) as nanoseconds; 0 where it is absent, -1 where it is invalid.

    >>> instant("2025-08-01T13:22:00.147Z"), instant("2024-05-29 13:46:19.963000"), instant(None), instant("later")
    (1754054520147000000, 1716990379963000000, 0, -1)
    """
    if value is None or value == "":
        return 0
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(text(value).strip().removesuffix(" UTC"))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return -1
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400_000_000 + since_epoch.seconds * 1_000_000 + since_epoch.microseconds) * 1000
