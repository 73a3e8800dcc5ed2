"""The checklist before a close: what a month's figures stand on, what blocks, and what to do about it. (TI-3)"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import polars as pl

from api import queries
from api.models import PeriodCheck
from ledger import money
from ledger.closing.accounts import FILE_NAME, Accounts
from ledger.exchange_rates import Exchange, missing_rates
from ledger.periods import month_end, next_month, now
from ledger.plurals import counted
from ledger.settled_months import settled_months
from ledger.tables import BALANCE, CHARGES, COSTS, RATES, Table

if TYPE_CHECKING:
    from ledger.books import Books

MUST_PASS: Final = frozenset({"month_over", "attributed", "balance"})
"""Items that cannot be waived: without them there is nothing to close."""
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Month:
    """A month and its run in force, None if there is none. `is_due`: the run was computed from other facts than there are."""

    books: Books
    month: str
    run_id: str | None
    is_due: bool

    def rows(self, table: Table) -> pl.LazyFrame:
        """The rows of the run."""
        column = "invoice_month" if "invoice_month" in table.partition_by else "month"
        partition = {column: [self.month], "run_id": [self.run_id or ""]}
        return self.books.store.scan(table, partition) if self.run_id else table.empty().lazy()

    def sums(self, condition: pl.Expr, column: str = "effective_cost") -> dict[str, Decimal]:
        """The cost of rows by currency, without those that are nothing."""
        amounts = self.rows(COSTS).filter(condition).group_by("currency").agg(pl.col(column).sum()).sort("currency").collect()
        return {currency: amount for currency, amount in amounts.iter_rows() if amount}


def checklist(month: Month) -> list[PeriodCheck]:
    """Every item, in the order in which a close is worked through."""
    checks = [_month_over(month), _attributed(month)]
    if month.run_id is not None:
        checks += [
            *_bill(month),
            *_costs(month),
            _unclassified(month),
            _exchange_rates(month),
            _cost_centers(month),
            _statements(month),
        ]
    return checks


def _check(item: str, figure: str, remedy: str, *, is_met: bool, blocks: bool = True) -> PeriodCheck:
    return PeriodCheck(
        item=item,
        passed=is_met,
        blocks=blocks,
        waivable=item not in MUST_PASS,
        figure=figure,
        remedy="" if is_met else remedy,
    )


def _month_over(month: Month) -> PeriodCheck:
    """In UTC and in the reporting timezone, whichever is later."""
    zone = month.books.settings.report.timezone
    utc_end = month_end(month.month)
    end = max(utc_end, utc_end.replace(tzinfo=ZoneInfo(zone)))
    figure = f"ends {end.astimezone(ZoneInfo(zone)).isoformat()}"
    return _check("month_over", figure, "close it when it is over", is_met=end <= now())


def _attributed(month: Month) -> PeriodCheck:
    settled_month = settled_months(month.books.database).get(month.month)
    if month.run_id is None:
        figure = "no run is published"
    elif settled_month is not None:
        figure = f"run {month.run_id}; {settled_month}"
    else:
        figure = f"run {month.run_id}" + (", computed from other facts than there are" if month.is_due else "")
    is_current = month.run_id is not None and (settled_month is not None or not month.is_due)
    return _check(
        "attributed", figure, f"rootcost attribute --from {month.month} --to {next_month(month.month)}", is_met=is_current
    )


def _bill(month: Month) -> Iterator[PeriodCheck]:
    totals = month.rows(BALANCE).filter(pl.col("cost_column") == "billed_cost").collect()
    difference = sum((abs(amount) for amount in totals["difference"]), _NOTHING)
    yield _check(
        "balance",
        f"difference {money.text(difference)} over {counted(totals.height, 'total')}",
        "rootcost attribute: a run that does not balance is not published",
        is_met=difference == 0,
    )
    bill = month.books.store.scan(CHARGES, {"billing_month": [month.month]})
    charges, provisional = bill.select(pl.len(), (~pl.col("final")).sum().alias("provisional")).collect().row(0)
    yield _check(
        "bill_final",
        f"{provisional:,} of {counted(charges, 'charge')} provisional" if charges else "no bill",
        "read the final bill: rootcost ingest, then rootcost attribute",
        is_met=charges > 0 and not provisional,
    )
    without_invoice = month.sums((pl.col("basis") == "billed") & (pl.col("invoice_id").fill_null("") == ""), "billed_cost")
    yield _check(
        "invoice_ids",
        f"{_amounts(without_invoice)} without the number of an invoice",
        "a provider that issues invoices names them in its final bill; check that it is the one that was read",
        is_met=not without_invoice,
        blocks=False,
    )


def _costs(month: Month) -> Iterator[PeriodCheck]:
    estimates = month.sums(pl.col("basis") == "estimated")
    yield _check(
        "estimates",
        f"{_amounts(estimates)} estimated, on no bill",
        "read the bill that is missing; usage that no bill will ever hold is waived",
        is_met=not estimates,
    )
    unpriced_rows = month.rows(COSTS).filter(pl.col("effective_cost").is_null()).select(pl.len()).collect().item()
    yield _check(
        "unpriced",
        f"{counted(unpriced_rows, 'row')} of costs without an amount",
        "rootcost prices import a price list that has the models that rootcost problems names",
        is_met=not unpriced_rows,
    )
    central_costs, total = month.sums(pl.col("initiator_team").fill_null("") == ""), month.sums(pl.lit(value=True))
    limit = month.books.settings.close.unallocated_share
    yield _check(
        "unallocated",
        f"{_amounts(central_costs)} of {_amounts(total)} without a team, at most {money.text(limit * 100)} % may be",
        "register agents, or add a shared-cost rule: rootcost rules preview; or raise close.unallocated_share",
        is_met=all(abs(amount) <= limit * abs(total.get(currency, _NOTHING)) for currency, amount in central_costs.items()),
    )
    overlogged_pools = month.rows(RATES).filter(pl.col("flag").fill_null("").str.contains("overlogged")).select(pl.len())
    pools = overlogged_pools.collect().item()
    yield _check(
        "overlogged",
        f"{counted(pools, 'pool')} with more logged than billed",
        "rootcost evidence names them: a log read twice, or a bill that is not whole",
        is_met=not pools,
        blocks=False,
    )


def _unclassified(month: Month) -> PeriodCheck:
    """SKUs of AI services that no rule can read, whose cost nobody can meter."""
    from attribution.monitoring.unclassified import unclassified_skus

    rows = unclassified_skus(month.books, [month.month]).group_by("currency").agg(pl.col("cost").abs().sum()).sort("currency")
    costs = {currency: amount for currency, amount in rows.iter_rows() if amount}
    total, limit = month.sums(pl.lit(value=True)), month.books.settings.close.unallocated_share
    return _check(
        "unclassified",
        f"{_amounts(costs)} of SKUs that no rule can read",
        "rootcost unclassified lists them, and how to name one",
        is_met=all(amount <= limit * abs(total.get(currency, _NOTHING)) for currency, amount in costs.items()),
    )


def _cost_centers(month: Month) -> PeriodCheck:
    """Where journals are booked, every team has a cost center: what has none goes to the suspense account."""
    accounts = Accounts.if_there(month.books.home / FILE_NAME)
    if accounts is None:
        return _check("cost_centers", f"there is no {FILE_NAME}, and so no journal", "", is_met=True)
    is_booked = (pl.col("basis") == "billed") & (pl.col("billed_cost").fill_null(0) != 0)
    teams = month.rows(COSTS).filter(is_booked).select(pl.col("initiator_team").fill_null("")).unique().collect().to_series()
    missing = [team or "what has no team (no_team)" for team in teams.sort() if accounts.cost_center(team) is None]
    return _check(
        "cost_centers",
        f"{counted(len(missing), 'team')} without one" + (f": {', '.join(missing)}" if missing else ""),
        f"add them to [cost_centers] of {FILE_NAME}; otherwise they are booked to the suspense account {accounts.suspense}",
        is_met=not missing,
    )


def _statements(month: Month) -> PeriodCheck:
    """Whether teams have accepted their statements; one that is disputed is settled first."""
    rows = {row.team: row for row in queries.statements(queries.of_operator(month.books), month.month) if row.team}
    disputed_teams = sorted(team for team, row in rows.items() if row.answer == "disputed")
    accepted_count = sum(row.answer == "accepted" for row in rows.values())
    figure = f"{accepted_count} of {counted(len(rows), 'statement')} accepted"
    return _check(
        "statements",
        figure + (f"; disputed by {', '.join(disputed_teams)}" if disputed_teams else ""),
        "rootcost statement TEAM --month … is what a team accepts with --accept; settle a dispute, and let the team accept",
        is_met=accepted_count == len(rows),
        blocks=bool(disputed_teams),
    )


def _exchange_rates(month: Month) -> PeriodCheck:
    target = month.books.settings.report.currency
    days = month.rows(COSTS).select("currency", day=pl.col("period_start").dt.date()).unique().collect()
    gaps = missing_rates(days, target, Exchange.of(month.books)) if target else []
    figure = ", ".join(f"{currency}: {counted(number, 'day')} from {first}" for currency, first, number in gaps)
    return _check(
        "exchange_rates",
        f"into {target}: {figure or 'all known'}" if target else "no reporting currency is set",
        "rootcost exchange import",
        is_met=not gaps,
    )


def _amounts(sums: dict[str, Decimal]) -> str:
    return ", ".join(f"{money.text(amount)} {currency}" for currency, amount in sums.items()) or "nothing"
