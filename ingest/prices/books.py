"""Price lists in the forms they come in, read into rows of `prices`.

    litellm        a JSON object of models, as LiteLLM publishes it             `ingest.prices.litellm_map`
    genai-prices   a JSON list of providers, dated and tiered                   `genai`
    rate table     a CSV of our own, for contracts and corrections              `rate_table`

The form is told by the content. Reading is pure: what a list says, as it says it; `ingest.prices.updates` holds it against the book.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from ingest.prices import litellm_map
from ingest.prices.updates import PriceList
from ledger.errors import FormatError, ObjectMissingError
from ledger.tables import TIME

FORMS = "litellm's JSON, genai-prices' JSON, or a CSV with the columns provider, model, meter, unit, rate, currency"


def read_prices(
    path: Path | None = None, *, origin: str = "list", book: str = "", seen: Callable[[], Collection[str]] = frozenset
) -> PriceList:
    """A price list in any form it comes in; without a path, the installed litellm's.

    `book` names it; the default is the form's name, or the file's for a CSV. `seen` gives the model names that logs use: a list that
    describes its models by patterns is spelled out for them. Raises `ObjectMissingError` if there is no such file, `FormatError` if it
    is no price list.
    """
    from ingest.prices import genai, rate_table

    where = path or litellm_map.litellm_map_path()
    content = _content(where)
    version = f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    if content.lstrip()[:1] in (b"{", b"["):
        said: Any = _json(content, where)
        if genai.is_book(said):
            name = f"{book or 'genai-prices'} {version}"
            frame, problems = genai.read(said, seen=seen(), book=name, uri=where.name)
            return _with_origin(PriceList(name, origin, where.name, frame, tuple(problems)), origin)
        listed = litellm_map.read_litellm_map(path)
        undated = listed.frame.with_columns(valid_from=pl.lit(None, dtype=TIME))
        name = listed.book if not book else f"{book} {version}"
        return _with_origin(PriceList(name, origin, where.name, undated, listed.problems), origin)
    name = f"{book or where.stem.replace(' ', '-')} {version}"
    frame, problems = rate_table.read(content, uri=where.name)
    return _with_origin(PriceList(name, origin, where.name, frame, tuple(problems)), origin)


def _with_origin(listed: PriceList, origin: str) -> PriceList:
    """The list under its name and origin, on every row."""
    frame = listed.frame.with_columns(origin=pl.lit(origin), book=pl.lit(listed.book))
    return replace(listed, frame=frame)


def _content(where: Path) -> bytes:
    try:
        return where.read_bytes()
    except FileNotFoundError as fault:
        raise ObjectMissingError("no such file", where=str(where), remedy=f"name a price list: {FORMS}") from fault
    except OSError as fault:
        raise FormatError(f"cannot be read: {fault.strerror}", where=str(where), remedy=f"name a price list: {FORMS}") from fault


def _json(content: bytes, where: Path) -> Any:
    try:
        return json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as fault:
        raise FormatError(f"no valid JSON: {str(fault)[:120]}", where=str(where), remedy="fetch the price list again") from fault
