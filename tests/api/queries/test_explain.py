"""The way of a dollar: what a cell, a charge, a call and a chain are told to be made of adds up to them, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from api import queries
from api.models import Explanation, Step
from api.queries import CostQuery, of_operator
from attribution.run import attribute
from ledger.books import Books
from ledger.errors import ObjectMissingError
from ledger.settings import AttributionSettings, SharedRule
from tests.attribution.test_worked_example import OWNERS, chains
from tests.support.books_by_hand import SONNET, at, charge, charges, price, span, spans, write

CHAIN_1 = f"{1:032x}:{1:016x}"
CALL_OF_RESEARCHER = f"{1:032x}:{4:016x}"
DIVIDING = ("executor", "initiator", "class", "run", "cell", "chain")
"""Steps that divide the whole figure."""


def usd(amount: str) -> dict[str, Decimal]:
    return {"USD": Decimal(amount)}


def told(story: Explanation) -> dict[str, Step]:
    """Steps by name, after checking that the dollars of each add up."""
    for step in story.steps:
        if step.sum and step.parts:
            listed = sum((p.cost for p in step.parts if p.cost is not None), Decimal(0))
            beyond = step.rest.cost.get("USD", Decimal(0)) if step.rest else Decimal(0)
            assert listed + beyond == step.sum["USD"], step.step
        if step.step in DIVIDING:
            assert step.sum.get("USD", 0) == story.cost.get("USD", 0), step.step
    steps = {step.step: step for step in story.steps}
    origins = [steps[name].sum.get("USD", Decimal(0)) for name in ("charge", "estimate") if name in steps]
    assert sum(origins) == story.cost.get("USD", 0)
    assert {"USD": sum(d.get("USD", Decimal(0)) for d in (story.billed, story.estimated))} == (story.cost or usd("0"))
    return steps


def costs(step: Step, *names: str) -> dict[Any, Decimal | None]:
    """What each part comes to, by some of its facts."""
    return {
        tuple(part.facts.get(n) for n in names) if len(names) > 1 else part.facts.get(names[0]): part.cost for part in step.parts
    }


def cell(books: Books, *filters: str, **asked: Any) -> Explanation:
    return queries.explain_cell(of_operator(books), CostQuery.parse(filters=filters, **asked))


def rules(books: Books, **told: Any) -> None:
    books.settings = books.settings.model_copy(update={"attribution": AttributionSettings(**told)})


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """$0.03 for 10 000 tokens; logged: Care starts 2 000 and, through Data's researcher, 4 000; Dev 3 000. Only to be read."""
    with Books.open(tmp_path_factory.mktemp("example")) as books:
        yield worked(books)


def worked(books: Books) -> Books:
    write(books, spans=chains(), charges=charges(charge("0.030000000000", tokens_k="10.0", line=2)), owners=OWNERS)
    attribute(books)
    return books


# --- a cell --------------------------------------------------------------------------------------------------------------


def test_a_cell_is_told_from_the_charge_to_the_run(example: Books) -> None:
    story = cell(example, "team=Care", by="team", start="2026-10", end="2026-11")
    steps = told(story)
    assert story.cost == usd("0.018")
    assert list(steps) == [
        *("cell", "charge", "pool", "rate", "usage", "call", "executor", "initiator", "owner", "class", "run", "balance"),
    ]
    assert [step.rule for step in story.steps][:2] == ["MO-3", "RA-1"]
    assert costs(steps["usage"], "executor_agent") == {"researcher": Decimal("0.012"), "support-bot": Decimal("0.006")}
    assert costs(steps["executor"], "team") == {"Data": Decimal("0.012"), "Care": Decimal("0.006")}
    assert costs(steps["initiator"], "agent", "team", "method") == {("support-bot", "Care", "path"): Decimal("0.018")}
    assert (
        "0.03 USD of charges = 0.027 USD metered + 0.003 USD unallocated, difference 0 USD" in steps["balance"].parts[0].sentence
    )


def test_its_charge_is_named_with_file_line_and_its_part(example: Books) -> None:
    (part,) = told(cell(example, "team=Care"))["charge"].parts
    assert (part.facts["charge_id"], part.facts["line"], part.facts["amount"], part.cost) == ("c0", 2, "0.03", Decimal("0.018"))
    assert part.sentence.endswith("0.018 USD of its 0.03 USD")
    assert part.link is not None
    assert part.link.address == "/v1/explain/c0"


def test_its_rate_is_the_bill_over_what_it_bills(example: Books) -> None:
    """10 000 billed, 9 000 logged: D is 10 000, so a million cost $3; 6 000 of them are Care's, and 1 000 are nobody's."""
    (part,) = told(cell(example, "team=Care"))["rate"].parts
    facts = {
        name: part.facts[name] for name in ("billed_quantity", "logged_quantity", "denominator", "rate_per_million", "quantity")
    }
    assert list(facts.values()) == ["10000", "9000", "10000", "3", "6000"]
    assert "1,000 were billed but not logged: their 0.003 USD is uncaptured usage" in part.sentence
    assert part.facts["level"] == "without account, region"


def test_the_executor_s_view_of_the_same_hour(example: Books) -> None:
    steps = told(cell(example, "team=Data", view="executor"))
    assert steps["cell"].sum == usd("0.012")
    assert costs(steps["initiator"], "team") == {"Care": Decimal("0.012")}


def test_a_cell_links_to_the_cells_it_is_made_of(example: Books) -> None:
    first = cell(example, by="team,agent", view="executor").steps[0]
    links = {part.sentence: part.link.ref for part in first.parts if part.link}
    assert (
        links["team Data, agent researcher: 0.012 USD"]
        == "by=team%2Cagent&view=executor&filter=team%3DData&filter=agent%3Dresearcher"
    )
    assert links["team unknown, agent unknown: 0.003 USD"].endswith("filter=team%3D&filter=agent%3D")


def test_owners_are_told_with_the_version_that_held(books: Books) -> None:
    """support-bot was Growth's until the 5th: the cell of the 5th names Care's row, and when it was recorded."""
    moved = "agent,team,valid_from,valid_to\nsupport-bot,Growth,2026-01-01,2026-10-05\nsupport-bot,Care,2026-10-05,\n"
    write(books, spans=chains(), charges=charges(charge("0.03", tokens_k="10.0")), owners=moved)
    attribute(books)
    owner = told(cell(books, "agent=support-bot", start="2026-10-05", end="2026-10-06"))["owner"]
    assert owner.rule == "ID-1, ID-2"
    facts = [part.facts for part in owner.parts if part.facts["agent"] == "support-bot"]
    assert [(f["team"], f["valid_from"][:10]) for f in facts] == [("Care", "2026-10-05")]
    assert "is not in the registry" in next(part.sentence for part in owner.parts if part.facts["agent"] == "researcher")


def test_a_list_is_cut_and_the_rest_is_counted(example: Books) -> None:
    story = queries.explain_cell(of_operator(example), CostQuery.parse(filters=["cost_class=metered"]), most=1)
    steps = told(story)
    assert len(steps["usage"].parts) == 1
    assert steps["usage"].rest is not None
    assert (steps["usage"].rest.count, steps["usage"].rest.cost) == (2, usd("0.015"))
    assert steps["call"].rest is not None
    assert (steps["call"].facts["calls"], steps["call"].rest.count) == (3, 2)


# --- a charge ------------------------------------------------------------------------------------------------------------


def test_a_charge_goes_to_the_calls_and_to_nobody(example: Books) -> None:
    story = queries.explain(of_operator(example), "c0")
    steps = told(story)
    assert (story.kind, story.cost) == ("charge", usd("0.03"))
    assert steps["charge"].parts[0].sentence.endswith("It was classified as 10,000 input tokens of claude-sonnet-4-6 alone")
    assert costs(steps["initiator"], "team") == {"Care": Decimal("0.018"), "Dev": Decimal("0.009"), None: Decimal("0.003")}
    assert costs(steps["class"], "cost_class", "reason") == {
        ("metered", "coarse_match"): Decimal("0.027"),
        ("unallocated", "uncaptured_usage"): Decimal("0.003"),
    }
    assert steps["usage"].facts == {"on_no_usage": {"USD": "0.003"}}


def test_charges_of_one_lot_count_by_their_amount(books: Books) -> None:
    """$0.02 and $0.01 that no rule can tell apart: of Care's $0.018 two thirds and one third; of $0.01, $0.006 is Care's."""
    two = charges(charge("0.02", tokens_k="6.0"), charge("0.01", tokens_k="4.0"))
    write(books, spans=chains(), charges=two, owners=OWNERS)
    attribute(books)
    assert costs(told(cell(books, "team=Care"))["charge"], "charge_id") == {"c0": Decimal("0.012"), "c1": Decimal("0.006")}
    steps = told(queries.explain(of_operator(books), "c1"))
    assert "together with 1 other charge with the same keys" in steps["charge"].parts[0].sentence
    assert costs(steps["initiator"], "team") == {"Care": Decimal("0.006"), "Dev": Decimal("0.003"), None: Decimal("0.001")}


def unused(amount: str, tag: str, **told: Any) -> dict[str, Any]:
    """A charge no log knows of; `tag` makes it a lot of its own."""
    words = {"service_name": "AWS Support", "sku_meter": "support", "tags": f'{{"cost-center":"{tag}"}}', "consumed_unit": None}
    return charge(amount, **(words | told))


def test_lots_that_are_one_row_of_cost_are_told_apart(books: Books) -> None:
    """$3 and $4 nobody used stand on one row of cost; each charge still has its own amount, and the row names both."""
    write(books, charges=charges(unused("3", "a"), unused("4", "b")), owners=OWNERS)
    attribute(books)
    steps = told(cell(books, "cost_class=unallocated"))
    assert costs(steps["charge"], "charge_id") == {"c1": Decimal(4), "c0": Decimal(3)}
    story = queries.explain(of_operator(books), "c0")
    assert (story.cost, costs(told(story)["class"], "cost_class")) == (usd("3"), {"unallocated": Decimal(3)})


def test_a_shared_charge_goes_to_the_teams_of_the_rule(books: Books) -> None:
    """$3 and $4 shared 1 : 2 make $2.333… and $4.666…; of the $3, Care bears $1 and Dev $2."""
    rules(books, shared=[SharedRule(name="support", method="fixed", shares={"Care": Decimal(1), "Dev": Decimal(2)})])
    write(books, charges=charges(unused("3", "a"), unused("4", "b")), owners=OWNERS)
    attribute(books)
    steps = told(queries.explain(of_operator(books), "c0"))
    assert costs(steps["initiator"], "team") == {"Care": Decimal(1), "Dev": Decimal(2)}
    assert "shared-cost rule 'support" in steps["class"].parts[0].sentence
    care = told(cell(books, "team=Care"))
    assert care["cell"].sum == usd("2.333333333333")
    assert costs(care["charge"], "charge_id") == {"c1": Decimal("1.333333333333"), "c0": Decimal(1)}


def test_a_credit_is_told_to_follow(books: Books) -> None:
    """$0.03 of usage, all of it logged, and $0.003 back: Care's 6 000 of 9 000 tokens cost $0.020 − $0.002. (RA-5)"""
    credit = charge("-0.003", charge_category="Credit", consumed_unit=None)
    write(books, spans=chains(), charges=charges(charge("0.03", tokens_k="9.0"), credit), owners=OWNERS)
    attribute(books)
    steps = told(cell(books, "team=Care"))
    assert costs(steps["charge"], "charge_id") == {"c0": Decimal("0.02"), "c1": Decimal("-0.002")}
    assert costs(steps["class"], "rule")["RA-5"] == Decimal("-0.002")
    back = told(queries.explain(of_operator(books), "c1"))
    assert back["charge"].parts[0].sentence.endswith("It corrects other charges and is allocated like them")
    assert costs(back["initiator"], "team") == {"Care": Decimal("-0.002"), "Dev": Decimal("-0.001")}


def test_a_charge_restated_since_says_so(books: Books) -> None:
    worked(books)
    write(books, charges=charges(charge("0.06", tokens_k="10.0", region_id="eu-west-1")))
    story = queries.explain(of_operator(books), "c0")
    assert "not attributed, or was restated since" in story.steps[0].parts[0].sentence
    (run,) = told(cell(books, "team=Care"))["run"].parts
    assert run.facts["changed_since"] == ["the bill"]


@pytest.mark.slow
def test_every_charge_of_a_mixed_bill_is_told_to_the_last_digit(books: Books) -> None:
    """Usage, a credit on it, a tax on both, a fee, and machine time nobody logged: each charge is its own amount, together the bill."""
    rules(books, shared=[SharedRule(name="fees", charge_category="Purchase", method="even", teams=["Care", "Data", "Dev"])])
    bill = [
        charge("0.030000000001", tokens_k="10.0"),
        charge("0.020000000000", tokens_k="5.0", principal="arn:aws:iam::1111:role/x", tags='{"iamPrincipal/team":"Growth"}'),
        charge("-0.007", charge_category="Credit", consumed_unit=None),
        charge("0.003333333333", charge_category="Tax", consumed_unit=None, sku_meter=None),
        charge("10", charge_category="Purchase", service_name="AWS Support", sku_meter=None, consumed_unit=None),
        unused("3", "a"),
        unused("4.000000000001", "b"),
        unused("0", "c"),
    ]
    write(books, spans=chains(), charges=charges(*bill), owners=OWNERS)
    attribute(books)
    for n, row in enumerate(bill):
        assert sum(queries.explain(of_operator(books), f"c{n}").cost.values()) == row["effective_cost"], n
        told(queries.explain(of_operator(books), f"c{n}"))
    whole = cell(books, by="cost_class,reason")
    assert whole.cost["USD"] == sum(row["effective_cost"] for row in bill)
    assert set(costs(told(whole)["charge"], "charge_id")) >= {f"c{n}" for n in range(7)}


def test_a_chain_without_usage_costs_nothing_that_is_told(books: Books) -> None:
    write(books, spans=spans(span(1, 1, agent_name="coder"), span(1, 2, 1, **SONNET)), owners=OWNERS)
    attribute(books)
    story = queries.explain(of_operator(books), CHAIN_1)
    assert (story.cost, [step.step for step in story.steps]) == ({}, ["chain"])


# --- estimates -----------------------------------------------------------------------------------------------------------


def priced_hours(books: Books, *bill: dict[str, Any], **prices: Any) -> Books:
    """1 000 tokens of Care at 10:00 and 2 000 at 12:00, at $3 a million."""
    two = spans(
        span(1, 1, agent_name="support-bot"),
        span(1, 2, 1, input_tokens=1000, **SONNET),
        span(2, 3, agent_name="support-bot", start_time=at(12)),
        span(2, 4, 3, input_tokens=2000, start_time=at(12), **SONNET),
    )
    listed = [price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003", **prices)]
    write(books, spans=two, charges=charges(*bill) if bill else None, prices=listed, owners=OWNERS)
    attribute(books)
    return books


def test_an_estimate_names_the_price_and_where_it_stands(books: Books) -> None:
    """3 000 tokens at $0.000003: $0.009, by the book alone."""
    story = cell(priced_hours(books), "team=Care")
    steps = told(story)
    assert (story.billed, story.estimated) == ({}, usd("0.009"))
    (part,) = steps["estimate"].parts
    known = ("price_book", "price_model", "rate", "list_cost", "quantity", "ratio", "price_valid_from")
    names = [part.facts.get(name) for name in (*known[:2], "price_rate", *known[3:])]
    assert names == [
        "by hand", "anthropic.claude-sonnet-4-6-v1:0", "0.000003", "0.009", "3000", "1", "1970-01-01T00:00:00+00:00"
    ]  # fmt: skip
    assert steps["estimate"].rule == "ES-1"
    assert "charge" not in steps


def test_an_estimate_beside_a_bill_names_the_ratio(books: Books) -> None:
    """The bill of 10:00 asks $0.0027 for 1 000 tokens that list at $0.003: 0.9; so 12:00 is $0.006 · 0.9 = $0.0054."""
    story = cell(priced_hours(books, charge("0.0027", tokens_k="1.0")), "team=Care")
    steps = told(story)
    assert (story.cost, story.billed, story.estimated) == (usd("0.0081"), usd("0.0027"), usd("0.0054"))
    (part,) = steps["estimate"].parts
    assert (part.facts["ratio"], part.facts["list_cost"]) == ("0.9", "0.006")
    assert "times 0.9, the recent ratio of billed to list cost of this provider: 0.0054 USD" in part.sentence


def test_what_has_no_price_is_told_and_is_not_nothing(books: Books) -> None:
    write(books, spans=chains(), owners=OWNERS)
    attribute(books)
    story = cell(books, "team=Care")
    steps = told(story)
    assert story.cost == {}
    assert steps["estimate"].rule == "ES-2"
    assert [part.cost for part in steps["estimate"].parts] == [None]
    assert steps["call"].facts["calls"] == 2


# --- calls and chains ----------------------------------------------------------------------------------------------------


def test_a_call_is_told_with_its_path(example: Books) -> None:
    story = queries.explain(of_operator(example), CALL_OF_RESEARCHER)
    steps = told(story)
    assert (story.kind, story.cost) == ("call", usd("0.012"))
    assert list(steps)[:6] == ["meter", "charge", "pool", "rate", "usage", "call"]
    assert [part.facts.get("agent_name") for part in steps["span"].parts] == [None, "researcher", "support-bot"]
    assert steps["span"].links[0].ref == CHAIN_1
    assert "its chain" in steps["span"].sentence
    assert costs(steps["executor"], "agent", "team") == {("researcher", "Data"): Decimal("0.012")}
    assert costs(steps["initiator"], "agent", "team") == {("support-bot", "Care"): Decimal("0.012")}
    assert costs(steps["charge"], "charge_id") == {"c0": Decimal("0.012")}


def test_a_chain_is_the_sum_of_its_calls(example: Books) -> None:
    story = queries.explain(of_operator(example), CHAIN_1)
    steps = told(story)
    assert (story.kind, story.cost) == ("chain", usd("0.018"))
    assert steps["chain"].sentence.endswith("has 4 spans and 2 calls in 1 trace, and costs 0.018 USD.")
    assert costs(steps["call"], "span_id") == {f"{4:016x}": Decimal("0.012"), f"{2:016x}": Decimal("0.006")}
    assert story.cost == queries.chain(of_operator(example), CHAIN_1).cost


@pytest.mark.slow
def test_calls_of_an_hour_cost_exactly_the_hour(books: Books) -> None:
    """$0.01 for seven calls of one token: no call is rounded alone, so the chains are the bill to the last digit. (MO-1, MO-3)"""
    seven = [s for n in range(1, 8) for s in (span(n, 1, agent_name="coder"), span(n, 2, 1, input_tokens=1, **SONNET))]
    write(books, spans=spans(*seven), charges=charges(charge("0.01", tokens_k="0.007")), owners=OWNERS)
    attribute(books)
    each = [queries.chain(of_operator(books), f"{n:032x}:{1:016x}").cost["USD"] for n in range(1, 8)]
    assert sum(each) == Decimal("0.01")
    assert set(each) == {Decimal("0.001428571428"), Decimal("0.001428571429")}
    assert [queries.explain(of_operator(books), f"{n:032x}:{2:016x}").cost["USD"] for n in range(1, 8)] == each


def test_a_call_that_two_chains_asked_for_is_told_of_both(books: Books) -> None:
    """A digest made for support-bot and for coder: its call of $0.01 is half of Care's and half of Dev's. (CH-1)"""
    links = f'[["{1:032x}", "{1:016x}"], ["{2:032x}", "{2:016x}"]]'
    digest = spans(
        span(1, 1, agent_name="support-bot"),
        span(2, 2, agent_name="coder"),
        span(3, 3, agent_name="researcher", link=(1, 1), links=links),
        span(3, 4, 3, input_tokens=10, **SONNET),
    )
    write(books, spans=digest, charges=charges(charge("0.01", tokens_k="0.010")), owners=OWNERS)
    attribute(books)
    story = queries.explain(of_operator(books), f"{3:032x}:{4:016x}")
    steps = told(story)
    assert story.cost == usd("0.01")
    assert costs(steps["initiator"], "team") == {"Care": Decimal("0.005"), "Dev": Decimal("0.005")}
    assert costs(steps["executor"], "agent") == {"researcher": Decimal("0.01")}
    mine = told(cell(books, "team=Dev"))
    assert (mine["cell"].sum, mine["call"].facts["calls"]) == (usd("0.005"), 1)
    assert costs(mine["call"], "span_id") == {f"{4:016x}": Decimal("0.005")}


# --- names that are none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        (
            "zzz",
            "searched for a chain, a call (trace:span, gateway call id, provider request id, span id) and a charge in 1 published",
        ),
        (f"{1:032x}:{9:016x}", f"similar: {CHAIN_1}"),
        ("Care", "that is a team: explain the cell team=Care"),
        ("claude-sonnet-4-6", "that is a model: explain the cell model=claude-sonnet-4-6"),
    ],
)
def test_a_name_that_is_none_is_told_with_what_comes_near(example: Books, ref: str, said: str) -> None:
    with pytest.raises(ObjectMissingError) as fault:
        queries.explain(of_operator(example), ref)
    assert said in str(fault.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"filters": ["team=Cara"]}, "no cost has team 'Cara' — similar: Care"),
        ({"filters": ["model=gpt-9"]}, "known values: claude-sonnet-4-6"),
        ({"start": "2031-01", "end": "2031-02"}, "months with figures: 2026-10"),
        ({"filters": ["team=Care", "executor_agent=coder"]}, "no cost matches all filters"),
    ],
)
def test_an_empty_cell_is_told_with_what_comes_near(example: Books, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ObjectMissingError) as fault:
        queries.explain_cell(of_operator(example), CostQuery.parse(**asked))
    assert said in str(fault.value)
