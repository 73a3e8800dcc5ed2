"""Identifiers of a person in texts: found as whole words in whatever way they are written, and replaced by a pseudonym."""

from __future__ import annotations

import json
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from ledger.errors import UsageError

_MIN_LENGTH: Final = 3
_BEFORE: Final = r"""(^|\\[nrtbf"/]|%[0-9a-fA-F]{2}|[^\w.+@%-])"""
"""What may stand before an identifier: no part of a longer one; an escape of JSON or of an address."""
_AFTER: Final = r"""($|[^\w.@-]|[.-](?:$|\W))"""


@dataclass(frozen=True)
class Identifier:
    """What names a person, such as an e-mail address or a user id, and the random pseudonym that takes its place."""

    value: str
    pseudonym: str

    @classmethod
    def of(cls, value: str) -> Identifier:
        """An identifier with a new pseudonym. Raises `UsageError` for one that is too short to be told from other text."""
        if len(value.strip()) < _MIN_LENGTH:
            raise UsageError(
                "is too short to name a person", where="ID", remedy=f"name at least {_MIN_LENGTH} characters, as they are stored"
            )
        return cls(value.strip(), f"erased-{secrets.token_hex(6)}")

    @cached_property
    def pattern(self) -> str:
        """A regular expression for Python and for Polars: what stands before and after it are the groups 1 and 2.

        Addresses are compared without regard to case, other identifiers as they are.

        >>> Identifier("u-47", "x").replaced("u-47, u-47/u-471 nu-47 u-47.")
        'x, x/u-471 nu-47 x.'
        >>> Identifier("ann@example.com", "x").replaced("Ann@Example.com joann@example.com ann@example.com.au q=ann%40example.com")
        'x joann@example.com ann@example.com.au q=x'
        """
        forms = {unicodedata.normalize(form, self.value) for form in ("NFC", "NFD")} | {self.value}
        spellings = forms | {json.dumps(text)[1:-1] for text in forms} | {quote(text, safe="") for text in forms}
        alternatives = "|".join(re.escape(text) for text in sorted(spellings, key=lambda text: (-len(text), text)))
        return f"{'(?i)' if '@' in self.value else ''}{_BEFORE}(?:{alternatives}){_AFTER}"

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def is_in(self, text: str) -> bool:
        """Whether a text names the person."""
        return self._compiled.search(text) is not None

    def replaced(self, text: str) -> str:
        """The text with the pseudonym instead."""
        for _ in range(2):  # two that stand side by side share what is between them
            text = self._compiled.sub(rf"\g<1>{self.pseudonym}\g<2>", text)
        return text

    def blotted(self, text: str) -> str:
        """The text with asterisks instead, of the same length."""
        for _ in range(2):
            text = self._compiled.sub(
                lambda match: match[1] + "*" * (match.end(0) - match.start(0) - len(match[1] + match[2])) + match[2], text
            )
        return text


@dataclass(frozen=True)
class Identifiers:
    """All identifiers of a person."""

    members: Sequence[Identifier]

    @classmethod
    def of(cls, values: Sequence[str]) -> Identifiers:
        """Identifiers with new pseudonyms, each with its own: what was two before stays two."""
        return cls(tuple(map(Identifier.of, dict.fromkeys(values))))

    def is_in(self, text: str) -> bool:
        """Whether a text names the person."""
        return any(member.is_in(text) for member in self.members)

    def are_in_column(self, name: str, dtype: Any) -> pl.Expr:
        """Whether a column of texts, or of lists of records with texts, names the person; false where it has no value."""
        if dtype == pl.String:
            return self._are_in(pl.col(name))
        fields = (self._are_in(pl.element().struct.field(field)) for field in _text_fields(dtype))
        return pl.col(name).list.eval(pl.any_horizontal(*fields)).list.any().fill_null(value=False)

    def replaced_column(self, name: str, dtype: Any) -> pl.Expr:
        """The column with the pseudonyms instead."""
        if dtype == pl.String:
            return self._replaced(pl.col(name)).alias(name)
        fields = (self._replaced(pl.element().struct.field(field)).alias(field) for field in _text_fields(dtype))
        return pl.col(name).list.eval(pl.element().struct.with_fields(*fields)).alias(name)

    def _are_in(self, text: pl.Expr) -> pl.Expr:
        return pl.any_horizontal(*(text.str.contains(member.pattern) for member in self.members)).fill_null(value=False)

    def _replaced(self, text: pl.Expr) -> pl.Expr:
        for member in self.members:
            for _ in range(2):
                text = text.str.replace_all(member.pattern, f"${{1}}{member.pseudonym}${{2}}")
        return text

    def replaced(self, value: Any) -> Any:
        """A value of JSON with the pseudonyms in its texts instead."""
        if isinstance(value, str):
            for member in self.members:
                value = member.replaced(value)
            return value
        if isinstance(value, Mapping):
            return {self.replaced(key): self.replaced(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.replaced(inner) for inner in value]
        return value

    def blotted(self, text: str) -> str:
        """The text with asterisks instead, of the same length."""
        for member in self.members:
            text = member.blotted(text)
        return text


def _text_fields(dtype: Any) -> list[str]:
    """The texts of a list of records.

    >>> _text_fields(pl.List(pl.Struct({"agent": pl.String, "numerator": pl.Int64}))), _text_fields(pl.List(pl.Int64))
    (['agent'], [])
    """
    record = dtype.inner if isinstance(dtype, pl.List) else None
    return [field.name for field in record.fields if field.dtype == pl.String] if isinstance(record, pl.Struct) else []


def may_name_people(dtype: Any) -> bool:
    """Whether a column has texts in which a person may be named."""
    return bool(dtype == pl.String or _text_fields(dtype))
