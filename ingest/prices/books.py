"""Readers of price lists: each supported format is parsed into rows of `prices`.

    litellm        a JSON object of models, as LiteLLM publishes it             `ingest.prices.litellm_map`
    genai-prices   a JSON list of providers, dated and tiered                   `genai`
    rate table     a CSV of our own, for contracts and corrections              `rate_table`

The format is recognised by the content. Reading is pure: rates are returned as the list states them; `ingest.prices.updates` compares them
with the price book.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from ingest.prices import litellm_map
from ingest.prices.updates import PriceList
from ledger.errors import FormatError, ObjectMissingError
from ledger.tables import TIME

FORMS = "litellm's JSON, genai-prices' JSON, or a CSV with the columns provider, model, meter, unit, rate, currency"


def read_prices(
    path: Path | None = None, *, origin: str = "list", book: str = "", model_names: Callable[[], Collection[str]] = frozenset
) -> PriceList:
    """A price list in any supported format; without a path, the installed litellm's.

    `book` names it; the default is the format's name, or the file's for a CSV. `model_names` gives the model names that logs use: the
    patterns of a list that describes models by patterns are expanded to them. Raises `ObjectMissingError` if there is no such file, `FormatError` if it
    is no price list.
    """
    installed_path = litellm_map.litellm_map_path()
    if path is None or path == installed_path:
        return _litellm_list(litellm_map.read_litellm_map(), _content(installed_path), installed_path.name, origin, book)
    return parse_prices(_content(path), uri=path.name, origin=origin, book=book, model_names=model_names)


def parse_prices(
    content: bytes, *, uri: str, origin: str = "list", book: str = "", model_names: Callable[[], Collection[str]] = frozenset
) -> PriceList:
    """The same from the bytes of a file; `uri` is its name. Raises `FormatError` if it is no price list."""
    from ingest.prices import genai, rate_table

    version = _version(content)
    if content.lstrip()[:1] in (b"{", b"["):
        document: Any = _json(content, uri)
        if genai.is_book(document):
            name = f"{book or 'genai-prices'} {version}"
            frame, problems = genai.read(document, model_names=model_names(), book=name, uri=uri)
            return _with_origin(PriceList(name, origin, uri, frame, tuple(problems)), origin)
        return _litellm_list(litellm_map.parse_litellm_map(content, uri=uri), content, uri, origin, book)
    name = f"{book or PurePath(uri).stem.replace(' ', '-')} {version}"
    frame, problems = rate_table.read(content, uri=uri)
    return _with_origin(PriceList(name, origin, uri, frame, tuple(problems)), origin)


def _litellm_list(price_list: litellm_map.PriceList, content: bytes, uri: str, origin: str, book: str) -> PriceList:
    """LiteLLM's map as a list whose rates are undated, named as it is or by `book`."""
    undated_frame = price_list.frame.with_columns(valid_from=pl.lit(None, dtype=TIME))
    name = f"{book} {_version(content)}" if book else price_list.book
    return _with_origin(PriceList(name, origin, uri, undated_frame, price_list.problems), origin)


def _version(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def _with_origin(price_list: PriceList, origin: str) -> PriceList:
    """The list with its name and origin on every row."""
    frame = price_list.frame.with_columns(origin=pl.lit(origin), book=pl.lit(price_list.book))
    return replace(price_list, frame=frame)


def _content(source_path: Path) -> bytes:
    try:
        return source_path.read_bytes()
    except FileNotFoundError as error:
        raise ObjectMissingError("no such file", where=str(source_path), remedy=f"name a price list: {FORMS}") from error
    except OSError as error:
        raise FormatError(
            f"cannot be read: {error.strerror}", where=str(source_path), remedy=f"name a price list: {FORMS}"
        ) from error


def _json(content: bytes, uri: str) -> Any:
    try:
        return json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no valid JSON: {str(error)[:120]}", where=uri, remedy="fetch the price list again") from error
