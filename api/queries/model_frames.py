"""Models as rows of a frame with exact types, for files: money is Decimal, times are UTC, what is nested is JSON text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from types import UnionType
from typing import Any, Union, get_args, get_origin

import polars as pl
from pydantic import BaseModel

from ledger import money

_TYPES: dict[Any, pl.DataType] = {
    Decimal: money.MONEY,
    datetime: pl.Datetime("us", "UTC"),
    date: pl.Date(),
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
}


def frame_of(model: type[BaseModel], rows: Sequence[BaseModel]) -> pl.DataFrame:
    """The rows with a column for each field of the model.

    >>> class Fee(BaseModel):
    ...     name: str
    ...     amount: Decimal | None
    ...     tags: list[str]
    >>> frame_of(Fee, [Fee(name="seat", amount=Decimal("0.10"), tags=["a"])]).row(0)
    ('seat', Decimal('0.100000000000'), '["a"]')
    """
    columns = {name: _type(info.annotation) for name, info in model.model_fields.items()}
    values = {
        name: [_text(getattr(row, name)) if dtype == pl.String else getattr(row, name) for row in rows]
        for name, dtype in columns.items()
    }
    return pl.DataFrame(
        [pl.Series(name, values[name], dtype=dtype, strict=False) for name, dtype in columns.items()], schema=columns
    )


def _type(annotation: Any) -> pl.DataType:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not type(None)][:1]
    if hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return _TYPES.get(annotation, pl.String())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return money.text(value) if isinstance(value, Decimal) else value.isoformat()
