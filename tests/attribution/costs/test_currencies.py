"""Two currencies are two books, until a dated rate is applied and named (RA-7, MO-1). Amounts worked out by hand."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from api.queries import CostQuery, costs_in, of_operator
from attribution.costs.sink import CostTotals
from attribution.monitoring.missing_rates import missing_exchange_rates
from ledger.books import Books
from ledger.errors import FormatError, UsageError
from ledger.exchange_rates import Exchange, convert, import_text, rates_in_force
from ledger.money import MONEY, exchange_amounts, proportion
from ledger.settings import ReportSettings
from ledger.tables import COSTS
from rootcost.cli import app
from tests.support.api_examples import CODER, HOUR, SUPPORT, cost, frame, publish, reach

D = Decimal
RATES = "date,from,to,rate,source\n2026-10-05,EUR,USD,1.25,ECB\n2026-10-07,EUR,USD,1.6,ECB\n2026-10-05,EUR,GBP,0.8,ECB\n"


def euros(books: Books) -> None:
    """Care: 10 dollars on the 5th and 8 euros on the 6th. Dev: 16 dollars on the 8th, and a call without a price."""
    days = {n: {"period_start": HOUR + timedelta(days=n), "period_end": HOUR + timedelta(days=n, hours=1)} for n in range(4)}
    publish(
        books,
        [
            cost("10", **SUPPORT),
            cost("8", currency="EUR", **SUPPORT, **days[1]),
            cost("16", **CODER, **days[3]),
            cost("0", **CODER, **days[3], reason="unpriced")
            | dict.fromkeys(("billed_cost", "effective_cost", "list_cost", "contracted_cost")),
        ],
    )


@pytest.fixture
def mixed(books: Books) -> Books:
    euros(books)
    import_text(books, RATES, uri="ecb.csv", actor="test")
    return books


def test_each_amount_is_exchanged_at_the_rate_of_its_day(mixed: Books) -> None:
    """Care: 10/1.25 + 8 = 16 euros. Dev: 16/1.6 = 10 euros, at the rate of the 7th; what is unpriced stays without a figure."""
    told, rates = costs_in(of_operator(mixed), CostQuery(by=("team", "reason")), "eur")
    assert told.select("team", "reason", "currency", "cost").rows() == [
        ("Care", None, "EUR", D(16)),
        ("Dev", None, "EUR", D(10)),
        ("Dev", "unpriced", "EUR", None),
    ]
    assert [(str(r.day), r.source, r.label) for r in rates] == [
        ("2026-10-05", "USD", "1 / (EUR in USD 1.25, 2026-10-05, ECB)"),
        ("2026-10-08", "USD", "1 / (EUR in USD 1.6, 2026-10-07, ECB)"),
    ]


def test_a_pair_nobody_publishes_goes_across_a_third_currency(mixed: Books) -> None:
    """10 dollars are 8 euros are 6.4 pounds; 8 euros are 6.4 pounds; on the 8th 16 dollars are 10 euros are 8 pounds."""
    told, _ = costs_in(of_operator(mixed), CostQuery(by=("team",), granularity="day"), "GBP")
    assert told.select("period_start", "cost").rows()[:3] == [
        ("2026-10-05T00:00:00+00:00", D("6.4")),
        ("2026-10-06T00:00:00+00:00", D("6.4")),
        ("2026-10-08T00:00:00+00:00", D(8)),
    ]


def test_a_missing_rate_is_refused_and_named_not_guessed(mixed: Books) -> None:
    with pytest.raises(UsageError, match=r"no exchange rate into JPY for EUR on 2026-10-06; USD on 2026-10-05 and 1 other day"):
        costs_in(of_operator(mixed), CostQuery(), "JPY")
    with pytest.raises(UsageError, match="no currency code"):
        costs_in(of_operator(mixed), CostQuery(), "euro")


def test_a_rate_does_not_hold_for_ever_nor_before_its_day() -> None:
    book = Exchange([("EUR", "USD", date(2026, 10, 5), D("1.25"), "ECB")])
    assert book.on("EUR", "USD", date(2026, 10, 4)) is None
    assert book.on("EUR", "USD", date(2026, 11, 5)) is not None
    assert book.on("EUR", "USD", date(2026, 11, 6)) is None


def test_of_two_rates_for_one_day_the_later_recorded_holds_and_history_stays(mixed: Books) -> None:
    result = import_text(
        mixed, "date,from,to,rate\n2026-10-05,EUR,USD,2\n2026-10-07,EUR,USD,1.60\n", uri="mended.csv", actor="test"
    )
    assert (result.added, result.changed, result.unchanged) == (1, 1, 1)
    now = rates_in_force(mixed).filter(pl.col("to_currency") == "USD").select("rate", "source").rows()
    assert now == [(D(2), "mended.csv"), (D("1.6"), "ECB")]
    told, _ = costs_in(of_operator(mixed), CostQuery(by=("team",)), "EUR")
    assert dict(told.select("team", "cost").rows())["Care"] == D(13)


def test_bad_rates_are_rows_of_problems_and_good_ones_are_kept(books: Books) -> None:
    lines = [
        "2026-10-05,eur,usd,1.25,ECB",
        "2026-10-05,EUR,USD,1.26,ECB",
        "2026-10-05,EUR,USD,1.25,ECB",
        "yesterday,EUR,USD,1,ECB",
        "2026-10-05,EURO,USD,1,ECB",
        "2026-10-05,EUR,EUR,1,ECB",
        '2026-10-05,EUR,CHF,"0,93",ECB',
        "2026-10-05,EUR,JPY,0,ECB",
        "2026-10-05,EUR,SEK,-11,ECB",
        "2026-10-05,EUR,NOK,1e40,ECB",
        "2026-10-05,EUR,DKK,NaN,ECB",
        "2026-10-06,EUR,USD",
    ]
    text = "\n".join(["date,from,to,rate,source", *lines])
    result = import_text(books, text, uri="rates.csv", actor="test")
    assert (result.added, result.unchanged) == (1, 1)
    assert [(p.place, p.field) for p in result.problems] == [
        ("line 3", "rate"),
        ("line 5", "date"),
        ("line 6", "from"),
        ("line 7", "to"),
        *((f"line {n}", "rate") for n in range(8, 14)),
    ]
    assert import_text(books, text, uri="rates.csv", actor="test").added == 0
    with pytest.raises(FormatError, match="columns date, rate are missing"):
        import_text(books, "from,to\nEUR,USD\n", uri="x", actor="test")


AMOUNTS = st.lists(st.decimals(min_value=-1000, max_value=1000, places=12), min_size=1, max_size=30)


@given(AMOUNTS, st.decimals(min_value=D("0.000001"), max_value=1000, places=6))
def test_the_parts_sum_to_what_their_sum_comes_to(amounts: list[Decimal], rate: Decimal) -> None:
    parts = exchange_amounts(amounts, rate, D(1))
    assert sum(parts) == proportion(sum(amounts, D(0)), rate, D(1))
    back = exchange_amounts(amounts, D(1), rate)
    assert sum(back) == proportion(sum(amounts, D(0)), D(1), rate)
    assert all(abs(p - a * rate) <= D("1e-11") for p, a in zip(parts, amounts, strict=True))


@given(AMOUNTS, st.randoms(use_true_random=False))
def test_a_converted_total_does_not_depend_on_what_it_is_grouped_by(amounts: list[Decimal], random: object) -> None:
    book = Exchange([("USD", "EUR", date(2026, 10, 5), D("0.923456789012345678"), "ECB")])
    rows = pl.DataFrame(
        {"team": [f"t{n % 5}" for n in range(len(amounts))], "cost": pl.Series(amounts, dtype=MONEY)}
    ).with_columns(currency=pl.lit("USD"), day=pl.lit(date(2026, 10, 5)))
    totals = set()
    for keys in (["team"], []):
        grouped = rows.group_by([*keys, "currency", "day"]).agg(pl.col("cost").sum())
        totals.add(convert(grouped, "EUR", book, amount="cost", order_by=keys)[0]["cost"].sum())
    assert totals == {proportion(sum(amounts, D(0)), D("0.923456789012345678"), D(1))}


def test_a_run_tells_currencies_without_a_rate_where_reports_want_one(mixed: Books) -> None:
    rows = [cost("1"), cost("2", currency="CHF"), cost("2", currency="EUR")]
    costs = COSTS.conform(frame(COSTS, rows, month="2026-10", run_id="r"))
    book = Exchange.of(mixed)
    assert missing_exchange_rates(CostTotals.of(costs).days, "", book, uri="attribution:2026-10") == []
    (told,) = missing_exchange_rates(CostTotals.of(costs).days, "EUR", book, uri="attribution:2026-10")
    assert (told.place, told.reason, told.rows) == ("CHF into EUR", "no_exchange_rate: none is known for 2026-10-05", 1)
    with pytest.raises(ValueError, match="pattern"):
        ReportSettings(currency="Euro")


def test_over_http_the_rates_are_part_of_the_answer(mixed: Books) -> None:
    with reach(mixed) as http:
        answer: httpx.Response = http.get("/v1/costs", params={"by": "team", "currency": "EUR"})
        document = answer.json()
        assert document["totals"] == {"EUR": "26"}
        assert document["rates"][0] == {
            "day": "2026-10-05",
            "source": "USD",
            "target": "EUR",
            "rate": "1 / (EUR in USD 1.25, 2026-10-05, ECB)",
        }
        assert http.get("/v1/costs", params={"by": "team"}).json()["rates"] == []
        refused = http.get("/v1/costs", params={"currency": "JPY"})
        assert refused.status_code == 422 or refused.status_code == 400
        assert "no exchange rate into JPY" in refused.text


def test_the_commands(home: Path, tmp_path: Path) -> None:
    with Books.open(home) as books:
        euros(books)
    file = tmp_path / "rates.csv"
    file.write_text(RATES + "2026-10-05,EUR,SEK,eleven,ECB\n")
    run = CliRunner()
    at = ["--home", str(home)]
    assert run.invoke(app, [*at, "costs", "--currency", "EUR"]).exit_code == 2
    done = run.invoke(app, [*at, "exchange", "import", str(file)])
    assert done.exit_code == 1
    assert "3 rates added" in done.stdout
    assert "line 5: rate 'eleven' is no rate" in done.stderr
    told = run.invoke(app, [*at, "costs", "--currency", "EUR", "--by", "team,reason", "--format", "json"])
    assert {(r["team"], r["cost"]) for r in json.loads(told.stdout)} == {("Care", "16"), ("Dev", "10"), ("Dev", None)}
    assert "Exchanged, 1 day: 1 / (EUR in USD 1.25, 2026-10-05, ECB)" in told.stderr
    held = json.loads(run.invoke(app, [*at, "exchange", "list", "--format", "json"]).stdout)
    assert [r["rate"] for r in held] == ["0.8", "1.25", "1.6"]
