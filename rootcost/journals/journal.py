"""The canonical journal: what a month's documents book to accounts and cost centers. It always balances.

A cost is a debit of an expense account, a credit or refund a credit of the same account, never a negative debit. A team without a cost center is booked
to the suspense account, and is named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal

from ledger.closing.accounts import Accounts
from ledger.closing.cents import BookedLine
from ledger.periods import month_end


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """A line: exactly one of debit and credit is set."""

    account: str
    cost_center: str
    amount: Decimal
    team: str
    provider: str
    invoice_id: str
    text: str

    @property
    def debit(self) -> Decimal | None:
        """The amount of a debit."""
        return self.amount if self.amount > 0 else None

    @property
    def credit(self) -> Decimal | None:
        """The amount of a credit, without a sign."""
        return -self.amount if self.amount < 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A journal of one currency, dated; its lines sum to zero."""

    number: str
    kind: str
    posting_date: date
    month: str
    currency: str
    run_id: str
    reverses: str
    lines: tuple[JournalLine, ...]

    def reversal(self) -> Journal:
        """The journal that takes an accrual back on the first day of the next month."""
        return replace(
            self,
            number=f"{self.number}-R",
            kind="reversal",
            posting_date=month_end(self.month).date(),
            reverses=self.number,
            lines=tuple(replace(line, amount=-line.amount) for line in self.lines),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A document that is booked: its number and kind, its run, and its day."""

    number: str
    kind: str
    month: str
    run_id: str
    posting_date: date


def last_day(month: str) -> date:
    """The day on which what belongs to a month is booked.

    >>> last_day("2028-02").isoformat()
    '2028-02-29'
    """
    return month_end(month).date() - timedelta(days=1)


def journals(booking: Booking, lines: Sequence[BookedLine], accounts: Accounts, *, max_lines: int = 0) -> Iterator[Journal]:
    """The journals of a document, one for each currency; several that balance each where one may have at most `max_lines` lines."""
    opposite_account = accounts.accrued if booking.kind == "accrual" else accounts.payable
    for currency in sorted({line.currency for line in lines}):
        costs = [_expense(booking, line, accounts) for line in lines if line.currency == currency and line.amount]
        parts = list(_parts(costs, max_lines))
        for place, part in enumerate(parts, 1):
            suffix = f"-{place}" if len(parts) > 1 else ""
            yield Journal(
                number=f"RC-{booking.number}-{currency}{suffix}",
                kind=booking.kind,
                posting_date=booking.posting_date,
                month=booking.month,
                currency=currency,
                run_id=booking.run_id,
                reverses="",
                lines=(*part, *_opposites(booking, part, opposite_account)),
            )


def holes(lines: Sequence[BookedLine], accounts: Accounts) -> list[str]:
    """The teams without a cost center, "" for what has no team: they are booked to the suspense account."""
    return sorted({line.team for line in lines if line.amount and accounts.cost_center(line.team) is None})


def _expense(booking: Booking, line: BookedLine, accounts: Accounts) -> JournalLine:
    cost_center = accounts.cost_center(line.team)
    return JournalLine(
        account=accounts.suspense if cost_center is None else accounts.expense_account(line.provider),
        cost_center=cost_center or "",
        amount=line.amount,
        team=line.team,
        provider=line.provider,
        invoice_id=line.invoice_id,
        text=f"RootCost {booking.number} {line.team or 'no team'}, {line.cost_class}, {line.cause}; run {booking.run_id}",
    )


def _opposites(booking: Booking, costs: Sequence[JournalLine], account: str) -> Iterator[JournalLine]:
    """What is owed for these costs, by invoice; an invoice that comes to nothing has no line."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in costs:
        sums[line.provider, line.invoice_id] += line.amount
    for (provider, invoice_id), amount in sorted(sums.items()):
        if amount:
            text = f"RootCost {booking.number} {provider} {invoice_id or 'no invoice yet'}; run {booking.run_id}"
            yield JournalLine(
                account=account,
                cost_center="",
                amount=-amount,
                team="",
                provider=provider,
                invoice_id=invoice_id,
                text=text,
            )


def _parts(costs: Sequence[JournalLine], max_lines: int) -> Iterator[list[JournalLine]]:
    part: list[JournalLine] = []
    for line in costs:
        invoices = {(other.provider, other.invoice_id) for other in [*part, line]}
        if max_lines and part and len(part) + 1 + len(invoices) > max_lines:
            yield part
            part = []
        part.append(line)
    if part:
        yield part
