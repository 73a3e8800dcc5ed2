"""Two periods compared: what alone has changed is the only effect, and effects sum to the change of the cost."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from api import queries
from api.queries import ComparisonQuery, CostQuery, of_operator
from ledger.books import Books
from ledger.errors import UsageError
from ledger.tables import USAGE_HOURLY
from rootcost.cli import app
from tests.support.api_examples import HOUR, cost, frame, publish, reach, who

D = Decimal
WEEK = timedelta(days=7)


def usage(
    key: int, agent: str, *, calls: int, tokens: int, price: str, week: int = 0, reason: str = "", **fields: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metered cost of an agent in one of two weeks, and the hourly usage that it is of."""
    owner = who(key, agent, "Care", agent, "Care")
    start = HOUR + week * WEEK
    row = cost(
        str(D(calls) * tokens * D(price)), quantity=D(calls * tokens), period_start=start, period_end=start + timedelta(hours=1),
        usage_hour=start, **owner, **fields,
    )  # fmt: skip
    hourly = {
        "hour": start, "meter": "input_tokens", "quantity": D(calls * tokens), "calls": calls, "reason": reason, "model": row["model"],
        "provider": "AWS", **owner,
    }  # fmt: skip
    return row, hourly


def write(books: Books, *rows: tuple[dict[str, Any], dict[str, Any]] | dict[str, Any]) -> None:
    pairs = [row if isinstance(row, tuple) else (row, None) for row in rows]
    publish(books, [row for row, _ in pairs])
    hourly = [usage_row for _, usage_row in pairs if usage_row is not None]
    books.store.append(USAGE_HOURLY, frame(USAGE_HOURLY, hourly, month="2026-10", rollup_id="rollup-1"))


def effects(books: Books, **query: Any) -> dict[tuple[str | None, str], Decimal]:
    weeks = ComparisonQuery.parse("2026-W41", "2026-W42", **{"by": "agent", **query})
    rows = queries.comparison(of_operator(books), weeks)
    return {(row["agent"], row["effect"]): row["cost"] for row in rows.to_dicts()}


@pytest.mark.parametrize(("change", "effect"), [
    ({"calls": 20}, "volume"), ({"tokens": 200}, "tokens_per_call"), ({"price": "0.02"}, "price"), ({"model": "N"}, "gone"),
])  # fmt: skip
def test_what_alone_has_changed_is_the_only_effect(books: Books, change: dict[str, Any], effect: str) -> None:
    usual: dict[str, Any] = {"calls": 10, "tokens": 100, "price": "0.01"}
    write(books, usage(1, "coder", **usual), usage(2, "coder", week=1, **{**usual, **change}))
    costs_of_models = {("coder", "new"): D(10), ("coder", "gone"): D(-10)} if effect == "gone" else {("coder", effect): D(10)}
    assert effects(books) == costs_of_models


def test_retries_mix_new_and_gone_agents_and_what_no_call_used_are_told_apart(books: Books) -> None:
    machine = {"cost_class": "owner", "service": "EC2", "model": None, "meter": None, "initiator_agent": "trainer"}
    tax = {"cost_class": "unallocated", "charge_category": "Tax", "model": None, "meter": None}
    later = {"period_start": HOUR + WEEK, "period_end": HOUR + WEEK + timedelta(hours=1)}
    write(
        books,
        usage(1, "coder", calls=10, tokens=100, price="0.01"), usage(2, "coder", calls=10, tokens=100, price="0.01", week=1),
        usage(3, "coder", calls=5, tokens=100, price="0.01", week=1, reason="missing_parent,retry"),
        usage(4, "old", calls=1, tokens=7, price="1"), usage(5, "young", calls=1, tokens=9, price="1", week=1),
        cost("20", quantity=D(10), **machine), cost("60", quantity=D(20), **machine, **later),
        cost("5", **tax), cost("4", **tax, **later),
    )  # fmt: skip
    assert effects(books) == {
        ("coder", "retries"): D(5),
        ("old", "gone"): D(-7),
        ("young", "new"): D(9),
        ("trainer", "volume"): D(25),  # ten hours more at 2.50, the mean of both prices
        ("trainer", "price"): D(15),  # and 15 hours, the mean of both weeks, a dollar dearer
        (None, "price"): D(-1),
    }


def test_any_two_periods_differ_by_the_sum_of_their_effects(books: Books) -> None:
    rng = random.Random(7)
    rows = [
        usage(
            key, rng.choice(["a", "b", "c"]), calls=rng.randint(1, 9), tokens=rng.randint(1, 99), price=f"0.{rng.randint(1, 999999):06}",
            week=rng.randint(0, 1), reason=rng.choice(["", "retry"]), model=rng.choice(["M", "N", "O"]), currency=rng.choice(["USD", "EUR"]),
        )
        for key in range(60)
    ]  # fmt: skip
    write(books, *rows)
    for by in ("agent,model", "agent", "currency", "team"):
        query = ComparisonQuery.parse("2026-W41", "2026-W42", by=by)
        changes: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
        for sign, period in ((-1, query.before), (1, query.after)):
            for row in queries.costs(of_operator(books), period).to_dicts():
                changes[tuple(row[name] for name in query.groups)] += sign * row["cost"]
        sums = queries.comparison(of_operator(books), query).group_by(query.groups).agg(pl.col("cost").sum())
        assert {tuple(row[:-1]): row[-1] for row in sums.iter_rows()} == {
            key: change for key, change in changes.items() if change
        }


@pytest.mark.parametrize("text", ["2026-13", "2026-W54", "yesterday", "2026-10/", "2026-02-30", "", "2026-10/2026-09"])
def test_what_is_no_period_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"no period|empty"):
        ComparisonQuery.parse(text, "2026-10")


def test_months_are_those_of_invoices_and_weeks_those_of_use() -> None:
    assert ComparisonQuery.parse("2026-Q3", "2026-10").before.calendar == "invoice"
    assert ComparisonQuery.parse("2026-09", "2026-W42").before == CostQuery.parse(
        start="2026-09-01", end="2026-10", calendar="usage", by=()
    )


def test_the_same_is_told_by_command_and_api(books: Books, capfd: pytest.CaptureFixture[str]) -> None:
    write(
        books,
        usage(1, "coder", calls=10, tokens=100, price="0.01"),
        usage(2, "coder", calls=20, tokens=100, price="0.01", week=1),
    )
    with pytest.raises(SystemExit):
        app(
            [
                "--home",
                str(books.home),
                "compare",
                "--from",
                "2026-W41",
                "--to",
                "2026-W42",
                "--by",
                "agent,model",
                "--format",
                "json",
            ]
        )
    rows = json.loads(capfd.readouterr().out)
    assert rows == [{"agent": "coder", "model": "M", "currency": "USD", "effect": "volume", "cost": "10"}]
    with reach(books) as http:
        document = http.get("/v1/compare?from=2026-W41&to=2026-W42&by=agent,model").json()
        assert [{name: row[name] for name in rows[0]} for row in document["rows"]] == rows
        assert (document["totals_before"], document["totals_after"], document["totals_change"]) == (
            {"USD": "10"},
            {"USD": "20"},
            {"USD": "10"},
        )
        assert http.get("/v1/compare?from=2026-W41&to=2026-W42&by=agent&format=csv").text.splitlines() == [
            "agent,currency,effect,cost",
            "coder,USD,volume,10",
        ]
        bad_answer = http.get("/v1/compare?from=2026-W41&to=soon")
        assert (bad_answer.status_code, "2026-W41" in bad_answer.text) == (400, True)
    with pytest.raises(SystemExit):
        app(["--home", str(books.home), "compare", "--from", "2026-W41", "--to", "2026-W42"])
    assert "tokens per call" not in (table := capfd.readouterr().out)
    assert "volume" in table
