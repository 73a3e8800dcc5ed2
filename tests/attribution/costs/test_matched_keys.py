"""Which charges a call meets: provider, release, geography and place, from the cases with known answers. (RA-1b, RA-1c, RA-1d)"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import PROBLEMS
from tests.attribution.test_rules import call, configure, rows, total
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import DATA

D = Decimal
CASES = DATA / "cases"


def cost_rows(home: Path, *files: tuple[str, str], by: str) -> list[dict[str, Any]]:
    """Costs of a case by dimensions: each file is read by its kind of source; the kind `agents` is the registry."""
    rootcost = Command(home)
    for kind, name in files:
        command = ("agents", "import") if kind == "agents" else ("ingest", kind)
        assert rootcost(*command, CASES / name).code in (0, 1)
    assert rootcost("attribute").code == 0
    records: list[dict[str, Any]] = rootcost("costs", "--by", f"{by},cost_class,reason", "--format", "json").rows
    return records


def sums(found: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], Decimal]:
    """Cost by these keys, without rows that cost nothing."""
    out: dict[tuple[Any, ...], Decimal] = {}
    for row in found:
        if row["cost"] is not None and D(row["cost"]):
            key = tuple(row[k] for k in keys)
            out[key] = out.get(key, D(0)) + D(row["cost"])
    return out


# ── place ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_ra1d_the_place_of_a_caller_is_tried_and_dropped(home: Path) -> None:
    """A caller in us-central1, an application's account and a platform's node: all are billed elsewhere."""
    records = cost_rows(
        home,
        ("agents", "caller-place/registry.csv"),
        ("otlp", "caller-place/spans.json"),
        ("focus", "caller-place/bill.csv"),
        by="initiator_team,provider,model,resource,cost_class,reason",
    )
    by_class = sums(records, "initiator_team", "cost_class", "model", "resource")
    assert by_class == {
        ("X", "metered", "gemini-2.5-pro", None): D("0.125"),
        ("X", "metered", "claude-sonnet-4-6", None): D(3),
        ("X", "metered", None, "i-0abc"): D(18),
        (None, "idle", None, "i-0abc"): D(18),
    }
    assert all("caller_place" in row["reason"] for row in records if row["model"])


def test_ra1d_a_caller_whose_place_is_billed_meets_that_bill_first(books: Books) -> None:
    """Two accounts sell the same; the caller's own account is a good hint, and what is beyond it meets the other account."""
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="a"),
            call(1, 2, 1, 1000, account_id="1111", region="us-east-1"),
            span(2, 1, agent_name="b"),
            call(2, 2, 1, 1000, account_id="3333", region="us-east-1"),
        ),
        charges=charges(charge("0.003", tokens_k="1"), charge("0.005", tokens_k="1", sub_account_id="2222")),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("0.003"), "b": D("0.005")}
    assert rows(books, "initiator_agent", "account", "reason") == [
        ("a", "1111", None),
        ("b", "2222", "caller_place,coarse_match"),
    ]


def test_ra1d_what_the_provider_states_is_a_key(books: Books) -> None:
    """An account in the provider's own log is no hint: another account's charge is never met, and its own bill is waited for. (ES-1a)"""
    log = {"channel": "bedrock-log", "source": "bedrock_logs", "account_id": "3333", "region": "us-east-1"}
    prices = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000002")]
    write(books, spans=spans(call(1, 1, None, 1000, **log)), charges=charges(charge("0.003", tokens_k="1")), prices=prices)
    attribute(books)
    assert total(books, "cost_class") == {"unallocated": D("0.003"), "metered": D("0.002")}


def test_ra1d_a_key_of_the_registry_outranks_the_caller(books: Books) -> None:
    """The credential's account is where the call is billed, whatever account the caller runs in."""
    owners = "agent,team,credentials,account,region\na,A,key-a,2222,us-east-1\n"
    write(
        books,
        spans=spans(call(1, 1, None, 1000, credential="key-a", account_id="1111", region="eu-west-1")),
        charges=charges(
            charge("0.003", tokens_k="1", region_id="eu-west-1"), charge("0.005", tokens_k="1", sub_account_id="2222")
        ),
        owners=owners,
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("0.005"), None: D("0.003")}


def test_ra1d_a_dropped_place_gives_way_to_the_default(books: Books) -> None:
    """Two accounts could pay once the caller's is dropped; the settings say which one does."""
    defaults = [{"provider": "AWS", "account": "2222", "region": "us-east-1"}]
    configure(books, attribution=type(books.settings.attribution)(defaults=defaults))
    write(
        books,
        spans=spans(call(1, 1, None, 1000, account_id="3333", region="us-west-2")),
        charges=charges(charge("0.003", tokens_k="1"), charge("0.005", tokens_k="1", sub_account_id="2222")),
    )
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.005"), "unallocated": D("0.003")}


# ── provider ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_ra1b_the_only_bill_that_sells_the_model_pays_for_a_call_without_a_provider(home: Path) -> None:
    """A Langfuse export names no provider; OpenAI's bill sells gpt-4.1 that day: 0.028, and nothing estimated beside it."""
    records = cost_rows(
        home,
        ("langfuse", "provider-unknown/langfuse/observations.json"),
        ("focus", "provider-unknown/langfuse/bill.csv"),
        by="provider,reason",
    )
    assert sums(records, "provider", "cost_class") == {("OpenAI", "metered"): D("0.028")}
    assert all("provider_inferred" in row["reason"] for row in records)


@pytest.mark.slow
def test_ra1b_a_framework_is_no_provider(home: Path) -> None:
    """Strands, the Agent Development Kit and the Agent Framework write their own names: 0.0705 of the bill, nothing estimated."""
    records = cost_rows(
        home,
        ("otlp", "provider-unknown/frameworks/traces.json"),
        ("focus", "provider-unknown/frameworks/bill.csv"),
        by="provider,initiator_agent",
    )
    assert sums(records, "provider", "initiator_agent", "cost_class") == {
        ("AWS", "agent1", "metered"): D("0.033"),
        ("Google Cloud", "agent2", "metered"): D("0.0125"),
        ("Microsoft", "agent3", "metered"): D("0.025"),
    }


OPENAI_LIST = [price("gpt-4o", "input_tokens", "0.0000025", provider="openai")]


def test_ra1b_a_name_that_nobody_knows_is_read_like_none(books: Books) -> None:
    """A misspelt provider is on no bill and in no price book; the only seller is OpenAI."""
    write(
        books,
        spans=spans(*openai_call(1, "a", "gpt-4o", provider="opnai")),
        charges=charges(openai_charge("2.50", "gpt-4o")),
        prices=OPENAI_LIST,
    )
    attribute(books)
    assert rows(books, "provider", "initiator_agent", "effective_cost") == [("OpenAI", "a", D("2.5"))]


def test_ra1b_of_two_sellers_none_is_guessed_and_nothing_is_estimated_beside_them(books: Books) -> None:
    """OpenAI and Azure both bill gpt-4o that hour, a million tokens more than the logs: whose it was is unknown, and it is counted once."""
    azure = {"provider_name": "Microsoft", "service_name": "Azure OpenAI", "sub_account_id": "s", "region_id": "eastus"}
    write(
        books,
        spans=spans(*openai_call(1, "a", "gpt-4o", provider=None), *openai_call(2, "b", "gpt-4o")),
        charges=charges(
            openai_charge("2.50", "gpt-4o"), charge("3.00", tokens_k="1000", sku_meter="gpt-4o-Inp-glbl Tokens", **azure)
        ),
        prices=OPENAI_LIST,
    )
    attribute(books)
    records = rows(books, "provider", "initiator_agent", "effective_cost", "basis", "reason")
    assert records == [
        ("Microsoft", None, D(3), "billed", "uncaptured_usage"),
        ("OpenAI", "b", D("2.5"), "billed", "coarse_match"),
        (None, "a", D(0), "estimated", "no_provider"),
    ]
    assert "no_provider" in " ".join(r["reason"] for r in books.store.scan(PROBLEMS).collect().iter_rows(named=True))


def test_ra1b_without_a_bill_an_unknown_provider_is_estimated_and_flagged(books: Books) -> None:
    write(books, spans=spans(*openai_call(1, "a", "gpt-4o", provider=None)), prices=OPENAI_LIST)
    attribute(books)
    assert rows(books, "basis", "effective_cost", "reason") == [("estimated", D("2.5"), "no_provider")]


def test_ra1b_what_was_sent_outranks_the_form_of_the_model(books: Books) -> None:
    """A model id that looks like Bedrock's does not move a call of OpenAI to Amazon's bill; without a provider its form decides."""
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="a"),
            call(1, 2, 1, 1000, provider="openai"),
            span(2, 1, agent_name="b"),
            call(2, 2, 1, 1000, provider=None),
        ),
        charges=charges(charge("0.003", tokens_k="1")),
    )
    attribute(books)
    assert total(books, "provider", cost_class="metered", basis="billed") == {"AWS": D("0.003")}
    assert total(books, "initiator_agent", basis="billed") == {"b": D("0.003")}


# ── release and geography ───────────────────────────────────────────────────────────────────────────────────────────

GPT = {"provider": "openai", "usage_scope": "leaf", "input_includes_cache": True}


def openai_charge(cost: str, model: str, tokens_k: str = "1000", **fields: Any) -> dict[str, Any]:
    """A charge of input tokens of OpenAI in project p."""
    sku = f"{model}, input"
    seller = {"provider_name": "OpenAI", "service_name": "OpenAI API", "sub_account_id": "p", "region_id": None}
    return charge(cost, tokens_k=tokens_k, sku_meter=sku, **{**seller, **fields})


def openai_call(trace: int, agent: str, model: str, tokens: int = 1_000_000, **fields: Any) -> list[dict[str, Any]]:
    """An agent and its one call."""
    request = span(trace, 2, 1, input_tokens=tokens, response_model=model, **{**GPT, **fields})
    return [span(trace, 1, agent_name=agent), request]


@pytest.mark.slow
def test_ra1c_releases_at_two_prices_pay_their_own(home: Path) -> None:
    """A gateway's log and a bill that both name the release: 5.00 and 2.50 a million."""
    records = cost_rows(
        home,
        ("agents", "releases/agents.csv"),
        ("litellm", "releases/calls.jsonl"),
        ("focus", "releases/bill.csv"),
        by="initiator_team",
    )
    assert sums(records, "initiator_team", "cost_class") == {("Old", "metered"): D(5), ("New", "metered"): D("2.5")}


@pytest.mark.slow
def test_ra1c_releases_of_traces_pay_their_own(home: Path) -> None:
    records = cost_rows(
        home,
        ("agents", "releases-by-trace/registry.csv"),
        ("otlp", "releases-by-trace/spans.json"),
        ("focus", "releases-by-trace/bill.csv"),
        by="initiator_team",
    )
    assert sums(records, "initiator_team", "cost_class") == {("A", "metered"): D(5), ("B", "metered"): D("2.5")}


def test_ra1c_a_short_spelling_of_a_release_is_that_release(books: Books) -> None:
    """Azure's bill writes 0806 and 1120, the answer names the whole date."""
    azure = {"provider_name": "Microsoft", "service_name": "Azure OpenAI", "sub_account_id": "s", "region_id": "eastus"}
    write(
        books,
        spans=spans(
            *openai_call(1, "a", "gpt-4o-2024-08-06", provider="azure"),
            *openai_call(2, "b", "gpt-4o-2024-11-20", provider="azure"),
        ),
        charges=charges(
            charge("2.50", tokens_k="1000", sku_meter="gpt-4o-0806-Inp-glbl Tokens", **azure),
            charge("5.00", tokens_k="1000", sku_meter="gpt 4o 1120 Inp regnl Tokens", **azure),
        ),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("2.5"), "b": D(5)}


def test_ra1c_an_unstated_release_meets_what_stated_ones_leave(books: Books) -> None:
    """2 M tokens at 5.00 and 1 M at 2.50 a million: `old` and `new` state theirs, `any` pays the million that is left of the old."""
    write(
        books,
        spans=spans(
            *openai_call(1, "old", "gpt-4o-2024-05-13"),
            *openai_call(2, "new", "gpt-4o-2024-08-06"),
            *openai_call(3, "any", "gpt-4o"),
        ),
        charges=charges(openai_charge("10", "gpt-4o-2024-05-13", "2000"), openai_charge("2.50", "gpt-4o-2024-08-06")),
    )
    attribute(books)
    assert rows(books, "initiator_agent", "effective_cost", "release", "reason") == [
        ("any", D(5), "0513", "coarse_match"),
        ("new", D("2.5"), "0806", "coarse_match"),
        ("old", D(5), "0513", "coarse_match"),
    ]


def test_ra1c_geographies_at_two_prices_pay_their_own(books: Books) -> None:
    """A global profile is ten percent cheaper than the region's own price, which `us.` profiles pay."""
    sku = "USE1-Claude4.6Sonnet-input-tokens"
    profile = "{}.anthropic.claude-sonnet-4-6-v1:0".format
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="a"),
            call(1, 2, 1, 1_000_000, response_model=profile("us")),
            span(2, 1, agent_name="b"),
            call(2, 2, 1, 1_000_000, response_model=profile("global")),
        ),
        charges=charges(
            charge("3.30", tokens_k="1000", sku_meter=sku),
            charge("3.00", tokens_k="1000", sku_meter=f"{sku}-cross-region-global"),
        ),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("3.3"), "b": D(3)}


def test_ra1c_a_release_comes_before_a_place(books: Books) -> None:
    """`b` runs elsewhere and states its release; `a` runs where both are billed and states none: the release decides first."""
    east = {"region_id": "us-east-1", "sub_account_id": "1111"}
    arn = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-{}-v1:0".format
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="a"),
            call(1, 2, 1, 1000, response_model="anthropic.claude-sonnet-4-5", region="us-east-1"),
            span(2, 1, agent_name="b"),
            call(2, 2, 1, 1000, response_model="anthropic.claude-sonnet-4-5-20250929-v1:0", region="eu-west-1"),
        ),
        charges=charges(
            charge("0.003", tokens_k="1", sku_meter="USE1-Claude4.5Sonnet-input-tokens", resource_id=arn("20250929"), **east),
            charge("0.005", tokens_k="1", sku_meter="USE1-Claude4.5Sonnet-input-tokens", resource_id=arn("20251115"), **east),
        ),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("0.005"), "b": D("0.003")}


@pytest.mark.slow
def test_ra1c_a_release_that_is_no_date_takes_nothing_from_those_who_state_theirs(books: Books) -> None:
    """A month 99 is no release: that call meets only what the others leave, which is nothing; a release that is not billed meets none."""
    write(
        books,
        spans=spans(
            *openai_call(1, "new", "gpt-4o-2024-08-06"),
            *openai_call(2, "odd", "gpt-4o-2024-99-99"),
            *openai_call(3, "other", "gpt-4o-2024-11-20"),
            *openai_call(4, "long", "gpt-4o-" + "2024-08-06-" * 5000),
        ),
        charges=charges(openai_charge("2.50", "gpt-4o-2024-08-06"), openai_charge("5", "gpt-4o-2024-05-13")),
    )
    attribute(books)
    assert total(books, "initiator_agent")["new"] == D("2.5")
    assert total(books, "initiator_agent")["other"] == D(0)
    assert total(books, "initiator_agent")["long"] == D(0)
    assert sum(total(books, "initiator_agent").values()) == D("7.5")


# ── tokens that nobody can classify ─────────────────────────────────────────────────────────────────────────────────


def test_ra1_a_charge_in_tokens_that_nobody_can_classify_is_listed(home: Path) -> None:
    rootcost = Command(home)
    rootcost("ingest", "focus", CASES / "unclassified-called-known" / "bill.csv")
    rootcost("attribute")
    (row,) = rootcost("costs", "--by", "cost_class,reason", "--format", "json").rows
    assert (row["cost_class"], row["reason"], row["cost"]) == ("unallocated", "unclassified_sku", "3")
    (sku,) = rootcost("sources", "unclassified", "--format", "json").rows
    assert (sku["provider"], sku["sku"], sku["cost"]) == ("Acme", "acme-large input", "3")


def test_ra1_tokens_are_known_by_their_unit_and_other_units_are_no_models(books: Books) -> None:
    """A thousand tokens are tokens in whatever unit; a service's requests, hours and gigabytes are plain infrastructure."""
    other = {"provider_name": "Acme", "service_name": "Acme Vault", "region_id": None}
    write(
        books,
        charges=charges(
            charge("1", tokens_k="5", sku_meter="acme-large in", **other),
            charge("2", tokens_k="5", sku_meter="secret reads", **{**other, "consumed_unit": "Requests"}),
        ),
    )
    attribute(books)
    assert rows(books, "effective_cost", "reason") == [(D(1), "unclassified_sku"), (D(2), "no_logged_use")]


# ── of as many shared keys, exact first ─────────────────────────────────────────────────────────────────────────────


def test_ra1a_a_charge_that_knows_no_more_than_the_call_comes_first(books: Books) -> None:
    """One charge names its account, one does not, nor does the call: the second is exact, and only what it lacks meets the first."""
    placeless = charge("1", tokens_k="1", sub_account_id=None, region_id=None)
    write(
        books,
        spans=spans(call(1, 1, None, 1000, agent_name="a"), call(2, 2, None, 500, agent_name="b", start_time=at(11))),
        charges=charges(
            charge("2", tokens_k="1"),
            placeless,
            *(
                {**row, "charge_period_start": at(11), "charge_period_end": at(12)}
                for row in (charge("2", tokens_k="1"), placeless)
            ),
        ),
    )
    attribute(books)
    assert total(books, "initiator_agent", cost_class="metered") == {"a": D(1), "b": D("0.5")}
