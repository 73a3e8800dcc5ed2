"""Cost sinks: where the cost rows of a run are written, and which totals of them are kept in memory.

`MemorySink` keeps the rows, for previews and replays. `StagedSink` writes each batch to disk at once, so that memory does not grow with
the month: rows and result are cached beside the books under a key made of all inputs of the batch, and the next run of the month takes over
the batches whose inputs are the same, and computes the others. The batches that count become uncommitted parts of the table.
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
from ledger.money import known_sum
from ledger.staging import Part
from ledger.store import Store
from ledger.tables import COST_COLUMNS, COSTS

_REASONS_BY = ("reason", "provider", "account", "model", "currency", "service_tier", "basis")
_SUMMED_BY = ("currency", "provider", "cost_class", "basis", "initiator_team")


@dataclass(frozen=True, slots=True)
class CostTotals:
    """Aggregates of cost rows that the balance and the findings need: sums by owner and by reason, row counts by reason and by day."""

    sums: pl.DataFrame
    reasons: pl.DataFrame
    days: pl.DataFrame

    @classmethod
    def of(cls, costs: pl.DataFrame) -> CostTotals:
        """Totals of some rows of `costs`."""
        day = pl.col("period_start").dt.date().alias("day")
        sums, reasons, days = pl.collect_all(
            [
                costs.lazy().group_by(_SUMMED_BY).agg(known_sum(c) for c in COST_COLUMNS),
                # Few rows have a reason; the others are skipped.
                costs.lazy()
                .filter(pl.col("reason").is_not_null())
                .group_by(_REASONS_BY)
                .agg(pl.len().alias("rows"), known_sum("effective_cost")),
                costs.lazy().group_by("currency", day).len("rows"),
            ]
        )
        return cls(sums, reasons, days)

    @classmethod
    def combine(cls, totals: Sequence[CostTotals]) -> CostTotals:
        """Totals of all rows, from totals of parts of them."""
        sums = pl.concat([t.sums for t in totals]).group_by(_SUMMED_BY).agg(known_sum(c) for c in COST_COLUMNS)
        reason_sums = pl.concat([t.reasons for t in totals]).group_by(_REASONS_BY)
        reasons = reason_sums.agg(pl.col("rows").sum(), known_sum("effective_cost"))
        days = pl.concat([t.days for t in totals]).group_by("currency", "day").agg(pl.col("rows").sum())
        return cls(sums, reasons, days)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Result of a batch beside its cost rows: totals of them, unmatched charge groups, rates, usage that no bill covers yet, a summary of
    usage that cannot be (`attribution.costs.implausible`), and what may be met in the hour of its end (`attribution.costs.hour_ends`).

    `name` is that of its cost rows in the sink.
    """

    name: str
    totals: CostTotals
    unmatched: pl.DataFrame
    rates: pl.DataFrame
    open_usage: pl.LazyFrame
    implausible: pl.DataFrame
    offers: pl.DataFrame
    open_groups: pl.DataFrame


class CostSink(Protocol):
    """Takes cost rows as they are computed. `caches` says whether results of batches are kept from one run to the next."""

    caches: bool

    def cached(self, name: str) -> BatchResult | None:
        """The cached result of the batch with that key, or None."""

    def keep_batch(self, costs: pl.DataFrame, result: BatchResult) -> BatchResult:
        """Keeps the cost rows of a batch under the name of its result, until it is known which batches count."""

    def add_batches(self, names: Sequence[str]) -> None:
        """Adds the cost rows that were kept under these names."""

    def add(self, costs: pl.DataFrame) -> CostTotals:
        """Adds cost rows of the month as a whole."""

    def batch_costs(self) -> pl.LazyFrame:
        """The cost rows of all batches so far."""


class MemorySink:
    """Keeps cost rows in memory."""

    caches = False

    def __init__(self) -> None:
        self._kept: dict[str, pl.DataFrame] = {}
        self._batches: list[pl.DataFrame] = []
        self._others: list[pl.DataFrame] = []

    @property
    def costs(self) -> pl.DataFrame:
        """All rows so far."""
        return pl.concat([*self._batches, *self._others]) if self._batches or self._others else COSTS.empty()

    def cached(self, name: str) -> None:
        """None: nothing is cached."""

    def keep_batch(self, costs: pl.DataFrame, result: BatchResult) -> BatchResult:
        """Keeps the cost rows of a batch under the name of its result, until it is known which batches count."""
        self._kept[result.name] = costs
        return result

    def add_batches(self, names: Sequence[str]) -> None:
        """Adds the cost rows that were kept under these names."""
        self._batches += [self._kept[name] for name in names]
        self._kept.clear()

    def add(self, costs: pl.DataFrame) -> CostTotals:
        """Adds cost rows of the month as a whole."""
        self._others.append(costs)
        return CostTotals.of(costs)

    def batch_costs(self) -> pl.LazyFrame:
        """The cost rows of all batches so far."""
        return pl.concat(self._batches).lazy() if self._batches else COSTS.empty().lazy()


class StagedSink:
    """Writes cost rows as parts of the table, invisible until `commit`, and results of batches under `cache_dir`, a folder of the month."""

    caches = True

    def __init__(self, store: Store, cache_dir: Path, *, month: str, run_id: str) -> None:
        self.store, self.cache_dir = store, cache_dir
        self.month, self.run_id = month, run_id
        self.reused = 0
        self._batches: list[Part] = []
        self._others: list[Part] = []
        self._used_keys: set[str] = set()

    def cached(self, name: str) -> BatchResult | None:
        """The cached result of the batch with that key, or None."""
        folder = self.cache_dir / name
        try:
            stated_count = int((folder / "whole").read_text())
            result = _read(folder)
            costs = sorted(folder.glob("costs-*.parquet"))
            if len(costs) != stated_count:
                return None  # a power cut took files of it
            for path in costs:
                pl.read_parquet_metadata(path)
        except (OSError, ValueError, pl.exceptions.PolarsError):
            return None  # an unreadable cache entry counts as missing
        self._used_keys.add(name)
        self.reused += 1
        return result

    def keep_batch(self, costs: pl.DataFrame, result: BatchResult) -> BatchResult:
        """Caches the cost rows and the result of a batch; usage that is not billed yet stays on disk until it is needed."""
        temporary_dir = self.cache_dir / f".{uuid.uuid4().hex}"
        temporary_dir.mkdir(parents=True)
        if costs.height:
            staging.write(COSTS, COSTS.conform(costs), temporary_dir / "costs-0.parquet")
        _write(temporary_dir, result)
        (temporary_dir / "whole").write_text(str(len(list(temporary_dir.glob("costs-*.parquet")))))
        folder = self.cache_dir / result.name
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary_dir, folder)
        self._used_keys.add(result.name)
        return _read(folder)

    def add_batches(self, names: Sequence[str]) -> None:
        """Places the cached cost rows of these batches in the table."""
        partition = {"month": self.month, "run_id": self.run_id}
        for name in names:
            files = sorted((self.cache_dir / name).glob("costs-*.parquet"))
            self._batches += [staging.place(self.store, COSTS, path, partition) for path in files]

    def add(self, costs: pl.DataFrame) -> CostTotals:
        """Writes cost rows of the month as a whole."""
        self._others += staging.stage(self.store, COSTS, costs)
        return CostTotals.of(costs)

    def batch_costs(self) -> pl.LazyFrame:
        """The cost rows of all batches so far."""
        if not self._batches:
            return COSTS.empty().lazy()
        paths = [f"{self.store.uri(COSTS)}/{part.path}" for part in self._batches]
        frame = staging.scan(COSTS, paths, storage_options=self.store.storage_options or None)
        return frame.with_columns(month=pl.lit(self.month), run_id=pl.lit(self.run_id)).select(list(COSTS.schema))

    def commit(self, *, note: str) -> None:
        """Makes all rows visible in one commit, and deletes cached batches that this run did not use."""
        staging.commit(self.store, COSTS, [*self._batches, *self._others], note=note)
        for folder in self.cache_dir.iterdir() if self.cache_dir.exists() else ():
            if folder.name not in self._used_keys:
                shutil.rmtree(folder, ignore_errors=True)


_FRAMES = ("unmatched", "rates", "implausible", "offers", "open_groups")
"""Frames of a batch's result that are read back at once."""


def _write(folder: Path, result: BatchResult) -> None:
    frames = {f.name: getattr(result.totals, f.name) for f in fields(CostTotals)}
    frames |= {name: getattr(result, name) for name in _FRAMES} | {"open_usage": result.open_usage.collect()}
    for name, frame in frames.items():
        frame.write_ipc(folder / f"{name}.arrow", compression="lz4")


def _read(folder: Path) -> BatchResult:
    totals = CostTotals(*(pl.read_ipc(folder / f"{f.name}.arrow") for f in fields(CostTotals)))
    frames = {name: pl.read_ipc(folder / f"{name}.arrow") for name in _FRAMES}
    return BatchResult(name=folder.name, totals=totals, open_usage=pl.scan_ipc(folder / "open_usage.arrow"), **frames)
