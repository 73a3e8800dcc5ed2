"""A cost column that a bill does not tell is null in costs, balance and reports, never 0. (MO-1b)"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from api import queries
from api.queries import of_operator
from attribution.costs.balance import control_totals, require_balanced
from attribution.run import attribute
from ledger.books import Books
from ledger.errors import BalanceError
from ledger.tables import COST_COLUMNS, COSTS
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import ROOT

D = Decimal
CASE = ROOT / "tests" / "data" / "cases" / "unknown-list-cost"
UNKNOWN: dict[str, Any] = {"list_cost": None}


def balance_of(books: Books, column: str) -> dict[str, tuple[Decimal | None, ...]]:
    """Charges in, metered, unallocated and difference of each provider."""
    frame = queries.balance(of_operator(books)).filter(pl.col("cost_column") == column)
    return {row[0]: row[1:] for row in frame.select("provider", "charges_in", "metered", "unallocated", "difference").rows()}


@pytest.mark.slow
def test_a_list_cost_that_no_row_tells_is_null_everywhere(home: Path) -> None:
    rootcost = Command(home)
    assert "list cost unknown" in rootcost("ingest", "gcp", CASE / "row.jsonl").out
    rootcost("attribute")
    (row,) = rootcost("costs", "--by", "service", "--basis", "list", "--format", "json").rows
    assert (row["cost"], row["omitted_rows"], row["omitted_cost"]) == (None, 1, "12.5")
    (row,) = rootcost("costs", "--by", "service", "--format", "json").rows
    assert row["cost"] == "12.5"
    (row,) = [row for row in rootcost("balance", "--format", "json").rows if row["cost_column"] == "list_cost"]
    assert (row["charges_in"], row["unallocated"], row["difference"]) == (None, None, "0")
    with Books.open(home) as books:
        assert books.store.scan(COSTS).collect()["list_cost"].to_list() == [None]


def test_unknown_cost_is_split_as_unknown_beside_cost_that_is_known(books: Books) -> None:
    """Two teams use 6 of 10 thousand tokens of a charge without a list cost; another provider's list cost is known."""
    used = [span(1, n, agent_name=agent, input_tokens=3000, **SONNET) for n, agent in ((1, "a"), (2, "b"))]
    bill = charges(
        charge("0.03", tokens_k="10", **UNKNOWN),
        charge("5", provider_name="Other", service_name="Storage", sku_meter="GB", consumed_unit="GB", resource_id="r"),
    )
    write(books, spans=spans(*used), charges=bill, owners="agent,team\na,A\nb,B\n")
    assert attribute(books).published
    costs = books.store.scan(COSTS).collect()
    aws = costs.filter(pl.col("provider") == "AWS")
    assert aws["list_cost"].null_count() == aws.height
    assert {team: D(str(cost)) for team, cost in aws.select("initiator_team", "effective_cost").rows()} == {
        "A": D("0.009"),
        "B": D("0.009"),
        None: D("0.012"),
    }
    assert balance_of(books, "list_cost") == {"AWS": (None, None, None, D(0)), "Other": (D(5), D(0), D(5), D(0))}
    assert balance_of(books, "billed_cost")["AWS"] == (D("0.03"), D("0.018"), D("0.012"), D(0))


def test_an_amount_of_a_column_that_the_bill_does_not_tell_does_not_balance() -> None:
    """A cost that comes from nowhere is refused, also where the bill is silent about its column."""
    bill = charges(charge("5", **UNKNOWN))
    costs = pl.DataFrame(
        [{"currency": "USD", "provider": "AWS", "basis": "billed", "cost_class": "owner", **dict.fromkeys(COST_COLUMNS, D(5))}],
        schema_overrides={c: COSTS.schema[c] for c in COST_COLUMNS},
    )
    imports = pl.LazyFrame(schema={"currency": pl.String, "provider": pl.String, "cost_column": pl.String, "rounding": pl.String})
    totals = control_totals(bill.lazy(), costs, imports, run_id="r", month="2026-10")
    with pytest.raises(BalanceError, match="list_cost USD -5"):
        require_balanced(totals)
    costs = costs.with_columns(list_cost=pl.lit(None, dtype=COSTS.schema["list_cost"]))
    require_balanced(control_totals(bill.lazy(), costs, imports, run_id="r", month="2026-10"))
