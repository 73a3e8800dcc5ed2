"""What a bill row sells: golden SKUs of every provider, units by price, what is not known, and rules of one's own. (RA-1, RA-2, RA-4)"""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.classification.names import ModelNames, signature
from attribution.classification.skus import Classifier, SkuText, unit
from attribution.run import attribute
from ingest.bills import paged_rows
from ledger.books import Books
from ledger.errors import SettingsError
from ledger.meters import BILLED_UNITS, METERS
from ledger.settings import AttributionSettings, SkuRule, load
from ledger.tables import COSTS, PROBLEMS
from tests.attribution.test_rules import configure, rows, total
from tests.support.books_by_hand import SONNET, at, charge, charges, price, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import DATA

D = Decimal
GOLDEN = DATA / "classifier" / "expected.csv"
LIST = [
    price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003"),
    price("anthropic.claude-sonnet-4-6", "output_tokens", "0.000015"),
]
EDITION = "Claude Sonnet 4.6 (Amazon Bedrock Edition)"
MARKETPLACE = {"service_name": EDITION, "product_code": "7g2hx1opaque", "sku_meter": "USE1-MP:USE1_InputTokenCount-Units"}
PROFILE = "arn:aws:bedrock:us-east-1:1111:application-inference-profile/p1"


def golden() -> list[dict[str, str]]:
    with GOLDEN.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", golden(), ids=lambda row: f"{row['provider']}:{row['sku']}")
def test_golden_skus(row: dict[str, str]) -> None:
    words = SkuText(
        row["provider"],
        row["service"],
        row["product"],
        row["sku"],
        row["description"] or None,
        row["unit"] or None,
        row["model_arn"] or None,
    )
    sold = Classifier().sold(words)
    assert {
        "rule": sold.sku_rule or "",
        "meter": sold.meter or "",
        "tier": sold.service_tier,
        "context_above": str(sold.context_above),
        "factor": "" if sold.factor is None else str(sold.factor),
        "region": sold.sku_region or "",
        "provisioned": "yes" if sold.provisioned else "",
    } == {key: row[key] for key in ("rule", "meter", "tier", "context_above", "factor", "region", "provisioned")}
    assert signature(sold.model) == signature(row["model"] or None), sold.model


def test_every_meter_and_unit_that_rules_name_exists() -> None:
    from attribution.classification.names import table

    named = {row["meter"] for name in ("skus", "meters") for row in table(name)} - {"", "-"}
    assert named <= set(METERS)
    assert all(unit(name) is not None for name in BILLED_UNITS)
    assert len({row["rule"] for row in table("skus")}) == len(table("skus"))


def test_a_bill_s_spelling_is_the_price_book_s_model() -> None:
    names = ModelNames(["gpt-4o-mini", "gemini-2.5-flash", "us.amazon.nova-2-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0"])
    written = {
        ("Microsoft", "gpt 4o mini0718 BatchOutp DataZone Tokens"): "gpt-4o-mini",
        ("Google Cloud", "Gemini 2.5 Flash GA Thinking Text Output - Predictions"): "gemini-2.5-flash",
        ("AWS", "USE1-Nova2.0Lite-input-tokens"): "nova-2-lite",
        ("AWS", "USW2-Llama3-3-70B-output-tokens"): "llama3-3-70b-instruct",
    }
    service = {"Microsoft": "Azure OpenAI", "Google Cloud": "Vertex AI", "AWS": "Amazon Bedrock"}
    for (provider, sku), model in written.items():
        assert names.display(Classifier().sold(SkuText(provider, service[provider], sku=sku)).model) == model


def call(tokens: int, **told: Any) -> dict[str, Any]:
    known = SONNET | {"account_id": "1111", "region": "us-east-1"}
    return span(1, 1, None, agent_name="coder", input_tokens=tokens, **{**known, **told})


@pytest.mark.parametrize(
    ("said", "quantity", "cost"),
    [("Units", "10", "0.03"), ("Units", "0.01", "0.03"), (None, "10000", "0.03"), ("Units", "10", "0.024")],
    ids=["thousands", "millions", "single", "thousands, discounted"],
)
def test_units_that_say_nothing_are_decided_by_price_times_quantity(
    books: Books, said: str | None, quantity: str, cost: str
) -> None:
    """10 000 tokens at 0.000003 cost 0.03, whatever a unit is."""
    bill = charges(charge(cost, **MARKETPLACE, pricing_unit=said, consumed_unit=None, pricing_quantity=D(quantity)))
    write(books, spans=spans(call(7_500)), charges=bill, prices=LIST)
    attribute(books)
    quarter, rest = (D(cost) * part for part in (D("0.25"), D("0.75")))
    assert rows(books, "cost_class", "reason", "effective_cost") == [
        ("metered", None, rest),
        ("unallocated", "uncaptured_usage", quarter),
    ]
    assert not problems(books, "wrong_unit")


def test_a_unit_that_price_times_quantity_contradicts_is_told_and_put_right(books: Books) -> None:
    """10 000 units "of 1K tokens" for 0.03 are 10 000 tokens: 3 000 a million would be a thousand times the price."""
    bill = charges(charge("0.03", consumed_unit="1K tokens", consumed_quantity=D(10_000)))
    write(books, spans=spans(call(10_000)), charges=bill, prices=LIST)
    attribute(books)
    assert rows(books, "cost_class", "reason", "effective_cost") == [("metered", None, D("0.03"))]
    assert [p["place"] for p in problems(books, "wrong_unit")] == ["AWS USE1-Claude4.6Sonnet-input-tokens"]


def test_a_unit_nobody_can_check_is_believed(books: Books) -> None:
    bill = charges(charge("0.03", consumed_unit="1K tokens", consumed_quantity=D(10)))
    write(books, spans=spans(call(10_000)), charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "effective_cost") == [("metered", D("0.03"))] and not problems(books, "wrong_unit")


def test_units_without_a_price_are_shared_out_by_what_was_logged(books: Books) -> None:
    bill = charges(charge("0.03", **MARKETPLACE, pricing_unit="Units", consumed_unit=None, pricing_quantity=D(10)))
    write(books, spans=spans(call(7_500)), charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "initiator_agent", "effective_cost") == [("metered", "coder", D("0.03"))]


def problems(books: Books, word: str) -> list[dict[str, Any]]:
    return [row for row in books.store.scan(PROBLEMS).collect().iter_rows(named=True) if row["reason"].startswith(word)]


def test_a_marketplace_model_is_named_by_its_product(books: Books) -> None:
    bill = charges(charge("0.03", **MARKETPLACE, pricing_unit="1K tokens", consumed_unit=None, pricing_quantity=D(10)))
    write(books, spans=spans(call(10_000)), charges=bill, prices=LIST)
    attribute(books)
    assert rows(books, "cost_class", "initiator_agent", "model", "meter", "effective_cost") == [
        ("metered", "coder", "claude-sonnet-4-6", "input_tokens", D("0.03"))
    ]


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-6-v1:0",
        "arn:aws:bedrock:us-east-1:1111:inference-profile/us.anthropic.claude-sonnet-4-6-v1:0",
    ],
)
def test_a_marketplace_model_is_named_by_its_arn_which_is_no_resource(books: Books, arn: str) -> None:
    nameless = MARKETPLACE | {"service_name": "7g2hx1opaque", "resource_id": arn}
    bill = charges(charge("0.03", **nameless, pricing_unit="1K tokens", consumed_unit=None, pricing_quantity=D(10)))
    write(books, spans=spans(call(10_000)), charges=bill, prices=LIST)
    attribute(books)
    assert rows(books, "cost_class", "model", "resource", "effective_cost") == [("metered", "claude-sonnet-4-6", None, D("0.03"))]


def test_the_model_behind_an_inference_profile_is_learnt_from_the_calls_that_named_it(books: Books) -> None:
    nameless = MARKETPLACE | {"service_name": "7g2hx1opaque", "resource_id": PROFILE}
    bill = charges(charge("0.03", **nameless, pricing_unit="1K tokens", consumed_unit=None, pricing_quantity=D(10)))
    write(books, spans=spans(call(10_000, resource_id=PROFILE)), charges=bill, prices=LIST)
    attribute(books)
    assert rows(books, "cost_class", "model", "resource", "effective_cost") == [
        ("metered", "claude-sonnet-4-6", PROFILE, D("0.03"))
    ]


def test_tokens_of_a_model_nobody_names_count_and_are_told(books: Books) -> None:
    nameless = MARKETPLACE | {"service_name": "7g2hx1opaque"}
    bill = charges(charge("0.03", **nameless, pricing_unit="1K tokens", consumed_unit=None, pricing_quantity=D(10)))
    write(books, charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "reason", "effective_cost") == [("unallocated", "unclassified_sku", D("0.03"))]
    assert len(problems(books, "unclassified_sku")) == 1


def test_infrastructure_is_not_unclassified_and_neither_is_a_known_sku_without_usage(books: Books) -> None:
    bill = charges(
        charge("1", sku_meter="USE1-BoxUsage:m5.large", service_name="Amazon Elastic Compute Cloud", consumed_unit="Hrs"),
        charge("2", sku_meter="USE1-Host:ml.g5.xlarge", service_name="Amazon SageMaker", consumed_unit="Hrs"),
        charge("4", sku_meter="USE1-Guardrail-ContentPolicyUnitsConsumed", consumed_unit="TextUnits"),
        charge("8", sku_meter="USE1-Mystery-Thing", consumed_unit="Units"),
        charge("16", sku_meter="USE1-Mystery-Thing", consumed_unit="Units", tags='{"team":"Growth"}'),
        charge("-1", sku_meter="USE1-Mystery-Thing", consumed_unit="Units", charge_category="Credit"),
        charge("32", sku_meter=None, charge_description="Tax for product code AmazonBedrock", charge_category="Tax"),
    )
    write(books, charges=bill)
    attribute(books)
    assert total(books, "cost_class", reason="unclassified_sku") == {"unallocated": D(8), "owner": D(16)}
    assert total(books, "cost_class", reason="no_logged_use") == {"unallocated": D(7)}
    whole = books.store.scan(COSTS).select(pl.col("billed_cost").sum()).collect().item()
    assert whole == D("62"), "everything is counted once"


def test_what_a_provider_puts_in_no_group_is_no_unknown_sku(books: Books, home: Path) -> None:
    """OpenAI's total of a day is 5, its groups are 3: nobody can write a rule for the 2 between."""
    openai = {"provider_name": "OpenAI", "service_name": "OpenAI", "product_code": None, "resource_id": None}
    rest = {"sku_id": "remainder"} | dict.fromkeys(("sku_meter", "charge_description"), paged_rows.REMAINDER_DESCRIPTION)
    write(books, charges=charges(charge("3", sku_meter="Something new", **openai), charge("2", **rest, **openai)))
    attribute(books)
    assert total(books, "reason", cost_class="unallocated") == {"unclassified_sku": D(3), "ungrouped": D(2)}
    assert [row["sku"] for row in Command(home)("sources", "unclassified", "--format", "json").rows] == ["Something new"]
    assert len(problems(books, "unclassified_sku")) == 1


def test_a_rule_of_one_s_own_is_in_force_at_the_next_attribute_to_the_last_digit(books: Books) -> None:
    """10 units of a private SKU for 0.030000000001; the rule says a unit is a thousand input tokens of Sonnet; 7 500 were logged."""
    bill = charges(charge("0.030000000001", sku_meter="USE1-Private(Thing)+1", consumed_unit="Packs", consumed_quantity=D(10)))
    write(books, spans=spans(call(7_500)), charges=bill, prices=LIST)
    attribute(books)
    assert total(books, "reason", cost_class="unallocated") == {"unclassified_sku": D("0.030000000001")}
    own = SkuRule(sku="USE1-Private(Thing)+1", model="claude-sonnet-4-6", meter="input_tokens", unit="1K tokens")
    configure(books, attribution=AttributionSettings(skus=[own]))
    assert attribute(books).unchanged == []
    assert rows(books, "cost_class", "initiator_agent", "model", "meter", "effective_cost") == [
        ("metered", "coder", "claude-sonnet-4-6", "input_tokens", D("0.022500000001")),
        ("unallocated", None, "claude-sonnet-4-6", "input_tokens", D("0.007500000000")),
    ]
    assert not problems(books, "unclassified_sku")


def test_a_rule_by_pattern_reads_its_groups_and_the_first_rule_that_fits_wins() -> None:
    rules = [
        SkuRule(pattern=r"^(?P<region>USW2)-(?P<model>[a-z0-9]+)\.(?P<meter>in|out)$", provider="AWS", unit="1M tokens"),
        SkuRule(pattern="acme", meter="requests"),
    ]
    sold = Classifier(rules).sold(SkuText("AWS", "Amazon Bedrock", sku="USW2-acme7b.out"))
    assert (sold.model, sold.meter, sold.factor, sold.sku_region) == ("acme7b", "output_tokens", D(1_000_000), "us-west-2")
    assert Classifier(rules).sold(SkuText("OpenAI", sku="USW2-acme7b.out")).meter == "requests"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({}, "name either `sku`"),
        ({"sku": "a", "pattern": "b"}, "name either `sku`"),
        ({"pattern": "("}, "is no regular expression"),
        ({"sku": "a", "meter": "input_token"}, "did you mean input_tokens"),
        ({"sku": "a", "unit": "dozens"}, "'dozens' is no unit"),
        ({"sku": "a", "modle": "x"}, ""),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_name(tmp_path: Path, rule: dict[str, str], told: str) -> None:
    lines = "".join(f"{key} = '{value}'\n" for key, value in rule.items())
    (tmp_path / "rootcost.toml").write_text(f"[[attribution.skus]]\n{lines}")
    with pytest.raises(SettingsError, match=r"attribution\.skus\.0") as fault:
        load(tmp_path)
    assert told in str(fault.value)


@pytest.mark.parametrize(
    "sku",
    [
        "USE1-Runtime:Consumption-based:vCPU",
        "USE1-BrowserTool:Consumption-based:Memory",
        "USE1-CodeInterpreter:Consumption-based:vCPU",
        "USE1-Gateway:Consumption-based:API-Invocations",
        "USE1-Memory:Consumption-based:Short-Term-Memory",
    ],
)
def test_what_an_agent_s_runtime_costs_goes_to_who_held_it(books: Books, sku: str) -> None:
    """The bill names an endpoint of the runtime, the spans the runtime; two agents held it for 30 and for 90 seconds."""
    arn = "arn:aws:bedrock-agentcore:us-east-1:1111:runtime/r-abc"
    agentcore = {"service_name": "Amazon Bedrock AgentCore", "product_code": "AmazonBedrockAgentCore"}
    bill = charges(
        charge("0.04", sku_meter=sku, consumed_unit="vCPU-Hours", resource_id=f"{arn}/runtime-endpoint/DEFAULT", **agentcore)
    )
    held = [
        span(n, n, None, agent_name=f"agent-{n}", resource_id=arn, end_time=at(10).replace(second=0, minute=minutes // 2))
        for n, minutes in ((1, 1), (2, 3))
    ]
    held[0]["end_time"], held[1]["end_time"] = at(10).replace(second=30), at(10, 1).replace(second=30)
    write(books, spans=spans(*held), charges=bill)
    attribute(books)
    assert total(books, "initiator_agent") == {"agent-1": D("0.01"), "agent-2": D("0.03")}


# ── what nobody can read, by money ──────────────────────────────────────────────────────────────────────────────────

UNKNOWN = [
    charge("1", sku_meter='USE1-Odd "Thing" \\ 1', consumed_unit="Packs", consumed_quantity=D(4)),
    charge("2.000000000001", sku_meter="USE1-Mystery-Thing", consumed_unit="Units", consumed_quantity=D(1)),
    charge("40", sku_meter="USE1-Mystery-Thing", consumed_unit="Units", consumed_quantity=D(2), billing_month="2026-11"),
    charge("3", **MARKETPLACE | {"service_name": "7g2hx1opaque"}, consumed_unit="Units", consumed_quantity=D(1)),
    charge("5", sku_meter=None, charge_description=None, consumed_unit=None),
    charge("99", sku_meter="USE1-BoxUsage:m5.large", service_name="Amazon EC2", consumed_unit="Hrs"),
    charge("0.03", tokens_k="10"),
    charge("-2", sku_meter="USE1-Mystery-Thing", charge_category="Credit"),
]


@pytest.mark.slow
def test_unclassified_skus_are_listed_by_money_with_rules_that_work(books: Books, home: Path) -> None:
    """The rules printed, filled in, make every SKU known; nothing else changes its class."""
    write(books, charges=charges(*UNKNOWN))
    run = Command(home)
    listed = run("sources", "unclassified", "--format", "json").rows
    assert [(row["sku"], row["cost"], row["charges"], row["first"], row["last"]) for row in listed] == [
        ("USE1-Mystery-Thing", "42.000000000001", 2, "2026-10", "2026-11"),
        (None, "5", 1, "2026-10", "2026-10"),
        ("USE1-MP:USE1_InputTokenCount-Units", "3", 1, "2026-10", "2026-10"),
        ('USE1-Odd "Thing" \\ 1', "1", 1, "2026-10", "2026-10"),
    ]
    assert [row["meter"] for row in listed] == [None, None, "input_tokens", None]
    assert [row["cost"] for row in run("sources", "unclassified", "--month", "2026-10", "--format", "json").rows] == [
        "5",
        "3",
        "2.000000000001",
        "1",
    ]
    rules = run("sources", "unclassified", "--format", "toml").out
    filled = rules.replace('model = ""', 'model = "acme-7b"').replace('unit = ""', 'unit = "1M tokens"')
    home.mkdir(exist_ok=True)
    (home / "rootcost.toml").write_text(filled.replace('meter = ""', 'meter = "output_tokens"'), encoding="utf-8")
    with Books.open(home) as again:
        assert [rule.meter for rule in again.settings.attribution.skus].count("output_tokens") == 3
        attribute(again)
        assert total(again, "model", charge_category="Usage")["acme-7b"] == D("51.000000000001")
        assert sum(total(again, "model").values()) == D("148.030000000001"), "the bill"
        assert not problems(again, "unclassified_sku")
    done = run("sources", "unclassified")
    assert (done.code, done.out.strip()) == (0, "") and "is known" in done.err


def test_the_table_comes_with_the_rules_and_says_what_to_do(books: Books, home: Path) -> None:
    write(books, charges=charges(*UNKNOWN))
    done = Command(home)("sources", "unclassified", "--limit", "1")
    assert done.code == 0 and "USE1-Mystery-Thing" in done.out and "[[attribution.skus]]" in done.out
    assert "3 more: --limit 4" in done.err and "rootcost attribute" in done.err
    assert Command(home)("sources", "unclassified", "--month", "2026-13").code == 2
