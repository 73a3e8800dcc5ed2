"""What was booked of a month: the lines of its documents, as far as the principal sees them."""

from __future__ import annotations

from api.models import PeriodLineRow
from api.queries.gate import ScopedBooks
from ledger.closing.documents import document_lines
from ledger.periods import month_start


def period_lines(books: ScopedBooks, month: str) -> list[PeriodLineRow]:
    """The lines in the order in which they were booked; of a principal with teams, those of its teams."""
    month_start(month)
    with books.whole.database.session() as session:
        lines = document_lines(session, month).filter(books.is_own("team"))
    return [PeriodLineRow.model_validate(row) for row in lines.iter_rows(named=True)]
