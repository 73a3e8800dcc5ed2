"""Forecasts by dimension: what is known, what is left out, and whose money is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest

from api import queries
from api.queries import CostQuery, ForecastQuery, of_operator
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.periods import month_of
from rootcost.cli import app
from tests.support.api_examples import CODER, SUPPORT, cost, publish, reach

NOW = datetime(2026, 10, 11, 15, tzinfo=UTC)
FIRST = date(2026, 7, 1)


BY_WEEKDAY = {"support-bot": lambda day: 1 + day.weekday()}


def spend(
    books: Books, *, until: date = NOW.date(), of_day: Mapping[str, Callable[[date], int]] = MappingProxyType(BY_WEEKDAY)
) -> None:
    """Daily costs of agents from July on, invoiced in their months, the newest estimated."""
    owners = {"support-bot": SUPPORT, "coder": CODER}
    months: dict[str, list[dict[str, Any]]] = {}
    for number in range((until - FIRST).days):
        day = FIRST + timedelta(days=number)
        start = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)
        for agent, amount in of_day.items():
            if value := amount(day):
                row = cost(
                    str(value),
                    period_start=start,
                    period_end=start + timedelta(hours=1),
                    basis="estimated" if day > date(2026, 10, 8) else "billed",
                    **owners[agent],
                )
                months.setdefault(month_of(day), []).append(row)
    for month, rows in months.items():
        publish(books, rows, month=month, run=f"run-{month}")


def forecast(books: Books, *, as_of: datetime = NOW, month: str | None = None, **query: Any) -> pl.DataFrame:
    return queries.forecasts(of_operator(books), ForecastQuery(CostQuery(**query), month, as_of))


def test_a_month_is_what_is_known_and_what_weekdays_cost(books: Books) -> None:
    """1 on Mondays to 7 on Sundays. October 2026 has 31 days from a Thursday on: 4 weeks of 28, and Thursday to Saturday again, 4 + 5 + 6 = 127."""
    spend(books)
    (row,) = forecast(books, by=("team",)).to_dicts()
    assert (row["team"], row["currency"], row["method"], row["history_days"]) == ("Care", "USD", "pool", 102)
    assert (row["period_start"], row["period_end"], row["known_until"]) == (
        date(2026, 10, 1),
        date(2026, 11, 1),
        date(2026, 10, 11),
    )
    # Thursday 1st to Saturday 10th: 4 + 5 + 6 + 7 + 1 + 2 + 3 + 4 + 5 + 6 = 43, of which the 9th and 10th are estimated.
    assert (row["actual"], row["billed"], row["estimated"]) == (Decimal(43), Decimal(32), Decimal(11))
    for name in ("forecast", "low", "high"):
        assert abs(row[name] - 127) < Decimal("0.001"), row


def test_days_that_have_not_come_in_are_no_days_without_cost(books: Books) -> None:
    """The newest cost is of 30 September: all of October is to come, and September's last days are not its forecast."""
    spend(books, until=date(2026, 10, 1))
    (row,) = forecast(books, by=("currency",)).to_dicts()
    assert (row["known_until"], row["actual"]) == (date(2026, 10, 1), Decimal(0))
    assert abs(row["forecast"] - 127) < Decimal("0.001")
    (november,) = forecast(books, by=("currency",), month="2026-11").to_dicts()
    assert abs(november["forecast"] - (4 * 28 + 7 + 1)) < Decimal("0.001")  # a Sunday and a Monday come a fifth time
    (january,) = forecast(books, by=("currency",), month="2027-01").to_dicts()
    assert (january["forecast"], january["method"]) == (None, "unknown")


def test_an_agent_that_fell_silent_is_forecast_as_silent(books: Books) -> None:
    """Others' costs of the newest days say that those days are known."""
    spend(books, of_day={"support-bot": lambda day: 2 if day < date(2026, 9, 1) else 0, "coder": lambda _: 1})
    rows = {row["agent"]: row for row in forecast(books, by=("agent",)).to_dicts()}
    assert rows["support-bot"]["known_until"] == date(2026, 10, 11)
    assert rows["support-bot"]["forecast"] < Decimal(1)
    assert abs(rows["coder"]["forecast"] - 31) < Decimal("0.001")


def test_a_short_past_goes_on_from_the_third_day_without_interval(books: Books) -> None:
    spend(books, of_day={"coder": lambda day: 3 if day >= date(2026, 10, 8) else 0})
    (row,) = forecast(books, by=("agent",)).to_dicts()
    assert (row["method"], row["forecast"], row["low"], row["high"]) == ("run rate", Decimal(9 + 21 * 3), None, None)
    (row,) = forecast(books, by=("agent",), as_of=NOW - timedelta(days=1)).to_dicts()
    assert (row["method"], row["actual"], row["forecast"]) == ("unknown", Decimal(6), None)


def test_a_month_that_is_over_is_what_it_cost(books: Books) -> None:
    spend(books)
    (row,) = forecast(books, by=("team",), month="2026-09").to_dicts()
    assert {row[name] for name in ("actual", "forecast", "low", "high")} == {Decimal(4 * 28 + 2 + 3)}
    assert row["method"] == "actual"


def test_a_refund_is_no_spend_that_repeats(books: Books) -> None:
    spend(books, of_day={"coder": lambda day: -500 if day == date(2026, 10, 2) else 1})
    (row,) = forecast(books, by=("agent",)).to_dicts()
    assert row["actual"] == Decimal(9 - 500)
    assert -Decimal(471) < row["forecast"] < -Decimal(469)


def test_a_team_is_forecast_from_its_own_rows(books: Books) -> None:
    spend(books, of_day={"support-bot": lambda _: 1, "coder": lambda _: 100})
    _, key = create_key(books, "test", [Grant.parse("viewer:Care")], actor="test")
    of_care = {"Authorization": f"Bearer {key}"}
    with reach(books) as http:
        answer = http.get("/v1/forecast?by=team&month=2026-10", headers=of_care)
        total = http.get("/v1/forecast?by=currency&month=2026-10&format=ndjson", headers=of_care)
    assert [row["team"] for row in answer.json()["rows"]] == ["Care"]
    assert "Dev" not in answer.text
    assert Decimal(answer.json()["rows"][0]["actual"]) == 10
    assert json.loads(total.text)["actual"] == answer.json()["rows"][0]["actual"]


def test_the_command_says_why_there_is_no_interval(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit_info:
            app(["--home", str(books.home), "forecast", *arguments])
        assert exit_info.value.code == 0
        console_output = capsys.readouterr()
        return console_output.out + console_output.err

    assert "No cost is known of this month or the half year before it" in said()
    spend(books, of_day={"coder": lambda day: 3 if day >= date(2026, 9, 18) else 0})
    table = said("--by", "team", "--month", "2026-10")
    assert "known until 11 October" in table
    assert "no interval: 1 group whose past is too short" in table
    (row,) = json.loads(said("--by", "team", "--month", "2026-10", "--format", "json"))
    assert (row["team"], row["actual"], row["low"]) == ("Dev", "30", None)
