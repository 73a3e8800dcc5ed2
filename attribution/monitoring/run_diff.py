"""Differences between two runs of a month, by cause. (TI-2)

A run records a fingerprint of each of its inputs, so what changed between two runs is known. Where one input changed, the whole difference is
attributed to it. Where several did, they are replaced one after the other (`attribution.monitoring.replay`), and the change at each step is
attributed to its cause: the changes sum to the difference of the two runs, to the last digit. What another version of RootCost computes
differently from the same facts has the cause `code`: its code, or its classification data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from ledger.books import Books
from ledger.db import Run
from ledger.errors import UsageError
from ledger.money import MONEY
from ledger.tables import BALANCE, COSTS

CAUSES = {
    "code": "code",
    "earlier": "an earlier month",
    "spans": "new usage",
    "registry": "registry",
    "prices": "price",
    "reading": "setting",
    "charges": "restated charge",
    "beside": "charge of a neighbouring invoice",
    "rules": "rule",
}
"""Input of a run → name of the cause."""

_OWNER = ["currency", "provider", "cost_class", "initiator_team", "basis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A change in cost between two runs: `moved` is new minus old effective cost of an owner, or of the bill itself."""

    month: str
    cause: str
    currency: str
    provider: str | None
    cost_class: str | None
    team: str | None
    basis: str
    old: Decimal
    new: Decimal

    @property
    def moved(self) -> Decimal:
        """New minus old."""
        return self.new - self.old


def differences(books: Books, month: str, old_run: str, new_run: str) -> list[Difference]:
    """What changed from `old_run` to `new_run` in `month`, the bill first, then cause by cause and owner by owner; empty if they are equal.

    A change of the bill is `restated charge`. Causes that take effect in one pass over the spans (usage, registry, price) are joined by +,
    as they are with `code`, and as are all of them where something an earlier run read is no longer kept.
    """
    bill = _join_sides(*(_bill(books, month, run) for run in (old_run, new_run)), keys=["currency", "provider"])
    out = [
        _difference(month, "restated charge", row | {"cost_class": None, "initiator_team": None, "basis": "billed"})
        for row in bill.iter_rows(named=True)
        if row["old"] != row["new"]
    ]
    for cause, before, after in steps(books, month, (old_run, new_run), _by_owner):
        rows = _join_sides(before, after, keys=_OWNER).iter_rows(named=True)
        out += [_difference(month, cause, row) for row in rows if row["old"] != row["new"]]
    return out


def _difference(month: str, cause: str, row: Mapping[str, Any]) -> Difference:
    return Difference(
        month=month,
        cause=cause,
        currency=row["currency"],
        provider=row["provider"],
        cost_class=row["cost_class"],
        team=row["initiator_team"],
        basis=row["basis"],
        old=row["old"],
        new=row["new"],
    )


def steps(
    books: Books, month: str, runs: tuple[str, str], grouping: Callable[[pl.LazyFrame], pl.DataFrame]
) -> list[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """From the old run's costs to the new one's: each cause with the costs before and after it, as `grouping` sums them."""
    from attribution.monitoring import replay

    inputs = [_inputs(books, run, month) for run in runs]
    run_costs = [grouping(books.store.scan(COSTS, {"month": [month], "run_id": [run]})) for run in runs]
    groups = replay.changed_groups(*inputs)
    replayed_costs = replay.intermediate_costs(books, month, *inputs) if len(groups) > 1 else []
    if replayed_costs is None or not groups:
        cause = " + ".join(CAUSES[name] for group in groups for name in group) or CAUSES["code"]
        return [(cause, run_costs[0], run_costs[1])]
    stations = [run_costs[0], *(grouping(frame.lazy()) for frame in replayed_costs), run_costs[1]]
    causes = [" + ".join(CAUSES[name] for name in group) for group in groups]
    return list(zip(causes, stations[:-1], stations[1:], strict=True))


def compare(books: Books, old_run: str, new_run: str, month: str | None = None) -> list[Difference]:
    """`differences` over every month that both runs computed, or over one."""
    months = [_run(books, run).months for run in (old_run, new_run)]
    common_months = [m for m in months[0] if m in months[1]]
    return [d for m in ([month] if month else common_months) for d in differences(books, m, old_run, new_run)]


def _run(books: Books, run_id: str) -> Run:
    with books.database.session() as session:
        run = session.get(Run, run_id)
    if run is None:
        raise UsageError(f"there is no run {run_id}", where="run", remedy="`rootcost runs` lists them")
    return run


def _inputs(books: Books, run_id: str, month: str) -> dict[str, str]:
    run = _run(books, run_id)
    if month not in run.months:
        raise UsageError(f"run {run_id} did not draw {month}", where="run", remedy="`rootcost runs` lists what each drew")
    return dict(run.inputs[month])


def _by_owner(costs: pl.LazyFrame) -> pl.DataFrame:
    return costs.group_by(_OWNER).agg(cost=pl.col("effective_cost").sum()).collect()


def _bill(books: Books, month: str, run: str) -> pl.DataFrame:
    totals = books.store.scan(BALANCE, {"invoice_month": [month], "run_id": [run]}).filter(
        pl.col("cost_column") == "effective_cost"
    )
    return totals.group_by("currency", "provider").agg(cost=pl.col("charges_in").sum()).collect()


def _join_sides(old: pl.DataFrame, new: pl.DataFrame, *, keys: list[str]) -> pl.DataFrame:
    zero = pl.lit(Decimal(0)).cast(MONEY)
    sides = [frame.rename({"cost": name}) for frame, name in ((old, "old"), (new, "new"))]
    comparison = sides[0].join(sides[1], on=keys, how="full", coalesce=True, nulls_equal=True)
    return comparison.with_columns(pl.col("old", "new").fill_null(zero)).sort(keys)
