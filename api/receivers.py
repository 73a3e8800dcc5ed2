"""What the receivers need from ingestion, said as a protocol: the API writes down what it gets, it does not know formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from ledger.problems import Problem


@dataclass(frozen=True, slots=True)
class Received:
    """What a request body held: `rows` in the schema of the `spans` table, what was wrong, and how many items were refused."""

    rows: pl.DataFrame
    problems: Sequence[Problem] = field(default_factory=tuple)
    rejected: int = 0


class Receivers(Protocol):
    """Turns request bodies into rows. Pure; raises `ledger.errors.FormatError` where nothing in the body can be read."""

    def otlp(self, body: bytes, content_type: str, content_encoding: str) -> Received:
        """An OTLP trace export. `body` has been decompressed (`content_encoding` says how it came); `content_type` is
        ``application/x-protobuf`` or ``application/json``, without parameters.
        """
        ...

    def litellm(self, body: bytes) -> Received:
        """Payloads of LiteLLM's generic callback: an object, an array, or lines. A bad item is a problem, not an error."""
        ...
