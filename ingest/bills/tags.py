"""Tags stored as maps in Parquet, as the flat JSON object of `charges.tags`."""

from __future__ import annotations

import json

import polars as pl

_ENTRY = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))


def entries_of(column: pl.Series, *, prefix: str = "") -> pl.DataFrame:
    """The entries of each row: `row`, `key`, `value`. Takes native maps, lists of key/value structs, and plain structs."""
    dtype = column.dtype
    if isinstance(dtype, pl.Struct):
        wide = column.struct.unnest().with_columns(pl.all().cast(pl.String)).with_row_index("row")
        long = wide.unpivot(index="row", variable_name="key", value_name="value")
    else:
        if not isinstance(dtype, pl.List):
            column = column.cast(_ENTRY)
        inner = column.dtype.inner if isinstance(column.dtype, pl.List) else None
        fields = [f.name for f in inner.fields] if isinstance(inner, pl.Struct) else []
        long = (
            pl.DataFrame({"row": pl.int_range(len(column), eager=True, dtype=pl.UInt32), "entry": column})
            .drop_nulls()
            .explode("entry")
        )
        if len(fields) < 2:
            return pl.DataFrame(schema={"row": pl.UInt32, "key": pl.String, "value": pl.String})
        long = long.drop_nulls("entry").select(
            "row",
            key=pl.col("entry").struct.field(fields[0]).cast(pl.String),
            value=pl.col("entry").struct.field(fields[1]).cast(pl.String),
        )
    entries = long.select(pl.col("row").cast(pl.UInt32), "key", "value").filter(
        pl.col("key").is_not_null() & pl.col("value").is_not_null() & (pl.col("value") != "")
    )
    return entries.with_columns(key=prefix + pl.col("key")) if prefix else entries


def objects(entries: pl.DataFrame, rows: int) -> pl.Series:
    """JSON objects from entries, keys sorted; null for a row without any. Of two entries with the same key the first is kept."""
    if not entries.height:
        return pl.Series("tags", [None] * rows, dtype=pl.String)
    is_repeated = (pl.col("row") == pl.col("row").shift(1)) & (pl.col("key") == pl.col("key").shift(1))
    texts = (
        entries.sort("row", "key", maintain_order=True)
        .filter(~is_repeated.fill_null(False))
        .select("row", entry=_json_quoted("key") + ":" + _json_quoted("value"))
        .group_by("row", maintain_order=True)
        .agg("entry")
        .select("row", tags="{" + pl.col("entry").list.join(",") + "}")
    )
    return pl.DataFrame({"row": pl.int_range(rows, eager=True, dtype=pl.UInt32)}).join(
        texts, on="row", how="left", maintain_order="left"
    )["tags"]


def as_json(column: pl.Series) -> pl.Series:
    r"""A map column as JSON objects.

    >>> as_json(pl.Series("t", [[{"key": "b", "value": 'say "hi"'}, {"key": "a", "value": "1"}], [], None])).to_list()
    ['{"a":"1","b":"say \\"hi\\""}', None, None]
    """
    return objects(entries_of(column), len(column)).alias(column.name)


def _json_quoted(name: str) -> pl.Expr:
    return pl.col(name).map_batches(_json_texts, return_dtype=pl.String)


def _json_texts(column: pl.Series) -> pl.Series:
    plain = column.unique()
    return column.replace_strict(plain, pl.Series([json.dumps(text, ensure_ascii=False) for text in plain], dtype=pl.String))
