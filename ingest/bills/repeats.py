"""Files of one folder that are one bill twice: a copy, an older download, a restatement beside what it restates. (RA-1e)

Files of a folder are parts of one bill, and parts hold different rows. Where half the rows of a file or more are in another file too, the
two are no parts. Rows are the same where they agree in all but their amounts; in tags and principal they may differ as well, where the other
columns name the rows of both files without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

_SAMPLE_ROWS: Final = 200_000
"""About how many rows are compared; of more, those whose keys' hashes are multiples of a number."""
_COLUMNS: Final = (
    *("provider_name", "billing_account_id", "sub_account_id", "region_id", "service_name", "sku_id", "sku_meter", "resource_id"),
    *("charge_category", "charge_class", "charge_description", "charge_period_start", "charge_period_end"),
)
_TAGGED_COLUMNS: Final = (*_COLUMNS, "principal", "tags")
_CONTENT: Final = pl.col("charge_id").str.slice(0, 16)
"""The hash of a row's content, without the ordinal of equal rows."""


@dataclass(frozen=True, slots=True)
class RepeatedFile:
    """A file, by its raw id, that bills what `other` bills. `is_copy`: every row of it is a row of the other, to the last digit."""

    raw_id: str
    other: str
    is_copy: bool


def find(rows: pl.LazyFrame, row_count: int) -> list[RepeatedFile]:
    """The files among `rows`, charges of a month, that repeat another one; of two, the one with fewer rows, else the later raw id."""
    key, tagged_key = (pl.struct(columns).hash(seed=seed) for seed, columns in ((5, _COLUMNS), (6, _TAGGED_COLUMNS)))
    keys = rows.select("raw_id", key=key, tagged_key=tagged_key)
    sample = keys.filter(pl.col("key") % (1 + row_count // _SAMPLE_ROWS) == 0).collect(engine="streaming")
    pairs = pl.concat([_sharing(sample.select("raw_id", key=name)) for name in ("key", "tagged_key")])
    return [_repeated(rows, raw_id, other) for raw_id, other in pairs.unique().sort("raw_id", "other").iter_rows()]


def _sharing(rows: pl.DataFrame) -> pl.DataFrame:
    """Pairs of files of which one shares half of its keys with the other, or more: raw_id, other.

    Only files whose keys name their rows, but for one in five, say something: rows that a file has several times under one key may well
    be in several parts.
    """
    counts = rows.group_by("raw_id").agg(pl.len().alias("rows"), pl.col("key").n_unique().alias("keys"))
    counts = counts.filter(10 * pl.col("keys") >= 8 * pl.col("rows")).drop("rows")
    keys = rows.unique().join(counts, on="raw_id")
    first = keys.group_by("key").agg(pl.col("raw_id", "keys").sort_by("raw_id").first().name.map(lambda name: f"first_{name}"))
    pairs = keys.join(first, on="key").filter(pl.col("raw_id") != pl.col("first_raw_id"))
    pair_counts = pairs.group_by("raw_id", other="first_raw_id").agg(
        pl.len().alias("shared"), size=pl.min_horizontal("keys", "first_keys").first()
    )
    return pair_counts.filter(2 * pl.col("shared") >= pl.col("size")).select("raw_id", "other")


def _repeated(rows: pl.LazyFrame, raw_id: str, other: str) -> RepeatedFile:
    sides = [
        rows.filter(pl.col("raw_id") == side).group_by(_CONTENT.alias("content")).len("rows").collect()
        for side in (raw_id, other)
    ]
    if sides[0]["rows"].sum() > sides[1]["rows"].sum():
        raw_id, other = other, raw_id
        sides.reverse()
    own_rows, other_rows = sides
    counts = own_rows.join(other_rows, on="content", how="left", suffix="_other").with_columns(pl.col("rows_other").fill_null(0))
    return RepeatedFile(raw_id, other, is_copy=bool((counts["rows"] <= counts["rows_other"]).all()))
