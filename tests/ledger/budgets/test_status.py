"""How budgets stand: windows, scopes, currencies and time zones, with amounts worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger import exchange_rates
from ledger.books import Books
from ledger.budgets import revisions
from ledger.budgets.periods import window_at
from ledger.budgets.revisions import Change
from ledger.budgets.spend import require_rate
from ledger.budgets.status import STATUS_KEYS, Standing, standings
from ledger.budgets.terms import Terms, parse_terms
from ledger.errors import UsageError
from ledger.settings import ReportSettings
from tests.support.api_examples import CODER, HOUR, SUPPORT, WORKED_EXAMPLE, cost, publish, write_worked_example

D = Decimal


def terms(name: str = "b", amount: str = "1", **fields: Any) -> Terms:
    """Terms of a budget on the team Care, unless said otherwise."""
    return parse_terms({"name": name, "amount": amount, "scopes": {"team": "Care"}, "currency": "USD"} | fields, place=name)


def add(books: Books, *all_terms: Terms) -> None:
    with books.database.session() as session:
        for one in all_terms:
            revisions.add(session, one, Change("test"))


def at_hour(hour: datetime, amount: str, **fields: Any) -> dict[str, Any]:
    """A cost of Care's support-bot in an hour of its own."""
    return cost(amount, period_start=hour, period_end=hour + timedelta(hours=1), usage_hour=hour, **SUPPORT, **fields)


def by_name(books: Books, at: datetime | None = None) -> dict[str, Standing]:
    return {status.terms.name: status for status in standings(books, at, with_outlook=False)}


def test_the_contract_has_its_keys_and_funds_available_are_what_is_left(books: Books) -> None:
    publish(books, [*WORKED_EXAMPLE, cost("0.002", basis="estimated", **SUPPORT)])
    add(books, terms(amount="0.05"))
    (status,) = standings(books)
    row = status.row()
    assert tuple(row) == STATUS_KEYS
    assert (row["budget"], row["revision"], row["currency"], row["state"]) == ("b", 1, "USD", "ok")
    assert (row["period_start"], row["period_end"]) == (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    assert (row["billed"], row["estimated"], row["encumbered"]) == (D("0.018"), D("0.002"), 0)
    assert row["available"] == row["amount"] - row["billed"] - row["estimated"] - row["encumbered"] == D("0.03")


@pytest.mark.parametrize(
    ("fields", "spent"),
    [
        ({"scopes": {"organisation": "Acme"}}, "0.03"),
        ({"scopes": {"team": "Care"}}, "0.018"),
        ({"scopes": {"team": "Care"}, "view": "executor"}, "0.006"),
        ({"scopes": {"team": "Care", "agent": "researcher"}}, "0"),
        ({"scopes": {"agent": "researcher"}, "view": "executor"}, "0.012"),
        ({"scopes": {"agent": "research"}, "view": "executor"}, "0"),
        ({"scopes": {"team": "Care", "model": "M"}}, "0.018"),
        ({"scopes": {"team": "Care", "model": "N"}}, "0"),
        ({"scopes": {"team": "Dev", "provider": "aws"}}, "0.009"),
        ({"scopes": {"team": "Dev", "environment": "production"}}, "0.004"),
        ({"scopes": {"team": "Dev", "tenant": "t1", "workflow": "nightly"}}, "0.004"),
        ({"scopes": {"team": "Ops"}}, "0.7"),
        ({"scopes": {"team": "Ops"}, "shared": False}, "0.5"),
        ({"scopes": {"team": "Ops"}, "infrastructure": False}, "0.2"),
        ({"scopes": {"team": "Ops"}, "basis": "list"}, "1.2"),
    ],
)
def test_scopes_are_compared_whole_and_combined(books: Books, fields: dict[str, Any], spent: str) -> None:
    publish(
        books,
        [
            *WORKED_EXAMPLE[:2],
            cost("0.005", **CODER),
            cost("0.004", environment="production", tenant="t1", workflow="nightly", **CODER),
            cost("0.003", cost_class="unallocated"),
            cost("0.5", initiator_team="Ops", model=None, service="Compute", list_cost=D(1)),
            cost("0.2", initiator_team="Ops", cost_class="shared"),
        ],
    )
    add(books, terms(amount="10", **fields))
    amount = D(spent) + (D("0.7") if fields["scopes"].get("organisation") else 0)
    assert by_name(books)["b"].spent == amount


def test_windows_of_every_period_hold_their_hours(books: Books) -> None:
    hours = [HOUR, HOUR + timedelta(hours=1), HOUR + timedelta(days=1), HOUR + timedelta(days=7), HOUR - timedelta(days=60)]
    publish(books, [at_hour(hour, "1") for hour in hours])
    span = {"range_start": HOUR - timedelta(days=61), "range_end": HOUR + timedelta(days=1)}
    add(
        books,
        *(terms(p, "10", period=p) for p in ("hour", "day", "week", "month", "quarter", "year")),
        terms("range", "10", period="range", **span),
    )
    spent = {name: status.spent for name, status in by_name(books, HOUR + timedelta(minutes=59)).items()}
    assert spent == {"hour": 1, "day": 2, "week": 3, "month": 4, "quarter": 4, "year": 5, "range": 3}


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_a_day_of_the_reporting_timezone_has_its_own_hours(books: Books, day: str, hours: int) -> None:
    """Every hour from the day before to the day after costs 1: the day's budget counts those of that day."""
    books.settings = books.settings.model_copy(update={"report": ReportSettings(timezone="Europe/Berlin")})
    noon = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    publish(books, [at_hour(noon + timedelta(hours=n), "1") for n in range(-30, 31)])
    add(books, terms(amount="100", period="day"))
    assert by_name(books, noon)["b"].spent == hours


def test_the_hour_that_clocks_repeat_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    hour = terms(period="hour")
    windows = {window_at(hour, first + timedelta(hours=n), "Europe/Berlin") for n in (0, 1)}
    assert len(windows) == 2
    assert all(window.end - window.start == timedelta(hours=1) for window in windows)


def test_states_and_no_data(books: Books) -> None:
    add(books, terms("empty"))
    assert by_name(books)["empty"].state == "no data"
    publish(books, WORKED_EXAMPLE)
    add(books, terms("over", "0.018"), terms("near", "0.02"), terms("own", "0.02", thresholds=["0.95"]), terms("fine", "1"))
    states = {name: status.state for name, status in by_name(books).items()}
    assert states == {"empty": "ok", "over": "exceeded", "near": "warning", "own": "ok", "fine": "ok"}
    later = by_name(books, datetime(2026, 12, 24, tzinfo=UTC))
    assert {status.state for status in later.values()} == {"no data"}


def test_a_late_hour_raises_the_window_it_was_used_in(books: Books) -> None:
    """An invoice of November holds usage of October: it counts in October."""
    publish(books, WORKED_EXAMPLE)
    add(books, terms(amount="1"))
    assert by_name(books, HOUR)["b"].spent == D("0.018")
    publish(books, [at_hour(HOUR, "0.5") | {"run_id": "run-2", "month": "2026-11"}], month="2026-11", run="run-2")
    assert by_name(books, HOUR)["b"].spent == D("0.518")


def test_amounts_are_converted_at_the_rate_of_their_day_and_what_has_none_is_told(books: Books) -> None:
    publish(
        books, [*WORKED_EXAMPLE[:1], at_hour(HOUR, "2", currency="EUR"), at_hour(HOUR + timedelta(days=1), "3", currency="EUR")]
    )
    add(books, terms(amount="10"), terms("over", "0.001"))
    status = by_name(books)["b"]
    assert (status.spent, status.state) == (D("0.006"), "no rate")
    assert status.notes == ("EUR 5 is not counted: no exchange rate into USD",)
    assert by_name(books)["over"].state == "exceeded", "what is known is enough to say so"
    rates = "date,from,to,rate\n2026-10-05,EUR,USD,1.25\n2026-10-06,EUR,USD,1.5\n"
    exchange_rates.import_text(books, rates, uri="rates.csv", actor="test")
    assert by_name(books)["b"].spent == D("0.006") + D("2.5") + D("4.5")


def test_a_budget_in_a_currency_without_a_rate_is_refused(books: Books) -> None:
    publish(books, WORKED_EXAMPLE)
    with pytest.raises(UsageError, match="costs are in USD, and there is no exchange rate into JPY — import rates"):
        require_rate(books, terms(currency="JPY"))
    require_rate(books, terms(currency="USD"))


def test_an_open_period_has_the_newest_terms_and_a_closed_one_those_of_its_end(books: Books) -> None:
    publish(books, WORKED_EXAMPLE)
    add(books, terms(amount="1"))
    with books.database.session() as session:
        revisions.revise(session, revisions.require(session, "b"), terms(amount="2"), Change("test"))
    assert by_name(books)["b"].amount == 2, "no cost of a later month has come in: October is open"
    publish(books, [at_hour(datetime(2026, 11, 2, tzinfo=UTC), "1") | {"run_id": "run-2"}], month="2026-11", run="run-2")
    assert by_name(books, HOUR)["b"].amount == 1
    assert by_name(books)["b"].amount == 2


def test_a_temporary_raise_ends_by_itself(books: Books) -> None:
    publish(books, WORKED_EXAMPLE)
    add(books, terms(amount="1"))
    past, future = datetime(2026, 11, 1, tzinfo=UTC), datetime(2126, 1, 1, tzinfo=UTC)
    with books.database.session() as session:
        budget = revisions.require(session, "b")
        revisions.revise(session, budget, terms(amount="5"), Change("test", raised_until=future))
        renamed_budget = revisions.revise(session, budget, terms("c", amount="5"), Change("test"))
        assert (renamed_budget.name, revisions.newest(session, renamed_budget).amount) == ("c", D(1)), (
            "renaming makes no raise permanent"
        )
    assert by_name(books)["c"].amount == 5
    with books.database.session() as session:
        revisions.revise(session, revisions.require(session, "c"), terms("c", amount="7"), Change("test", raised_until=past))
    assert by_name(books)["c"].amount == 1


def test_forecast_and_exhaustion_follow_the_days_before(books: Books) -> None:
    """10 a day since May, and 14 days of October are known: 310 for its 31 days, and 200 are reached with the 20th day."""
    first = datetime(2026, 5, 14, tzinfo=UTC)
    publish(books, [at_hour(first + timedelta(days=n), "10") for n in range(154)])
    add(books, terms(amount="200"), terms("large", "1000"), terms("spent", "140"), terms("day", "20", period="day"))
    statuses = {status.terms.name: status for status in standings(books)}
    outlook = statuses["b"].outlook
    assert (statuses["b"].spent, outlook.forecast, outlook.exhausted_at) == (D(140), D(310), datetime(2026, 10, 21, tzinfo=UTC))
    assert outlook.low is not None
    assert outlook.high is not None
    assert outlook.low <= 310 <= outlook.high
    assert statuses["large"].outlook.exhausted_at is None
    assert statuses["spent"].outlook.exhausted_at == datetime(2026, 10, 14, tzinfo=UTC)
    assert statuses["day"].outlook.forecast == 10


def test_of_runs_the_dearest_counts(books: Books) -> None:
    write_worked_example(books)
    add(books, terms(amount="0.001", period="chain"), terms("others", scopes={"team": "Nobody"}, period="chain"))
    status = by_name(books)["b"]
    assert (status.chain_id is not None, status.billed) == (True, D(0))
    assert status.spent > 0
    assert by_name(books)["others"].spent == 0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"scopes": {}}, "a budget on nobody limits nothing"),
        ({"scopes": {"team": " "}}, "' ' is no name of a team"),
        ({"amount": "-5"}, "-5 is no limit; it must be more than 0"),
        ({"amount": 1.5}, "write money as a decimal string"),
        ({"amount": "1,50"}, "'1,50' is no amount of money"),
        ({"currency": "dollars"}, "'dollars' is no currency code"),
        ({"period": "range"}, "a range has both a start and an end"),
        ({"range_start": HOUR}, "a budget a month has no bounds of its own"),
        ({"period": "range", "range_start": HOUR, "range_end": HOUR}, "the range is empty"),
        ({"period": "fortnight"}, "Input should be 'hour', 'day'"),
        ({"thresholds": ["0.5", "0.5"]}, "each once"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_no_budget_is_told_by_its_field(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match="b: ") as error:
        terms(**fields)
    assert sentence in str(error.value)
