"""Facts are removed by retention or by the erasure of a period: the costs of their months stay, and what comes later is told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from attribution import removal
from attribution.monitoring.recount import recount
from attribution.removal import Period, erase_period, plan_erasure, remove_outdated
from attribution.run import attribute, months_due, preview
from ledger import erased_files
from ledger.audit import Audit
from ledger.audit_verify import verify_audit
from ledger.books import Books
from ledger.db import FactRemoval
from ledger.errors import UsageError
from ledger.published import runs_in_force
from ledger.settled_months import settled_months
from ledger.table_files import remove_rows
from ledger.tables import BALANCE, CALLS, CHAINS, CHARGES, COSTS, PROBLEMS, SPANS
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write

OCTOBER, NOVEMBER = "2026-10", "2026-11"
SECRET = "the salary is 90000"
AMOUNTS = ("billed_cost", "effective_cost", "list_cost", "contracted_cost", "quantity")


def at(month: int, day: int, hour: int = 10) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """October and November, published. November goes on from trace 9 of 10 October, and looks back at the last days before it."""
    home = tmp_path_factory.mktemp("removal") / "home"
    november_charge = {"charge_period_start": at(11, 5), "charge_period_end": at(11, 5, 11), "billing_month": NOVEMBER}
    october_bill = charges(charge("0.030000000001", tokens_k="10.0", raw_id="a" * 64))
    november_bill = charges(charge("0.020000000001", tokens_k="5.0", charge_id="n", **november_charge))
    facts = spans(
        span(1, 1, agent_name="support-bot", attributes=f'{{"gen_ai.prompt": "{SECRET}"}}'),
        span(1, 2, 1, input_tokens=7000, **SONNET),
        span(3, 5, agent_name="other", source="langfuse", start_time=at(10, 6)),
        span(3, 6, 5, input_tokens=1000, source="langfuse", start_time=at(10, 6), **SONNET),
        span(9, 9, agent_name="planner", start_time=at(10, 10)),
        span(4, 7, agent_name="coder", start_time=at(10, 31)),
        span(4, 8, 7, input_tokens=500, start_time=at(10, 31), **SONNET),
        span(2, 3, agent_name="worker", link=(9, 9), start_time=at(11, 5)),
        span(2, 4, 3, input_tokens=4000, start_time=at(11, 5), **SONNET),
    )
    with Books.open(home) as books:
        write(books, spans=facts, charges=pl.concat([october_bill, november_bill]), owners="agent,team\nplanner,Plan\n")
        attribute(books)
    (home / "raw" / "focus").mkdir(parents=True)
    (home / "raw" / "focus" / f"{'a' * 64}-bill.csv").write_text("bill")
    return home


@pytest.fixture
def books(two_months: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    home = Path(shutil.copytree(two_months, tmp_path / "home"))
    set_clock(monkeypatch, datetime(2027, 1, 15, tzinfo=UTC))
    with Books.open(home) as opened_books:
        yield with_retention(opened_books, spans_days=62, calls_days=62)


def set_clock(monkeypatch: pytest.MonkeyPatch, instant: datetime) -> None:
    monkeypatch.setattr(removal, "now", lambda: instant)


def with_retention(books: Books, **days: int) -> Books:
    maintenance = books.settings.maintenance.model_copy(update=days)
    books.settings = books.settings.model_copy(update={"maintenance": maintenance})
    return books


def costs_of(books: Books, month: str) -> pl.DataFrame:
    """The published costs of a month, whatever run they are of."""
    run_id = runs_in_force(books.database)[month]
    rows = books.store.scan(COSTS, {"month": [month], "run_id": [run_id]})
    return rows.select("initiator_agent", "initiator_team", "cost_class", "basis", "reason", *AMOUNTS).collect().sort(pl.all())


def traces_left(books: Books) -> list[int]:
    return sorted({int(text, 16) for text in books.store.scan(SPANS).select("trace_id").collect()["trace_id"]})


def test_retention_leaves_costs_as_they_are_and_what_the_next_month_needs(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {month: costs_of(books, month) for month in (OCTOBER, NOVEMBER)}
    assert set(before[NOVEMBER]["initiator_agent"]) == {None, "planner"}, "it descends from October"
    dry_report = remove_outdated(books, dry_run=True)
    report = remove_outdated(books)
    assert (report.settled, dry_report.rows) == ([OCTOBER], report.rows)
    assert report.rows == {"spans": 4, "calls": 3, "chains": 3}
    assert traces_left(books) == [2, 4, 9], "the last days, and the trace that November goes on from"
    assert books.store.scan(CALLS, {"month": [OCTOBER]}).collect().is_empty()
    assert set(settled_months(books.database)) == {OCTOBER}
    assert remove_outdated(books).rows == {}, "there is nothing more to remove"
    second_report = attribute(books, force=True)
    assert (second_report.settled, second_report.months) == ([OCTOBER], [NOVEMBER])
    for month, costs in before.items():
        assert costs_of(books, month).equals(costs), month
    october, november = recount(books, source="verify")
    assert (october.problems, november.problems) == ((), ())
    assert (october.settled, november.settled) == ("facts removed on 2027-01-15 by retention", "")
    assert verify_audit(books.database).damages == []
    with pytest.raises(UsageError, match="removed on 2027-01-15"):
        preview(books, OCTOBER, books.settings.attribution)
    set_clock(monkeypatch, datetime(2027, 2, 15, tzinfo=UTC))
    assert remove_outdated(books).settled == [NOVEMBER]
    assert traces_left(books) == []
    for month, costs in before.items():
        assert costs_of(books, month).equals(costs), month
    assert attribute(books).months == []


def test_what_comes_late_is_told_with_its_money_and_is_in_no_cost(books: Books) -> None:
    before = costs_of(books, OCTOBER)
    remove_outdated(books)
    write(books, charges=charges(charge("0.05", tokens_k="12.0")), spans=spans(span(8, 80, agent_name="late")))
    report = attribute(books)
    assert (report.settled, report.problems >= 2) == ([OCTOBER], True)
    assert costs_of(books, OCTOBER).equals(before)
    rows = books.store.scan(PROBLEMS).filter(uri=f"settled:{OCTOBER}").sort("field").collect()
    assert rows["cost"].to_list() == [Decimal("0.019999999999"), None]
    assert rows["rows"].to_list() == [1, 1]
    assert "differs by 0.019999999999 USD" in rows["reason"][0]
    assert "removed on 2027-01-15 by retention" in rows["reason"][0]
    october = next(month for month in recount(books, source="verify") if month.month == OCTOBER)
    assert [problem.severity for problem in october.problems] == ["warning", "warning"]
    assert october.bill_changed
    remove_outdated(books)  # which takes the late span, and leaves the bill
    attribute(books)
    rows = books.store.scan(PROBLEMS).filter(uri=f"settled:{OCTOBER}").collect()
    assert rows["cost"].to_list() == [Decimal("0.019999999999")]
    write(books, charges=charges(charge("0.030000000001", tokens_k="10.0")))  # the bill as it was
    attribute(books)
    assert books.store.scan(PROBLEMS).filter(uri=f"settled:{OCTOBER}").collect().is_empty()


def test_a_late_bill_of_a_month_that_is_not_settled_still_meets_the_usage_of_one_that_is(books: Books) -> None:
    remove_outdated(books)
    late_row = charge("0.007", tokens_k="0.5", charge_id="late", billing_month=NOVEMBER)
    late_row |= {"charge_period_start": at(10, 31), "charge_period_end": at(10, 31, 11), "scope": "late"}
    write(books, charges=charges(late_row))
    attribute(books)
    costs = costs_of(books, NOVEMBER).filter(initiator_agent="coder")
    assert costs["effective_cost"].sum() == Decimal("0.007")


def test_only_what_is_published_is_removed(books: Books) -> None:
    write(books, charges=charges(charge("0.04", tokens_k="10.0")))
    assert months_due(books) == [OCTOBER, NOVEMBER]
    assert remove_outdated(books).rows == {}
    with pytest.raises(UsageError, match="rootcost attribute first") as error:
        plan_erasure(books, Period(at(10, 1, 0), at(11, 1, 0)))
    assert OCTOBER in error.value.what
    with pytest.raises(UsageError, match="not over"):
        plan_erasure(books, Period(at(12, 1, 0), datetime(2027, 2, 1, tzinfo=UTC)))


def test_a_period_is_erased_from_every_byte_and_the_months_beside_it_are_settled(books: Books) -> None:
    before = {month: costs_of(books, month) for month in (OCTOBER, NOVEMBER)}
    balances = books.store.scan(BALANCE).collect().sort(pl.all())
    period = Period(at(10, 1, 0), at(11, 1, 0))
    plan = plan_erasure(books, period)
    assert runs_in_force(books.database).keys() == {OCTOBER, NOVEMBER}
    assert traces_left(books) == [1, 2, 3, 4, 9]
    report = erase_period(books, period, actor="test", reason="requested")
    assert (report.rows, report.settled, report.files) == (plan.rows, plan.settled, plan.files)
    assert report.settled == [OCTOBER, NOVEMBER], "November was computed from days of October"
    assert (report.kept, report.is_purged) == ({}, True)
    assert report.files == [f"raw/focus/{'a' * 64}-bill.csv"]
    assert traces_left(books) == [2]
    assert books.store.scan(CHARGES, {"billing_month": [OCTOBER]}).collect().is_empty()
    assert not [path for path in books.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert attribute(books, force=True).settled == [OCTOBER, NOVEMBER]
    for month, costs in before.items():
        assert costs_of(books, month).equals(costs), month
    assert books.store.scan(BALANCE).collect().sort(pl.all()).equals(balances)
    assert [month.problems for month in recount(books, source="verify")] == [(), ()]
    assert [month.settled for month in recount(books, source="verify")] == ["facts removed on 2027-01-15 by erasure"] * 2
    with books.database.session() as session:
        entries = session.scalars(sa.select(Audit).where(Audit.action.like("facts.%")).order_by(Audit.sequence)).all()
    assert [entry.action for entry in entries] == ["facts.remove", "facts.removed"]
    assert (entries[0].after or {})["reason"] == "requested"
    assert (entries[1].after or {})["rows"] == report.rows
    assert erase_period(books, period, actor="test").is_empty


def test_one_source_is_erased_and_the_others_stay(books: Books) -> None:
    report = erase_period(books, Period(at(10, 1, 0), at(11, 1, 0), ("langfuse",)), actor="test")
    assert report.rows == {"spans": 2, "calls": 1, "chains": 1}
    assert report.settled == [OCTOBER]
    assert traces_left(books) == [1, 2, 4, 9]
    assert books.store.scan(CHAINS, {"month": [OCTOBER]}).collect().height == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_an_erasure_goes_on_where_it_was_broken_off(books: Books, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = costs_of(books, OCTOBER)
    period = Period(at(10, 1, 0), at(11, 1, 0))
    rows = plan_erasure(books, period).rows

    def killed(*arguments: Any, **options: Any) -> Any:
        if step == "between" and arguments[1] is not SPANS and not options["dry_run"]:
            return remove_rows(*arguments, **options)
        if options.get("dry_run"):
            return remove_rows(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "after":
            patch.setattr(erased_files, "forget_cached", killed)
        else:
            patch.setattr(removal, "remove_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            erase_period(books, period, actor="test")
    assert attribute(books).settled == [OCTOBER, NOVEMBER], "nothing is computed from what is half gone"
    remove_outdated(with_retention(books, spans_days=0, calls_days=0))  # as maintenance does
    assert traces_left(books) == [2]
    assert costs_of(books, OCTOBER).equals(before)
    with books.database.session() as session:
        row = session.scalars(sa.select(FactRemoval)).one()
        assert row.finished_at is not None
        assert step != "before" or row.rows == rows
    assert not [path for path in books.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
