"""What was wrong with an export: the same fault again is counted, not repeated, so that a million bad spans make a page of problems."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.problems import Problem

EARLIEST_NS = 1_262_304_000 * 10**9
"""2010: no span is older, tracing of this kind did not exist."""
LATEST_NS = 4_102_444_800 * 10**9
"""2100: a clock that says so is wrong."""
NO_TRACE, NO_SPAN = bytes(16), bytes(8)
_MAX_KINDS = 500


@dataclass(slots=True)
class _Entry:
    place: str
    remedy: str
    rows: int = 0


class ExportProblems:
    """Faults of one input, by the part of it (`part`) they are in."""

    def __init__(self, source: str, uri: str) -> None:
        self._source, self._uri = source, uri
        self._entries: dict[tuple[str, str, str, str], _Entry] = {}
        self.part = ""

    def add(self, place: str, field: str, reason: str, remedy: str, *, severity: str = "error") -> None:
        """One fault; beyond some hundred kinds they are folded."""
        key = (self.part, field, reason, severity)
        if key not in self._entries and len(self._entries) >= _MAX_KINDS:
            key = ("", field, "more faults of this kind", severity)
        if key not in self._entries:
            self._entries[key] = _Entry(", ".join(filter(None, (self.part, place))), remedy)
        self._entries[key].rows += 1

    def problems(self) -> list[Problem]:
        """All of them, as rows of `problems`."""
        return [
            Problem(self._source, self._uri, entry.place, field, reason, entry.remedy, entry.rows, severity)
            for (_, field, reason, severity), entry in self._entries.items()
        ]


def unusable(trace_id: bytes, span_id: bytes, start_ns: int) -> tuple[str, str, str] | None:
    """Why a span cannot be kept at all, as field, reason and remedy: it needs ids to be joined by and a start to be charged at."""
    if len(trace_id) != 16 or trace_id == NO_TRACE:
        return "trace_id", "no trace id of 16 bytes, not all zero", "send 32 hex digits in JSON, 16 bytes in protobuf"
    if len(span_id) != 8 or span_id == NO_SPAN:
        return "span_id", "no span id of 8 bytes, not all zero", "send 16 hex digits in JSON, 8 bytes in protobuf"
    if not EARLIEST_NS <= start_ns < LATEST_NS:
        reason = "no start time" if start_ns <= 0 else "start time outside the years 2010 to 2100"
        return "start_time_unix_nano", reason, "send nanoseconds since 1970, and set the sender's clock"
    return None
