"""What was wrong with one file, told singly while that helps and in sums after that.

A file with a million bad lines makes a thousand problems and a handful of sums, and no more memory than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import polars as pl

from ledger.problems import Problem

MAX_SINGLE_PROBLEMS = 1000
"""Problems of one file that are told one by one; the rest are summed by field and reason."""
_MAX_KINDS = 200
_MAX_SHOWN_CHARACTERS = 80

Severity = Literal["error", "warning"]


class ProblemCounter:
    """The problems of one file, as they are found.

    >>> tally = ProblemCounter("focus", "bill.csv", singly=1)
    >>> tally.rows([7, 9], ["abc", "x"], "BilledCost", "is no amount", "write plain digits")
    >>> [(p.place, p.reason, p.rows) for p in [*tally.drain(), *tally.sums()]]
    [('line 7', "'abc' is no amount", 1), ('1 more rows', 'is no amount', 1)]
    """

    def __init__(self, source: str, uri: str, *, place: str = "line", singly: int = MAX_SINGLE_PROBLEMS) -> None:
        self.source, self.uri, self.place = source, uri, place
        self._left = singly
        self._fresh: list[Problem] = []
        self._summed: dict[tuple[str, str, str, Severity], int] = {}

    def add(self, place: str, field: str, reason: str, remedy: str, *, rows: int = 1, severity: Severity = "error") -> None:
        """One fault, told as it is."""
        if self._left > 0:
            self._left -= 1
            self._fresh.append(Problem(self.source, self.uri, place, field, reason, remedy, rows, severity))
        else:
            self._sum(field, reason, remedy, severity, rows)

    def rows(
        self,
        places: Sequence[int] | pl.Series,
        values: Iterable[str | None] | None,
        field: str,
        reason: str,
        remedy: str,
        *,
        severity: Severity = "error",
    ) -> None:
        """The same fault in many rows; `values` are quoted before the reason."""
        told = min(self._left, len(places))
        quoted = [None] * told if values is None else [v for _, v in zip(range(told), values, strict=False)]
        for place, value in zip(places[:told], quoted, strict=True):
            said = reason if values is None else f"{_quoted(value)} {reason}"
            self.add(f"{self.place} {place}", field, said, remedy, severity=severity)
        if len(places) > told:
            self._sum(field, reason, remedy, severity, len(places) - told)

    def whole(self, field: str, reason: str, remedy: str, rows: int, *, severity: Severity = "warning") -> None:
        """A fault told once for all rows of the file that share it."""
        self._sum(field, reason, remedy, severity, rows)

    def drain(self) -> list[Problem]:
        """What was told singly since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def sums(self) -> list[Problem]:
        """The faults told together; asked for once, at the end of the file."""
        return [
            Problem(
                self.source,
                self.uri,
                f"{rows} more rows" if severity == "error" else f"{rows} rows",
                field,
                reason,
                remedy,
                rows,
                severity,
            )
            for (field, reason, remedy, severity), rows in self._summed.items()
        ]

    def _sum(self, field: str, reason: str, remedy: str, severity: Severity, rows: int) -> None:
        key = (field, reason, remedy, severity)
        if key not in self._summed and len(self._summed) >= _MAX_KINDS:
            key = ("", "other faults, too many kinds to tell apart", "mend the faults listed, and read the file again", severity)
        self._summed[key] = self._summed.get(key, 0) + rows


def _quoted(value: str | None) -> str:
    if value is None:
        return "an empty value"
    return repr(value if len(value) <= _MAX_SHOWN_CHARACTERS else value[:_MAX_SHOWN_CHARACTERS] + "…")
