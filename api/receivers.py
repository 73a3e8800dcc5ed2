"""What the receivers need from ingestion, said as a protocol: the API writes down what it gets, it does not know formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import polars as pl

from ledger.problems import Problem
from ledger.spool import Body

Signal = Literal["traces", "logs", "metrics"]
"""The three exports of OTLP."""


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """What a request body held: `rows` in the schema of the `spans` table, what was wrong, and how many items were refused.

    `bodies` are written down as they are and read when they are booked; then `count` says how many items they hold. `points` are rows
    of the `metric_points` table.
    """

    rows: pl.DataFrame | None = None
    problems: Sequence[Problem] = field(default_factory=tuple)
    rejected: int = 0
    bodies: Sequence[Body] = ()
    points: pl.DataFrame | None = None
    count: int = 0

    @property
    def accepted(self) -> int:
        """How many items were taken."""
        return self.count + sum(frame.height for frame in (self.rows, self.points) if frame is not None)


class Receivers(Protocol):
    """Turns request bodies into rows. Pure; raises `ledger.errors.FormatError` where nothing in the body can be read."""

    def otlp(self, signal: Signal, body: bytes, content_type: str) -> ReceivedBatch:
        """An OTLP export. `body` has been decompressed; `content_type` is ``application/x-protobuf`` or ``application/json``."""
        ...

    def litellm(self, body: bytes) -> ReceivedBatch:
        """Payloads of LiteLLM's generic callback: an object, an array, or lines. A bad item is a problem, not an error."""
        ...
