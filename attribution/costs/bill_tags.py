"""Tags of bills: the values that name owners, and keys that nearly do. (RA-4, ID-3)

Azure's tag keys are case-insensitive; those of other providers are compared as written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from attribution.classification import names
from ledger.names import clean

_CASE_INSENSITIVE = ("Microsoft",)
"""Providers whose tag keys are case-insensitive."""


def values(groups: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """The value of the first of these keys that names something, for each charge group (`provider_name`, `tags`); null where none does.

    >>> groups = pl.DataFrame({"provider_name": ["Microsoft", "AWS", "AWS"], "tags": ['{"TEAM":"Care"}', '{"TEAM":"Care"}', '{"team":"N/A","owner":" Dev"}']})
    >>> values(groups, ["team", "owner"]).to_list()
    ['Care', None, 'Dev']
    """
    distinct = groups.select("provider_name", "tags").unique()
    tag_values = [_first_value(tags_of(tags, provider), keys, provider) for provider, tags in distinct.iter_rows()]
    lookup = distinct.with_columns(value=pl.Series(tag_values, dtype=pl.String))
    return groups.select("provider_name", "tags").join(
        lookup, on=["provider_name", "tags"], how="left", nulls_equal=True, maintain_order="left"
    )["value"]


def tags_of(tags: str | None, provider_name: str | None) -> Mapping[str, Any]:
    """Tags by key; of a provider with case-insensitive keys, by the key in lower case.

    >>> tags_of('{"Team":"Care"}', "Microsoft"), tags_of('{"Team":"Care"}', "AWS")
    ({'team': 'Care'}, {'Team': 'Care'})
    """
    tag_values: dict[str, Any] = json.loads(tags) if tags else {}
    if not ignores_case(provider_name):
        return tag_values
    # A key that is written in lower case comes before another spelling of it.
    return {key.lower(): tag_values[key] for key in sorted(tag_values, key=lambda key: (key == key.lower(), key))}


def ignores_case(provider_name: str | None) -> bool:
    """Whether the provider's tag keys are case-insensitive."""
    return names.provider(provider_name) in _CASE_INSENSITIVE


def _first_value(tag_values: Mapping[str, Any], keys: Sequence[str], provider_name: str | None) -> str | None:
    written_keys = [key.lower() for key in keys] if ignores_case(provider_name) else keys
    return next((value for key in written_keys if (value := clean(_text(tag_values.get(key)))) is not None), None)


def _text(value: object) -> str | None:
    """A tag's value as text; 0, false and null name nobody."""
    return str(value) if value else None


def similar_keys(groups: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Keys of tags that are an owner's key but for case, where no owner's key is set: key, written_as, currency, charges, effective_cost."""
    pattern = "(?i)" + "|".join(rf'"{re.escape(key)}"' for key in keys)
    schema = {"key": pl.String, "written_as": pl.String}
    if not keys or not groups.height:
        return pl.DataFrame(schema=schema)
    tagged_groups = groups.filter(pl.col("tags").str.contains(pattern).fill_null(value=False))
    by_lower_key = {key.lower(): key for key in reversed(keys)}
    distinct = tagged_groups.select("provider_name", "tags").unique()
    rows = [
        (provider, tags, by_lower_key[written_key.lower()], written_key)
        for provider, tags in distinct.iter_rows()
        if not ignores_case(provider)
        and (tag_values := tags_of(tags, provider))
        and _first_value(tag_values, keys, provider) is None
        for written_key in tag_values
        if written_key not in keys and written_key.lower() in by_lower_key and clean(_text(tag_values[written_key]))
    ]
    lookup = pl.DataFrame(rows, schema={"provider_name": pl.String, "tags": pl.String, **schema}, orient="row")
    return (
        tagged_groups.join(lookup, on=["provider_name", "tags"], nulls_equal=True)
        .group_by("key", "written_as", "currency")
        .agg(pl.col("charges").sum(), pl.col("effective_cost").sum())
        .sort("key", "written_as", "currency")
    )
