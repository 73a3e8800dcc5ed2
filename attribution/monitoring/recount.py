"""Control totals of published months, summed again from charges and costs as they are stored. (MO-2)"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from attribution.costs import balance
from attribution.costs.sink import CostTotals
from attribution.monitoring import late_facts
from ledger.books import Books
from ledger.problems import Problem
from ledger.published import inputs_in_force, published_months
from ledger.settled_months import settled_months
from ledger.tables import BALANCE, CHARGES, COSTS, IMPORT_TOTALS


@dataclass(frozen=True, slots=True)
class MonthRecount:
    """A published month: what differs from its control totals; `bill_changed`: its bill was restated since, so only costs compare.

    `settled` says since when and by what facts are removed: its costs are held against the control totals, and what came later is told.
    """

    month: str
    bill_changed: bool
    problems: tuple[Problem, ...]
    settled: str = ""


def recount(books: Books, *, source: str) -> Iterator[MonthRecount]:
    """Sums every published month again. Problems are filed under `source`."""
    inputs, settled_by_month = inputs_in_force(books.database), settled_months(books.database)
    for published_month in published_months(books.database):
        month, run_id = published_month.month, published_month.run_id
        costs = books.store.scan(COSTS, {"month": [month], "run_id": [run_id]}).collect()
        charges = books.store.scan(CHARGES, {"billing_month": [month]})
        imports = books.store.scan(IMPORT_TOTALS, {"billing_month": [month]})
        bill_changed = books.store.fingerprint(CHARGES, {"billing_month": [month]}) != inputs.get(month, {}).get("charges")
        totals = balance.control_totals(charges, CostTotals.of(costs).sums, imports, run_id=run_id, month=month)
        stored_totals = books.store.scan(BALANCE, {"invoice_month": [month], "run_id": [run_id]}).collect()
        problems = list(_differences(stored_totals, totals, month, source, with_charges=not bill_changed))
        if (settled_month := settled_by_month.get(month)) is None:
            yield MonthRecount(month, bill_changed, tuple(problems))
        else:
            problems += late_facts.late_facts(books.store, settled_month, source=source)
            yield MonthRecount(
                month, bill_changed and settled_month.removal_of(CHARGES.name) is None, tuple(problems), str(settled_month)
            )


def _differences(
    stored_totals: pl.DataFrame, totals: pl.DataFrame, month: str, source: str, *, with_charges: bool
) -> Iterator[Problem]:
    keys = ["currency", "provider", "cost_column"]
    columns = ["metered", "owner", "shared", "idle", "unallocated", *(["charges_in", "difference"] if with_charges else [])]
    both_totals = stored_totals.join(totals, on=keys, how="full", coalesce=True, suffix="_again")
    for row in both_totals.sort(keys).iter_rows(named=True):
        for column in columns:
            before, after = row[column], row[f"{column}_again"]
            # Without the bill it is not known which classes have no amount, and which have 0.
            differs = before != after if with_charges else before is not None and before != (after or 0)
            if differs:
                yield Problem(
                    source,
                    f"month/{month}",
                    " ".join(str(row[key]) for key in keys),
                    column,
                    f"the control total is {before} and the stored rows sum to {after}",
                    "run rootcost attribute --again; if the bill's side differs, ingest the bill again first",
                )
