"""As-of lookups in the registry: between two changes every instant has the same owners. (ID-1)"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.factorize import Codes


class AsOfIndex:
    """The intervals within the time of these spans in which no owner changes. `timeline` is a `ledger.registry.timeline`."""

    def __init__(self, timeline: pl.DataFrame, instants: pl.Series) -> None:
        self.timeline = timeline
        at = instants.to_physical()
        self._first, last = (int(str(bound)) if bound is not None else 0 for bound in (at.min(), at.max()))
        changes = pl.concat([timeline["valid_from"], timeline["valid_to"]]).drop_nulls().to_physical().unique().sort()
        self._changes: NDArray[np.int64] = changes.filter((changes > self._first) & (changes <= last)).to_numpy()

    @cached_property
    def kinds(self) -> set[str]:
        """The kinds of names that are registered."""
        return set(self.timeline["kind"].unique())

    def interval_codes(self, instants: pl.Series) -> Codes:
        """The interval of each instant, as a code."""
        if not len(self._changes):
            return Codes(np.zeros(0, dtype=np.int32), 1)
        at = np.searchsorted(self._changes, instants.to_physical().to_numpy(), side="right")
        return Codes(at.astype(np.int32), len(self._changes) + 1)

    def interval_starts(self, instants: pl.Series) -> pl.Series:
        """The start of the interval of each instant, so that equal lookups are made once."""
        starts = np.concatenate([[self._first], self._changes])
        at = np.searchsorted(self._changes, instants.to_physical().to_numpy(), side="right")
        return pl.Series(starts[at]).cast(instants.dtype)


def index_owners(timeline: pl.DataFrame, spans: pl.DataFrame) -> AsOfIndex:
    """The index of registry changes within the time of these spans."""
    return AsOfIndex(timeline, spans["start_time"])


def owner_at(frame: pl.DataFrame, timeline: pl.DataFrame, *, name: str, at: str, kinds: Sequence[str]) -> pl.DataFrame:
    """The owners of names at given times: `agent`, `team`, `account`, `region` of the registry row of one of `kinds` valid at `at`.

    Parallel to `frame`; nulls where nothing is registered. Of several kinds the first in `kinds` wins.
    """
    kind_timeline = timeline.filter(pl.col("kind").is_in(list(kinds)), pl.col("name").is_in(frame[name].unique().implode()))
    if not kind_timeline.height:
        return pl.DataFrame({c: pl.repeat(None, frame.height, dtype=pl.String, eager=True) for c in _OWNED})
    questions = frame.select(
        pl.col(name).alias("name"), pl.col(at).alias("at"), pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
    )
    rank = {kind: place for place, kind in enumerate(kinds)}
    owners = (
        questions.join(kind_timeline, on="name")
        .filter((pl.col("valid_from") <= pl.col("at")) & (pl.col("valid_to").is_null() | (pl.col("at") < pl.col("valid_to"))))
        .sort("row", pl.col("kind").replace_strict(rank, return_dtype=pl.Int32))
        .unique("row", keep="first", maintain_order=True)
    )
    return questions.select("row").join(owners.select("row", *_OWNED), on="row", how="left", maintain_order="left").drop("row")


_OWNED = ("agent", "team", "account", "region")
