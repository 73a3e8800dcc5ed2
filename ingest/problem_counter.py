"""The problems of one file: the first ones one by one, the others summed by field and reason.

A file with a million bad lines makes a thousand problems and a few sums, in bounded memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal

import polars as pl

from ledger.plurals import counted
from ledger.problems import Problem

MAX_SINGLE_PROBLEMS = 1000
"""How many problems of one file are reported one by one; the others are summed by field and reason."""
_MAX_KINDS = 200
_MAX_SHOWN_CHARACTERS = 80
_MAX_SHOWN_BITS = 128
_NUMBER_OR_TIME: Final = re.compile(r"[-+]?[0-9.,eE+-]{1,12}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[T ][0-9:.Z+-]{0,24})?")

Severity = Literal["error", "warning"]


class ProblemCounter:
    """Collects the problems of one file while it is read.

    >>> counter = ProblemCounter("focus", "bill.csv", max_single=1)
    >>> counter.add_rows([7, 9], ["abc", "x"], "BilledCost", "is no amount", "write plain digits")
    >>> [(p.place, p.reason, p.rows) for p in [*counter.drain(), *counter.summed_problems()]]
    [('line 7', "'abc' is no amount", 1), ('1 more row', 'is no amount', 1)]
    """

    def __init__(self, source: str, uri: str, *, place: str = "line", max_single: int = MAX_SINGLE_PROBLEMS) -> None:
        self.source, self.uri, self.place = source, uri, place
        self.broken_off = ""
        """Why the file ends before its end; empty while nothing says so. (RA-1e)"""
        self._remaining = max_single
        self._new: list[Problem] = []
        self._sums: dict[tuple[str, str, str, Severity], int] = {}

    def add(self, place: str, field: str, reason: str, remedy: str, *, rows: int = 1, severity: Severity = "error") -> None:
        """One problem."""
        if self._remaining > 0:
            self._remaining -= 1
            self._new.append(Problem(self.source, self.uri, place, field, reason, remedy, rows, severity))
        else:
            self._add_to_sum(field, reason, remedy, severity, rows)

    def add_rows(
        self,
        places: Sequence[int] | pl.Series,
        values: Iterable[str | None] | None,
        field: str,
        reason: str,
        remedy: str,
        *,
        severity: Severity = "error",
    ) -> None:
        """The same problem in many rows; `values` are quoted before the reason."""
        single_count = min(self._remaining, len(places))
        quoted_values = (
            [None] * single_count if values is None else [v for _, v in zip(range(single_count), values, strict=False)]
        )
        for place, value in zip(places[:single_count], quoted_values, strict=True):
            row_reason = reason if values is None else f"{_quoted(value)} {reason}"
            self.add(f"{self.place} {place}", field, row_reason, remedy, severity=severity)
        if len(places) > single_count:
            self._add_to_sum(field, reason, remedy, severity, len(places) - single_count)

    def add_summed(self, field: str, reason: str, remedy: str, rows: int, *, severity: Severity = "warning") -> None:
        """A problem reported once for all rows of the file that share it."""
        self._add_to_sum(field, reason, remedy, severity, rows)

    def drain(self) -> list[Problem]:
        """The problems added one by one since the last call."""
        new_problems, self._new = self._new, []
        return new_problems

    def summed_problems(self) -> list[Problem]:
        """The summed problems; called once, at the end of the file."""
        return [
            Problem(
                self.source,
                self.uri,
                counted(rows, "more row" if severity == "error" else "row"),
                field,
                reason,
                remedy,
                rows,
                severity,
            )
            for (field, reason, remedy, severity), rows in self._sums.items()
        ]

    def _add_to_sum(self, field: str, reason: str, remedy: str, severity: Severity, rows: int) -> None:
        key = (field, reason, remedy, severity)
        if key not in self._sums and len(self._sums) >= _MAX_KINDS:
            key = ("", "other faults, too many kinds to tell apart", "mend the faults listed, and read the file again", severity)
        self._sums[key] = self._sums.get(key, 0) + rows


def described(value: object) -> str:
    """A wrong value as a problem of a log may show it: what can be a prompt or an answer is told by its type and length only.

    >>> described(-1), described("-1"), described("2026-13-05T10:00"), described("Dear Ann"), described({"a": 1}), described([1, 2])
    ('-1', "'-1'", "'2026-13-05T10:00'", 'text of 8 characters', 'an object of 1 key', 'a list of 2 values')
    """
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | Decimal):
        is_short = not isinstance(value, int) or value.bit_length() <= _MAX_SHOWN_BITS
        number = str(value) if is_short else ""
        return number if 0 < len(number) <= _MAX_SHOWN_CHARACTERS else "a number of very many digits"
    if isinstance(value, str):
        return repr(value) if _NUMBER_OR_TIME.fullmatch(value) else f"text of {_counted(len(value), 'character')}"
    if isinstance(value, bytes):
        return f"{_counted(len(value), 'byte')}"
    if isinstance(value, Mapping):
        return f"an object of {_counted(len(value), 'key')}"
    if isinstance(value, list | tuple):
        return f"a list of {_counted(len(value), 'value')}"
    return f"a value of type {type(value).__name__}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "an empty value"
    return repr(value if len(value) <= _MAX_SHOWN_CHARACTERS else value[:_MAX_SHOWN_CHARACTERS] + "…")
