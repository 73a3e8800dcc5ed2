"""What the book asks for a call: tiers, context sizes, contracts, hours, what is no token, and usage settled by its reported cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.pricing import PriceBook, add_list_cost, other_meters
from attribution.run import attribute
from attribution.usage.metering import disjoint_meters
from ingest.prices.litellm_map import BEGINNING, import_litellm_map
from ledger.books import Books
from ledger.money import RATE
from ledger.tables import COSTS, PRICES, PROBLEMS, SPANS, TIME, TOKEN_METERS, USAGE_COLUMNS
from tests.support.books_by_hand import SONNET, price, span, spans, write
from tests.support.paths import DATA

CAPTURES = DATA / "litellm_proxy_captures"
NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)
LOGGED = (
    *USAGE_COLUMNS, "other_usage", "provider", "region", "request_model", "response_model", "service_tier", "start_time", "end_time",
    "cache_hit", "reported_cost", "input_includes_cache", "output_includes_reasoning",
)  # fmt: skip


@pytest.fixture(scope="module")
def listed() -> PriceBook:
    return PriceBook(import_litellm_map())


def a_book(*rows: tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]) -> PriceBook:
    """Rates of one model: (meter, rate, tier, and what else is not usual)."""
    frame = pl.DataFrame(
        [
            {
                "origin": "list", "book": "by hand", "provider": "acme", "model": "m", "context_above": 0, "region": "", "currency": "USD",
                "valid_from": BEGINNING, "recorded_at": BEGINNING, "meter": meter, "rate": Decimal(rate), "service_tier": tier,
            } | (more[0] if more else {})
            for meter, rate, tier, *more in rows
        ],
        schema_overrides={"rate": RATE, "valid_from": TIME, "valid_to": TIME, "recorded_at": TIME, "hours": pl.String},
    )  # fmt: skip
    return PriceBook(PRICES.conform(frame))


def bill(book: PriceBook, *calls: dict[str, Any]) -> pl.DataFrame:
    """The calls, metered and priced; each of acme's model m at noon unless it says otherwise."""
    rows = [
        {"provider": "acme", "request_model": "m", "start_time": NOON, "input_includes_cache": True} | call
        | ({"other_usage": json.dumps(call["other"])} if "other" in call else {})
        for call in calls
    ]  # fmt: skip
    spans = pl.DataFrame(
        [{k: v for k, v in row.items() if k != "other"} for row in rows], schema={c: SPANS.schema[c] for c in LOGGED}
    )
    return add_list_cost(disjoint_meters(spans.lazy()).collect(), book)


def costs(book: PriceBook, *calls: dict[str, Any]) -> list[Decimal | None]:
    return bill(book, *calls)["list_cost"].to_list()


def test_the_whole_request_is_repriced_above_the_threshold_key_by_key() -> None:
    book = a_book(
        ("input_tokens", "1", "standard"),
        ("input_tokens", "2", "standard", {"context_above": 100}),
        ("output_tokens", "5", "standard"),
        ("output_tokens", "4", "flex"),
    )
    # 100 + 5 x 1; 101 x 2 + 5; flex: 101 x 2 + 4; a tier nobody prices is standard
    assert costs(
        book,
        {"input_tokens": 100, "output_tokens": 1},
        {"input_tokens": 101, "output_tokens": 1},
        {"input_tokens": 101, "output_tokens": 1, "service_tier": "flex"},
        {"input_tokens": 101, "output_tokens": 1, "service_tier": "lightning"},
    ) == [Decimal(105), Decimal(207), Decimal(206), Decimal(207)]


def test_in_a_batch_a_lacking_rate_is_half_the_standard_one_and_cached_input_is_input() -> None:
    halved = a_book(("input_tokens", "2", "standard"), ("output_tokens", "6", "standard"), ("cache_read_tokens", "1", "standard"))
    stated = a_book(("input_tokens", "2", "standard"), ("input_tokens", "1.5", "batch"), ("cache_read_tokens", "1", "standard"))
    call = {"input_tokens": 10, "cache_read_tokens": 4, "service_tier": "batch"}
    assert costs(halved, call | {"output_tokens": 1}) == [Decimal(11)]  # 6 x 1 + 4 x 0.5 + 1 x 3
    assert costs(stated, call) == [Decimal(15)]  # 10 x 1.5


def test_a_contract_speaks_for_the_meters_it_names_until_it_ends_and_the_list_for_the_others() -> None:
    contract = {"origin": "contract", "valid_from": NOON - timedelta(days=30), "valid_to": NOON}
    book = a_book(
        ("input_tokens", "3", "standard"),
        ("output_tokens", "15", "standard"),
        ("input_tokens", "2", "standard", contract),
        ("input_tokens", "9", "standard", {"origin": "observed"}),
    )
    call = {"input_tokens": 1, "output_tokens": 1}
    before, during = NOON - timedelta(days=31), NOON - timedelta(seconds=1)
    assert costs(book, call | {"start_time": before}, call | {"start_time": during}, call) == [
        Decimal(18),
        Decimal(17),
        Decimal(18),
    ]


def test_what_was_observed_on_bills_is_used_where_nobody_else_knows_the_model() -> None:
    seen = {"origin": "observed", "model": "private-7b"}
    book = a_book(("input_tokens", "3", "standard"), ("input_tokens", "1", "standard", seen))
    assert costs(book, {"input_tokens": 2, "request_model": "private-7b"}, {"input_tokens": 2}) == [Decimal(2), Decimal(6)]


def test_prices_are_those_of_the_moment_of_use() -> None:
    book = a_book(("input_tokens", "3", "standard"), ("input_tokens", "2", "standard", {"valid_from": NOON}))
    moments = (NOON - timedelta(microseconds=1), NOON)
    assert costs(book, *({"input_tokens": 1, "start_time": at} for at in moments)) == [Decimal(3), Decimal(2)]


def test_off_peak_hours_are_read_on_the_calendar_they_name() -> None:
    hours = json.dumps([{"hours_utc": ["16:00-00:00"], "weekdays": [6], "timezone": "Asia/Shanghai"}])
    book = a_book(("input_tokens", "2", "standard"), ("input_tokens", "1", "off_peak", {"hours": hours}))
    friday = datetime(2026, 11, 6, 16, 30, tzinfo=UTC)  # in Shanghai it is Saturday, 00:30
    assert costs(book, *({"input_tokens": 1, "start_time": friday + timedelta(hours=h)} for h in (-1, 0, 24))) == [
        Decimal(2), Decimal(1), Decimal(2),
    ]  # fmt: skip


def test_unpriced_is_null_free_is_zero_and_absent_stays_absent() -> None:
    book = a_book(("input_tokens", "2", "standard"))
    out = bill(
        book,
        {"input_tokens": 3, "output_tokens": 0},
        {"input_tokens": 3, "output_tokens": 1},
        {"input_tokens": 3, "output_tokens": 1, "cache_hit": True},
        {"request_model": "nobody's", "input_tokens": 3},
        {},
    )
    assert out["list_cost"].to_list() == [Decimal(6), None, Decimal(0), None, None]
    assert out["__cost_input_tokens"].to_list() == [Decimal(6), Decimal(6), Decimal(0), None, None]
    assert out["__cost_output_tokens"].to_list() == [Decimal(0), None, Decimal(0), None, None]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    rate=st.decimals(0, 5, places=18, allow_nan=False, allow_infinity=False),
)
def test_every_cost_is_tokens_times_rate_rounded_half_to_even_at_twelve_decimals(tokens: list[int], rate: Decimal) -> None:
    found = costs(a_book(("input_tokens", str(rate), "standard")), *({"input_tokens": n} for n in tokens))
    assert found == [(n * Decimal(rate)).quantize(Decimal("1e-12")) for n in tokens]


# What is no token


def test_what_is_no_token_is_priced_and_listed_beside_the_call() -> None:
    book = a_book(("input_tokens", "1", "standard"), ("web_searches", "10", "standard"), ("pages", "0.5", "standard"))
    out = bill(book, {"input_tokens": 1, "other": {"web_searches": 2, "pages": "1.5"}}, {"input_tokens": 1})
    assert out["list_cost"].to_list() == [Decimal("21.75"), Decimal(1)]
    assert other_meters(out).select("meter", "quantity", "list_cost").rows() == [
        ("web_searches", Decimal(2), Decimal(20)),
        ("pages", Decimal("1.5"), Decimal("0.75")),
    ]


def test_search_sold_by_the_prompt_costs_the_same_however_many_searches_that_took() -> None:
    book = a_book(("input_tokens", "1", "standard"), ("grounded_prompts", "35", "standard"))
    out = bill(book, {"input_tokens": 1, "other": {"web_searches": 7}})
    assert out["list_cost"].to_list() == [Decimal(36)]
    assert other_meters(out)["meter"].to_list() == ["grounded_prompts"]


def test_a_model_that_sells_characters_does_not_sell_the_same_text_as_tokens() -> None:
    book = a_book(("input_tokens", "1", "standard"), ("input_characters", "0.1", "standard"))
    tokens_only = a_book(("input_tokens", "1", "standard"))
    call = {"input_tokens": 5, "other": {"input_characters": 20}}
    assert costs(book, call) == [Decimal(2)]
    assert costs(tokens_only, call) == [Decimal(5)]


def test_a_tool_nobody_prices_leaves_the_call_unpriced() -> None:
    assert costs(a_book(("input_tokens", "1", "standard")), {"input_tokens": 1, "other": {"code_sessions": 1}}) == [None]


def test_a_model_sold_by_the_call_or_by_time_needs_nobody_to_count() -> None:
    by_call = a_book(("input_tokens", "1", "standard"), ("requests", "5", "standard"))
    by_time = a_book(("seconds", "0.02", "standard"))
    assert costs(by_call, {"input_tokens": 2}) == [Decimal(7)]
    assert costs(by_time, {"end_time": NOON + timedelta(milliseconds=1500)}) == [Decimal("0.03")]


def test_rare_kinds_of_token_are_taken_out_of_what_they_are_part_of() -> None:
    book = a_book(
        ("input_tokens", "1", "standard"), ("input_video_tokens", "3", "standard"), ("cache_read_audio_tokens", "2", "standard")
    )
    out = bill(
        book, {"input_tokens": 100, "cache_read_tokens": 20, "other": {"input_video_tokens": 30, "cache_read_audio_tokens": 5}}
    )
    assert out.select("input_tokens", "cache_read_tokens", "prompt_tokens").row(0) == (50, 15, 100)
    assert out["list_cost"].to_list() == [Decimal(50 + 15 + 90 + 10)]


# The price equation (CA-5)

CLAUDE = {"provider": "anthropic", "request_model": "claude-sonnet-4-6", "input_includes_cache": False}
WRITTEN = CLAUDE | {"input_tokens": 3, "output_tokens": 5, "cache_read_tokens": 17241, "cache_write_tokens": 16935}


@pytest.mark.parametrize(
    ("reported", "short", "hour", "flag"),
    [
        ("0.1068663", None, 16935, None),  # 3 x 3 + 5 x 15 + 17241 x 0.30 + 16935 x 6 millionths: what Elastic's test event says
        ("0.06876255", 16935, None, None),  # the same with 3.75: five minutes
        ("0.5", 16935, None, "cache_lifetime_unknown"),
        (None, 16935, None, "cache_lifetime_unknown"),
    ],
)
def test_the_reported_cost_tells_how_long_the_cache_was_written_for(
    listed: PriceBook, reported: str | None, short: int | None, hour: int | None, flag: str | None
) -> None:
    out = bill(listed, WRITTEN | {"reported_cost": None if reported is None else Decimal(reported)})
    assert out.select("cache_write_5m_tokens", "cache_write_1h_tokens", "usage_flag").row(0) == (short, hour, flag)
    if flag is None:
        assert out["list_cost"].to_list() == [Decimal(str(reported))]


def test_a_lifetime_that_makes_no_difference_is_no_question() -> None:
    book = a_book(("input_tokens", "1", "standard"), ("cache_write_5m_tokens", "2", "standard"))
    assert bill(book, {"input_tokens": 5, "cache_write_tokens": 5})["usage_flag"].to_list() == [None]


@pytest.mark.parametrize(
    ("reported", "bare", "prompt", "flag"),
    [("0.7", 600, 1000, None), ("1.1", 1000, 1400, None), ("0.9", 600, 1000, "input_semantics_unknown")],
)
def test_the_reported_cost_tells_whether_input_counts_what_the_cache_served(
    reported: str, bare: int, prompt: int, flag: str | None
) -> None:
    book = a_book(("input_tokens", "0.001", "standard"), ("cache_read_tokens", "0.00025", "standard"))
    call = {"input_tokens": 1000, "cache_read_tokens": 400, "input_includes_cache": None, "reported_cost": Decimal(reported)}
    out = bill(book, call)
    assert out.select("input_tokens", "prompt_tokens", "usage_flag").row(0) == (bare, prompt, flag)


def test_every_priced_call_of_the_captures_costs_what_the_gateway_said(listed: PriceBook) -> None:
    calls, told = [], []
    for path in sorted(CAPTURES.glob("*.json")):
        payloads = json.loads(path.read_text(), parse_float=Decimal)
        for payload in payloads if isinstance(payloads, list) else [payloads]:
            if not payload.get("response_cost"):
                continue
            details = payload["metadata"]["usage_object"].get("prompt_tokens_details") or {}
            lifetimes = details.get("cache_creation_token_details") or {}
            hour = lifetimes.get("ephemeral_1h_input_tokens") or 0
            calls.append(
                {
                    "provider": payload["custom_llm_provider"],
                    "request_model": payload["model"],
                    "input_tokens": payload["prompt_tokens"],
                    "output_tokens": payload["completion_tokens"],
                    "cache_read_tokens": details.get("cached_tokens"),
                    "cache_write_5m_tokens": (details.get("cache_creation_tokens") or 0) - hour,
                    "cache_write_1h_tokens": hour,
                }
            )
            told.append(Decimal(payload["response_cost"]))
    found = costs(listed, *calls)
    assert len(found) == 58
    assert [
        n
        for n, (ours, theirs) in enumerate(zip(found, told, strict=True))
        if ours is None or abs(ours - theirs) > Decimal("1e-12")
    ] == []


def test_pricing_no_calls_gives_no_calls(listed: PriceBook) -> None:
    out = bill(listed)
    assert out.height == 0
    assert {f"__cost_{m}" for m in TOKEN_METERS} | {"list_cost", "context_above", "price_key", "__other"} <= set(out.columns)


@pytest.mark.slow
def test_thousands_of_models_in_one_frame_are_told_apart() -> None:
    """More combinations than the quick table has room for without two falling into one place."""
    count = 6000
    rows = [("input_tokens", str(n + 1), "standard", {"model": f"m{n}"}) for n in range(count)]
    assert costs(a_book(*rows), *({"request_model": f"m{n}", "input_tokens": 1} for n in range(count))) == list(
        range(1, count + 1)
    )


def test_a_rate_in_another_currency_is_not_used_and_is_told(books: Books) -> None:
    """One contract in euros does not turn a book of dollars into euros, nor is it read as dollars. (RA-7)"""
    dollars = [price(SONNET["response_model"], meter, "0.000003") for meter in ("input_tokens", "output_tokens")]
    euros = price(SONNET["response_model"], "input_tokens", "0.000001", origin="contract", currency="EUR")
    write(books, spans=spans(span(1, 1, input_tokens=1000, agent_name="bot", **SONNET)), prices=[*dollars, euros])
    report = attribute(books)
    costs = books.store.scan(COSTS, {"run_id": [report.run_id]}).collect()
    assert costs.select("currency", "effective_cost").rows() == [("USD", Decimal("0.003"))]
    told = books.store.scan(PROBLEMS).collect()["reason"].to_list()
    assert [reason.split(":")[0] for reason in told] == ["rate_in_another_currency"]


def test_a_call_without_a_named_provider_has_the_price_of_the_one_its_models_form_states(books: Books) -> None:
    """The list has Bedrock's price under another spelling; a framework and nobody are named as providers. (RA-1b, ES-2)"""
    listed = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
    call: dict[str, Any] = {"response_model": "us.anthropic.claude-sonnet-4-6-v1:0", "usage_scope": "leaf", "input_tokens": 1000}
    write(books, spans=spans(span(1, 1, **call), span(2, 2, **call, provider="langchain"), span(3, 3, **call)), prices=listed)
    attribute(books)
    assert books.store.scan(COSTS).select(pl.col("effective_cost").sum()).collect().item() == Decimal("0.009")
