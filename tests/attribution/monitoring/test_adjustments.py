"""A closed month stays as it was booked, and each new run of it books an adjustment by team and cause. (TI-3)"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from attribution.run import LIVE, attribute
from ledger import maintenance
from ledger.access.principals import OPERATOR, Grant, Principal
from ledger.books import Books
from ledger.closing import documents, states
from ledger.closing.lines import difference_of_lines, lines_of
from ledger.db import Run
from ledger.errors import DeniedError, UsageError
from ledger.periods import now
from ledger.published import runs_in_force
from ledger.settings import MaintenanceSettings
from ledger.tables import COSTS
from tests.attribution.monitoring.test_run_diff import KNOWN, LIST, SUPPORT, restate, share_support, use_more
from tests.attribution.test_rules import OWNERS, call, configure
from tests.support.books_by_hand import charge, charges, spans, write

D = Decimal
MONTH = "2026-10"
NETWORK = SUPPORT | {"provider_name": "Cloudnet", "service_name": "Network"}
ADA = Principal("user:1", "user", "ada", (Grant("finance"),))


@pytest.fixture
def closed_books(books: Books) -> Books:
    """Care used 1 000 and Dev 2 000 of 3 000 tokens at 0.009, and support of 12 is nobody's; the month is closed at this run."""
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN), call(2, 2, None, 2000, agent_name="coder", **KNOWN))
    write(books, spans=facts, charges=charges(charge("0.009", tokens_k="3"), charge("12", **SUPPORT)), owners=OWNERS, prices=LIST)
    attribute(books, cause=LIVE)
    close(books)
    return books


def close(books: Books) -> None:
    run_id = runs_in_force(books.database)[MONTH]
    lines = lines_of(books.store.scan(COSTS, {"month": [MONTH], "run_id": [run_id]}))
    with books.database.session() as session:
        states.close(session, MONTH, run_id, lines, OPERATOR, reason="", waived_items=())


def booked(books: Books, number: str) -> dict[str, dict[Any, Decimal]]:
    """Cause → team → effective cost of a document."""
    amounts: dict[str, dict[Any, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    with books.database.session() as session:
        for row in documents.document_lines(session, MONTH).iter_rows(named=True):
            if row["number"] == number:
                amounts[row["cause"]][row["team"]] += row["effective_cost"]
    return {cause: dict(teams) for cause, teams in amounts.items()}


def numbers(books: Books) -> list[tuple[str, str, str | None]]:
    with books.database.session() as session:
        return [(document.number, document.kind, document.adjusts) for document in documents.documents_of(session, MONTH)]


def require_sum(books: Books) -> None:
    """All documents together are the newest run, to the last digit, in every column."""
    newest = lines_of(books.store.scan(COSTS, {"month": [MONTH], "run_id": [runs_in_force(books.database)[MONTH]]}))
    with books.database.session() as session:
        difference = difference_of_lines(documents.booked_lines(session, MONTH), newest)
    assert difference.is_empty(), difference


def test_ti3_every_new_run_of_a_closed_month_books_an_adjustment_by_team_and_cause(closed_books: Books) -> None:
    assert booked(closed_books, f"{MONTH}-1") == {"close": {"Care": D("0.003"), "Dev": D("0.006"), None: D(12)}}
    restate(closed_books)
    attribute(closed_books, cause=LIVE)
    assert booked(closed_books, f"{MONTH}-2") == {"restated charge": {None: D("0.003")}}
    require_sum(closed_books)
    share_support(closed_books)
    attribute(closed_books, cause=LIVE)
    assert booked(closed_books, f"{MONTH}-3") == {"rule": {None: D(-12), "Care": D(4), "Dev": D(8)}}
    require_sum(closed_books)
    attribute(closed_books, cause=LIVE, force=True)  # the same costs again
    assert numbers(closed_books) == [
        (f"{MONTH}-1", "actual", None),
        (f"{MONTH}-2", "adjustment", f"{MONTH}-1"),
        (f"{MONTH}-3", "adjustment", f"{MONTH}-2"),
    ]


@pytest.mark.slow
def test_ti3_several_causes_are_told_apart_and_sum_to_the_newest_run(closed_books: Books) -> None:
    restate(closed_books)
    use_more(closed_books)
    attribute(closed_books)
    adjustment = booked(closed_books, f"{MONTH}-2")
    assert set(adjustment) == {"new usage", "restated charge"}
    require_sum(closed_books)


@pytest.mark.clock
def test_ti3_rows_of_booked_runs_are_kept_from_maintenance(closed_books: Books) -> None:
    configure(closed_books, maintenance=MaintenanceSettings(superseded_days=1))
    restate(closed_books)
    attribute(closed_books, cause=LIVE)
    share_support(closed_books)
    attribute(closed_books, cause=LIVE)
    with closed_books.database.session() as session:
        session.execute(sa.update(Run).values(finished_at=now() - timedelta(days=2)))
    maintenance.maintain(closed_books)
    with closed_books.database.session() as session:
        runs = [document.run_id for document in documents.documents_of(session, MONTH)]
    assert len(set(runs)) == 3
    for run_id in runs:
        assert not closed_books.store.scan(COSTS, {"run_id": [run_id]}).collect().is_empty(), run_id


def test_ti3_an_adjustment_is_right_although_rows_of_the_earlier_run_are_gone(closed_books: Books) -> None:
    closed_books.store.replace(COSTS, COSTS.empty(), {"month": MONTH, "run_id": runs_in_force(closed_books.database)[MONTH]})
    restate(closed_books)
    attribute(closed_books)
    assert booked(closed_books, f"{MONTH}-2") == {"restated charge": {None: D("0.003")}}
    require_sum(closed_books)


def test_ti3_opening_needs_a_second_person_and_closing_again_books_what_changed(closed_books: Books) -> None:
    def ask() -> None:
        with closed_books.database.session() as session:
            states.ask_to_reopen(session, MONTH, OPERATOR, "a bill came late")

    def decide(principal: Principal, *, approve: bool = True) -> None:
        with closed_books.database.session() as session:
            states.decide_to_reopen(session, MONTH, principal, approve=approve)

    with pytest.raises(UsageError, match="nobody has asked"):
        decide(ADA)
    ask()
    with pytest.raises(UsageError, match="has asked for it already"):
        ask()
    with pytest.raises(DeniedError, match="has asked for it"):
        decide(OPERATOR)
    decide(ADA, approve=False)
    assert documents.closed_months(closed_books.database).keys() == {MONTH}
    ask()
    decide(ADA)
    assert documents.closed_months(closed_books.database) == {}
    restate(closed_books)
    attribute(closed_books)
    assert len(numbers(closed_books)) == 1, "an open month has no adjustments"
    close(closed_books)
    assert booked(closed_books, f"{MONTH}-2") == {"close": {None: D("0.003")}}
    require_sum(closed_books)
    with pytest.raises(UsageError, match="is closed"):
        close(closed_books)


def test_ti3_what_no_column_tells_is_not_booked_as_zero(closed_books: Books) -> None:
    """A restated bill that no longer tells what was billed of support takes it back; what it never told stays unknown."""
    write(
        closed_books,
        charges=charges(charge("0.009", tokens_k="3"), charge("12", **SUPPORT), charge("5", billed_cost=None, **NETWORK)),
    )
    attribute(closed_books)
    with closed_books.database.session() as session:
        lines = documents.document_lines(session, MONTH).filter(number=f"{MONTH}-2")
    assert lines.select("billed_cost", "effective_cost").rows() == [(None, D(5))]
    require_sum(closed_books)
