"""Classes of evidence: what a row of costs stands on, by its class, basis, method, reasons and the reading of its counts. (CA-5)

`classes.csv` decides for each value of these columns. A row stands on the weakest of what its values say, and of equals on the first in the
file. A reason that the file does not name is nothing one can rely on, until somebody decides.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

EVIDENCE: tuple[str, ...] = ("evidence", "table", "inference", "nothing")
"""What money can stand on, strongest first."""
COLUMNS = ("cost_class", "basis", "method", "reason")
"""Columns of `costs` that decide; `reading` is that of its counts (`count_readings`)."""


@dataclass(frozen=True, slots=True)
class Decider:
    """A row of `classes.csv`: a value of a column, and what it lets money stand on. `number` is its place in the file."""

    number: int
    column: str
    value: str
    evidence: str
    meaning: str
    remedy: str

    @property
    def rank(self) -> int:
        """0 for evidence to 3 for nothing."""
        return EVIDENCE.index(self.evidence)


@cache
def deciders() -> Mapping[tuple[str, str], Decider]:
    """The rows of `classes.csv` by column and value."""
    text = (files("api") / "queries" / "evidence" / "classes.csv").read_text(encoding="utf-8")
    rows = [Decider(number=number, **row) for number, row in enumerate(csv.DictReader(text.splitlines()))]
    return {(row.column, row.value): row for row in rows}


def decider_of(column: str, value: str) -> Decider:
    """The row of a value; one that the file lacks decides for nothing.

    >>> decider_of("reason", "coarse_match").evidence, decider_of("reason", "brand_new").evidence
    ('inference', 'nothing')
    """
    unknown = Decider(-1, column, value, "nothing", "RootCost has not decided what this stands on", "report it")
    return deciders().get((column, value), unknown)


def weakest(values: Iterable[tuple[str, str | None]]) -> Decider:
    """The weakest of what (column, value) pairs say. An empty value says nothing; reasons are joined by commas.

    >>> weakest([("cost_class", "metered"), ("basis", "billed"), ("method", "path"), ("reason", "retry,coarse_match")]).value
    'coarse_match'
    """
    pairs = [(column, part.strip()) for column, value in values for part in (value or "").split(",")]
    return min((decider_of(*pair) for pair in pairs if pair[1]), key=lambda decider: (-decider.rank, decider.number))
