"""Budgets as code: a plan says what would change, applying twice changes nothing, and what others changed is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.books import Books
from ledger.budgets import as_code, revisions
from ledger.budgets.as_code import Step
from ledger.budgets.revisions import Change
from ledger.budgets.status import budgets_in_force
from ledger.budgets.terms import terms_of
from ledger.errors import RootCostError, UsageError

COMPANY = """\
budgets:
  - name: care
    parent: company
    scopes: {team: Care, environment: production}
    amount: 1500.50
    currency: USD
    thresholds: [0.5, 1]
  - name: company
    scopes:
      organisation: Acme
    amount: 20_000
    currency: USD
    enforcement: hard
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "budgets.yaml"
    path.write_text(COMPANY)
    return path


def planned(books: Books, file: Path) -> list[Step]:
    return [step for step in as_code.plan(books, as_code.read_file(file, "UTC")) if step.kind != "same"]


def apply(books: Books, file: Path) -> list[Step]:
    return as_code.apply(books, as_code.read_file(file, "UTC"), actor="test", reason="quarter")


def test_a_file_is_planned_applied_and_then_in_force(books: Books, file: Path) -> None:
    assert [(step.kind, step.name) for step in planned(books, file)] == [("add", "care"), ("add", "company")]
    assert budgets_in_force(books) == [], "a plan changes nothing"
    apply(books, file)
    care, company = budgets_in_force(books)
    assert (str(care.newest.amount), care.newest.thresholds, care.newest.reason) == ("1500.50", ["0.5", "1"], "quarter")
    assert (care.newest.parent_id, company.newest.enforcement) == (company.budget.budget_id, "hard")
    assert planned(books, file) == []
    assert {step.kind for step in apply(books, file)} == {"same"}
    assert [candidate.newest.revision for candidate in budgets_in_force(books)] == [1, 1]


def test_a_change_outside_of_the_file_is_told_and_undone(books: Books, file: Path) -> None:
    apply(books, file)
    with books.database.session() as session:
        budget = revisions.require(session, "care")
        terms = terms_of(revisions.newest(session, budget)).model_copy(update={"amount": 1800})
        revisions.revise(session, budget, terms, Change("user:7", "holidays"))
    (step,) = planned(books, file)
    assert (step.kind, step.differences) == ("change", [("amount", "1800", "1500.5")])
    assert step.drift.startswith("changed outside of the file by user:7 on ")
    assert step.drift.endswith(": holidays")
    apply(books, file)
    assert planned(books, file) == []


def test_only_budgets_of_a_file_are_ended_and_an_id_survives_a_rename(books: Books, file: Path) -> None:
    apply(books, file)
    with books.database.session() as session:
        revisions.add(
            session,
            terms_of(budgets_in_force(books)[0].newest).model_copy(update={"name": "by hand", "parent_id": None}),
            Change("test"),
        )
    care_id = budgets_in_force(books)[1].budget.budget_id
    file.write_text(f"budgets:\n- {{name: support, id: {care_id}, scopes: {{team: Care}}, amount: 5, currency: USD}}\n")
    steps = {step.name: step for step in planned(books, file)}
    assert {name: step.kind for name, step in steps.items()} == {"care": "change", "company": "end"}
    assert ("name", "care", "support") in steps["care"].differences
    apply(books, file)
    assert [(c.budget.name, c.budget.budget_id == care_id) for c in budgets_in_force(books)] == [
        ("by hand", False),
        ("support", True),
    ]


def test_what_is_exported_is_in_force(books: Books, file: Path, tmp_path: Path) -> None:
    apply(books, file)
    copy = tmp_path / "copy.yaml"
    copy.write_text(as_code.export(books))
    assert planned(books, copy) == []


def test_all_of_a_file_is_applied_or_nothing(books: Books, file: Path) -> None:
    file.write_text(COMPANY.replace("20_000", "1000"))
    with pytest.raises(UsageError, match=r"care has 1,500\.50, and its parent company only 1,000\.00 USD"):
        apply(books, file)
    assert budgets_in_force(books) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "budgets.yaml: has no list `budgets`"),
        ("budgets: [", "budgets.yaml, line 1: not valid YAML"),
        ("budgets: []\nother: 1\n", "'other' means nothing here"),
        ("budgets:\n- care\n", "budget 1: is no budget"),
        ("budgets:\n- name: a\n  name: b\n", "line 2: not valid YAML: name stands twice"),
        ("budgets:\n- {name: a, amount: 5, scopes: {}}\n", "line 2: scopes: a budget on nobody"),
        ("budgets:\n- {name: a, amount: -5, scopes: {team: T}}\n", "line 2: amount: -5 is no limit"),
        ("budgets:\n- {name: a, amount: 5, scopes: {team: T}, colour: red}\n", "line 2: colour: "),
        ("budgets:\n- {name: a, amount: 5, scopes: {colour: red}}\n", "line 2: scopes.colour"),
        ("budgets:\n- {name: a, amount: 5, scopes: {team: T}, parent: x}\n", "line 2: parent: its parent x is no budget"),
        ("budgets:\n" + "- {name: a, amount: 5, scopes: {team: T}}\n" * 2, "line 2: a stands twice"),
        ("budgets:\n- {name: a, id: bud-0, amount: 5, scopes: {team: T}}\n", "no budget in force has the id bud-0"),
        (
            "budgets:\n- {name: a, parent: b, amount: 5, scopes: {team: T}}\n- {name: b, parent: a, amount: 5, scopes: {team: T}}\n",
            "budgets are parts of each other: a, b",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_its_line(books: Books, file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(RootCostError) as error:
        apply(books, file)
    assert sentence in str(error.value)
