"""RA-2a: usage is spent once over invoices, periods and currencies, and first on what its own agent and team own. Dollars by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.costs import month, token_matching
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE
from tests.attribution.test_rules import OWNERS, call, rows, total
from tests.support.books_by_hand import at, charge, charges, spans, write
from tests.support.cases import book_case

D = Decimal
PLACE = {"account_id": "1111", "region": "us-east-1"}


def balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


def reasons(books: Books) -> set[str | None]:
    return {reason for (reason,) in rows(books, "reason")}


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [month.BATCH_ROWS, 0])
def test_what_an_earlier_invoice_took_is_not_there_for_late_rows(
    books: Books, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(month, "BATCH_ROWS", batch_rows)
    book_case(books, "late-rows-on-the-next-invoice", ("otlp", "spans.json"), ("focus", "bill.csv"))
    assert total(books, "initiator_team", month="2026-10") == {"A": D("0.60"), None: D("0.10")}
    assert total(books, "initiator_team", month="2026-11") == {None: D("0.30")}
    assert reasons(books) == {None, "uncaptured_usage"}
    assert balanced(books)


@pytest.mark.parametrize("months", [None, ["2026-10"], ["2026-11"]])
def test_late_rows_pay_for_what_the_first_invoice_did_not_bill(books: Books, months: list[str] | None) -> None:
    """3 000 logged; October's invoice bills 2 000 of them, November's the other 1 000: nothing is beyond the bill."""
    late = datetime(2026, 10, 31, 22, tzinfo=UTC)
    hour = {"charge_period_start": late, "charge_period_end": late.replace(hour=23)}
    bill = charges(charge("0.006", tokens_k="2", **hour), charge("0.003", tokens_k="1", billing_month="2026-11", **hour))
    write(books, spans=spans(call(1, 1, None, 3000, agent_name="coder", start_time=late, **PLACE)), charges=bill, owners=OWNERS)
    attribute(books, months)
    dollars = {"2026-10": D("0.006"), "2026-11": D("0.003")}
    assert total(books, "month", initiator_agent="coder") == {month: dollars[month] for month in months or dollars}
    assert reasons(books) == {None}


@pytest.mark.slow
@pytest.mark.parametrize("months", [None, ["2026-12"]])
def test_of_three_invoices_each_takes_what_those_before_it_left(books: Books, months: list[str] | None) -> None:
    """An hour of 600 logged tokens: October's invoice bills 400 of it, November's and December's 300 each. A day of October is another pool."""
    hour = {"charge_period_start": at(10), "charge_period_end": at(11)}
    day = {"charge_period_start": at(0), "charge_period_end": at(0) + timedelta(days=1)}
    bill = charges(
        charge("0.004", tokens_k="0.4", **hour),
        charge("0.001", tokens_k="0.1", **day),
        charge("0.003", tokens_k="0.3", billing_month="2026-11", **hour),
        charge("0.003", tokens_k="0.3", billing_month="2026-12", **hour),
    )
    facts = spans(
        call(1, 1, None, 600, agent_name="coder", start_time=at(10), **PLACE),
        call(2, 2, None, 100, agent_name="support-bot", start_time=at(12), **PLACE),
    )
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books, months)
    if months is None:
        assert total(books, "initiator_agent", month="2026-10") == {"coder": D("0.004"), "support-bot": D("0.001")}
        assert total(books, "initiator_agent", month="2026-11") == {"coder": D("0.002"), None: D("0.001")}
        assert reasons(books) == {None, "uncaptured_usage"}
    assert total(books, "initiator_agent", month="2026-12") == {None: D("0.003")}
    assert balanced(books)


def test_a_late_row_does_not_make_its_provider_the_only_seller(books: Books) -> None:
    """October's invoice of Azure sells the model in that hour, and OpenAI's late row of November: a call that names neither is nobody's."""
    azure = {"provider_name": "Microsoft", "service_name": "Azure OpenAI", "sku_meter": "gpt 4o 0806 cchd Inp glbl Tokens"}
    openai = {
        "provider_name": "OpenAI",
        "service_name": "OpenAI API",
        "sku_meter": "gpt-4o-2024-08-06, input",
        "consumed_unit": "tokens",
    }
    bill = charges(
        charge("0.01", consumed_quantity="0.1", **azure),
        charge("0.90", consumed_quantity="1000", billing_month="2026-11", **openai),
    )
    unnamed = {"provider": None, "request_model": "gpt-4o", "response_model": "gpt-4o"}
    write(
        books, spans=spans(call(1, 1, None, 400, agent_name="coder", start_time=at(10), **unnamed)), charges=bill, owners=OWNERS
    )
    attribute(books)
    assert total(books, "initiator_agent", month="2026-11") == {None: D("0.90")}
    assert balanced(books)


def test_a_team_that_logged_everything_does_not_pay_for_one_that_did_not(books: Books) -> None:
    book_case(books, "unlogged-use-of-another-team", ("otlp", "spans.json"), ("aws-cur", "report.csv"))
    assert total(books, "initiator_team", cost_class="metered") == {"A": D("3.00")}
    assert total(books, "initiator_team", cost_class="owner") == {"B": D("3.00")}


def owned(cost: str, tokens_k: str, tags: str, **columns: Any) -> dict[str, Any]:
    return charge(cost, tokens_k=tokens_k, tags=tags, **columns)


def test_a_teams_calls_meet_its_own_charges_then_those_of_others(books: Books) -> None:
    """By tags: Care bought 2 000 and logged 1 000, Dev bought 1 000 and logged 2 000. Dev's surplus meets Care's other half: all is logged."""
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot", **PLACE),
        call(2, 2, None, 2000, agent_name="coder", **PLACE),
    )
    bill = charges(owned("0.008", "2", '{"user_team":"Care"}'), owned("0.003", "1", '{"user_team":"Dev"}'))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_team") == {"Care": D("0.004"), "Dev": D("0.007")}
    assert reasons(books) == {None}
    assert balanced(books)


def test_an_hours_surplus_is_offered_to_the_charge_of_the_day(books: Books) -> None:
    book_case(books, "overlapping-periods", ("otlp", "spans.json"), ("focus", "bill.csv"))
    assert total(books, "initiator_team") == {"X": D("0.45"), "Y": D("2.55")}
    assert reasons(books) == {None}


def test_usage_without_account_meets_both_currencies(books: Books) -> None:
    book_case(books, "overlapping-periods", ("otlp", "spans-without-account.json"), ("focus", "two-currencies.csv"))
    assert total(books, "currency", initiator_team="X") == {"EUR": D("3"), "USD": D("3")}
    assert reasons(books) == {"coarse_match"}


@pytest.mark.slow
def test_many_overlapping_periods_are_bounded_and_balance(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile bill: 24 charges of 10 tokens, each an hour longer than the one before; 240 logged in their common hour, all of them billed.

    With fewer offers than periods, what no offer reaches is uncaptured, and the total is the same.
    """
    bill = charges(
        *(
            charge("0.00003", tokens_k="0.01", charge_period_start=at(0), charge_period_end=at(0) + timedelta(hours=hours))
            for hours in range(1, 25)
        )
    )
    write(books, spans=spans(call(1, 1, None, 240, agent_name="coder", start_time=at(0), **PLACE)), charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.00072")}
    assert reasons(books) == {None}
    monkeypatch.setattr(token_matching, "MAX_OFFERS", 2)
    attribute(books, force=True)
    assert sum(total(books, "initiator_agent").values()) == D("0.00072")
    assert balanced(books)
