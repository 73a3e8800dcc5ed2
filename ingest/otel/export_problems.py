"""Problems of an export. Equal problems are counted, not repeated: a million bad spans make a page of problems."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.problems import Problem

EARLIEST_NS = 1_262_304_000 * 10**9
"""2010: distributed tracing of this kind did not exist before."""
LATEST_NS = 4_102_444_800 * 10**9
"""2100: later times come from a wrong clock."""
NO_TRACE, NO_SPAN = bytes(16), bytes(8)
_MAX_KINDS = 500


@dataclass(slots=True)
class _Entry:
    place: str
    remedy: str
    rows: int = 0


class ExportProblems:
    """Problems of one input; `part` names the part of it that is being read."""

    def __init__(self, source: str, uri: str) -> None:
        self._source, self._uri = source, uri
        self._entries: dict[tuple[str, str, str, str], _Entry] = {}
        self.part = ""

    def add(self, place: str, field: str, reason: str, remedy: str, *, severity: str = "error") -> None:
        """Counts one problem; beyond some hundred kinds all others are counted as one."""
        key = (self.part, field, reason, severity)
        if key not in self._entries and len(self._entries) >= _MAX_KINDS:
            key = ("", field, "more faults of this kind", severity)
        if key not in self._entries:
            self._entries[key] = _Entry(", ".join(filter(None, (self.part, place))), remedy)
        self._entries[key].rows += 1

    def problems(self) -> list[Problem]:
        """All problems, as rows of `problems`."""
        return [
            Problem(self._source, self._uri, entry.place, field, reason, entry.remedy, entry.rows, severity)
            for (_, field, reason, severity), entry in self._entries.items()
        ]


def unusable(trace_id: bytes, span_id: bytes, start_ns: int) -> tuple[str, str, str] | None:
    """Why a span cannot be kept, as (field, reason, remedy): it needs ids and a start time. None for a valid span."""
    if len(trace_id) != 16 or trace_id == NO_TRACE:
        return "trace_id", "no trace id of 16 bytes, not all zero", "send 32 hex digits in JSON, 16 bytes in protobuf"
    if len(span_id) != 8 or span_id == NO_SPAN:
        return "span_id", "no span id of 8 bytes, not all zero", "send 16 hex digits in JSON, 8 bytes in protobuf"
    if not EARLIEST_NS <= start_ns < LATEST_NS:
        reason = "no start time" if start_ns <= 0 else "start time outside the years 2010 to 2100"
        return "start_time_unix_nano", reason, "send nanoseconds since 1970, and set the sender's clock"
    return None
