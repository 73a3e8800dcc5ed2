"""Terms of a budget: what it limits, for how long, and what is no budget at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from ledger import money
from ledger.budget_tables import BudgetRevision
from ledger.errors import UsageError
from ledger.names import MAX_LENGTH, clean

Dimension = Literal["organisation", "team", "agent", "workflow", "tenant", "environment", "provider", "model"]
DIMENSIONS: Final = ("organisation", "team", "agent", "workflow", "tenant", "environment", "provider", "model")
"""What a budget can be about. The organisation is the whole ledger, whatever its name; the others are compared whole."""
LEVELS: Final = ("organisation", "team", "agent", "workflow")
"""Dimensions that budgets are nested by, from the outermost in; within a workflow there is the chain."""
Period = Literal["hour", "day", "week", "month", "quarter", "year", "range", "chain"]
PERIODS: Final = ("hour", "day", "week", "month", "quarter", "year", "range", "chain")
"""From the shortest; a range has a start and an end of its own, and a chain budget limits each chain by itself."""
Enforcement = Literal["none", "advisory", "hard"]
Outage = Literal["open", "closed"]

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_NAME: Final = re.compile(r"[^/\x00-\x1f\x7f]{1,256}")
_MAX_THRESHOLD: Final = Decimal(100)


def _amount(value: object) -> object:
    """Money as text, whole number or Decimal; a float has already lost digits."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('write money as a decimal string, such as "1250.00"')
    amount = money.exact_decimal(str(value))
    if amount is None:
        raise ValueError(f"{value!r} is no amount of money: write it like 1250.00")
    return amount


Amount = Annotated[Decimal, BeforeValidator(_amount), PlainSerializer(money.text, return_type=str, when_used="json")]


class Terms(BaseModel):
    """What a budget limits. Validated here once, for the command line, the API, pages and files.

    >>> Terms(name="care", scopes={"team": "Care"}, amount="1500.00", currency="USD").period
    'month'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scopes: dict[Dimension, str]
    amount: Amount
    currency: str = "USD"
    view: Literal["initiator", "executor"] = "initiator"
    period: Period = "month"
    range_start: datetime | None = None
    range_end: datetime | None = None
    basis: Literal["effective", "billed", "list", "contracted"] = "effective"
    infrastructure: bool = True
    shared: bool = True
    owner: Annotated[str, Field(max_length=256)] = ""
    enforcement: Enforcement = "none"
    on_outage: Outage = "open"
    parent_id: str | None = None
    exceeds_parent: bool = False
    thresholds: list[Amount] = Field(default_factory=list, max_length=20)
    recipients: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(default_factory=list, max_length=100)

    @model_validator(mode="after")
    def _is_about_somebody(self) -> Self:
        if not _NAME.fullmatch(self.name) or self.name != self.name.strip():
            raise ValueError("name: a name has 1 to 256 characters, no slash, and no space around it")
        if not self.scopes:
            raise ValueError(
                "scopes: a budget on nobody limits nothing; name a team, an agent, or the organisation for the whole"
            )
        for dimension, value in self.scopes.items():
            if clean(value) is None or len(value) > MAX_LENGTH or any(ord(c) < 32 or ord(c) == 127 for c in value):
                raise ValueError(f"scopes: {value!r} is no name of a {dimension}")
        return self

    @model_validator(mode="after")
    def _limits_money(self) -> Self:
        if self.amount <= 0:
            raise ValueError(f"amount: {money.text(self.amount)} is no limit; it must be more than 0")
        if not _CURRENCY.fullmatch(self.currency):
            raise ValueError(f"currency: {self.currency!r} is no currency code; write three capital letters, as USD")
        if len({*self.thresholds}) < len(self.thresholds) or not all(0 < t <= _MAX_THRESHOLD for t in self.thresholds):
            raise ValueError("thresholds: shares of the amount, each once, such as 0.5, 0.8, 1")
        return self

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        bounds = (self.range_start, self.range_end)
        if self.period != "range" and any(bounds):
            raise ValueError(f"range_start, range_end: a budget a {self.period} has no bounds of its own; its period is range")
        if self.period == "range":
            if self.range_start is None or self.range_end is None:
                raise ValueError("range_start, range_end: a range has both a start and an end")
            if self.range_start.tzinfo is None or self.range_end.tzinfo is None:
                raise ValueError("range_start, range_end: an instant needs its offset, as in 2026-10-01T00:00:00Z")
            if self.range_start >= self.range_end:
                raise ValueError("range_end: the range is empty; its end is the first instant that no longer counts")
        return self

    @property
    def level(self) -> int:
        """How far in it lies: 0 for the organisation, 4 for a chain; what has no level of its own lies outside of teams."""
        if self.period == "chain":
            return len(LEVELS)
        return max((LEVELS.index(dimension) for dimension in self.scopes if dimension in LEVELS), default=0)

    @property
    def subject(self) -> tuple[str, str]:
        """The narrowest of its scopes, dimension and name: what it is called by.

        >>> Terms(name="x", scopes={"team": "Care", "agent": "bot"}, amount=1).subject
        ('agent', 'bot')
        """
        order = (*LEVELS, *(d for d in DIMENSIONS if d not in LEVELS))
        dimension = max((d for d in self.scopes if d in LEVELS), key=order.index, default=next(iter(self.scopes)))
        return dimension, self.scopes[dimension]

    @property
    def described(self) -> str:
        """What it is about, in words.

        >>> Terms(name="x", scopes={"team": "Care", "model": "gpt-4o"}, amount=1).described
        'team Care, model gpt-4o'
        """
        return ", ".join(f"{dimension} {self.scopes[dimension]}" for dimension in DIMENSIONS if dimension in self.scopes)


TERM_COLUMNS: Final = tuple(Terms.model_fields)
"""Columns of `budget_revisions` that are terms."""


def parse_terms(values: Mapping[str, Any], *, place: str = "") -> Terms:
    """Terms out of a mapping. Raises `UsageError` that names the field and the remedy."""
    try:
        return Terms.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in first["loc"])
        if not field and ": " in message:
            field, message = message.split(": ", 1)
        place = ": ".join(part for part in (place, field) if part)
        remedy = f"one of: {', '.join(TERM_COLUMNS)}" if first["type"] == "extra_forbidden" else "see docs/budgets.md"
        raise UsageError(message, where=place, remedy=remedy) from error


def terms_of(revision: BudgetRevision) -> Terms:
    """Terms of a revision, as they were recorded."""
    return Terms.model_construct(
        **{column: getattr(revision, column) for column in TERM_COLUMNS if column != "thresholds"},
        thresholds=[Decimal(threshold) for threshold in revision.thresholds],
    )


def columns_of(terms: Terms) -> dict[str, Any]:
    """The columns of `budget_revisions` that hold these terms."""
    scopes = {dimension: terms.scopes[dimension] for dimension in DIMENSIONS if dimension in terms.scopes}
    return {column: getattr(terms, column) for column in TERM_COLUMNS} | {
        "scopes": scopes,
        "thresholds": [money.text(threshold) for threshold in terms.thresholds],
    }
