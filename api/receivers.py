"""Protocol between the receiving routes and ingestion: the API stores what it receives and knows no formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import polars as pl

from ledger.problems import Problem
from ledger.spool import Body

Signal = Literal["traces", "logs", "metrics"]
"""The three signals of OTLP."""


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """A decoded request body: `rows` of the `spans` table, problems, and the number of rejected items.

    `bodies` are stored as received and decoded when the spool is drained; `count` is their number of items. `points` are rows of the
    `metric_points` table.
    """

    rows: pl.DataFrame | None = None
    problems: Sequence[Problem] = field(default_factory=tuple)
    rejected: int = 0
    bodies: Sequence[Body] = ()
    points: pl.DataFrame | None = None
    count: int = 0

    @property
    def accepted(self) -> int:
        """Number of accepted items."""
        return self.count + sum(frame.height for frame in (self.rows, self.points) if frame is not None)


class Receivers(Protocol):
    """Decodes request bodies into rows. Pure; raises `ledger.errors.FormatError` if nothing in the body can be read."""

    def otlp(self, signal: Signal, body: bytes, content_type: str) -> ReceivedBatch:
        """An OTLP export. `body` has been decompressed; `content_type` is ``application/x-protobuf`` or ``application/json``."""
        ...

    def litellm(self, body: bytes) -> ReceivedBatch:
        """Payloads of LiteLLM's generic callback: an object, an array, or lines. A bad item is a problem, not an error."""
        ...
