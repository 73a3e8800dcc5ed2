"""A price update's way into the book: checked, compared, staged where it looks wrong; what was priced stays priced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.pricing.observed import observed_rates
from attribution.run import attribute
from ingest.prices.books import read_prices
from ingest.prices.updates import BEGINNING, ImportResult, PriceList, apply_update, compare, decide, staged
from ledger.books import Books
from ledger.db import Audit
from ledger.errors import FormatError, ObjectMissingError, SourceError
from ledger.tables import COSTS, PRICES, PROBLEMS, TIME
from rootcost.pricebook import coverage
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
HEAD = "provider,model,meter,unit,rate,currency,valid_from\n"


def listed(*rates: dict[str, Any], book: str = "shop 1", origin: str = "list") -> PriceList:
    """A list of rates; without `valid_from` they are undated."""
    rows = [price("m", "input_tokens", "0.000002") | {"valid_from": None, "origin": origin, "book": book} | r for r in rates]
    frame = pl.DataFrame(rows, schema={**PRICES.schema, "rate": PRICES.schema["rate"], "valid_from": TIME})
    return PriceList(book, origin, "shop.csv", frame)


def rate(value: str, **told: Any) -> dict[str, Any]:
    return {"rate": Decimal(value), **told}


def imported(books: Books, what: PriceList, valid_from: datetime | None = None, **how: Any) -> ImportResult:
    return apply_update(books, compare(books, what, valid_from=valid_from), **how)


def held(books: Books) -> list[tuple[str, str, str]]:
    """Day, model and rate per million of every row of the book, in order."""
    rows = books.store.scan(PRICES).collect().sort("valid_from", "model", "recorded_at")
    return [(f"{r['valid_from']:%Y-%m-%d}", r["model"], f"{r['rate'] * 10**6:f}".rstrip("0")) for r in rows.iter_rows(named=True)]


def doubts(books: Books) -> list[str]:
    return staged(books)["doubt"].to_list()


# ── what changes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_a_dated_row_and_the_same_list_again_is_nothing(books: Books) -> None:
    imported(books, listed(rate("0.000002")))
    done = imported(books, listed(rate("0.000003"), book="shop 2"), OCTOBER)
    assert (done.added, done.changed, done.staged) == (1, 1, 0)
    assert held(books) == [("1970-01-01", "m", "2."), ("2026-10-01", "m", "3.")]
    version = books.store.version(PRICES)
    again = imported(books, listed(rate("0.000003"), book="shop 2"))
    assert (again.added, again.unchanged, books.store.version(PRICES)) == (0, 1, version)


def test_the_difference_tells_what_was_in_force_on_that_day_and_changes_nothing(books: Books) -> None:
    imported(books, listed(rate("0.000002"), rate("0.000005", model="n"), rate("0.000007", model="p")))
    imported(books, listed(rate("0.000003")), NOVEMBER)
    version = books.store.version(PRICES)
    told = compare(
        books, listed(rate("0.000004"), rate("0.000005", model="n"), rate("0.000001", model="new")), valid_from=OCTOBER
    )
    assert told.changes.select("model", "change", "old_rate", "rate").sort("model").rows() == [
        ("m", "changed", Decimal("0.000002"), Decimal("0.000004")),
        ("new", "new", None, Decimal("0.000001")),
    ]
    assert (told.unchanged, told.missing_models["model"].to_list()) == (1, ["p"])
    assert books.store.version(PRICES) == version


def test_dated_rates_of_a_list_tell_its_past_and_its_future(books: Books) -> None:
    told = listed(
        rate("0.00001"), rate("0.000008", valid_from=OCTOBER), rate("0.000006", valid_from=datetime(2030, 1, 1, tzinfo=UTC))
    )
    assert imported(books, told).staged == 0
    assert held(books) == [("1970-01-01", "m", "10."), ("2026-10-01", "m", "8."), ("2030-01-01", "m", "6.")]
    assert imported(books, told).added == 0


def test_a_rate_that_ends_and_comes_back_is_a_change(books: Books) -> None:
    imported(books, listed(rate("0.000002", valid_from=OCTOBER, valid_to=NOVEMBER), origin="contract"))
    assert imported(books, listed(rate("0.000002", valid_from=datetime(2026, 11, 10, tzinfo=UTC)), origin="contract")).added == 1
    assert len(held(books)) == 2


@pytest.mark.slow
@settings(max_examples=8)
@given(
    moves=st.lists(st.tuples(st.integers(1, 28), st.sampled_from("mn"), st.integers(1, 9)), min_size=1, max_size=4),
)
def test_no_import_ever_touches_a_row_of_the_past(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, str, int]]
) -> None:
    """Whatever is imported in whatever order: all earlier rows are still there, and importing again adds nothing."""
    with Books.open(tmp_path_factory.mktemp("home")) as books:
        before: set[tuple[Any, ...]] = set()
        for day, model, value in moves:
            what = listed(rate(f"0.00000{value}", model=model))
            imported(books, what, at(0, day=day), accept=True)
            now = set(books.store.scan(PRICES).collect().rows())
            assert before <= now
            assert imported(books, what, at(0, day=day), accept=True).added == 0
            before = now


# ── what looks wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "doubt"),
    [
        ("0.000002", "0.000021", "moves from 0.000002 to 0.000021, more than 10 times"),
        ("0.000021", "0.000002", "moves from 0.000021 to 0.000002, more than 10 times"),
        ("0.000002", "0", "would be free, was 0.000002"),
        ("0", "0.000002", "was free, would be 0.000002"),
        ("0.000002", "0.00002", ""),  # ten times is not more than ten times
        ("0.000002", "0.0000002", ""),
    ],
)
def test_a_rate_that_leaps_waits_for_somebodys_word(books: Books, old: str, new: str, doubt: str) -> None:
    imported(books, listed(rate(old)))
    done = imported(books, listed(rate(new)))
    assert doubts(books) == ([doubt] if doubt else [])
    assert (done.added, done.staged) == ((0, 1) if doubt else (1, 0))


def test_sound_neighbours_of_a_doubtful_rate_go_in_at_once(books: Books) -> None:
    imported(books, listed(rate("0.000002"), rate("0.000002", model="n")))
    done = imported(books, listed(rate("0.002"), rate("0.000003", model="n"), rate("0.000001", model="new")), OCTOBER)
    assert (done.added, done.changed, done.staged) == (2, 1, 1)
    (told,) = books.store.scan(PROBLEMS, {"source": ["prices-staged"]}).collect().to_dicts()
    assert (told["uri"], told["place"], told["field"], told["severity"]) == ("shop.csv", "m", "input_tokens", "error")
    assert "rootcost prices accept" in told["remedy"]


def test_accepting_takes_it_from_the_day_it_was_stated_for_and_rejecting_leaves_no_trace_in_the_book(books: Books) -> None:
    imported(books, listed(rate("0.000002"), rate("0.000002", model="n")))
    imported(books, listed(rate("0.001"), rate("0.001", model="n")), OCTOBER)
    waiting = staged(books)
    assert decide(books, waiting.filter(model="m"), accept=True) == 1
    assert decide(books, waiting.filter(model="n"), accept=False) == 1
    assert held(books) == [("1970-01-01", "m", "2."), ("1970-01-01", "n", "2."), ("2026-10-01", "m", "1000.")]
    assert staged(books).height == 0
    assert books.store.scan(PROBLEMS).collect().height == 0
    with books.database.session() as session:
        actions = [row.action for row in session.query(Audit).order_by(Audit.sequence)]
    assert actions == ["prices.import", "prices.import", "prices.accept", "prices.reject"]


def test_a_mended_list_takes_what_it_had_staged_with_it(books: Books) -> None:
    imported(books, listed(rate("0.000002")))
    imported(books, listed(rate("0.2"), book="shop 2"))
    assert len(doubts(books)) == 1
    done = imported(books, listed(rate("0.000003"), book="shop 3"))
    assert (done.added, done.staged, doubts(books)) == (1, 0, [])
    assert books.store.scan(PROBLEMS).collect().height == 0


def test_another_currency_is_doubted_and_an_unknown_one_refused(books: Books) -> None:
    imported(books, listed(rate("0.000002")))
    done = imported(books, listed(rate("0.000002", currency="EUR"), rate("0.000002", model="n", currency="DOLLARS")))
    assert doubts(books) == ["was in USD, is in EUR"]
    assert [(p.place, p.reason) for p in done.problems] == [("n", "'DOLLARS' is no currency")]


def test_a_million_taken_for_one_is_doubted_though_the_model_is_new(books: Books) -> None:
    imported(books, listed(rate("3"), rate("0.04", meter="requests")))
    assert doubts(books) == ["3 for one token: is it the price of a thousand, or of a million?"]
    assert held(books) == [("1970-01-01", "m", "40000.")]


def test_a_list_that_lacks_a_model_says_so_and_one_that_lacks_a_tenth_is_doubted_as_a_whole(books: Books) -> None:
    names = [f"m{n:02}" for n in range(30)]
    imported(books, listed(*(rate("0.000002", model=n) for n in names)))
    few_gone = compare(books, listed(*(rate("0.000003", model=n) for n in names[3:])))
    assert (few_gone.missing_models["model"].to_list(), few_gone.doubtful.height) == (names[:3], 0)
    done = imported(books, listed(*(rate("0.000003", model=n) for n in names[4:])))
    assert (done.added, done.staged) == (0, 26)
    assert set(doubts(books)) == {"the list lacks 4 of the 30 models it had: is it complete?"}
    (told,) = books.store.scan(PROBLEMS).collect().to_dicts()
    assert (told["place"], told["rows"]) == ("m04 and 25 more", 26)
    other = compare(books, listed(rate("0.000001", model="x"), book="another 1"))
    assert (other.missing_models.height, other.doubtful.height) == (0, 0), "another list may hold other models"


def test_a_correction_of_the_same_day_is_staged_and_once_accepted_both_rows_stay(books: Books) -> None:
    imported(books, listed(rate("0.000002", valid_from=NOVEMBER), origin="contract"))
    fixed = listed(rate("0.000004", valid_from=NOVEMBER), origin="contract")
    assert imported(books, fixed).staged == 1
    assert doubts(books) == ["0.000004 would replace 0.000002, recorded for the same moment"]
    assert imported(books, fixed, accept=True).added == 1
    assert doubts(books) == []
    assert held(books) == [("2026-11-01", "m", "2."), ("2026-11-01", "m", "4.")]


def test_a_restated_bill_corrects_what_was_observed_without_asking(books: Books) -> None:
    for value in ("0.000002", "0.0000021"):
        done = imported(books, listed(rate(value, valid_from=OCTOBER), origin="observed"))
        assert (done.added, done.staged) == (1, 0)
    assert held(books) == [("2026-10-01", "m", "2."), ("2026-10-01", "m", "2.1")]


# ── history is not rewritten: through the engine ────────────────────────────────────────────────────────────────────────


def chat(books: Books, hour: int, day: int) -> None:
    """1 000 input tokens, no bill."""
    columns: dict[str, Any] = {
        "provider": "openai",
        "response_model": "m",
        "usage_scope": "leaf",
        "operation": "chat",
        "agent_name": "bot",
    }
    write(
        books,
        spans=spans(span(1000 + day, 1, start_time=at(hour, day=day), input_tokens=1000, input_includes_cache=True, **columns)),
    )


def estimates(books: Books) -> dict[int, Decimal]:
    """What each day of October is estimated to cost."""
    run = attribute(books, ["2026-10"], force=True).run_id
    costs = books.store.scan(COSTS, {"run_id": [run]}).collect()
    return {r["period_start"].day: r["list_cost"] for r in costs.sort("period_start").iter_rows(named=True)}


@pytest.mark.slow
def test_an_old_day_keeps_its_old_price_when_the_month_is_run_again(books: Books) -> None:
    chat(books, 10, 5)
    chat(books, 10, 25)
    imported(books, listed(rate("0.000002", provider="openai")))
    assert estimates(books) == {5: Decimal("0.002"), 25: Decimal("0.002")}
    change = listed(rate("0.000003", provider="openai"), book="shop 2")
    assert imported(books, change, at(0, day=20)).staged == 1, "October is published: that would estimate it anew"
    assert "reaches back into 2026-10: published" in doubts(books)[0]
    assert estimates(books) == {5: Decimal("0.002"), 25: Decimal("0.002")}, "what is staged prices nothing"
    decide(books, staged(books), accept=True)
    assert estimates(books) == {5: Decimal("0.002"), 25: Decimal("0.003")}
    imported(books, listed(rate("0.000009", provider="openai"), book="shop 3"))  # from now on, long after October
    assert estimates(books) == {5: Decimal("0.002"), 25: Decimal("0.003")}


@pytest.mark.slow
def test_what_a_bill_came_to_prices_the_next_month_of_a_model_no_list_knows(books: Books) -> None:
    """10 000 tokens for $0.03 in October: 1 000 tokens of November are estimated at $0.003."""
    acme: dict[str, Any] = {
        "provider": "bedrock",
        "response_model": "acme-7b",
        "usage_scope": "leaf",
        "input_includes_cache": True,
    }
    november = datetime(2026, 11, 5, 10, tzinfo=UTC)
    write(
        books,
        spans=spans(
            span(1, 1, input_tokens=10_000, account_id="1111", **acme),
            span(2, 2, start_time=november, input_tokens=1_000, account_id="1111", **acme),
        ),
        charges=charges(charge("0.03", tokens_k="10", sku_meter="USE1-Acme7b-input-tokens")),
        prices=[price("another-model", "input_tokens", "0.000001")],
    )
    attribute(books)
    assert coverage(books, ["2026-11"]).unpriced["model"].to_list() == ["acme-7b"]
    rates = observed_rates(books, "2026-10")
    assert rates.select("origin", "model", "meter", "rate", "valid_from").rows() == [
        ("observed", "acme-7b", "input_tokens", Decimal("0.000003"), OCTOBER)
    ]
    imported(books, PriceList("bill 2026-10", "observed", "bill 2026-10", rates))
    attribute(books)
    assert coverage(books, ["2026-11"]).unpriced.height == 0
    run = attribute(books, ["2026-11"], force=True).run_id
    costs = books.store.scan(COSTS, {"run_id": [run]}).collect()
    assert costs.select("basis", "list_cost").rows() == [("estimated", Decimal("0.003"))]


# ── a rate table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(folder: Path, text: str, name: str = "contract.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_contract_is_a_csv_of_rates_per_whatever_people_write(tmp_path: Path) -> None:
    told = read_prices(
        table(
            tmp_path,
            HEAD
            + "bedrock,claude,input_tokens,1M tokens,2.40,USD,2026-10-01\n"
            + "bedrock,claude,output_tokens,1K tokens,0.012,usd,2026-10-01\n"
            + "bedrock,claude,requests,per 1000 requests,5,EUR,\n"
            + "self,gpu,seconds,hour,1.25,USD,2026-10-01T06:00:00Z\n",
        ),
        origin="contract",
    )
    assert told.problems == ()
    assert told.book.startswith("contract sha256:")
    assert [(r["meter"], r["rate"], r["currency"]) for r in told.frame.iter_rows(named=True)] == [
        ("input_tokens", Decimal("0.0000024"), "USD"),
        ("output_tokens", Decimal("0.000012"), "USD"),
        ("requests", Decimal("0.005"), "EUR"),
        ("seconds", Decimal("0.000347222222222222"), "USD"),
    ]
    assert told.frame["valid_from"].to_list() == [OCTOBER, OCTOBER, None, datetime(2026, 10, 1, 6, tzinfo=UTC)]
    assert set(told.frame["origin"]) == {"contract"}


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ("b,m,input_tokens,1M tokens,-2.40,USD,", "rate", "-2.40 is negative"),
        ("b,m,input_tokens,1M tokens,cheap,USD,", "rate", "'cheap' is no number"),
        ("b,m,input_tokens,1M tokens,NaN,USD,", "rate", "'NaN' is no number"),
        ("b,m,input_tokens,,2.40,USD,", "unit", "is empty"),
        ("b,m,input_tokens,1M hours,2.40,USD,", "unit", "'1M hours' is no unit of input_tokens"),
        ("b,m,input_tokens,0 tokens,2.40,USD,", "unit", "'0 tokens' counts nothing"),
        ("b,m,input_tokens,1M tokens,2.40,,", "currency", "is empty"),
        ("b,m,input_tokens,1M tokens,2.40,Dollars,", "currency", "'Dollars' is no currency"),
        ("b,m,inputs,1M tokens,2.40,USD,", "meter", "'inputs' is no meter"),
        ("b,,input_tokens,1M tokens,2.40,USD,", "model", "is empty"),
        ("b,m,input_tokens,1M tokens,2.40,USD,soon", "valid_from", "'soon' is no date"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used_is_told_with_its_number_and_the_next_is_read(
    tmp_path: Path, line: str, field: str, reason: str
) -> None:
    told = read_prices(table(tmp_path, f"{HEAD}{line}\nb,good,input_tokens,1M tokens,1,USD,\n"))
    assert told.frame["model"].to_list() == ["good"]
    (problem,) = told.problems
    assert (problem.uri, problem.place, problem.field) == ("contract.csv", "line 2", field)
    assert problem.reason.startswith(reason.removesuffix(" is no date"))
    assert problem.remedy


def test_semicolons_a_byte_order_mark_and_blank_lines_are_as_spreadsheets_write_them(tmp_path: Path) -> None:
    text = "\ufeff" + HEAD.replace(",", ";") + ";;;;;;\nb;m;input_tokens;1M tokens;2.5;USD;\n\n"
    told = read_prices(table(tmp_path, text))
    assert (told.frame["rate"].to_list(), told.problems) == ([Decimal("0.0000025")], ())


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[]", b"{}", b"{", b"[1, 2]", b"model,rate\nm,1\n", b'"\x00', b"[" * 100_000]
)
def test_what_is_no_price_list_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.list").write_bytes(content)
    with pytest.raises(FormatError) as told:
        read_prices(tmp_path / "odd.list")
    assert "odd.list" in str(told.value)
    assert told.value.remedy
    with pytest.raises(ObjectMissingError):
        read_prices(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        read_prices(tmp_path)


def test_two_rates_for_one_day_are_both_left_out(books: Books, tmp_path: Path) -> None:
    text = HEAD + "b,m,input_tokens,1M tokens,1,USD,\nb,m,input_tokens,1M tokens,2,USD,\nb,n,input_tokens,1M tokens,2,USD,\n"
    done = imported(books, read_prices(table(tmp_path, text)))
    assert held(books) == [("1970-01-01", "n", "2.")]
    assert [p.reason for p in done.problems] == ["has two rates, 0.000001 and 0.000002; neither was imported"]


# ── by pattern, dated, tiered, by the hour ──────────────────────────────────────────────────────────────────────────────

PATTERNS = [
    {
        "id": "maker",
        "models": [
            {
                "id": "big",
                "match": {"or": [{"equals": "big"}, {"and": [{"starts_with": "big-"}, {"contains": "2026"}]}]},
                "prices": [
                    {"prices": {"input_mtok": {"base": 3, "tiers": [{"start": 200000, "price": 6}]}, "output_mtok": 15}},
                    {"constraint": {"start_date": "2026-10-01"}, "prices": {"input_mtok": 2, "output_mtok": 10}},
                ],
            },
            {
                "id": "night",
                "match": {"equals": "night"},
                "prices": [
                    {"prices": {"input_mtok": 1}},
                    {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 2}},
                ],
            },
            {"id": "odd", "match": {"equals": "odd"}, "prices": {"input_mtok": -1, "output_mtok": "x", "smiles_mtok": 3}},
        ],
    },
    {"id": "seller", "fallback_model_providers": ["maker"], "models": []},
]


def test_a_list_of_patterns_is_spelled_out_for_the_names_that_logs_use(tmp_path: Path) -> None:
    path = table(tmp_path, json.dumps(PATTERNS), "prices.json")
    told = read_prices(path, model_names=lambda: ["Big-2026-x", "small"])
    assert set(told.frame.select("provider", "model").rows()) == {
        (p, m) for p in ("maker", "seller") for m in ("big", "Big-2026-x", "night")
    }
    assert {(p.place, p.field, p.severity) for p in told.problems} == {
        ("maker odd", "input_mtok", "error"),
        ("maker odd", "output_mtok", "error"),
        ("maker odd", "smiles_mtok", "warning"),
    }


WORDS = (
    *("id", "models", "match", "prices", "or", "equals", "regex", "base", "tiers", "start", "price", "constraint"),
    *("start_date", "start_time", "end_time", "input_mtok", "output_mtok", "fallback_model_providers"),
)


@settings(max_examples=60)
@given(
    said=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(WORDS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=25,
    )
)
def test_a_list_gone_wrong_anywhere_ends_in_problems_and_never_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, said: object
) -> None:
    good = {"id": "good", "match": {"equals": "good"}, "prices": {"input_mtok": 1}}
    providers = [{"id": "p", "models": [good, {"id": "odd", "match": said, "prices": said}, said]}, {"id": "q", "models": said}]
    path = table(tmp_path_factory.mktemp("list"), json.dumps(providers), "prices.json")
    told = read_prices(path, model_names=lambda: ["good", "5"])
    assert told.frame.filter(provider="p", model="good")["rate"].to_list() == [Decimal("0.000001")]


def test_a_later_price_ends_the_whole_of_the_earlier_one(books: Books, tmp_path: Path) -> None:
    imported(books, read_prices(table(tmp_path, json.dumps(PATTERNS), "prices.json")))
    rows = books.store.scan(PRICES).filter(provider="maker", model="big", meter="input_tokens").collect()
    assert rows.select("context_above", "rate", "valid_from", "valid_to").sort("context_above", "valid_from").rows() == [
        (0, Decimal("0.000003"), BEGINNING, None),
        (0, Decimal("0.000002"), OCTOBER, None),
        (200_000, Decimal("0.000006"), BEGINNING, OCTOBER),
    ]
    night = books.store.scan(PRICES).filter(provider="maker", model="night").collect().sort("service_tier")
    assert night.select("service_tier", "rate", "hours").rows() == [
        ("off_peak", Decimal("0.000002"), '[{"hours_utc": ["00:30-16:30"]}]'),
        ("standard", Decimal("0.000001"), None),
    ]
