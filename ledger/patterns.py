"""Regular expressions that users write: matched by an engine whose time is linear in the text, whatever the expression.

Python's own engine goes back over the text, so that ``(a+)+$`` takes years for forty letters, and holds the interpreter meanwhile.
Polars matches with Rust's, which has neither look-around nor back-references and refuses what grows beyond its memory.
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl


class Pattern:
    """A compiled expression, found anywhere in a text, whatever the case."""

    def __init__(self, expression: str) -> None:
        """Raises `ValueError` that says why the expression cannot be used."""
        self.expression = expression
        self._expression = f"(?i){expression}"
        try:
            pl.Series([""]).str.contains(self._expression)
            self._has_groups = "(?P<" in expression or "(?<" in expression
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"pattern {expression!r} is no regular expression that is accepted: {_reason(error)}") from error
        self.search = lru_cache(maxsize=10_000)(self._search)

    def _search(self, text: str) -> dict[str, str | None] | None:
        """The named groups of the first match; None where there is no match.

        >>> Pattern("^(?P<region>USW2)-(?P<model>[a-z]+)").search("usw2-opus"), Pattern("acme").search("other")
        ({'region': 'usw2', 'model': 'opus'}, None)
        >>> Pattern("(a+)+$").search("a" * 100_000 + "!")
        """
        column = pl.Series([text])
        if not column.str.contains(self._expression).item():
            return None
        groups: dict[str, str | None] = column.str.extract_groups(self._expression).item() if self._has_groups else {}
        return groups


def _reason(error: pl.exceptions.PolarsError) -> str:
    reasons = (line.strip().removeprefix("error: ") for line in str(error).splitlines() if line.strip().startswith("error: "))
    return next(reasons, "it would take too much memory")[:200]
