"""Statements: what a month books to a team, from the documents of a closed month or from the newest run of another one.

statement(books, team, month) -> Statement       one team; "" is what no team has
statements(books, month) -> list[StatementRow]   all of them; together they are the invoices
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, Self

import polars as pl

from api import models
from api.queries.comparisons import ComparisonQuery, comparison, items_of
from api.queries.costs import CostQuery, balance, costs, parse_month
from api.queries.gate import WHOLE, ScopedBooks, WholeBooks, published, scan_runs
from api.queries.publication import months_of_answer, one_publication, pinned_runs
from ledger.audit import canonical
from ledger.closing.acceptance import answer_statement as record_answer
from ledger.closing.acceptance import answers
from ledger.closing.accounts import FILE_NAME, Accounts
from ledger.closing.cents import BookedLine, booked_cents, rounded, smallest_unit
from ledger.closing.documents import document_lines, documents_of
from ledger.closing.lines import lines_of
from ledger.errors import ObjectMissingError, UsageError
from ledger.money import proportion, quantize, text
from ledger.period_tables import AccountingPeriod, PeriodDocument
from ledger.periods import month_end, month_start, now, previous_month
from ledger.tables import COSTS
from ledger.version import product_version

_ZERO: Final = Decimal(0)
_POOL_KEYS: Final = ("currency", "provider", "service", "rule")


@dataclass(frozen=True, slots=True)
class _Month:
    """What is booked of a month, or will be: documents, oldest first, and their lines in cents."""

    month: str
    run_id: str
    made_at: datetime
    made_by: str
    documents: tuple[PeriodDocument, ...]
    lines: tuple[BookedLine, ...]
    state: Literal["provisional", "closed"]

    @classmethod
    def of(cls, books: ScopedBooks, month: str) -> Self | None:
        """A month; None where nothing is known of it."""
        with books.whole.database.session() as session:
            period = session.get(AccountingPeriod, month)
            documents = documents_of(session, month) if period is not None and period.closed_at is not None else []
            lines = document_lines(session, month)
        if documents:
            newest = documents[-1]
            return cls(
                month, newest.run_id, newest.made_at, newest.made_by, tuple(documents), tuple(booked_cents(lines)), "closed"
            )
        in_force = next((one for one in months_of_answer(books.whole.database) if one.month == month), None)
        if in_force is None:
            return None
        # Cents are divided among all teams, so all rows are read.
        rows = lines_of(scan_runs(books, COSTS, [in_force], WHOLE))
        lines = rows.with_columns(number=pl.lit(f"{month}-0"), cause=pl.lit("provisional"))
        return cls(month, in_force.run_id, in_force.published_at, "", (), tuple(booked_cents(lines)), "provisional")

    @property
    def number(self) -> str:
        """The number of the newest document."""
        return self.documents[-1].number if self.documents else f"{self.month}-0"

    def of_team(self, team: str) -> list[BookedLine]:
        """The lines of a team, "" for those of none."""
        return [line for line in self.lines if line.team == team]


@one_publication
def statement(books: ScopedBooks, team: str, month: str) -> models.Statement:
    """What a month books to a team; "" is what no team has, which only those see who see the whole.

    Raises `ObjectMissingError` for a month that is not attributed, and for a team that it books nothing to or the principal does not see.
    """
    parse_month(month)
    booked_month, month_before = _Month.of(books, month), _Month.of(books, previous_month(month))
    accounts = Accounts.if_there(books.whole.home / FILE_NAME)
    known_months = [one for one in (month_before, booked_month) if one is not None]
    with pinned_runs(books.whole.database, {one.month: one.run_id for one in known_months}):
        query = CostQuery.parse(
            by="agent", start=month, end=f"{month_end(month):%Y-%m}", basis="billed", filters=[f"team={team}"],
            timezone=books.settings.report.timezone,
        )  # fmt: skip
        if booked_month is None or not books.owns(team or None) or not _is_there(books, query, booked_month, team):
            raise ObjectMissingError(
                f"{month} has no statement of {team or 'what no team has'}", where="team",
                remedy=f"rootcost statement --all --month {month} makes those that there are",
            )  # fmt: skip
        content = _statement(books, query, booked_month, month_before, team, accounts)
    fields = content.model_dump(mode="json", exclude={"sha256"})
    return content.model_copy(update={"sha256": hashlib.sha256(canonical(fields)).hexdigest()})


@one_publication
def statements(books: ScopedBooks, month: str) -> list[models.StatementRow]:
    """The statements of a month that the principal may see, by team; what no team has comes last."""
    parse_month(month)
    booked_month = _Month.of(books, month)
    if booked_month is None:
        return []
    sums: defaultdict[tuple[str, str], list[Decimal]] = defaultdict(lambda: [_ZERO, _ZERO])
    for line in booked_month.lines:
        if books.owns(line.team or None):
            amounts = sums[line.team, line.currency]
            amounts[0] += line.amount
            amounts[1] += line.exact_amount
    by_team: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for (team, currency), (amount, _) in sums.items():
        by_team[team][currency] = text(amount) or "0"
    with books.whole.database.session() as session:
        found_answers = answers(session, [_number(booked_month, team) for team in by_team])
    valid_answers = {
        team: asdict(answer)
        for team, amounts_of_team in by_team.items()
        if (answer := found_answers.get(_number(booked_month, team))) is not None and answer.booked == amounts_of_team
    }
    for fields in valid_answers.values():
        del fields["booked"]
    return [
        models.StatementRow(
            **valid_answers.get(team, {}),
            team=team,
            number=_number(booked_month, team),
            state=booked_month.state,
            currency=currency,
            booked=amount,
            exact=exact,
        )
        for (team, currency), (amount, exact) in sorted(sums.items(), key=lambda item: (not item[0][0], item[0]))
    ]


def answer_statement(books: ScopedBooks, terms: models.NewStatementAnswer) -> models.StatementRow:
    """Notes a team's answer to its statement. Raises `UsageError` if it has changed since it was read, or a dispute has no note or comes too late."""
    document = statement(books, terms.team, terms.month)
    if terms.sha256 and terms.sha256 != document.sha256:
        raise UsageError("the statement has changed since it was read", where="sha256", remedy="read it again, and answer that")
    if terms.answer == "disputed" and not terms.note.strip():
        raise UsageError("a dispute needs a reason", where="note", remedy="say what is wrong, for who answers it")
    if terms.answer == "disputed" and document.dispute_until is not None and now().date() > document.dispute_until:
        raise UsageError(
            f"disputes were taken until {document.dispute_until}", where=document.number,
            remedy=f"write to {document.contact or 'whoever closes the books'}",
        )  # fmt: skip
    with books.whole.database.session() as session:
        record_answer(
            session,
            document.number,
            terms.answer,
            actor=books.principal.id,
            amounts={total.currency: text(total.booked) or "0" for total in document.totals if total.booked or total.exact},
            sha256=document.sha256,
            note=terms.note,
        )
    return next(row for row in statements(books, terms.month) if row.team == terms.team)


@one_publication
def statement_control(books: WholeBooks, month: str) -> list[models.StatementControl]:
    """Whether the statements of a month come to the bill of the run that they are of, and to the invoices."""
    parse_month(month)
    booked_month = _Month.of(books, month)
    if booked_month is None:
        return []
    exact, amounts = defaultdict[tuple[str, str], Decimal](Decimal), defaultdict[tuple[str, str], Decimal](Decimal)
    invoices: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for line in booked_month.lines:
        exact[line.currency, line.provider] += line.exact_amount
        amounts[line.currency, line.provider] += line.amount
        invoices[line.currency, line.provider, line.invoice_id] += line.exact_amount
    with pinned_runs(books.whole.database, {month: booked_month.run_id}):
        totals = balance(books, [month]).filter(pl.col("cost_column") == "billed_cost")
    charges_in = {(row["currency"], row["provider"]): row["charges_in"] or _ZERO for row in totals.iter_rows(named=True)}
    return [
        models.StatementControl(
            currency=key[0],
            provider=key[1],
            exact=exact[key],
            charges_in=charges_in.get(key, _ZERO),
            difference=exact[key] - charges_in.get(key, _ZERO),
            booked=amounts[key],
            invoices=sum(
                (rounded(amount, smallest_unit(key[0])) for invoice, amount in invoices.items() if invoice[:2] == key), _ZERO
            ),
        )
        for key in sorted(exact.keys() | charges_in.keys())
    ]


def _number(month: _Month, team: str) -> str:
    return f"{month.number}/{team or '-'}"


def _is_there(books: ScopedBooks, query: CostQuery, month: _Month, team: str) -> bool:
    return bool(month.of_team(team)) or not costs(books, query).is_empty()


def _statement(
    books: ScopedBooks, query: CostQuery, month: _Month, before: _Month | None, team: str, accounts: Accounts | None
) -> models.Statement:
    lines = list(_lines(month, team))
    documents = [document.number for document in month.documents]
    cost_center = accounts.cost_center(team) if accounts else None
    currencies = sorted({line.currency for line in lines})
    runs = {one.month: one.run_id for one in (before, month) if one is not None}
    return models.Statement(
        number=_number(month, team),
        revision=len(documents),
        kind="chargeback" if cost_center else "showback",
        state=month.state,
        company=accounts.company if accounts else "",
        team=team,
        cost_center=cost_center,
        journals=[f"RC-{number}-{currency}" for number in documents for currency in currencies],
        month=month.month,
        period_start=month_start(month.month).date(),
        period_end=(month_end(month.month) - timedelta(days=1)).date(),
        made_at=month.made_at,
        made_by=month.made_by,
        contact=accounts.contact if accounts else "",
        dispute_until=(month.made_at + timedelta(days=accounts.dispute_days if accounts else 14)).date() if documents else None,
        totals=list(_totals(books, query, lines, before)),
        lines=lines,
        changes=list(_changes(books, month.month, before, team)),
        pools=list(_pools(books, query, month)),
        agents=list(_agents(books, query)),
        terms=models.StatementTerms(
            team=team, month=month.month, runs=runs, documents=documents, lines=len(lines), version=product_version()
        ),
    )


def _lines(month: _Month, team: str) -> Iterator[models.StatementLine]:
    documents = {document.number: document for document in month.documents}
    for line in month.of_team(team):
        document = documents.get(line.number)
        yield models.StatementLine(
            document=line.number,
            kind="provisional" if document is None else document.kind,
            adjusts=None if document is None else document.adjusts,
            booked=line.amount,
            exact=quantize(line.exact_amount),
            rounding=quantize(line.difference),
            **{name: getattr(line, name) for name in ("cause", "currency", "provider", "invoice_id", "cost_class")},
        )


def _totals(
    books: ScopedBooks, query: CostQuery, lines: Sequence[models.StatementLine], before: _Month | None
) -> Iterator[models.StatementTotal]:
    effective = {row["currency"]: row for row in costs(books, replace(query, basis="effective", by=("currency",))).to_dicts()}
    previous: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in before.of_team(query.filters["team"][0]) if before else ():
        previous[line.currency] += line.exact_amount
    for currency in sorted({line.currency for line in lines} | effective.keys() | previous.keys()):
        own_lines = [line for line in lines if line.currency == currency]
        amount, exact = (sum((getattr(line, name) for line in own_lines), _ZERO) for name in ("booked", "exact"))
        yield models.StatementTotal(
            currency=currency,
            booked=amount,
            exact=exact,
            rounding=amount - exact,
            adjustments=sum((line.booked for line in own_lines if line.kind == "adjustment"), _ZERO),
            effective=effective.get(currency, {}).get("cost") or _ZERO,
            estimated=effective.get(currency, {}).get("cost_estimated") or _ZERO,
            previous=previous[currency] if before else None,
            change=exact - previous[currency] if before else None,
        )


def _changes(books: ScopedBooks, month: str, before: _Month | None, team: str) -> Iterator[models.StatementChange]:
    if before is None:
        return
    query = ComparisonQuery.parse(
        before.month, month, by="currency", basis="billed", filters=[f"team={team}"], timezone=books.settings.report.timezone
    )
    for currency, effect, amount in comparison(books, query).iter_rows():
        yield models.StatementChange(currency=currency, effect=effect, exact=amount)


def _pools(books: ScopedBooks, query: CostQuery, month: _Month) -> Iterator[models.StatementPool]:
    """The pools that the team has a share of. What others pay is in the sum of the pool only."""
    months = [one for one in published(books) if one.month == month.month]
    rows = scan_runs(books, COSTS, months, WHOLE).filter(pl.col("cost_class") == "shared", pl.col("basis") == "billed")
    team = query.filters["team"][0]
    is_own = pl.col("initiator_team") == team if team else pl.col("initiator_team").is_null()
    amount = pl.col("billed_cost")
    pools = rows.group_by(_POOL_KEYS).agg(
        amount.sum().alias("pool"), amount.filter(is_own).sum().alias("own"), own_rows=is_own.sum()
    )
    for row in pools.filter(pl.col("own_rows") > 0).sort(_POOL_KEYS).collect().iter_rows(named=True):
        names = {name: row[name] or "" for name in _POOL_KEYS}
        yield models.StatementPool(**names, pool=row["pool"], own=row["own"])


def _agents(books: ScopedBooks, query: CostQuery) -> Iterator[models.StatementAgent]:
    rows = items_of(books, query)
    is_used = pl.col("attempts") > 0
    calls = rows.unique([name for name in rows.columns if name not in ("meter", "quantity", "cost", "retries")])
    sums = (
        rows.group_by("by_0", "currency")
        .agg(exact=pl.col("cost").sum(), used=pl.col("cost").filter(is_used).sum())
        .join(calls.group_by("by_0", "currency").agg(calls=pl.col("attempts").sum()), on=["by_0", "currency"], nulls_equal=True)
        .sort(["exact", "currency", "by_0"], descending=[True, False, False], nulls_last=True)
    )
    for row in sums.iter_rows(named=True):
        per_call = proportion(row["used"], Decimal(1), Decimal(row["calls"])) if row["calls"] else None
        yield models.StatementAgent(
            agent=row["by_0"] or "", currency=row["currency"], exact=row["exact"], calls=row["calls"], per_call=per_call
        )
