"""The limit in force on a chain: the revision when it started, and what earlier use had left of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from api import queries
from api.changes import add_budget, change_budget
from api.models import BudgetChange, ChainLimit, NewBudget
from api.queries import of_operator
from ledger.books import Books
from ledger.budget_tables import BudgetRevision
from tests.support.api_examples import CHAIN_1, write_worked_example

D = Decimal
BEFORE, AFTER = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("limits")) as home_books:
        write_worked_example(home_books)
        yield home_books


@pytest.fixture
def books(home: Books) -> Books:
    """The same books for all tests, without budgets."""
    with home.database.engine.begin() as connection:
        for table in ("budget_revisions", "budgets"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    return home


def budget(books: Books, name: str, recorded_at: datetime = BEFORE, **terms: Any) -> None:
    fields = {"name": name, "scopes": {"team": "Care"}, "amount": "1.00", "currency": "USD", "enforcement": "hard"} | terms
    row = add_budget(of_operator(books), NewBudget.model_validate(fields))
    of_budget = BudgetRevision.budget_id == row.budget_id
    with books.database.engine.begin() as connection:
        connection.execute(sa.update(BudgetRevision).where(of_budget).values(recorded_at=recorded_at))


def limits(books: Books) -> dict[str, ChainLimit]:
    return {limit.name: limit for limit in queries.chain(of_operator(books), CHAIN_1).limits}


def test_budgets_of_the_chains_names_count_with_what_was_left_before_it(books: Books) -> None:
    budget(books, "all", scopes={"organisation": "us"}, amount="5")
    budget(books, "care")
    budget(books, "each run", period="chain", amount="0.50")
    budget(books, "coder", scopes={"agent": "coder"})
    budget(books, "watched", enforcement="none")
    budget(books, "of another model", scopes={"team": "Care", "model": "gpt-none"})
    found_limits = limits(books)
    assert list(found_limits) == ["all", "care", "each run"]
    assert [limit.limit for limit in found_limits.values()] == [D(5), D(1), D("0.50")]
    assert found_limits["each run"].remaining == D("0.50")
    start = queries.chain(of_operator(books), CHAIN_1).chain.start_time
    spent = queries.budgets(of_operator(books), at=start)
    assert all(found_limits[row.name].remaining >= (row.left or 0) for row in spent if row.name in ("all", "care"))


def test_a_later_raise_and_a_budget_made_later_change_nothing(books: Books) -> None:
    budget(books, "care")
    budget(books, "made later", AFTER)
    change_budget(of_operator(books), "care", BudgetChange(amount=D(9)))
    assert [(limit.limit, limit.revision) for limit in limits(books).values()] == [(D(1), 1)]
