"""Why two runs of a month differ. (TI-2)

A run notes a fingerprint of each of its inputs; what changed between two runs is therefore known, and the money that moved is laid
to it: what the bill itself gained or lost to restated charges, what only changed hands to usage, registry, prices or rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from ledger.books import Books
from ledger.db import Run
from ledger.errors import UsageError
from ledger.tables import BALANCE, COSTS

CAUSES = {
    "charges": "restated charge",
    "beside": "charge of a neighbouring invoice",
    "spans": "new usage",
    "registry": "registry",
    "prices": "price",
    "rules": "rule",
}
"""Input of a run → the cause it is told by."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One movement of money between two runs: `moved` is new minus old effective cost of an owner, or of the bill itself."""

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
    """What moved from `old_run` to `new_run` in `month`, the bill first, then owner by owner; empty if they say the same.

    A cent of the bill that appears or goes is `restated charge`. An owner's movement is laid to every input that changed, joined by +.
    """
    inputs = [_inputs(books, run, month) for run in (old_run, new_run)]
    changed = [CAUSES[k] for k in CAUSES if inputs[0].get(k) != inputs[1].get(k)]
    keys = ["currency", "provider"]
    bill = _side_by_side(
        books, BALANCE, "invoice_month", month, old_run, new_run, keys, "charges_in", pl.col("cost_column") == "effective_cost"
    )
    out = [
        Difference(month, "restated charge", row["currency"], row["provider"], None, None, "billed", row["old"], row["new"])
        for row in bill.iter_rows(named=True)
        if row["old"] != row["new"]
    ]
    owners = _side_by_side(
        books,
        COSTS,
        "month",
        month,
        old_run,
        new_run,
        [*keys, "cost_class", "initiator_team", "basis"],
        "effective_cost",
        pl.lit(value=True),
    )
    for row in owners.iter_rows(named=True):
        if row["old"] != row["new"]:
            cause = " + ".join(changed) or "recipe"
            out.append(
                Difference(
                    month,
                    cause,
                    row["currency"],
                    row["provider"],
                    row["cost_class"],
                    row["initiator_team"],
                    row["basis"],
                    row["old"],
                    row["new"],
                )
            )
    return out


def compare(books: Books, old_run: str, new_run: str, month: str | None = None) -> list[Difference]:
    """`differences` over every month that both runs drew, or over one."""
    months = [_run(books, run).months for run in (old_run, new_run)]
    both = [m for m in months[0] if m in months[1]]
    return [d for m in ([month] if month else both) for d in differences(books, m, old_run, new_run)]


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


def _side_by_side(
    books: Books,
    table: object,
    partition: str,
    month: str,
    old_run: str,
    new_run: str,
    keys: list[str],
    column: str,
    which: pl.Expr,
) -> pl.DataFrame:
    from ledger.tables import Table

    assert isinstance(table, Table)
    sides = [
        books.store.scan(table, {partition: [month], "run_id": [run]})
        .filter(which)
        .group_by(keys)
        .agg(pl.col(column).sum().alias(name))
        .collect()
        for run, name in ((old_run, "old"), (new_run, "new"))
    ]
    zero = pl.lit(Decimal(0)).cast(table.schema[column])
    both = sides[0].join(sides[1], on=keys, how="full", coalesce=True, nulls_equal=True)
    return both.with_columns(pl.col("old", "new").fill_null(zero)).sort(keys)
