"""Reservations in the ledger's database: nothing is granted above a hard limit, whoever asks when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from api.changes import add_budget
from api.models import NewBudget
from api.queries import of_operator
from ledger.books import Books
from ledger.budgets import reservations
from ledger.budgets.holds import encumbered
from ledger.budgets.reservations import BudgetRefusedError, Request
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now
from ledger.reservation_tables import Reservation, ReservationLevel

D = Decimal


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("reservations")) as home_books:
        yield home_books


@pytest.fixture
def books(home: Books) -> Books:
    """The same books for all tests, without what the one before left."""
    with home.database.engine.begin() as connection:
        for table in ("reservation_levels", "reservations", "budget_revisions", "budgets"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    return home


def limit(books: Books, name: str, amount: str, **terms: Any) -> str:
    """A hard budget; returns its id."""
    fields = {"name": name, "scopes": {"team": "Care"}, "amount": D(amount), "currency": "USD", "enforcement": "hard"} | terms
    return str(add_budget(of_operator(books), NewBudget.model_validate(fields)).budget_id)


def ask(books: Books, name: str, amount: str, chain: str = "", seconds: int = 600, **scopes: str) -> Reservation:
    request = Request({"team": "Care"} | scopes, D(amount), "USD", seconds, name, chain)
    return reservations.reserve(books, request, "test")


def make_overdue(books: Books, name: str) -> None:
    with books.database.session() as session:
        session.execute(
            sa.update(Reservation).where(Reservation.reservation_id == name).values(deadline=now() - timedelta(seconds=1))
        )


@pytest.mark.clock
def test_all_levels_have_room_or_nothing_is_held(books: Books) -> None:
    company = limit(books, "company", "1.00", scopes={"organisation": "all"})
    care = limit(books, "care", "0.30")
    ask(books, "a", "0.20", agent="bot")
    with pytest.raises(BudgetRefusedError, match=r"budget care .* has USD 0.10 left of 0.30, and this asks for 0.20"):
        ask(books, "b", "0.20")
    assert encumbered(books, [company, care], now()) == {company: D("0.2"), care: D("0.2")}
    assert ask(books, "c", "0.10").state == "open"


def test_names_are_compared_whole_and_other_teams_are_not_concerned(books: Books) -> None:
    limit(books, "care", "0.01")
    for team in ("Care-search", "Dev"):
        assert ask(books, f"of-{team}", "5", team=team).state == "open"


@pytest.mark.clock
def test_the_same_request_again_changes_nothing(books: Books) -> None:
    care = limit(books, "care", "1")
    first = ask(books, "a", "0.6")
    assert ask(books, "a", "0.6").created_at == first.created_at
    for _ in range(2):
        assert reservations.commit(books, "a", D("0.5")).cost == D("0.5")
    assert reservations.commit(books, "a", D("0.4")).cost == D("0.5"), "the first commit is final"
    assert encumbered(books, [care], now()) == {}
    with pytest.raises(BudgetRefusedError, match=r"USD 0.50 left"):
        ask(books, "b", "0.6")


@pytest.mark.clock
def test_what_is_overdue_is_uncertain_counts_on_and_is_settled(books: Books) -> None:
    care = limit(books, "care", "1")
    ask(books, "a", "0.9")
    make_overdue(books, "a")
    assert [(row.reservation_id, row.state) for row in reservations.unfinished(books)] == [("a", "uncertain")]
    assert reservations.release(books, "a").state == "uncertain", "a late release frees nothing"
    with pytest.raises(BudgetRefusedError):
        ask(books, "b", "0.2")
    assert encumbered(books, [care], now()) == {care: D("0.9")}
    reservations.commit(books, "a", D("0.1"))
    assert reservations.unfinished(books) == []
    assert ask(books, "b", "0.9").state == "open"


def test_a_commit_above_its_hold_or_after_a_release_is_booked(books: Books) -> None:
    limit(books, "care", "1")
    ask(books, "a", "0.1")
    reservations.release(books, "a")
    assert reservations.commit(books, "a", D("0.7")).state == "committed"
    with pytest.raises(BudgetRefusedError, match=r"USD 0.30 left"):
        ask(books, "b", "0.31")


def test_each_chain_has_an_envelope_of_its_own(books: Books) -> None:
    limit(books, "run", "0.5", period="chain")
    ask(books, "a", "0.4", "chain-1")
    with pytest.raises(BudgetRefusedError, match="budget run"):
        ask(books, "b", "0.2", "chain-1")
    assert ask(books, "c", "0.4", "chain-2").state == "open"


@pytest.mark.clock
def test_advisory_budgets_refuse_nobody(books: Books) -> None:
    care = limit(books, "care", "0.01", enforcement="advisory")
    ask(books, "a", "5")
    assert encumbered(books, [care], now()) == {care: D(5)}


def test_of_many_callers_at_once_as_many_are_granted_as_fit(books: Books) -> None:
    limit(books, "care", "0.37")

    def attempt(number: int) -> bool:
        try:
            ask(books, f"call-{number}", "0.1" if number % 3 else "0.9")
        except BudgetRefusedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(12))) == 3
    with books.database.session() as session:
        assert session.scalar(sa.select(sa.func.sum(ReservationLevel.nanos))) == 300_000_000


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity"])
def test_what_cannot_be_held_is_refused(books: Books, amount: str) -> None:
    with pytest.raises(UsageError, match="cannot be held"):
        ask(books, "a", amount)
    with pytest.raises(UsageError, match="is no cost"):
        reservations.commit(books, "a", D(amount))


def test_a_reservation_that_is_not_there_is_missing(books: Books) -> None:
    with pytest.raises(ObjectMissingError, match="no such reservation"):
        reservations.commit(books, "x", D(1))
    with pytest.raises(ObjectMissingError, match="no such reservation"):
        reservations.release(books, "x")
