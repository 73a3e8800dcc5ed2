"""Cost by any dimension: the worked example of the specification, read back through the query and the address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import queries
from api.queries import CostQuery, of_operator
from ledger.books import Books
from ledger.errors import UsageError
from ledger.tables import COST_COLUMNS
from tests.support.api_examples import CODER, HOUR, RUN, SUPPORT, cost, publish, write_worked_example


@pytest.fixture
def example(books: Books) -> Books:
    write_worked_example(books)
    return books


def by(frame: pl.DataFrame, *names: str) -> dict[object, str]:
    """The rows as {dimension: cost text}."""
    return {row[names[0]] if len(names) == 1 else tuple(row[n] for n in names): str(row["cost"]) for row in frame.to_dicts()}


def test_both_views_total_the_bill(example: Books) -> None:
    """Care 0.018 or 0.006, Data 0 or 0.012, Dev 0.009, and 0.003 nobody logged: 0.03 either way. (MO-3)"""
    initiator = queries.costs(of_operator(example), CostQuery(by=("team",), view="initiator"))
    executor = queries.costs(of_operator(example), CostQuery(by=("team",), view="executor"))
    assert by(initiator, "team") == {"Care": "0.018000000000", "Dev": "0.009000000000", None: "0.003000000000"}
    assert by(executor, "team") == {
        "Data": "0.012000000000",
        "Dev": "0.009000000000",
        "Care": "0.006000000000",
        None: "0.003000000000",
    }
    assert initiator["cost"].sum() == executor["cost"].sum() == Decimal("0.030000000000")


def test_one_row_a_key_with_classes_and_reasons_only_where_asked_for(example: Books) -> None:
    """`--by team` is one row a team; class and reason are keys like any other. (LA-1)"""
    publish(
        example,
        [cost("2", **SUPPORT), cost("1", basis="estimated", reason="retry", **SUPPORT), cost("4", cost_class="owner", **SUPPORT)],
        month="2026-11",
        run="run-11",
    )
    november = CostQuery.parse(by="team", start="2026-11")
    frame = queries.costs(of_operator(example), november)
    assert frame.columns == ["team", "currency", "cost", "cost_billed", "cost_estimated"]
    assert frame.rows() == [("Care", "USD", Decimal(7), Decimal(6), Decimal(1))]
    by_class = queries.costs(of_operator(example), CostQuery.parse(by="cost_class,team,reason", start="2026-11"))
    assert by_class.columns == ["cost_class", "team", "reason", "currency", "cost", "cost_billed", "cost_estimated"]
    assert {row[:3]: row[4] for row in by_class.rows()} == {
        ("owner", "Care", None): Decimal(4),
        ("metered", "Care", None): Decimal(2),
        ("metered", "Care", "retry"): Decimal(1),
    }


def test_billed_holds_no_estimate_and_totals_tell_the_parts(books: Books) -> None:
    """5.00 on the bill and 12.00 estimated: 17.00 effective, 5.00 billed. (LA-1)"""
    publish(books, [cost("5", cost_class="unallocated"), cost("12", basis="estimated", **CODER)])
    table = queries.cost_table(of_operator(books), CostQuery(by=("team",)))
    assert (table.totals, table.totals_billed, table.totals_estimated) == (
        {"USD": Decimal(17)},
        {"USD": Decimal(5)},
        {"USD": Decimal(12)},
    )
    billed = queries.cost_table(of_operator(books), CostQuery(by=("team",), basis="billed"))
    assert (billed.totals, billed.totals_estimated) == ({"USD": Decimal(5)}, {"USD": Decimal(0)})
    assert [row.get("team") for row in billed.rows] == [None]


def test_unallocated_names_all_money_without_a_team_by_class(books: Books) -> None:
    """Idle capacity, a call of nobody and an unclaimed fee have no team, and no owner's name makes one. (LA-1)"""
    lost = [cost("4", cost_class="idle", reason="idle_capacity"), cost("2", method="unknown", initiator_agent="unknown")]
    lost += [
        cost("1", cost_class="unallocated", reason="fee"),
        cost("0.5", cost_class="owner", initiator_agent="bot", initiator_team=""),
    ]
    publish(books, [cost("10", **CODER), *lost])
    glance = queries.overview(of_operator(books))
    assert glance.totals[0].unallocated == Decimal("7.5")
    assert [(row.cost_class, row.reason, row.cost) for row in glance.unallocated] == [
        ("idle", "idle_capacity", Decimal(4)),
        ("metered", None, Decimal(2)),
        ("unallocated", "fee", Decimal(1)),
        ("owner", None, Decimal("0.5")),
    ]


def test_a_sum_says_how_much_it_leaves_out(books: Books) -> None:
    """A list cost that the bill does not tell is no 0: the sum names what it is not of. (MO-1b)"""
    unknown_list = {"list_cost": None}
    publish(books, [cost("1", **CODER), cost("12.5", **CODER) | unknown_list, cost("2", **SUPPORT) | unknown_list])
    frame = queries.costs(of_operator(books), CostQuery(by=("team",), basis="list"))
    assert frame.select("team", "cost", "omitted_rows", "omitted_cost").rows() == [
        ("Dev", Decimal(1), 1, Decimal("12.5")),
        ("Care", None, 1, Decimal(2)),
    ]
    assert queries.cost_table(of_operator(books), CostQuery(by=("team",), basis="list")).totals_omitted == {
        "USD": Decimal("14.5")
    }
    assert "omitted_rows" not in queries.costs(of_operator(books), CostQuery(by=("team",))).columns


def test_filters_compare_whole_names(example: Books) -> None:
    kept = CostQuery.parse(by="team", filters=["team=Care", "team=Dev", "initiator_agent=coder"])
    assert by(queries.costs(of_operator(example), kept), "team") == {"Dev": "0.009000000000"}
    assert queries.costs(of_operator(example), CostQuery.parse(by="team", filters=["team=Car"])).is_empty()
    assert by(queries.costs(of_operator(example), CostQuery.parse(by="reason", filters=["team="])), "reason") == {
        "uncaptured_usage": "0.003000000000"
    }


def test_an_unknown_dimension_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as fault:
        CostQuery(by=("teem",))
    assert "initiator_team" in fault.value.remedy
    for wrong in (
        {"view": "both"},
        {"basis": "net"},
        {"granularity": "week"},
        {"filters": ["team"]},
        {"filters": ["teem=1"]},
        {"start": "soon"},
    ):
        with pytest.raises(UsageError):
            CostQuery.parse(**wrong)
    with pytest.raises(UsageError, match="empty"):
        CostQuery.parse(start="2026-10", end="2026-10")


def test_currencies_are_never_mixed(books: Books) -> None:
    publish(books, [cost("1", **CODER), cost("2", currency="EUR", **CODER)])
    table = queries.cost_table(of_operator(books), CostQuery(by=("team",)))
    assert table.totals == {"EUR": Decimal(2), "USD": Decimal(1)}
    assert len(table.rows) == 2


def test_absent_money_is_null_never_zero(books: Books) -> None:
    publish(books, [cost("1", **CODER), cost("2", basis="estimated", reason="unpriced", **SUPPORT) | {"list_cost": None}])
    frame = queries.costs(of_operator(books), CostQuery(by=("team",), basis="list"))
    assert dict(frame.select("team", "cost").rows()) == {"Dev": Decimal(1), "Care": None}


def test_only_the_run_in_force_counts(example: Books) -> None:
    """Run 2 replaced November only; what it drew for October lies there and does not count."""
    publish(example, [cost("5", **CODER)], month="2026-11", run="run-2")
    publish(example, [cost("7", **CODER)], month="2026-10", run="run-2")
    publish(example, [cost("1", **CODER)], month="2026-12", run=RUN)
    with example.database.session() as session:
        from ledger.db import Published

        session.merge(Published(month="2026-10", run_id=RUN, rollup_ids=[], published_at=HOUR))
    table = queries.cost_table(of_operator(example), CostQuery())
    assert table.totals == {"USD": Decimal("6.03")}
    assert table.runs == {"2026-10": RUN, "2026-11": "run-2", "2026-12": RUN}


def test_days_follow_the_reporting_timezone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half past eleven at night UTC is the next day in Berlin, and the day the clocks go back has 25 hours."""
    monkeypatch.setenv("ROOTCOST_REPORT__TIMEZONE", "Europe/Berlin")
    with Books.open(home) as books:
        night = datetime(2026, 10, 24, 21, tzinfo=UTC)
        hours_of_night = [night + timedelta(hours=h) for h in range(28)]
        publish(books, [cost("1", period_start=at, period_end=at + timedelta(hours=1), **CODER) for at in hours_of_night])
        frame = queries.costs(of_operator(books), CostQuery(by=("team",), granularity="day"))
        assert by(frame, "period_start") == {
            "2026-10-24T00:00:00+02:00": "1.000000000000",
            "2026-10-25T00:00:00+02:00": "25.000000000000",
            "2026-10-26T00:00:00+01:00": "2.000000000000",
        }
        day = CostQuery.parse(by="team", start="2026-10-25", end="2026-10-26", timezone="Europe/Berlin")
        assert queries.costs(of_operator(books), day)["cost"].sum() == Decimal(25)
        hours = queries.costs(of_operator(books), CostQuery(by=("team",), granularity="hour"))["period_start"].to_list()
        assert len(hours) == 28
        assert hours[2:6] == [
            f"2026-10-25T{h}:00:00{o}" for h, o in (("01", "+02:00"), ("02", "+02:00"), ("02", "+01:00"), ("03", "+01:00"))
        ]


def test_two_calendars_are_never_mixed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In New York a fee of 1 October stays on 1 October, and a call of a daily charge is of the hour it was made in. (TI-1a)

    Of the October invoice: a fee of 99, a call of 5 October 22:00 in New York (6 October in UTC) on that UTC day's charge, an idle hour of
    1 October 00:00 UTC, and an hour that was billed and not logged.
    """
    monkeypatch.setenv("ROOTCOST_REPORT__TIMEZONE", "America/New_York")

    def at(day: int, hour: int = 0) -> datetime:
        return datetime(2026, 10, day, hour, tzinfo=UTC)

    daily = {"period_start": at(6), "period_end": at(7), "usage_hour": at(6, 2)}
    hourly = {"period_start": at(1), "period_end": at(1, 1)}
    fee = {
        "period_start": at(1),
        "period_end": datetime(2026, 11, 1, tzinfo=UTC),
        "charge_category": "Purchase",
        "cost_class": "owner",
    }
    with Books.open(home) as books:
        rows = [cost("99", **fee), cost("2", **daily, **CODER), cost("4", cost_class="idle", **hourly)]
        publish(books, [*rows, cost("8", cost_class="unallocated", reason="uncaptured_usage", **hourly)])
        days = queries.costs(of_operator(books), CostQuery(by=("cost_class",), granularity="day"))
        assert by(days, "period_start", "cost_class") == {
            ("2026-09-30T00:00:00-04:00", "unallocated"): "8.000000000000",
            ("2026-10-01T00:00:00-04:00", "owner"): "99.000000000000",
            ("2026-10-01T00:00:00-04:00", "idle"): "4.000000000000",
            ("2026-10-05T00:00:00-04:00", "metered"): "2.000000000000",
        }
        months = queries.costs(of_operator(books), CostQuery(by=("currency",), granularity="month"))
        assert by(months, "period_start") == {"2026-10-01T00:00:00-04:00": "113.000000000000"}
        in_zone = {"start": "2026-10", "end": "2026-11", "timezone": "America/New_York"}
        assert queries.costs(of_operator(books), CostQuery.parse(**in_zone))["cost"].sum() == Decimal(113)
        assert queries.costs(of_operator(books), CostQuery.parse(**in_zone, calendar="usage"))["cost"].sum() == Decimal(105)
        (total,) = queries.overview(of_operator(books), month="2026-10").totals
        assert total.cost == Decimal(113)


def test_midnights_that_a_timezone_does_not_have(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Santiago 6 September 2026 begins at 01:00: a seat fee of that date stays on it. (TI-1a)"""
    monkeypatch.setenv("ROOTCOST_REPORT__TIMEZONE", "America/Santiago")
    day = datetime(2026, 9, 6, tzinfo=UTC)
    with Books.open(home) as books:
        publish(
            books,
            [cost("7", period_start=day, period_end=day + timedelta(days=1), charge_category="Purchase", cost_class="owner")],
        )
        frame = queries.costs(of_operator(books), CostQuery(by=("team",), granularity="day"))
        assert [text[:10] for text in frame["period_start"]] == ["2026-09-06"]


def test_an_invoice_has_months_only(books: Books) -> None:
    publish(books, [cost("1", **CODER)])
    with pytest.raises(UsageError, match="no hours and no days"):
        CostQuery.parse(granularity="day", calendar="invoice")
    with pytest.raises(UsageError, match="is no month"):
        queries.costs(of_operator(books), CostQuery.parse(start="2026-10-05", calendar="invoice"))
    query = CostQuery.parse(start="2026-10", end="2026-11", granularity="month")
    again = dict(query.parameters())
    assert CostQuery.parse(start=again["start"], end=again["end"], granularity="month", calendar=again["calendar"]) == query


def test_a_day_at_the_border_is_found_on_the_next_invoice(books: Books) -> None:
    """Charged for 31 October on the November invoice: used in October, invoiced in November. (TI-1a)"""
    hour = {"period_start": datetime(2026, 10, 31, 5, tzinfo=UTC), "period_end": datetime(2026, 10, 31, 6, tzinfo=UTC)}
    publish(books, [cost("1", **hour, **CODER)], month="2026-11", run="run-11")
    assert queries.costs(of_operator(books), CostQuery.parse(start="2026-10-31", end="2026-11-01"))["cost"].sum() == Decimal(1)
    assert queries.costs(of_operator(books), CostQuery.parse(start="2026-11", end="2026-12", calendar="usage")).is_empty()
    assert queries.costs(of_operator(books), CostQuery.parse(start="2026-11", end="2026-12"))["cost"].sum() == Decimal(1)


def test_a_day_is_found_on_any_later_invoice(books: Books) -> None:
    """Charged for 20 August on the October invoice."""
    publish(books, [cost("2", period_start=datetime(2026, 8, 20, 5, tzinfo=UTC), **CODER)])
    publish(books, [cost("1", period_start=datetime(2026, 9, 20, 5, tzinfo=UTC), **CODER)], month="2026-09", run="run-9")
    august = CostQuery.parse(start="2026-08", end="2026-09", calendar="usage")
    assert queries.costs(of_operator(books), august)["cost"].to_list() == [Decimal(2)]
    assert queries.cost_table(of_operator(books), august).runs["2026-10"] == RUN
    assert queries.overview(of_operator(books), month="2026-10").totals[0].cost == Decimal(2)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    amounts=st.lists(
        st.tuples(st.decimals("-1e6", "1e6", places=12), st.integers(0, 23 + 24 * 40), st.sampled_from("abc")),
        min_size=1,
        max_size=30,
    ),
    zone=st.sampled_from(["UTC", "America/St_Johns", "Pacific/Kiritimati"]),
)
def test_however_it_is_cut_the_sum_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, amounts: list[tuple[Decimal, int, str]], zone: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROOTCOST_REPORT__TIMEZONE", zone)
        with Books.open(tmp_path_factory.mktemp("cut")) as books:
            publish(books, [cost(str(a), usage_hour=HOUR + timedelta(hours=h), initiator_team=t) for a, h, t in amounts])
            whole = sum(a for a, _, _ in amounts)
            for granularity, dimensions in product(("total", "hour", "day", "month"), ((), ("team",), ("provider", "meter"))):
                frame = queries.costs(of_operator(books), CostQuery(by=dimensions, granularity=granularity))  # type: ignore[arg-type]
                assert frame["cost"].sum() == whole


def test_sorted_by_time_then_by_cost(books: Books) -> None:
    publish(
        books,
        [
            cost(a, period_start=HOUR + timedelta(days=d), initiator_team=t)
            for a, d, t in [("1", 1, "b"), ("3", 1, "a"), ("2", 0, "a")]
        ],
    )
    frame = queries.costs(of_operator(books), CostQuery(by=("team",), granularity="day"))
    assert [str(c) for c in frame["cost"].cast(pl.Int64)] == ["2", "3", "1"]


def test_the_balance_is_kept_to_the_last_digit(example: Books) -> None:
    frame = queries.balance(of_operator(example))
    keys = "currency invoice_month provider cost_column charges_in metered owner shared idle unallocated difference rounding"
    assert " ".join(frame.columns) == keys
    assert frame["cost_column"].to_list() == ["billed_cost", "contracted_cost", "effective_cost", "list_cost"]
    row = frame.row(0, named=True)
    assert (
        row["charges_in"] == row["metered"] + row["owner"] + row["shared"] + row["idle"] + row["unallocated"] == Decimal("0.03")
    )
    assert row["difference"] == 0
    assert queries.balance(of_operator(example), ["2026-11"]).is_empty()
    with pytest.raises(UsageError, match="no month"):
        queries.balance(of_operator(example), ["October"])


def test_an_overview_compares_with_the_month_before(example: Books) -> None:
    publish(example, [cost("0.01", period_start=datetime(2026, 9, 7, tzinfo=UTC), **CODER)], month="2026-09", run="run-9")
    glance = queries.overview(of_operator(example))
    assert (glance.month, glance.months) == ("2026-10", ["2026-09", "2026-10"])
    (total,) = glance.totals
    assert (total.cost, total.previous, total.change, total.unallocated) == (
        Decimal("0.03"),
        Decimal("0.01"),
        Decimal("0.02"),
        Decimal("0.003"),
    )
    assert (total.billed, total.estimated, total.unallocated_percent) == (Decimal("0.03"), Decimal(0), Decimal(10))
    assert [(t.name, str(t.change)) for t in glance.teams] == [
        ("Care", "0.018000000000"),
        ("Dev", "-0.001000000000"),
        (None, "0.003000000000"),
    ]
    assert [(r.cost_class, r.reason, r.cost) for r in glance.unallocated] == [
        ("unallocated", "uncaptured_usage", Decimal("0.003"))
    ]
    assert queries.overview(of_operator(example), view="executor").agents[0].name == "researcher"
    with pytest.raises(UsageError):
        queries.overview(of_operator(example), month="2026-13")


def test_what_has_no_price_is_named_not_shown_as_nothing(books: Books) -> None:
    publish(books, [cost("1", **CODER), cost("0", basis="estimated", reason="unpriced", **SUPPORT) | dict.fromkeys(COST_COLUMNS)])
    glance = queries.overview(of_operator(books))
    assert [t.name for t in glance.teams] == ["Dev"]
    assert glance.unpriced_agents == ["support-bot"]


def test_an_empty_ledger_answers_everything(books: Books) -> None:
    assert queries.overview(of_operator(books)).month is None
    assert queries.costs(of_operator(books), CostQuery()).is_empty()
    assert queries.balance(of_operator(books)).is_empty()
    assert queries.agents(of_operator(books)).unregistered == []
