"""Log records that report the usage of one request, as spans. `events.csv` lists them; all other records are ignored.

A request reported by a span and by an event is one call: both carry the provider's request id and the same usage (CA-1), or the
event belongs to that span. Events of programs without request ids are counted only where their record names no span: otherwise the
spans report the usage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ingest.otel import signals
from ingest.otel.decode import DecodeFailure, Group, RawSpan, attributes_of
from ingest.otel.emitters import rows_of
from ingest.otel.export_problems import NO_SPAN, NO_TRACE
from ingest.otel.salvage import LOGS
from ingest.otel.unread_attributes import states_count

_EVENT_ATTRIBUTES = frozenset(
    {"event.name", "event.kind", "event.sequence", "duration_ms", "request_id", "client_request_id", "session.id"}
)
_OWN_IDS = ("request_id", "client_request_id", "response.id")
_SESSIONS = ("session.id", "conversation.id", "gen_ai.conversation.id")


@dataclass(frozen=True, slots=True)
class Events:
    """The usage events of one log export: an `ingest.otel.decode.Exported`."""

    body: Any = field(repr=False)
    failures: tuple[DecodeFailure, ...] = ()

    def groups(
        self, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
    ) -> Iterator[Group]:
        """Its usage events, scope by scope, as spans."""
        ordinal = 0
        event_attribute_names = _NameUnion(attribute_names, _EVENT_ATTRIBUTES | set(_OWN_IDS) | set(_SESSIONS))
        for resource_logs in self.body.resource_logs:
            resource = attributes_of(resource_logs.resource.attributes, resource_attribute_names)
            for scope_logs in resource_logs.scope_logs:
                records = scope_logs.log_records
                scope = scope_logs.scope
                yield Group(resource, scope.name, _spans(records, event_attribute_names, ordinal), scope.version)
                ordinal += len(records)


def decode_events(body: bytes, content_type: str = "", content_encoding: str = "") -> Events:
    """The usage events in the body of one log export. Raises `FormatError` where it is none."""
    return Events(*signals.decode(body, LOGS, content_type, content_encoding))


@dataclass(frozen=True, slots=True)
class _NameUnion:
    first: Container[str]
    second: frozenset[str]

    def __contains__(self, name: object) -> bool:
        return name in self.second or name in self.first or (isinstance(name, str) and states_count(name))


@lru_cache(maxsize=1)
def _event_rows() -> Mapping[str, Mapping[str, str]]:
    return {row["event"]: row for row in rows_of("events")}


def _spans(records: Iterable[Any], attribute_names: Container[str], before: int) -> Iterator[RawSpan]:
    for ordinal, record in enumerate(records, before + 1):
        row = _event(record)
        if row is None:
            continue
        attributes = attributes_of(record.attributes, attribute_names)
        fact, _, fact_value = row["when"].partition("=")
        if fact and attributes.get(fact) != fact_value:
            continue
        span = _span(record, attributes, row, ordinal)
        if span is not None:
            yield span


def _event(record: Any) -> Mapping[str, str] | None:
    """The row of events.csv for a record: by its name, its body, or the short name that Claude Code uses."""
    events = _event_rows()
    for name in (record.event_name, record.body.string_value):
        if name in events:
            return events[name]
    name = next((pair.value.string_value for pair in record.attributes if pair.key == "event.name"), "")
    return events.get(name) or events.get(f"claude_code.{name}")


def _span(record: Any, attributes: dict[str, Any], row: Mapping[str, str], ordinal: int) -> RawSpan | None:
    in_span = (
        len(record.trace_id) == 16 and record.trace_id != NO_TRACE and len(record.span_id) == 8 and record.span_id != NO_SPAN
    )
    if row["place"] == "alone" and in_span:
        return None
    end_ns = record.time_unix_nano or record.observed_time_unix_nano
    duration_ms = attributes.pop("duration_ms", 0)
    duration_ns = (
        int(float(duration_ms) * 1e6)
        if isinstance(duration_ms, (int, float)) or str(duration_ms).replace(".", "", 1).isdigit()
        else 0
    )
    session = next((str(attributes[key]) for key in _SESSIONS if attributes.get(key)), "")
    own = "" if row["place"] == "span" and in_span else _own_id(attributes, session, end_ns)
    return RawSpan(
        trace_id=record.trace_id if in_span else bytes(8) + _hash(session or own),
        span_id=_hash(own) if own else record.span_id,
        parent_id=record.span_id if in_span and own else b"",
        name=row["event"],
        kind="CLIENT",
        start_ns=max(end_ns - duration_ns, 0),
        end_ns=end_ns,
        failed=False,
        trace_state="",
        remote_parent=False,
        links=(),
        attributes=attributes,
        ordinal=ordinal,
        emitter=row["emitter"] or None,
        is_event=True,
        trace_text="" if in_span else session or own,
        span_text=own,
    )


def _own_id(attributes: Mapping[str, Any], session: str, end_ns: int) -> str:
    """The id of the request, else its sequence number in the session, else a hash of its attributes."""
    if request_id := next((str(attributes[key]) for key in _OWN_IDS if attributes.get(key)), ""):
        return request_id
    sequence = attributes.get("event.sequence")
    if session and sequence is not None:
        return f"{session}:{sequence}"
    content = "\x1f".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    return f"event:{hashlib.blake2b(f'{end_ns}{content}'.encode(), digest_size=8).hexdigest()}"


def _hash(text: str) -> bytes:
    """The bytes of `ledger.ids.hashed`."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
