"""RA-2b: a quantity of more than 20 times what is billed is set aside and scales nobody else down. Dollars by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.costs import month
from attribution.run import attribute
from ledger.books import Books
from ledger.settings import AttributionSettings
from ledger.tables import BALANCE, PROBLEMS
from tests.attribution.costs.test_settling import PROVISIONAL, read_at
from tests.attribution.test_rules import OWNERS, call, rows, total
from tests.support.books_by_hand import at, charge, charges, price, spans, write

D = Decimal
PLACE = {"account_id": "1111", "region": "us-east-1"}
LIST = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]


def findings(books: Books) -> list[tuple[Any, ...]]:
    problems = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("implausible_usage")).collect()
    return problems.select("place", "reason", "rows").rows()


def balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [month.BATCH_ROWS, 0])
def test_thousands_sent_as_units_scale_nobody_down(books: Books, monkeypatch: pytest.MonkeyPatch, batch_rows: int) -> None:
    """1,000,000 billed at 3.00: coder logs her 600,000; researcher's 400,000 come a thousand times too large."""
    monkeypatch.setattr(month, "BATCH_ROWS", batch_rows)
    facts = spans(
        call(1, 1, None, 600_000, agent_name="coder", **PLACE), call(2, 2, None, 400_000_000, agent_name="researcher", **PLACE)
    )
    write(books, spans=facts, charges=charges(charge("3.00", tokens_k="1000")), owners=OWNERS, prices=LIST)
    attribute(books)
    assert rows(books, "initiator_agent", "cost_class", "reason", "quantity", "effective_cost") == [
        ("coder", "metered", None, D(600_000), D("1.80")),
        ("researcher", "metered", "implausible_usage", D(400_000_000), D(0)),
        (None, "unallocated", "uncaptured_usage", D(400_000), D("1.20")),
    ]
    ((place, reason, count),) = findings(books)
    assert (place, count) == ("otlp: researcher", 1)
    assert reason.startswith(
        "implausible_usage: 400000000 input_tokens of claude-sonnet-4-6 are more than 20 times what was billed"
    )
    assert "At stake: 2.995507 USD of the bill" in reason  # 3.00 × 400,000 / 400,600
    assert balanced(books)


def test_twenty_times_is_scaled_down_and_one_more_is_set_aside(books: Books) -> None:
    """1,000 billed an hour. At 10h researcher logs 20,000, at 11h 20,001 in two calls; coder 1,000 each."""
    facts = spans(
        *(call(n, n, None, 1000, agent_name="coder", start_time=at(9 + n), **PLACE) for n in (1, 2)),
        call(3, 3, None, 20_000, agent_name="researcher", start_time=at(10), **PLACE),
        *(
            call(n, n, None, tokens, agent_name="researcher", start_time=at(11), **PLACE)
            for n, tokens in ((4, 10_000), (5, 10_001))
        ),
    )
    bill = charges(
        *(charge("0.0021", tokens_k="1", charge_period_start=at(hour), charge_period_end=at(hour + 1)) for hour in (10, 11))
    )
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent", reason="overlogged") == {"coder": D("0.0001"), "researcher": D("0.002")}
    assert total(books, "initiator_agent", reason=None) == {"coder": D("0.0021")}
    assert total(books, "initiator_agent", reason="implausible_usage") == {"researcher": D(0)}
    assert balanced(books)


def test_everything_that_usage_meets_is_compared_and_a_running_period_is_not(books: Books) -> None:
    """30,000 logged: 1,000 billed by the hour and 1,000 by the day are 15 times. A bucket that was read at its start holds little of its day."""
    bill = charges(
        charge("0.003", tokens_k="1", charge_period_start=at(10), charge_period_end=at(11)),
        charge("0.003", tokens_k="1", charge_period_start=at(0), charge_period_end=at(0, day=6)),
        charge(
            "0.003", tokens_k="1", charge_period_start=at(0, day=7), charge_period_end=at(0, day=8), raw_id="b", **PROVISIONAL
        ),
    )
    facts = spans(
        call(1, 1, None, 30_000, agent_name="coder", start_time=at(10), **PLACE),
        call(2, 2, None, 30_000, agent_name="coder", start_time=at(0, day=7) + timedelta(minutes=5), **PLACE),
    )
    write(books, spans=facts, charges=bill, owners=OWNERS, prices=LIST)
    read_at(books, "b", at(3, day=7))
    attribute(books)
    assert total(books, "reason", basis="billed") == {"overlogged": D("0.006"), None: D("0.003")}
    assert total(books, "initiator_agent", basis="estimated") == {"coder": D("0.087")}
    assert not findings(books)


def test_a_hostile_quantity_costs_nobody_anything_whatever_its_account(books: Books) -> None:
    """An agent logs 10^12 tokens on everybody's accounts: each team pays what it logged, and none of the hostile rows is estimated."""
    books.settings = books.settings.model_copy(update={"attribution": AttributionSettings()})
    accounts = ("1111", "2222")
    facts = spans(
        *(call(n, n, None, 1000, agent_name="coder", account_id=a, region="us-east-1") for n, a in enumerate(accounts, 1)),
        *(call(n, n, None, 10**12, agent_name="mallory", account_id=a, region="us-east-1") for n, a in enumerate(accounts, 3)),
        call(5, 5, None, 10**12, agent_name="mallory"),
    )
    bill = charges(*(charge("0.003", tokens_k="1", sub_account_id=account) for account in accounts))
    write(books, spans=facts, charges=bill, owners=OWNERS, prices=LIST)
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.006"), "mallory": D(0)}
    assert balanced(books)
