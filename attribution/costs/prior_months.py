"""Prior months: corrections and taxes of earlier invoices on this month's bill, and the costs published for those. (RA-5)

A correction may come months after its charge. It then follows the published costs of the earlier month, which are read here; months that
no correction concerns are not read at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import blake2b

import polars as pl

from attribution.classification import names
from attribution.costs.corrections import INHERITED, MATCHED_BY
from ledger import code
from ledger.books import Books
from ledger.db import Run
from ledger.periods import month_of, month_start
from ledger.published import runs_in_force
from ledger.store import Store
from ledger.tables import CHARGES, COST_COLUMNS, COSTS, LOTS, RATES

MAX_MONTHS = 24
"""How many months back a correction is followed. Providers correct for a year or so; a date of 1970 is an error."""

RATES_OF_MONTHS = 3
"""How many earlier months are searched for rates; the newest that has any counts. (ES-1)"""

_CORRECTION_COLUMNS = (
    "billing_currency",
    "provider_name",
    "billing_account_id",
    "service_name",
    "charge_category",
    "charge_period_start",
    "charge_period_end",
    "invoice_id",
)


class PriorMonths:
    """The earlier months as one run sees them: those it computed itself, and those in force.

    `computed` is filled by the run as it proceeds, oldest month first, so that a month uses the results that are about to be published with it.
    """

    def __init__(self, books: Books, run_id: str) -> None:
        self.store, self.database, self.run_id = books.store, books.database, run_id
        self.computed: set[str] = set()
        self._correction_rows: dict[str, pl.DataFrame] = {}

    def fingerprint(self, month: str, inputs: Mapping[str, Mapping[str, str]]) -> str:
        """Changes when the facts change that earlier months were computed from and this one depends on.

        `inputs` are those of the months this run looks at, oldest first; of others, those of their run in force. The code that computed them is
        left to `code`, so that an upgrade is one cause and not two.
        """
        facts = {
            m: {name: text for name, text in of.items() if name != "code"}
            for m, of in self._inputs_of_prior_months(month, inputs).items()
        }
        return _hash(facts) if facts else "none"

    def code(self, month: str, inputs: Mapping[str, Mapping[str, str]]) -> str:
        """The digest of this version's code, with that of the earlier months' code where another version computed them.

        A month that depends on a month that is rebuilt after it has other inputs than it was computed from, and is rebuilt too. (TI-2)
        """
        own = code.digest()
        codes = {m: of.get("code", "") for m, of in self._inputs_of_prior_months(month, inputs).items()}
        return own if set(codes.values()) <= {own} else f"{own}+{_hash(codes)}"

    def _inputs_of_prior_months(self, month: str, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """The inputs of each earlier month that this one depends on, oldest first."""
        run_ids = runs_in_force(self.database)
        months_before = sorted(m for m in {*run_ids, *inputs} if m < month)
        prior_months = {*corrected_months(self._corrections(month), month, months_before), *months_before[-RATES_OF_MONTHS:]}
        with self.database.session() as session:
            return {
                m: inputs[m] if m in inputs else (session.get_one(Run, run_ids[m]).inputs.get(m) or {})
                for m in sorted(prior_months)
            }

    def costs(self, month: str) -> pl.DataFrame:
        """The costs of earlier months that corrections on this month's bill follow."""
        runs = self._runs()
        correction_rows = self._corrections(month)
        return corrected_costs(self.store, {m: runs[m] for m in corrected_months(correction_rows, month, runs)}, correction_rows)

    def rates(self, month: str) -> pl.DataFrame:
        """The rates of the newest earlier month that has any: estimates use them where this bill has none. (ES-1)"""
        runs = self._runs()
        for past in sorted((m for m in runs if m < month), reverse=True)[:RATES_OF_MONTHS]:
            rates = self.store.scan(RATES, {"month": [past], "run_id": [runs[past]]}).collect()
            if rates.height:
                return rates
        return RATES.empty()

    def _corrections(self, month: str) -> pl.DataFrame:
        if month not in self._correction_rows:
            self._correction_rows[month] = corrections(self.store.scan(CHARGES, {"billing_month": [month]}), month)
        return self._correction_rows[month]

    def _runs(self) -> dict[str, str]:
        return runs_in_force(self.database) | dict.fromkeys(self.computed, self.run_id)


def _hash(facts: Mapping[str, object]) -> str:
    return blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


def corrections(charges: pl.LazyFrame, month: str) -> pl.DataFrame:
    """Rows of this bill that correct or tax earlier months: the distinct keys that earlier costs are found by.

    Corrections (credits, adjustments, corrections, negative rows) and taxes whose period begins before the month, and taxes of an invoice that
    no charge of this bill is on.
    """
    negative = pl.col("effective_cost").fill_null(0) + pl.col("billed_cost").fill_null(0) < 0
    corrects = pl.col("charge_category").is_in(["Credit", "Adjustment", "Tax"]) | pl.col("charge_class").is_not_null() | negative
    tax = pl.col("charge_category") == "Tax"
    before = charges.filter(pl.col("charge_period_start") < month_start(month), corrects)
    invoices = charges.filter(~tax & pl.col("invoice_id").is_not_null()).select("invoice_id").unique()
    foreign = charges.filter(tax, pl.col("invoice_id").is_not_null()).join(invoices, on="invoice_id", how="anti")
    return (
        pl.concat([before.select(_CORRECTION_COLUMNS), foreign.select(_CORRECTION_COLUMNS)])
        .unique()
        .sort(_CORRECTION_COLUMNS)
        .collect()
    )


def corrected_months(correction_rows: pl.DataFrame, month: str, months_in_force: Collection[str]) -> list[str]:
    """The months in force whose costs the correction rows may follow: from the first that is corrected up to this one.

    A charge may be on a later invoice than its period, so all months between are searched.
    """
    if not correction_rows.height:
        return []
    first = correction_rows["charge_period_start"].min()
    begin = month_of(first)  # type: ignore[arg-type]  # a datetime
    if correction_rows.filter(pl.col("charge_category") == "Tax").height:
        # The invoice that a tax names may be older than the period the tax states.
        begin = min(begin, month_of(month_start(month) - timedelta(days=366)))
    earlier = sorted((m for m in months_in_force if m < month), reverse=True)[:MAX_MONTHS]
    return sorted(m for m in earlier if m >= begin)


def corrected_costs(store: Store, runs: Mapping[str, str], correction_rows: pl.DataFrame) -> pl.DataFrame:
    """Costs of `runs` (month → run) that the correction rows could follow, with MATCHED_BY, INHERITED and the four cost columns.

    Only original charges: a row that itself followed another charge is left out, since a correction corrects a charge, and so is a tax, since no
    tax is taxed.
    """
    if not runs or not correction_rows.height:
        return pl.DataFrame()
    is_tax = pl.col("charge_category") == "Tax"
    taxes = correction_rows.filter(is_tax)
    payers = correction_rows.select(
        currency="billing_currency",
        provider=pl.Series([names.provider(p) for p in correction_rows["provider_name"]], dtype=pl.String),
        billing_account="billing_account_id",
    ).unique()
    # A tax without a payer is on any of them.
    payer_keys = ["currency", "provider", *(() if taxes["billing_account_id"].null_count() else ("billing_account",))]
    partitions = {"month": sorted(runs), "run_id": sorted(set(runs.values()))}
    spreads = taxes.height or correction_rows["service_name"].null_count()
    named_services = [] if spreads else correction_rows["service_name"].unique().to_list()
    first_start, last_end = correction_rows["charge_period_start"].min(), correction_rows["charge_period_end"].max()
    invoices = taxes["invoice_id"].drop_nulls().unique()
    instant = timedelta(microseconds=1)
    is_in_period = (pl.col("period_start") < last_end + instant) & (pl.col("period_end") > first_start)  # type: ignore[operator]  # datetimes
    costs = store.scan(COSTS, partitions).filter(
        pl.col("basis") == "billed",
        pl.col("rule") != "RA-5",
        is_tax.fill_null(value=False).not_(),
        is_in_period | pl.col("invoice_id").is_in(invoices.implode()),
    )
    if named_services:
        costs = costs.filter(pl.col("service").is_in(named_services))
    group_skus = store.scan(LOTS, partitions).select("month", "run_id", "lot_id", "sku_meter", "resource_id").collect()
    frame = (
        costs.with_columns(lot_id=pl.coalesce("lot_id", pl.col("lot_ids").list.first()))
        .join(payers.lazy(), on=payer_keys, how="semi", nulls_equal=True)
        .select("month", "run_id", "lot_id", *(c for c in MATCHED_BY if c in COSTS.schema), *INHERITED, *COST_COLUMNS)
        .collect()
    )
    return frame.join(group_skus, on=["month", "run_id", "lot_id"], how="left", maintain_order="left").select(
        *MATCHED_BY, *(c for c in INHERITED if c not in MATCHED_BY), *COST_COLUMNS
    )
