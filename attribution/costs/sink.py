"""Where a run's costs go while they are drawn, and what is remembered of them: sums, reasons and days, never the rows.

`MemorySink` keeps them in memory, for who wants to look at them; `StagedSink` writes each stretch down as a part of the table at once, so that a month
of any size needs the room of a stretch. What was concluded of a stretch is kept beside the books under a name that says all it came from:
the next run of the month takes the stretches that stand, and draws the others.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import polars as pl

from ledger import staging
from ledger.staging import Part
from ledger.store import Store
from ledger.tables import COST_COLUMNS, COSTS

_SUMMED_BY = ("currency", "provider", "cost_class", "basis", "initiator_team")


@dataclass(frozen=True, slots=True)
class CostTotals:
    """What the balance and the findings ask of costs: their sums, how many have which reason, and how many fall on which day."""

    sums: pl.DataFrame
    reasons: pl.DataFrame
    days: pl.DataFrame

    @classmethod
    def of(cls, costs: pl.DataFrame) -> CostTotals:
        """Of some rows of `costs`."""
        day = pl.col("period_start").dt.date().alias("day")
        sums, reasons, days = pl.collect_all(
            [
                costs.lazy().group_by(_SUMMED_BY).agg(pl.col(c).sum() for c in COST_COLUMNS),
                # Few rows have a reason, and only these are looked at.
                costs.lazy().filter(pl.col("reason").is_not_null()).group_by("reason", "provider", "model").len("rows"),
                costs.lazy().group_by("currency", day).len("rows"),
            ]
        )
        return cls(sums, reasons, days)

    @classmethod
    def together(cls, totals: Sequence[CostTotals]) -> CostTotals:
        """Of all the rows that these tell of."""
        sums = pl.concat([t.sums for t in totals]).group_by(_SUMMED_BY).agg(pl.col(c).sum() for c in COST_COLUMNS)
        reasons = pl.concat([t.reasons for t in totals]).group_by("reason", "provider", "model").agg(pl.col("rows").sum())
        days = pl.concat([t.days for t in totals]).group_by("currency", "day").agg(pl.col("rows").sum())
        return cls(sums, reasons, days)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a stretch came to, beside its rows of `costs`: what is left of its lots, its rates, and usage that no bill speaks of yet."""

    told: CostTotals
    left: pl.DataFrame
    rates: pl.DataFrame
    open_uses: pl.LazyFrame


class CostSink(Protocol):
    """Takes costs as they are drawn. `remembers` says whether a stretch may stand from an earlier run."""

    remembers: bool

    def known(self, name: str) -> BatchResult | None:
        """The stretch of that name, if it stands: its costs are then kept as if they had been drawn again."""

    def keep_stretch(self, name: str, costs: pl.DataFrame, rating: BatchResult) -> BatchResult:
        """Keeps the costs of a stretch."""

    def keep(self, costs: pl.DataFrame) -> CostTotals:
        """Keeps other costs."""

    def of_stretches(self) -> pl.LazyFrame:
        """The costs of all stretches so far."""


class MemorySink:
    """Costs in memory."""

    remembers = False

    def __init__(self) -> None:
        self._stretches: list[pl.DataFrame] = []
        self._others: list[pl.DataFrame] = []

    @property
    def costs(self) -> pl.DataFrame:
        """All that was kept."""
        return pl.concat([*self._stretches, *self._others]) if self._stretches or self._others else COSTS.empty()

    def known(self, name: str) -> None:
        """Nothing stands."""

    def keep_stretch(self, name: str, costs: pl.DataFrame, rating: BatchResult) -> BatchResult:
        """Keeps the costs of a stretch."""
        self._stretches.append(costs)
        return rating

    def keep(self, costs: pl.DataFrame) -> CostTotals:
        """Keeps other costs."""
        self._others.append(costs)
        return CostTotals.of(costs)

    def of_stretches(self) -> pl.LazyFrame:
        """The costs of all stretches so far."""
        return pl.concat(self._stretches).lazy() if self._stretches else COSTS.empty().lazy()


class StagedSink:
    """Costs as parts of the table, invisible until `commit`; stretches also under `memory`, a folder for this month."""

    remembers = True

    def __init__(self, store: Store, cache_dir: Path, *, month: str, run_id: str) -> None:
        self.store, self.memory = store, cache_dir
        self.month, self.run_id = month, run_id
        self.reused = 0
        self._stretches: list[Part] = []
        self._others: list[Part] = []
        self._names: set[str] = set()

    def known(self, name: str) -> BatchResult | None:
        """The stretch of that name, if it stands."""
        folder = self.memory / name
        if not (folder / "whole").exists():
            return None
        try:
            rating = _read(folder)
            costs = sorted(folder.glob("costs-*.parquet"))
            parts = [staging.place(self.store, COSTS, path, {"month": self.month, "run_id": self.run_id}) for path in costs]
        except (OSError, pl.exceptions.PolarsError):
            return None  # a cache that cannot be read is no cache
        self._stretches += parts
        self._names.add(name)
        self.reused += 1
        return rating

    def keep_stretch(self, name: str, costs: pl.DataFrame, rating: BatchResult) -> BatchResult:
        """Writes the costs of a stretch; usage that is still open is left on disk until it is asked for."""
        temporary_dir = self.memory / f".{uuid.uuid4().hex}"
        temporary_dir.mkdir(parents=True)
        parts = []
        if costs.height:
            path = temporary_dir / "costs-0.parquet"
            staging.write(COSTS, COSTS.conform(costs), path)
            parts.append(staging.place(self.store, COSTS, path, {"month": self.month, "run_id": self.run_id}))
        _write(temporary_dir, rating)
        (temporary_dir / "whole").touch()
        folder = self.memory / name
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary_dir, folder)
        self._stretches += parts
        self._names.add(name)
        return _read(folder)

    def keep(self, costs: pl.DataFrame) -> CostTotals:
        """Writes other costs."""
        self._others += staging.stage(self.store, COSTS, costs)
        return CostTotals.of(costs)

    def of_stretches(self) -> pl.LazyFrame:
        """The costs of all stretches so far."""
        if not self._stretches:
            return COSTS.empty().lazy()
        paths = [f"{self.store.uri(COSTS)}/{part.path}" for part in self._stretches]
        frame = pl.scan_parquet(paths, storage_options=self.store.storage_options or None, hive_partitioning=False)
        return frame.with_columns(month=pl.lit(self.month), run_id=pl.lit(self.run_id)).select(list(COSTS.schema))

    def commit(self, *, note: str) -> None:
        """Makes all of it visible, in one commit, and forgets stretches that are none of this month any more."""
        staging.commit(self.store, COSTS, [*self._stretches, *self._others], note=note)
        for folder in self.memory.iterdir() if self.memory.exists() else ():
            if folder.name not in self._names:
                shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, rating: BatchResult) -> None:
    frames = {f.name: getattr(rating.told, f.name) for f in fields(CostTotals)} | {"left": rating.left, "rates": rating.rates}
    for name, frame in frames.items():
        frame.write_ipc(folder / f"{name}.arrow", compression="lz4")
    rating.open_uses.collect().write_ipc(folder / "open_uses.arrow", compression="lz4")


def _read(folder: Path) -> BatchResult:
    totals = CostTotals(*(pl.read_ipc(folder / f"{f.name}.arrow") for f in fields(CostTotals)))
    unmatched_groups, rates = (pl.read_ipc(folder / f"{name}.arrow") for name in ("left", "rates"))
    return BatchResult(totals, unmatched_groups, rates, pl.scan_ipc(folder / "open_uses.arrow"))
