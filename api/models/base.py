"""Base models of the API: exact money, query parameters, pages and problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from ledger import money
from ledger.tables import Table

View = Literal["initiator", "executor"]
"""`initiator`: the agent that started the chain; `executor`: the agent that made the calls."""
Granularity = Literal["total", "hour", "day", "month"]
"""Time granularity of the rows, in the reporting timezone."""
Calendar = Literal["invoice", "usage"]
"""`invoice`: months of invoices, which tie out with the bill; `usage`: the time of use, in the reporting timezone. (TI-1a)"""
Basis = Literal["effective", "billed", "list", "contracted"]
"""Which of FOCUS's cost columns is summed."""


def _exact_amount(value: object) -> object:
    """Accepts money as text or a whole number; a JSON float has already lost digits."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('write money as a decimal string, such as "1250.00"')
    amount = money.exact_decimal(str(value))
    if amount is None:
        raise ValueError(f"{value!r} is no amount of money")
    return amount


Money = Annotated[
    Decimal,
    BeforeValidator(_exact_amount),
    PlainSerializer(money.text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "decimal", "examples": ["0.018", "-12.5"]}),
]
"""An exact amount: `Decimal` here, a decimal string in JSON."""


def describe(table: Table, column: str) -> str:
    """The description of a ledger column, from `ledger.tables`.

    >>> from ledger.tables import COSTS
    >>> describe(COSTS, "currency")
    'billing currency'
    """
    return next(c.description for c in table.columns if c.name == column)


class ResponseModel(BaseModel):
    """Base of responses; a client ignores fields that a newer server adds."""

    model_config = ConfigDict(extra="ignore")


class RequestModel(BaseModel):
    """Base of request bodies; unknown keys and wrong types are refused, never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True)


T = TypeVar("T")


class Page(ResponseModel, Generic[T]):
    """One page of a listing. Number and sums are those of the whole query, on all pages."""

    rows: list[T] = Field(description="The rows, in order.")
    total: int = Field(description="Number of rows on all pages.")
    limit: int | None = Field(default=None, description="Maximum number of rows on a page; null: no paging.")
    offset: int = Field(default=0, description="Number of rows that were skipped by `offset`.")
    totals: Mapping[str, Mapping[str, Money]] = Field(
        default_factory=dict, description="Sums over all pages of columns of money: column, currency, amount."
    )
    next: str | None = Field(default=None, description="`cursor` of the next page; null on the last one.")


class FieldError(ResponseModel):
    """One invalid field of a request."""

    field: str = Field(description="Path of the field in the request.")
    reason: str = Field(description="Why it is invalid.")


class ProblemDocument(ResponseModel):
    """An error as an RFC 9457 problem document (application/problem+json)."""

    type: str = Field(default="about:blank", description="Problem type: the address of its page on this server.")
    title: str = Field(description="Problem type in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(default="", description="What went wrong in this request.")
    instance: str = Field(default="", description="Path of the request.")
    where: str = Field(default="", description="Parameter, file or place of the error.")
    remedy: str = Field(default="", description="How to fix it.")
    errors: list[FieldError] = Field(default_factory=list, description="Every invalid field of an invalid request.")
    expected: dict[str, Any] | None = Field(
        default=None, description="Of a change that came too late (412): the version that it was made from."
    )
    current: dict[str, Any] | None = Field(default=None, description="And the version that is in force; none: it has ended.")


class ProblemTypeRow(ResponseModel):
    """A type of problem."""

    type: str = Field(description="`type` of its problem documents: the address of its page.")
    statuses: list[int] = Field(description="HTTP statuses that it comes with; none: several.")
    title: str = Field(description="The type in words.")
    meaning: str = Field(description="What it means.")
    remedy: str = Field(description="What to do.")


Filters = Mapping[str, str | list[str]]
"""Dimension to one or several values that must match exactly; an empty string matches unknown values."""
