"""Rules of attribution, one by one, on ledgers written by hand. Expected dollars are worked out in the test."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from api.queries import of_operator
from api.queries.explain import explain
from attribution.run import attribute
from ledger.books import Books
from ledger.errors import BalanceError
from ledger.ids import trace_key
from ledger.settings import AttributionSettings, Defaults, IngestSettings, SharedRule
from ledger.tables import BALANCE, CALLS, CHAINS, COSTS, PROBLEMS, RATES
from tests.support.books_by_hand import SONNET, at, charge, charges, price, span, spans, write

OWNERS = "agent,team\nsupport-bot,Care\nresearcher,Data\ncoder,Dev\n"
D = Decimal


def rows(books: Books, *columns: str, **where: Any) -> list[tuple[Any, ...]]:
    """Costs of the newest run per month, chosen columns, in a fixed order."""
    from sqlalchemy import select

    from ledger.db import Published

    with books.database.session() as session:
        runs = {p.month: p.run_id for p in session.scalars(select(Published))}
    frame = books.store.scan(COSTS).filter(pl.col("run_id").is_in(list(runs.values()))).collect()
    for column, value in where.items():
        frame = frame.filter(pl.col(column).eq_missing(pl.lit(value)))
    return sorted(frame.select(columns).rows(), key=str)


def total(books: Books, key: str, **where: Any) -> dict[Any, Decimal]:
    out: dict[Any, Decimal] = defaultdict(Decimal)
    for name, cost in rows(books, key, "effective_cost", **where):
        out[name] += cost
    return dict(out)


def configure(books: Books, **sections: Any) -> None:
    books.settings = books.settings.model_copy(update=sections)


def call(trace: int, number: int, parent: int | None, tokens: int, **told: Any) -> dict[str, Any]:
    return span(trace, number, parent, input_tokens=tokens, **{**SONNET, **told})


# ── chains ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ch1_a_link_carries_the_initiator_across_traces(books: Books) -> None:
    """A queue worker in its own trace, linked to the producer, spends for the producer's agent."""
    producer = [span(1, 1, agent_name="support-bot"), span(1, 2, 1)]
    worker = [span(2, 3, link=(1, 2), agent_name="researcher"), call(2, 4, 3, 1000)]
    write(books, spans=spans(*producer, *worker), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_team", "executor_team", "effective_cost") == [("Care", "Data", D("0.003"))]


@pytest.mark.slow
def test_ch2_a_late_parent_repairs_the_chain_and_not_the_total(books: Books) -> None:
    write(books, spans=spans(span(1, 2, 1), call(1, 3, 2, 1000)), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [("unknown", "coarse_match,missing_parent", D("0.003"))]
    write(books, spans=spans(span(1, 1, agent_name="support-bot")))
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [("support-bot", "coarse_match", D("0.003"))]


def test_ch3_cycles_and_self_parents_terminate_with_one_root(books: Books) -> None:
    ring = [
        call(1, 1, 3, 100),
        call(1, 2, 1, 100, start_time=at(10, 5)),
        call(1, 3, 2, 100, start_time=at(10, 1)),
        call(2, 4, 4, 100),
    ]
    write(books, spans=spans(*ring), charges=charges(charge("0.0004", tokens_k="0.4")))
    attribute(books)
    chains = books.store.scan(CHAINS).sort("chain_id").collect()
    # Span 2 started last, so its edge to 1 is cut and it is the root of the ring.
    assert chains.select("chain_id", "reason").rows() == [(f"{1:032x}:{2:016x}", "cycle"), (f"{2:032x}:{4:016x}", "cycle")]
    assert sum(total(books, "reason").values()) == D("0.0004")


@pytest.mark.slow
def test_ch4_a_trusted_claim_names_the_root_of_a_broken_path_and_an_untrusted_one_moves_nothing(books: Books) -> None:
    """CH-7: the same header, from a source that is trusted and from one that is not."""
    facts = spans(
        span(1, 2, 1, agent_name="researcher"),
        call(1, 3, 2, 1000, claimed_agent="support-bot"),
        call(2, 5, None, 1000, claimed_agent="support-bot"),
    )
    write(books, spans=facts, charges=charges(charge("0.006", tokens_k="2")), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"researcher": D("0.003"), "unknown": D("0.003")}
    assert books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("untrusted_claim")).collect().height == 1
    configure(books, ingest=IngestSettings(trusted_sources=["otlp"]))
    attribute(books)
    assert total(books, "initiator_team") == {"Care": D("0.006")}
    assert total(books, "executor_agent") == {"researcher": D("0.003"), "support-bot": D("0.003")}


def test_ch4_conversation_then_credential_then_service(books: Books) -> None:
    known = [span(1, 1, agent_name="coder", conversation_id="chat-9"), call(1, 2, 1, 1000, conversation_id="chat-9")]
    loose = [
        call(2, 3, None, 1000, conversation_id="chat-9"),
        call(3, 4, None, 1000, credential="key-care"),
        call(4, 5, None, 1000, service_name="indexer"),
    ]
    owners = "agent,team,credentials,services\ncoder,Dev,,\nsupport-bot,Care,key-care,\nresearcher,Data,,indexer\n"
    write(books, spans=spans(*known, *loose), charges=charges(charge("0.012", tokens_k="4")), owners=owners)
    attribute(books)
    assert rows(books, "initiator_agent", "method", "effective_cost") == [
        ("coder", "conversation", D("0.003")),
        ("coder", "path", D("0.003")),
        ("researcher", "service", D("0.003")),
        ("support-bot", "credential", D("0.003")),
    ]


def test_ch6_clock_skew_changes_no_owner(books: Books) -> None:
    """The callee's clock runs twenty minutes behind its caller's."""
    skewed = [span(1, 1, agent_name="support-bot", start_time=at(10, 30)), call(1, 2, 1, 1000, start_time=at(10, 10))]
    write(books, spans=spans(*skewed), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.003")}


# ── identity ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_id1_the_owner_at_the_time_of_the_call_pays(books: Books) -> None:
    owners = "agent,team,valid_from\nsupport-bot,Care,2026-01-01\nsupport-bot,Growth,2026-10-06\n"
    later = at(10, day=7)
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot"), call(2, 2, None, 1000, agent_name="support-bot", start_time=later)
    )
    bill = charges(
        charge("0.003", tokens_k="1"),
        charge("0.003", tokens_k="1", charge_period_start=later, charge_period_end=later + timedelta(hours=1)),
    )
    write(books, spans=facts, charges=bill, owners=owners)
    attribute(books)
    assert total(books, "initiator_team") == {"Care": D("0.003"), "Growth": D("0.003")}


def test_id2_an_unregistered_agent_keeps_its_own_name(books: Books) -> None:
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="newcomer")), charges=charges(charge("0.003", tokens_k="1")))
    attribute(books)
    assert rows(books, "initiator_agent", "initiator_team", "effective_cost") == [("newcomer", None, D("0.003"))]


# ── one call, counted once ──────────────────────────────────────────────────────────────────────────────────────────


def test_ca1_a_gateway_row_and_a_span_of_one_call_are_one_call(books: Books) -> None:
    """The span knows the chain, the gateway knows the cached tokens."""
    agent = span(1, 1, agent_name="support-bot")
    seen = call(1, 2, 1, 1000, output_tokens=50, provider_request_id="msg_1", input_includes_cache=None)
    logged = call(
        77,
        99,
        None,
        1000,
        output_tokens=50,
        cache_read_tokens=400,
        provider_request_id="msg_1",
        gateway_call_id="g-1",
        channel="litellm",
        source="litellm",
    )
    write(books, spans=spans(agent, seen, logged), owners=OWNERS)
    attribute(books)
    calls = books.store.scan(CALLS).collect()
    assert calls.select("channels", "initiator_agent", "input_tokens", "cache_read_tokens", "output_tokens").rows() == [
        ("litellm+otlp", "support-bot", 600, 400, 50)
    ]


def test_ca1_a_shared_response_id_with_other_usage_is_no_proof(books: Books) -> None:
    facts = spans(
        call(1, 1, None, 10, output_tokens=5, provider_request_id="r"),
        call(2, 2, None, 20, output_tokens=7, provider_request_id="r"),
    )
    write(books, spans=facts)
    attribute(books)
    assert books.store.scan(CALLS).collect().height == 2


def test_ca2_a_wrapper_that_repeats_its_children_costs_nothing(books: Books) -> None:
    wrapper = span(
        1,
        1,
        agent_name="support-bot",
        input_tokens=3000,
        usage_scope="aggregate",
        provider="bedrock",
        response_model=SONNET["response_model"],
    )
    write(
        books,
        spans=spans(wrapper, call(1, 2, 1, 1000), call(1, 3, 1, 2000)),
        charges=charges(charge("0.009", tokens_k="3")),
        owners=OWNERS,
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.009")}
    assert books.store.scan(CALLS).collect()["input_tokens"].sort().to_list() == [1000, 2000]


def test_ca2_a_wrapper_whose_children_say_nothing_stands_for_them(books: Books) -> None:
    wrapper = span(
        1,
        1,
        agent_name="support-bot",
        input_tokens=3000,
        usage_scope="aggregate",
        provider="bedrock",
        response_model=SONNET["response_model"],
    )
    write(books, spans=spans(wrapper, span(1, 2, 1)), charges=charges(charge("0.009", tokens_k="3")), owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [
        ("support-bot", "coarse_match,aggregate_only", D("0.009"))
    ]


def test_ca2_nested_calls_of_two_requests_are_two_calls(books: Books) -> None:
    """A model call whose tool calls a model again, each with a provider id of its own."""
    outer = call(1, 1, None, 1000, provider_request_id="a", agent_name="coder", output_tokens=1)
    write(books, spans=spans(outer, call(1, 2, 1, 500, provider_request_id="b", output_tokens=2)))
    attribute(books)
    assert books.store.scan(CALLS).collect()["input_tokens"].sum() == 1500


@pytest.mark.slow
def test_ca2b_explain_says_why_a_span_is_no_call(books: Books) -> None:
    agent = span(1, 1, agent_name="coder", input_tokens=500, usage_scope="aggregate")
    write(books, spans=spans(agent, call(1, 2, 1, 500), call(1, 3, 2, 500)))
    attribute(books)
    for number, reason in ((1, "wrapper"), (2, "echo")):
        explanation = explain(of_operator(books), f"{1:032x}:{number:016x}")
        step = next(step for step in explanation.steps if step.rule == "CA-2b")
        assert step.facts["reason"] == [reason]
        assert "500 input tokens set aside" in step.parts[0].sentence
    reasons = books.store.scan(PROBLEMS).collect()["reason"].to_list()
    assert sorted(text.partition(":")[0] for text in reasons if "list prices" in text) == ["echo", "wrapper"]


@pytest.mark.slow
def test_ca3_twice_shuffled_and_in_pieces_is_once(books: Books, tmp_path: Any) -> None:
    facts = spans(span(1, 1, agent_name="support-bot"), *(call(1, n, 1, n) for n in range(2, 30)))
    write(books, spans=facts)
    attribute(books)
    with Books.open(tmp_path / "other") as other:
        mixed = facts.sample(fraction=1, shuffle=True, seed=3)
        for piece in (mixed[5:], mixed[:20], mixed):
            write(other, spans=piece)
        attribute(other)
        columns = ["trace_key", "span_key", "chain_id", "initiator_agent", "input_tokens", "usage_key"]
        keys = [c for c in columns if c != "usage_key"]
        assert (
            other.store.scan(CALLS)
            .collect()
            .select(keys)
            .sort("span_key")
            .equals(books.store.scan(CALLS).collect().select(keys).sort("span_key"))
        )


def test_ca4_absent_usage_is_null_and_a_gateway_cache_hit_costs_nothing(books: Books) -> None:
    silent = span(1, 1, agent_name="coder", usage_scope="leaf", provider="bedrock")
    hit = call(2, 2, None, 500, agent_name="coder", cache_hit=True)
    write(books, spans=spans(silent, hit), prices=[price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")])
    attribute(books)
    calls = books.store.scan(CALLS).sort("trace_key").collect()
    assert calls.select("input_tokens", "list_cost", "reason").rows() == [
        (None, None, "usage_absent"),
        (500, D("0"), "cache_hit"),
    ]
    assert rows(books, "effective_cost") == []


# ── rating ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ra1a_calls_that_do_not_know_their_account_meet_what_the_exact_pools_leave(books: Books) -> None:
    """Account 1111 logs 4 000 of its 6 000 tokens, account 2222 none of its 4 000. 5 000 tokens come from a log that knows no account.

    Exact: 4 000 at 0.018/6 000. Left over: 0.006 of 1111 and 0.012 of 2222 for 6 000 tokens; the 5 000 take 5/6 of it.
    """
    facts = spans(
        call(1, 1, None, 4000, agent_name="support-bot", account_id="1111"),
        call(2, 2, None, 5000, agent_name="coder"),
    )
    bill = charges(charge("0.018", tokens_k="6"), charge("0.012", tokens_k="4", sub_account_id="2222"))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent", cost_class="metered") == {"support-bot": D("0.012"), "coder": D("0.015")}
    assert {r[0] for r in rows(books, "reason", initiator_agent="coder")} == {"coarse_match"}
    assert total(books, "account", cost_class="unallocated") == {"1111": D("0.001"), "2222": D("0.002")}


@pytest.mark.slow
def test_ra1a_settings_fill_what_the_log_leaves_unsaid(books: Books) -> None:
    configure(books, attribution=AttributionSettings(defaults=[Defaults(provider="AWS", account="1111", region="us-east-1")]))
    write(
        books,
        spans=spans(call(1, 1, None, 1000, agent_name="coder")),
        charges=charges(charge("0.003", tokens_k="1"), charge("0.005", tokens_k="1", sub_account_id="2222")),
    )
    attribute(books)
    assert rows(books, "account", "cost_class", "reason", "effective_cost") == [
        ("1111", "metered", None, D("0.003")),
        ("2222", "unallocated", "uncaptured_usage", D("0.005")),
    ]


def test_ra1_calls_never_match_across_model_meter_or_period(books: Books) -> None:
    facts = spans(call(1, 1, None, 1000, agent_name="coder"))
    bill = charges(
        charge("1", tokens_k="1", sku_meter="USE1-Claude4.6Opus-input-tokens"),
        charge("2", tokens_k="1", sku_meter="USE1-Claude4.6Sonnet-output-tokens"),
        charge("4", tokens_k="1", charge_period_start=at(11), charge_period_end=at(12)),
        charge("8", tokens_k="1", billing_currency="EUR", provider_name="Microsoft"),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0"), "unallocated": D("15")}
    assert rows(books, "reason", cost_class="metered") == [("not_on_bill",)]


@pytest.mark.slow
@pytest.mark.parametrize(("logged", "metered"), [(9_960, "0.03"), (10_040, "0.03"), (9_900, "0.0297"), (12_000, "0.03")])
def test_ra2_within_the_tolerance_logs_and_bill_agree(books: Books, logged: int, metered: str) -> None:
    """Half a percent either way is agreement; below it the rest is uncaptured; above, everybody is scaled down."""
    known = {"account_id": "1111", "region": "us-east-1"}
    write(
        books, spans=spans(call(1, 1, None, logged, agent_name="coder", **known)), charges=charges(charge("0.03", tokens_k="10"))
    )
    attribute(books)
    assert total(books, "cost_class")["metered"] == D(metered)
    assert sum(total(books, "cost_class").values()) == D("0.03")
    flag = books.store.scan(RATES).collect()["flag"].item()
    assert flag == ("overlogged" if logged == 12_000 else "")


@pytest.mark.slow
def test_ra2_daily_and_hourly_bills_take_the_calls_of_their_period(books: Books) -> None:
    day = {"charge_period_start": at(0), "charge_period_end": at(0, day=6)}
    facts = spans(
        call(1, 1, None, 1000, agent_name="coder", start_time=at(3)),
        call(2, 2, None, 3000, agent_name="support-bot", start_time=at(20)),
    )
    write(books, spans=facts, charges=charges(charge("0.4", tokens_k="4", **day)))
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.1"), "support-bot": D("0.3")}


@pytest.mark.slow
def test_ra3_a_gpu_is_split_by_seconds_and_its_idle_part_stands_apart(books: Books) -> None:
    """One hour of a machine at 3.60: support-bot held it for ten minutes, coder for five; 45 minutes were idle."""
    gpu = {
        "resource_id": "i-gpu",
        "sku_meter": "USE1-BoxUsage:g5.xlarge",
        "consumed_unit": "Hrs",
        "consumed_quantity": D(1),
        "service_name": "Amazon EC2",
    }
    facts = spans(
        span(1, 1, agent_name="support-bot", resource_id="i-gpu", end_time=at(10, 10)),
        span(1, 2, 1, resource_id="i-gpu", end_time=at(10, 5)),
        span(2, 3, agent_name="coder", resource_id="i-gpu", end_time=at(10, 5)),
    )
    write(books, spans=facts, charges=charges(charge("3.60", **gpu)), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.60"), "coder": D("0.30"), None: D("2.70")}
    assert total(books, "cost_class") == {"metered": D("0.90"), "idle": D("2.70")}


@pytest.mark.slow
def test_ra3_an_hour_in_which_nobody_used_a_known_machine_is_idle_and_an_unknown_machine_is_not(books: Books) -> None:
    gpu = {
        "sku_meter": "USE1-BoxUsage:g5.xlarge",
        "consumed_unit": "Hrs",
        "consumed_quantity": D(1),
        "service_name": "Amazon EC2",
    }
    later = {"charge_period_start": at(11), "charge_period_end": at(12)}
    bill = charges(
        charge("3.60", resource_id="i-gpu", **gpu),
        charge("3.60", resource_id="i-gpu", **gpu, **later),
        charge("1", resource_id="i-web", **gpu),
    )
    write(books, spans=spans(span(1, 1, agent_name="coder", resource_id="i-gpu", end_time=at(11))), charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "reason", "effective_cost") == [
        ("idle", "idle_capacity", D("3.60")),
        ("metered", None, D("3.60")),
        ("unallocated", "no_logged_use", D("1")),
    ]


@pytest.mark.slow
def test_ra3_a_runtime_billed_by_consumption_has_no_idle_part(books: Books) -> None:
    arn = "arn:aws:bedrock-agentcore:us-east-1:1111:runtime/r"
    runtime = {
        "resource_id": arn,
        "sku_meter": "USE1-Runtime:Consumption-based:vCPU",
        "consumed_unit": "vCPU-Hours",
        "consumed_quantity": D("0.1"),
    }
    facts = spans(
        span(1, 1, agent_name="support-bot", resource_id=arn, end_time=at(10, 10)),
        span(2, 3, agent_name="coder", resource_id=arn, end_time=at(10, 5)),
    )
    write(books, spans=facts, charges=charges(charge("0.009", **runtime)), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.006"), "coder": D("0.003")}


@pytest.mark.slow
def test_ra4_the_ladder_owner_then_shared_then_unallocated(books: Books) -> None:
    support = {"service_name": "AWS Support", "sku_meter": "Support", "consumed_unit": None, "sub_account_id": "9999"}
    store = {"service_name": "Amazon S3", "sku_meter": "TimedStorage", "consumed_unit": "GB-Mo"}
    bill = charges(
        charge("0.009", tokens_k="3"),
        charge("3", **support),
        charge("5", **store, tags='{"user_team":"Growth"}'),
        charge("7", **store),
    )
    rule = SharedRule(name="support by use", service="AWS Support")
    configure(books, attribution=AttributionSettings(shared=[rule]))
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot"), call(2, 2, None, 2000, agent_name="coder"))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "cost_class", "initiator_team", "rule", "effective_cost") == [
        ("metered", "Care", "RA-1a", D("0.003")),
        ("metered", "Dev", "RA-1a", D("0.006")),
        ("owner", "Growth", "RA-4", D("5")),
        ("shared", "Care", rule.label, D("1")),
        ("shared", "Dev", rule.label, D("2")),
        ("unallocated", None, "RA-4", D("7")),
    ]


def test_ra5_credits_follow_their_charges_and_tax_its_invoice(books: Books) -> None:
    """A credit of 0.0027 on the pool of 0.027, and tax of 0.3 on an invoice whose charges are 0.027 metered and 2.973 storage."""
    bill = charges(
        charge("0.027", tokens_k="9", invoice_id="inv"),
        charge("2.973", service_name="Amazon S3", sku_meter="TimedStorage", consumed_unit="GB-Mo", invoice_id="inv"),
        charge("-0.0027", charge_category="Credit", invoice_id="inv", consumed_unit=None),
        charge(
            "0.3",
            charge_category="Tax",
            invoice_id="inv",
            service_name=None,
            sku_meter=None,
            consumed_unit=None,
            sub_account_id=None,
        ),
    )
    facts = spans(call(1, 1, None, 3000, agent_name="support-bot"), call(2, 2, None, 6000, agent_name="coder"))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "effective_cost", reason="credit") == [
        ("coder", D("-0.0018")),
        ("support-bot", D("-0.0009")),
    ]
    tax = dict(rows(books, "initiator_agent", "effective_cost", reason="tax"))
    assert sum(tax.values()) == D("0.3")
    # Taxed: 0.0081 support-bot, 0.0162 coder (net of the credit), 2.973 nobody's: of 2.9973.
    assert tax["coder"].quantize(D("1e-9")) == (D("0.3") * D("0.0162") / D("2.9973")).quantize(D("1e-9"))
    assert books.store.scan(BALANCE).select(pl.col("difference").abs().sum()).collect().item() == 0


def test_ra6_all_four_cost_columns_go_by_the_same_weights(books: Books) -> None:
    bill = charges(charge("0.03", tokens_k="3", billed_cost=D("0"), list_cost=D("0.06"), contracted_cost=D("0.045")))
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot"), call(2, 2, None, 2000, agent_name="coder"))
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert rows(books, "initiator_agent", "billed_cost", "effective_cost", "list_cost", "contracted_cost") == [
        ("coder", D("0"), D("0.02"), D("0.04"), D("0.03")),
        ("support-bot", D("0"), D("0.01"), D("0.02"), D("0.015")),
    ]


def test_ra7_two_currencies_are_two_books(books: Books) -> None:
    write(
        books,
        charges=charges(
            charge("1", service_name="S3", sku_meter=None), charge("2", service_name="S3", sku_meter=None, billing_currency="EUR")
        ),
    )
    attribute(books)
    assert rows(books, "currency", "effective_cost") == [("EUR", D("2")), ("USD", D("1"))]


# ── estimates ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_es1_what_the_bill_does_not_cover_yet_is_estimated_and_then_trued_up(books: Books) -> None:
    """This customer pays 0.0027 where the list says 0.003 (10 % off), so the next hour's 2 000 tokens are estimated at 0.0054."""
    facts = spans(call(1, 1, None, 1000, agent_name="coder"), call(2, 2, None, 2000, agent_name="coder", start_time=at(12)))
    first = charge("0.0027", tokens_k="1")
    write(books, spans=facts, charges=charges(first), prices=[price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")])
    attribute(books)
    assert rows(books, "basis", "effective_cost", "list_cost") == [
        ("billed", D("0.0027"), D("0.0027")),
        ("estimated", D("0.0054"), D("0.006")),
    ]
    then = charge("0.0050", tokens_k="2", charge_period_start=at(12), charge_period_end=at(13))
    write(books, charges=charges(first, then))
    report = attribute(books)
    assert rows(books, "basis", "effective_cost") == [("billed", D("0.0027")), ("billed", D("0.0050"))]
    assert report.rollups_reused == 1
    assert report.spans_read == 0, "a restated bill never rereads the spans"


def test_es2_an_unpriced_call_is_unpriced_and_never_free(books: Books) -> None:
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="coder")))
    attribute(books)
    assert rows(books, "reason", "basis", "effective_cost") == [("unpriced", "estimated", None)]
    assert books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("unpriced")).collect().height == 1


def test_es2_history_is_priced_as_of_its_day(books: Books) -> None:
    cheaper = price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000001", valid_from=at(0, day=10))
    facts = spans(
        call(1, 1, None, 1000, agent_name="coder"), call(2, 2, None, 1000, agent_name="coder", start_time=at(12, day=12))
    )
    write(books, spans=facts, prices=[price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003"), cheaper])
    attribute(books)
    assert rows(books, "list_cost") == [(D("0.001"),), (D("0.003"),)]


def test_context_above_the_threshold_reprices_the_whole_request(books: Books) -> None:
    book = [
        price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003"),
        price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000006", context_above=200_000),
    ]
    write(
        books,
        spans=spans(call(1, 1, None, 200_000, agent_name="coder"), call(2, 2, None, 200_001, agent_name="coder")),
        prices=book,
    )
    attribute(books)
    assert rows(books, "context_above", "list_cost") == [(0, D("0.6")), (200_000, D("1.200006"))]


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ti2_a_restated_month_makes_a_new_run_and_the_old_one_stays_readable(books: Books) -> None:
    write(books, charges=charges(charge("1", service_name="S3", sku_meter=None)))
    old = attribute(books)
    write(books, charges=charges(charge("1.5", service_name="S3", sku_meter=None)))
    new = attribute(books)
    kept = {r: books.store.scan(COSTS, {"run_id": [r]}).collect()["effective_cost"].to_list() for r in (old.run_id, new.run_id)}
    assert kept == {old.run_id: [D("1")], new.run_id: [D("1.5")]}
    assert attribute(books).unchanged == ["2026-10"]


def test_mo2_a_run_that_does_not_balance_is_not_published(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    write(books, charges=charges(charge("1", service_name="S3", sku_meter=None)))
    good = attribute(books)
    write(books, charges=charges(charge("2", service_name="S3", sku_meter=None)))
    from attribution.costs import allocation

    honest = allocation.cost_rows
    monkeypatch.setattr(allocation, "cost_rows", lambda *a, **k: honest(*a, **k).head(0))
    with pytest.raises(BalanceError, match="do not balance"):
        attribute(books)
    from ledger.db import Published

    with books.database.session() as session:
        assert session.get_one(Published, "2026-10").run_id == good.run_id


def test_a_w3c_trace_in_a_gateway_row_without_a_span_hangs_on_the_root_of_its_trace(books: Books) -> None:
    trace = f"{1:032x}"
    gateway = call(
        9, 9, None, 1000, channel="litellm", source="litellm", trace_id=trace, trace_key=trace_key(trace), gateway_call_id="g"
    )
    write(
        books,
        spans=spans(span(1, 1, agent_name="support-bot"), gateway),
        charges=charges(charge("0.003", tokens_k="1")),
        owners=OWNERS,
    )
    attribute(books)
    assert total(books, "initiator_team") == {"Care": D("0.003")}


def test_ca1_an_answer_out_of_a_cache_repeats_the_id_of_a_call_that_was_paid(books: Books) -> None:
    """The gateway's spans of both carry the provider's id; only its log knows that the second was a hit."""
    paid = call(1, 1, None, 1000, output_tokens=5, provider_request_id="r", gateway_call_id="g1", agent_name="coder")
    hit = call(2, 2, None, 1000, output_tokens=5, provider_request_id="r", gateway_call_id="g2", agent_name="coder")
    log = call(3, 3, None, 1000, output_tokens=5, gateway_call_id="g2", cache_hit=True, channel="litellm", source="litellm")
    write(
        books,
        spans=spans(paid, hit, log),
        prices=[price("anthropic.claude-sonnet-4-6", m, "0.000001") for m in ("input_tokens", "output_tokens")],
    )
    attribute(books)
    assert sum(c for (c,) in rows(books, "effective_cost")) == D("0.001005")


def test_ch7_trust_follows_the_signal_that_carries_the_claim(books: Books) -> None:
    """The gateway's log names the root agent and is trusted; the span it is merged into comes from a source that is not."""
    configure(books, ingest=IngestSettings(trusted_sources=["litellm"]))
    seen = call(1, 1, None, 1000, gateway_call_id="g")
    log = call(3, 3, None, 1000, gateway_call_id="g", channel="litellm", source="litellm", claimed_agent="support-bot")
    write(books, spans=spans(seen, log), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_team") == {"Care": D("0.003")}


@pytest.mark.parametrize("last_claim", ["support-bot", None])
def test_ch7_of_two_trusted_claims_of_one_call_that_of_its_own_span_counts(books: Books, last_claim: str | None) -> None:
    """The span that started last stands nearest to the request, whichever of the two reports more; the other speaks where it is silent."""
    request: dict[str, Any] = {"request_ids": '["x"]', "output_tokens": None}
    first = call(1, 1, None, 1000, claimed_agent="coder", start_time=at(10), **request)
    last = span(1, 2, **SONNET, claimed_agent=last_claim, start_time=at(10, 30), **request)
    configure(books, ingest=IngestSettings(trusted_sources=["otlp"]))
    write(books, spans=spans(first, last), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_team") == {"Care" if last_claim else "Dev": D("0.003")}


def test_ch7_a_client_cannot_name_itself_an_agent_of_another_team_than_its_key(books: Books) -> None:
    owners = "agent,team,credentials\ncoder,Dev,key-dev\nsupport-bot,Care,\n"
    log = call(
        1, 1, None, 1000, gateway_call_id="g", channel="litellm", source="litellm", agent_id="support-bot", credential="key-dev"
    )
    write(books, spans=spans(log), charges=charges(charge("0.003", tokens_k="1")), owners=owners)
    attribute(books)
    assert total(books, "initiator_team") == {"Dev": D("0.003")}
    assert rows(books, "reason") == [("coarse_match,claim_conflict",)]
