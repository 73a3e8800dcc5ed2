"""What a bill covers: what it can hold, given when it was read and how late its usage arrives; and accounts on no bill (ES-1a)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import PROBLEMS, RAW_FILES
from tests.attribution.test_rules import call, rows
from tests.support.books_by_hand import at, charge, charges, price, spans, write

D = Decimal
HAIKU: dict[str, Any] = {"response_model": "anthropic.claude-3-5-haiku-20241022-v1:0"}
LIST = [
    price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000002"),
    price("anthropic.claude-3-5-haiku-20241022-v1:0", "input_tokens", "0.000001"),
]
BEDROCK_LOG = {"channel": "bedrock-log", "source": "bedrock_logs", "region": "us-east-1"}
PROVISIONAL: dict[str, Any] = {"final": False}


def read_at(books: Books, raw_id: str, moment: datetime, *, fetched_at: datetime | None = None, source: str = "focus") -> None:
    """A file of a bill, as of this moment."""
    sizes = {"bytes": 1, "rows_read": 1, "rows_refused": 0}
    row = {
        "raw_id": raw_id,
        "source": source,
        "uri": "by hand",
        "scope": "by-hand",
        "fetched_at": fetched_at or moment,
        "as_of": moment,
    }
    books.store.append(
        RAW_FILES, RAW_FILES.conform(pl.DataFrame([row | sizes], schema_overrides={"as_of": RAW_FILES.schema["as_of"]}))
    )


def use(number: int, hour: int, agent: str, *, day: int = 5, tokens: int = 1000, **columns: Any) -> dict[str, Any]:
    """Input tokens of account 1111 in an hour of October, 0.002 at list price a thousand."""
    columns_of_log: dict[str, Any] = {"account_id": "1111", **BEDROCK_LOG, **columns}
    return call(number, number, None, tokens, agent_name=agent, start_time=at(hour, day=day), **columns_of_log)


def day(cost: str, number: int, **columns: Any) -> dict[str, Any]:
    """A charge of a day."""
    return charge(cost, charge_period_start=at(0, day=number), charge_period_end=at(0, day=number + 1), **PROVISIONAL, **columns)


def metered(books: Books) -> list[tuple[Any, ...]]:
    attribute(books)
    return rows(books, "initiator_agent", "basis", "reason", "effective_cost", cost_class="metered")


def test_es1a_hours_that_the_bill_cannot_hold_yet_go_on_being_estimated(books: Books) -> None:
    """Read on the 6th at noon: AWS's usage settles in a day, so of a model that the bill does not name, noon of the 5th on is open."""
    facts = spans(use(1, 11, "early", **HAIKU), use(2, 12, "late", **HAIKU))
    write(books, spans=facts, charges=charges(day("9", 4), day("9", 5)), prices=LIST)
    read_at(books, "0" * 64, at(12, 59, day=6))
    assert metered(books) == [("early", "billed", "not_on_bill", D(0)), ("late", "estimated", None, D("0.001"))]


@pytest.mark.slow
def test_es1a_an_account_on_no_bill_is_estimated_and_told_with_its_money(books: Books) -> None:
    """1111 is billed; 2222 was last month, and is not now; 4444 is on the bill with storage only; 5555 is what a caller says, and nobody else."""
    caller: dict[str, Any] = {"channel": "otlp", "source": "otlp", "account_id": "5555"}
    facts = spans(
        use(1, 10, "two", account_id="2222"),
        use(2, 10, "four", account_id="4444"),
        use(3, 10, "five", tokens=500, **caller),
        use(4, 10, "late", account_id="2222", day=9),
    )
    storage: dict[str, Any] = {
        "sub_account_id": "4444",
        "service_name": "Amazon S3",
        "sku_meter": "TimedStorage",
        "consumed_unit": "GB",
    }
    september: dict[str, Any] = {"billing_month": "2026-09", "sub_account_id": "2222"}
    september |= {"charge_period_start": datetime(2026, 9, 5, tzinfo=UTC), "charge_period_end": datetime(2026, 9, 6, tzinfo=UTC)}
    bill = charges(day("0.002", 5, tokens_k="1"), day("1", 5, **storage), charge("3", tokens_k="1", **september))
    write(books, spans=facts, charges=bill, prices=LIST)
    assert metered(books) == [
        ("five", "billed", "caller_place,coarse_match", D("0.001")),
        ("four", "billed", "not_on_bill", D(0)),
        ("late", "estimated", None, D("0.002")),
        ("two", "estimated", "account_not_billed", D("0.002")),
    ]
    problem = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("account_not_billed")).collect()
    assert problem["place"].to_list() == ["AWS 2222"]
    assert "estimated at 0.002 USD" in problem["reason"][0]


def test_es1a_a_bill_without_accounts_may_mean_any(books: Books) -> None:
    """A console's export names no account: whose usage it does not name is not estimated beside it."""
    bill = charges(day("0.002", 5, tokens_k="1", sub_account_id=None))
    write(books, spans=spans(use(1, 10, "bot", **HAIKU)), charges=bill, prices=LIST)
    assert metered(books) == [("bot", "billed", "not_on_bill", D(0))]


@pytest.mark.slow
@pytest.mark.clock
def test_es1a_a_clock_that_was_wrong_covers_no_more_than_what_is_certain(books: Books) -> None:
    """Behind: the file holds usage of the 5th, so it was read then at the earliest. Ahead: it was read when it is attributed at the latest."""
    facts = spans(use(1, 2, "fourth", day=4, **HAIKU), use(2, 2, "fifth", **HAIKU))
    write(books, spans=facts, charges=charges(day("9", 3), day("9", 5)), prices=LIST)
    read_at(books, "0" * 64, at(0, day=5), fetched_at=datetime(2020, 1, 1, tzinfo=UTC))
    estimates = [("fifth", "estimated", None, D("0.001")), ("fourth", "estimated", None, D("0.001"))]
    assert metered(books) == estimates
    read_at(books, "0" * 64, datetime.now(UTC) + timedelta(days=3650))
    attribute(books, force=True)
    assert metered(books) == [("fifth", "billed", "not_on_bill", D(0)), ("fourth", "billed", "not_on_bill", D(0))]
