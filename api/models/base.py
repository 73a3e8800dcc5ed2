"""What every model stands on: exact money, the vocabulary of queries, pages, and problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from ledger import money
from ledger.tables import Table

View = Literal["initiator", "executor"]
"""`initiator`: who caused the cost; `executor`: who burned it."""
Granularity = Literal["total", "hour", "day", "month"]
"""How time is cut, in the reporting timezone."""
Basis = Literal["effective", "billed", "list", "contracted"]
"""Which of FOCUS's cost columns is summed."""


def _exact_amount(value: object) -> object:
    """Money comes as text or a whole number; a JSON float has already lost digits."""
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
    """The sentence the ledger says about a column.

    >>> from ledger.tables import COSTS
    >>> why(COSTS, "currency")
    'billing currency'
    """
    return next(c.description for c in table.columns if c.name == column)


class ResponseModel(BaseModel):
    """What the API says; a client ignores what a newer one adds."""

    model_config = ConfigDict(extra="ignore")


class RequestModel(BaseModel):
    """What a caller sends: unknown keys and wrong types are refused, not bent."""

    model_config = ConfigDict(extra="forbid", strict=True)


T = TypeVar("T")


class Page(ResponseModel, Generic[T]):
    """Rows of a listing, and how many there are in all."""

    rows: list[T] = Field(description="The rows, in order.")
    total: int = Field(description="Rows there are, on this page and elsewhere.")
    limit: int | None = Field(default=None, description="Most rows on a page; null: no paging.")
    offset: int = Field(default=0, description="Rows skipped before this page.")


class FieldError(ResponseModel):
    """One field of a request that could not be used."""

    field: str = Field(description="Where in the request.")
    reason: str = Field(description="What is wrong with it.")


class ProblemDocument(ResponseModel):
    """An error, as RFC 9457 has it (application/problem+json)."""

    type: str = Field(default="about:blank", description="Names the kind of problem; stable.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(default="", description="What went wrong this time.")
    instance: str = Field(default="", description="The request's path.")
    where: str = Field(default="", description="Parameter, file or place at fault.")
    remedy: str = Field(default="", description="What to do about it.")
    errors: list[FieldError] = Field(default_factory=list, description="Every field at fault, where the request was invalid.")


Filters = Mapping[str, str | list[str]]
"""Dimension to one or several values, compared whole; an empty string stands for unknown."""
