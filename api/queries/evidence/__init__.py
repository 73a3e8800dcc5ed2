"""Evidence: how much of a month's money is proven by records, what the rest stands on, how emitters count, and findings with their money.

    evidence(books, month=None, basis="effective") -> Evidence
    evidence_table(books, "figure" | "emitters" | "findings", month=None, basis=…) -> DataFrame   a section of it, for files

`classes.csv` says what a reason, method, class, basis or reading lets money stand on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Basis
from api.models.evidence import EmitterRow, Evidence, EvidencePart, EvidenceRow, EvidenceSection, FindingRow
from api.queries.costs import CostQuery
from api.queries.evidence.classes import EVIDENCE
from api.queries.evidence.emitters import emitters
from api.queries.evidence.figure import AMOUNTS, COUNTS, by_decider
from api.queries.evidence.findings import findings
from api.queries.gate import WholeBooks, published
from api.queries.overview import bounds
from api.queries.publication import one_publication
from ledger import money
from ledger.published import PublishedMonth

ALL = "all"
"""The month that stands for all published months."""


@one_publication
def evidence(books: WholeBooks, *, month: str | None = None, basis: Basis = "effective") -> Evidence:
    """The evidence of an invoice month, by default the newest published one, or of all.

    The parts of a currency sum to its total, which is that of `costs` with the same month and basis. A month that is not published has
    no figure; findings of imports have no month, and are there before anything is published.
    """
    month, months = _months(books, month)
    zone = books.settings.report.timezone
    about: dict[str, Any] = {"months": [m.month for m in published(books)], "month": month, "basis": basis, "timezone": zone}
    finding_rows = findings(books, [m.month for m in months])
    about["findings"] = [FindingRow.model_validate(row) for row in finding_rows.iter_rows(named=True)]
    if not months:
        return Evidence(**about, totals={}, parts=[], rows=[], emitters=[])
    frame = by_decider(books, _query(books, month, basis))
    parts = _parts(frame)
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for part in parts:
        totals[part.currency] += part.cost
    return Evidence(
        **about,
        totals=dict(totals),
        parts=[part.model_copy(update={"percent": _percent(part.cost, totals[part.currency])}) for part in parts],
        rows=[EvidenceRow.model_validate(row) for row in frame.iter_rows(named=True)],
        emitters=[EmitterRow.model_validate(row) for row in emitters(books, months).iter_rows(named=True)],
    )


@one_publication
def evidence_table(
    books: WholeBooks, section: EvidenceSection, *, month: str | None = None, basis: Basis = "effective"
) -> pl.DataFrame:
    """A section as a table: the figure by what decides it, the emitters, or the findings."""
    month, months = _months(books, month)
    if section == "figure":
        return by_decider(books, _query(books, month, basis))
    return emitters(books, months) if section == "emitters" else findings(books, [m.month for m in months])


def _months(books: WholeBooks, month: str | None) -> tuple[str | None, Sequence[PublishedMonth]]:
    """The month asked for, and the published months it stands for."""
    months = published(books)
    if month == ALL:
        return ALL, months
    if month is None:
        return (months[-1].month, months[-1:]) if months else (None, [])
    bounds(month, books.settings.report.timezone)  # refuses what is no month
    return month, [m for m in months if m.month == month]


def _query(books: WholeBooks, month: str | None, basis: Basis) -> CostQuery:
    if month in (None, ALL):
        return CostQuery(basis=basis, calendar="invoice")
    _, start, end = bounds(str(month), books.settings.report.timezone)
    return CostQuery(start=start, end=end, basis=basis, calendar="invoice")


def _parts(frame: pl.DataFrame) -> list[EvidencePart]:
    """The four parts of each currency, strongest first, also those of 0."""
    sums = {
        (currency, name): rows
        for (currency, name), rows in frame.group_by("currency", "evidence")
        .agg(pl.col(*AMOUNTS, *COUNTS).sum())
        .rows_by_key(["currency", "evidence"], named=True, unique=True)
        .items()
    }
    nothing = dict.fromkeys(AMOUNTS, Decimal(0)) | dict.fromkeys(COUNTS, 0)
    return [
        EvidencePart(evidence=name, currency=currency, percent=None, **sums.get((currency, name), nothing))
        for currency in sorted(frame["currency"].unique())
        for name in EVIDENCE
    ]


def _percent(part: Decimal, whole: Decimal) -> Decimal | None:
    return money.proportion(Decimal(100), part, whole) if whole else None


__all__ = ["ALL", "evidence", "evidence_table"]
