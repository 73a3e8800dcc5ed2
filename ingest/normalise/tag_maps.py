"""Tags kept as maps in Parquet, as the flat JSON object `charges.tags` holds."""

from __future__ import annotations

import json

import polars as pl

_ENTRY = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))


def pairs(column: pl.Series, *, prefix: str = "") -> pl.DataFrame:
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
    filled = long.select(pl.col("row").cast(pl.UInt32), "key", "value").filter(
        pl.col("key").is_not_null() & pl.col("value").is_not_null() & (pl.col("value") != "")
    )
    return filled.with_columns(key=prefix + pl.col("key")) if prefix else filled


def objects(entries: pl.DataFrame, rows: int) -> pl.Series:
    """JSON objects from entries, keys sorted; null for a row without any. Of two entries with one key the first stays."""
    if not entries.height:
        return pl.Series("tags", [None] * rows, dtype=pl.String)
    quoted = entries.with_columns(_quoted(entries["key"]), _quoted(entries["value"]))
    spelt = (
        quoted.unique(["row", "key"], keep="first", maintain_order=True)
        .sort("row", "key")
        .group_by("row", maintain_order=True)
        .agg(tags="{" + (pl.col("key") + ":" + pl.col("value")).str.join(",") + "}")
    )
    return pl.DataFrame({"row": pl.int_range(rows, eager=True, dtype=pl.UInt32)}).join(
        spelt, on="row", how="left", maintain_order="left"
    )["tags"]


def spelt_out(column: pl.Series) -> pl.Series:
    """One text per row that is equal for equal maps; cheap, and only good for telling rows apart."""
    if isinstance(column.dtype, pl.Struct):
        return column.struct.json_encode()
    listed = column if isinstance(column.dtype, pl.List) else column.cast(_ENTRY)
    inner = listed.dtype.inner if isinstance(listed.dtype, pl.List) else None
    if not isinstance(inner, pl.Struct) or len(inner.fields) < 2:
        return pl.Series([None] * len(column), dtype=pl.String)
    key, value = (pl.element().struct.field(f.name).cast(pl.String).fill_null("\x00") for f in inner.fields[:2])
    return listed.to_frame("t").select(pl.col("t").list.eval(key + "\x1f" + value).list.join("\x1e"))["t"]


def as_json(column: pl.Series) -> pl.Series:
    r"""A map column as JSON objects.

    >>> as_json(pl.Series("t", [[{"key": "b", "value": 'say "hi"'}, {"key": "a", "value": "1"}], [], None])).to_list()
    ['{"a":"1","b":"say \\"hi\\""}', None, None]
    """
    return objects(pairs(column), len(column)).alias(column.name)


def _quoted(column: pl.Series) -> pl.Series:
    plain = column.unique()
    return column.replace_strict(plain, pl.Series([json.dumps(text, ensure_ascii=False) for text in plain], dtype=pl.String))
