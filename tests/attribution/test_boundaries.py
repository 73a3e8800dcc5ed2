"""Where months, invoices, periods and hours meet; where bills leave things out; where senders are wrong. Dollars worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.errors import SettingsError, UsageError
from ledger.settings import IngestSettings, SharedRule
from ledger.tables import CALLS, COSTS
from tests.attribution.test_rules import OWNERS, call, configure, rows, total
from tests.support.books_by_hand import SONNET, at, charge, charges, price, span, spans, write

D = Decimal
LIST = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
GPU = {
    "sku_meter": "USE1-BoxUsage:g5.xlarge",
    "consumed_unit": "Hrs",
    "consumed_quantity": D(1),
    "service_name": "Amazon EC2",
    "resource_id": "i-gpu",
}


def hour(start: datetime, hours: int = 1) -> dict[str, Any]:
    return {"charge_period_start": start, "charge_period_end": start + timedelta(hours=hours)}


def test_usage_on_the_next_invoice_is_billed_once_and_not_estimated_too(books: Books) -> None:
    """An October call whose charge stands on November's invoice; and the same facts in the other order."""
    bill = charges(charge("0.03", tokens_k="10", billing_month="2026-11"))
    write(books, charges=bill, prices=LIST)
    attribute(books)
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder")))
    assert attribute(books).unchanged == [], "the November invoice is drawn again, since its usage arrived"
    assert rows(books, "month", "basis", "initiator_agent", "effective_cost") == [("2026-11", "billed", "coder", D("0.03"))]


def test_an_overlogged_pool_hands_on_what_it_does_not_bill(books: Books) -> None:
    """10K of 100K are billed on an inference profile, the rest without; the log names none. All of it is paid for."""
    profile = "arn:aws:bedrock:us-east-1:1111:application-inference-profile/p"
    bill = charges(charge("0.03", tokens_k="10", resource_id=profile), charge("0.27", tokens_k="90"))
    write(books, spans=spans(call(1, 1, None, 100_000, agent_name="coder")), charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.30")}
    assert sum(q for (q,) in rows(books, "quantity")) == D(100_000)
    assert not any("overlogged" in (r or "") for (r,) in rows(books, "reason"))


def test_a_charge_that_cannot_be_classified_is_not_added_to_an_estimate_of_the_same_usage(books: Books) -> None:
    bill = charges(charge("0.03", sku_meter="USE1-Mystery-Thing", consumed_unit="Units", consumed_quantity=D(1)))
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder")), charges=bill, prices=LIST)
    attribute(books)
    assert rows(books, "cost_class", "reason", "effective_cost") == [
        ("metered", "not_on_bill", D(0)),
        ("unallocated", "unclassified_sku", D("0.03")),
    ]


def test_a_monthly_charge_of_one_model_does_not_end_the_estimates_of_another(books: Books) -> None:
    month = {"charge_period_start": datetime(2026, 10, 1, tzinfo=UTC), "charge_period_end": datetime(2026, 11, 1, tzinfo=UTC)}
    bill = charges(charge("0.001", tokens_k="1", sku_meter="USE1-NovaPro-input-tokens", **month))
    write(
        books, spans=spans(call(1, 1, None, 1_000_000, agent_name="coder", start_time=at(9, day=20))), charges=bill, prices=LIST
    )
    attribute(books)
    assert total(books, "basis", cost_class="metered") == {"estimated": D("3")}


def test_a_bill_without_effective_cost_does_not_make_estimates_free(books: Books) -> None:
    facts = spans(call(1, 1, None, 10_000, agent_name="coder"), call(2, 2, None, 10_000, agent_name="coder", start_time=at(12)))
    write(books, spans=facts, charges=charges(charge("0.024", tokens_k="10", effective_cost=D(0))), prices=LIST)
    attribute(books)
    assert rows(books, "effective_cost", basis="estimated") == [(D("0.024"),)]


def test_an_unpriced_call_never_hides_among_priced_ones_of_its_hour(books: Books) -> None:
    late = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003", valid_from=at(10, day=5))]
    facts = spans(
        call(1, 1, None, 10_000, agent_name="coder"), call(2, 2, None, 10_000, agent_name="coder", start_time=at(9, 59))
    )
    write(books, spans=facts, prices=late)
    attribute(books)
    assert rows(books, "reason", "effective_cost") == [("unpriced", None), (None, D("0.03"))] or rows(
        books, "reason", "effective_cost"
    ) == [
        (None, D("0.03")),
        ("unpriced", None),
    ]


@pytest.mark.parametrize("sub_account", ["1111", None])
def test_a_credit_for_another_service_does_not_fall_on_model_users(books: Books, sub_account: str | None) -> None:
    credit = charge(
        "-500",
        charge_category="Credit",
        service_name="Amazon EC2",
        sku_meter="BoxUsage",
        consumed_unit=None,
        sub_account_id=sub_account,
    )
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder")), charges=charges(charge("10", tokens_k="10"), credit))
    attribute(books)
    assert rows(books, "cost_class", "reason", "effective_cost") == [
        ("metered", "coarse_match", D("10")),
        ("unallocated", "credit_without_charge", D("-500")),
    ]


def test_a_credit_without_an_account_follows_the_charges_of_its_service(books: Books) -> None:
    credit = charge("-5", charge_category="Credit", sku_meter=None, consumed_unit=None, sub_account_id=None)
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder")), charges=charges(charge("10", tokens_k="10"), credit))
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("5")}


def test_held_time_is_spread_over_the_hours_it_covers(books: Books) -> None:
    """coder holds the machine from 10:00 to 13:00, researcher for the last minute of hour 11: 3600 and 60 of 3660 seconds."""
    bill = charges(*(charge("1", **GPU, **hour(at(h))) for h in (10, 11, 12)))
    facts = spans(
        span(1, 1, agent_name="coder", resource_id="i-gpu", end_time=at(13)),
        span(2, 2, agent_name="researcher", resource_id="i-gpu", start_time=at(11, 59), end_time=at(12)),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("2.983606557377"), "researcher": D("0.016393442623")}


def test_each_charge_of_a_resource_is_split_on_its_own_period(books: Books) -> None:
    """Hourly compute and daily storage of one runtime, used 3 : 1."""
    arn = "arn:aws:bedrock-agentcore:us-east-1:1111:runtime/r"
    both = {"resource_id": arn, "sku_meter": "USE1-Runtime:Consumption-based:vCPU", "consumed_unit": "vCPU-Hours"}
    facts = spans(
        span(1, 1, agent_name="support-bot", resource_id=arn, end_time=at(10, 3)),
        span(2, 2, agent_name="coder", resource_id=arn, end_time=at(10, 1)),
    )
    write(books, spans=facts, charges=charges(charge("1", **both, **hour(at(10))), charge("24", **both, **hour(at(0), 24))))
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("18.75"), "coder": D("6.25")}


def test_a_driver_matches_only_what_it_does_not_contradict(books: Books) -> None:
    """A token charge without a quantity, of account 1111; the provider's own log says that the only calls are account 2222's."""
    log = {"channel": "bedrock-log", "source": "bedrock_logs"}
    write(
        books,
        spans=spans(call(1, 1, None, 10_000, agent_name="coder", account_id="2222", **log)),
        charges=charges(charge("0.03", consumed_unit="Units", consumed_quantity=D(1))),
    )
    attribute(books)
    assert total(books, "cost_class", basis="billed")["unallocated"] == D("0.03")


@pytest.mark.parametrize(
    "caller",
    [{"account_id": "my-gcp", "region": "europe-west1"}, {"account_id": None, "region": "eastus2"}],
)
def test_where_the_caller_runs_is_not_where_the_model_is_billed(books: Books, caller: dict[str, Any]) -> None:
    """An agent in another cloud calls Bedrock; its resource attributes name its own project and region."""
    write(
        books, spans=spans(call(1, 1, None, 10_000, agent_name="coder", **caller)), charges=charges(charge("0.03", tokens_k="10"))
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.03")}


def test_a_trusted_claim_may_use_any_name_of_the_agent(books: Books) -> None:
    configure(books, ingest=IngestSettings(trusted_sources=["otlp"]))
    write(
        books,
        spans=spans(call(1, 1, None, 10, claimed_agent="sb")),
        owners="agent,team,aliases\nsupport-bot,Care,sb\n",
        prices=LIST,
    )
    attribute(books)
    assert rows(books, "initiator_agent", "initiator_team") == [("support-bot", "Care")]


def test_a_gateway_row_with_the_ids_of_a_span_is_counted_once(books: Books) -> None:
    tool = span(1, 1, agent_name="coder")
    log = call(1, 1, None, 10_000, channel="litellm", source="litellm", gateway_call_id="g")
    write(books, spans=spans(tool, log))
    attribute(books)
    calls = books.store.scan(CALLS).collect()
    assert calls.select("initiator_agent", "input_tokens").rows() == [("coder", 10_000)]


def test_absurd_counts_are_not_believed_and_harm_nobody(books: Books) -> None:
    facts = spans(
        call(1, 1, None, 2**62, agent_name="broken"),
        call(2, 2, None, 2**62, agent_name="broken"),
        call(3, 3, None, 10_000, agent_name="coder"),
    )
    write(books, spans=facts, charges=charges(charge("0.03", tokens_k="10")))
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.03")}
    assert set(books.store.scan(CALLS).filter(pl.col("executor_agent") == "broken").collect()["reason"]) == {
        "absurd_usage,usage_absent"
    }


def test_one_monstrous_quantity_does_not_stop_the_books(books: Books) -> None:
    bill = charges(
        charge("0.03", tokens_k="10"),
        charge("1", consumed_quantity=D(9) * 10**20, consumed_unit="1M tokens", sku_meter="USE1-NovaPro-input-tokens"),
    )
    write(
        books,
        spans=spans(
            call(1, 1, None, 10_000, agent_name="coder"),
            call(2, 2, None, 5, agent_name="x", response_model="amazon.nova-pro-v1:0"),
        ),
        charges=bill,
    )
    assert attribute(books).balance["difference"].abs().sum() == 0
    assert total(books, "initiator_agent")["coder"] == D("0.03")


def test_reasoning_told_without_an_output_figure_still_counts(books: Books) -> None:
    write(books, spans=spans(span(1, 1, agent_name="coder", reasoning_tokens=500, **SONNET)))
    attribute(books)
    assert books.store.scan(CALLS).collect()["reasoning_tokens"].to_list() == [500]


def test_the_order_of_two_contradicting_deliveries_changes_nothing(books: Books, tmp_path: Any) -> None:
    """The same span key on two dates, with other figures."""
    first, second = call(1, 1, None, 100, agent_name="coder"), call(1, 1, None, 200, agent_name="coder", start_time=at(1, day=6))
    figures = []
    for number, order in enumerate(((first, second), (second, first))):
        with Books.open(tmp_path / str(number)) as other:
            for delivery in order:
                write(other, spans=spans(delivery))
            write(other, prices=LIST)
            attribute(other)
            figures.append(other.store.scan(COSTS).collect().select("period_start", "effective_cost").rows())
    assert figures[0] == figures[1]
    assert len(figures[0]) == 1


def test_a_month_that_is_none_and_rules_that_cannot_be_split_are_told(books: Books) -> None:
    with pytest.raises(UsageError, match="no month"):
        attribute(books, months=["2026-13"])
    for wrong in ({"method": "fixed", "shares": {"Care": "-1"}}, {"method": "fixed", "shares": {}}, {"teams": ["Care", "Care"]}):
        with pytest.raises((ValueError, SettingsError)):
            SharedRule(name="r", **wrong)
    assert OWNERS
