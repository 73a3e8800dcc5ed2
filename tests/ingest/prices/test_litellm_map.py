"""The price book: LiteLLM's list read as data, dated on import, never rewritten."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.prices.litellm_map import BEGINNING, coverage, import_litellm_map, import_prices, litellm_map_path, read_litellm_map
from ledger.books import Books
from ledger.errors import FormatError, ObjectMissingError
from ledger.tables import METERS, PRICES, PROBLEMS
from tests.support.paths import DATA

CAPTURES = DATA / "litellm_proxy_captures"
OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def book() -> pl.DataFrame:
    return import_litellm_map()


def a_map(folder: Path, **models: Mapping[str, object]) -> Path:
    path = folder / "map.json"
    path.write_text(
        json.dumps({name: {"litellm_provider": "openai", "mode": "chat", **prices} for name, prices in models.items()})
    )
    return path


def rate(frame: pl.DataFrame, model: str, meter: str, tier: str = "standard", above: int = 0, region: str = "") -> Decimal | None:
    found = frame.filter(model=model, meter=meter, service_tier=tier, context_above=above, region=region)["rate"].to_list()
    assert len(found) <= 1
    return found[0] if found else None


def test_well_known_rates_are_what_the_provider_publishes(book: pl.DataFrame) -> None:
    assert rate(book, "gpt-4o", "input_tokens") == Decimal("0.0000025")
    assert rate(book, "gpt-4o", "cache_read_tokens") == Decimal("0.00000125")
    assert rate(book, "gpt-4o", "output_tokens") == Decimal("0.00001")
    assert rate(book, "gpt-4o", "input_tokens", tier="batch") == Decimal("0.00000125")
    assert rate(book, "claude-sonnet-4-5", "cache_write_5m_tokens") == Decimal("0.00000375")
    assert rate(book, "claude-sonnet-4-5", "cache_write_1h_tokens") == Decimal("0.000006")
    assert rate(book, "gemini-2.5-pro", "input_tokens") == Decimal("0.00000125")
    assert rate(book, "gemini-2.5-pro", "input_tokens", above=200_000) == Decimal("0.0000025")


def test_the_book_is_a_table_of_prices(book: pl.DataFrame) -> None:
    assert book.schema == PRICES.schema
    assert book.select(PRICES.key).is_unique().all()
    assert set(book["meter"].unique()) <= set(METERS)
    assert book.select(pl.col("rate").min()).item() >= 0
    assert set(book["origin"].unique()) == {"list"}
    assert set(book["currency"].unique()) == {"USD"}
    assert set(book["valid_from"].unique()) == {BEGINNING}
    assert {"standard", "batch", "flex", "priority"} <= set(book["service_tier"].unique())
    assert {0, 128_000, 200_000, 272_000} <= set(book["context_above"].unique())


def test_two_hundred_models_have_the_base_rates_of_the_list(book: pl.DataFrame) -> None:
    listed = json.loads(litellm_map_path().read_bytes(), parse_float=Decimal)
    priced = sorted(m for m, e in listed.items() if isinstance(e, dict) and "input_cost_per_token" in e and m != "sample_spec")
    keys = {
        "input_cost_per_token": "input_tokens",
        "output_cost_per_token": "output_tokens",
        "cache_read_input_token_cost": "cache_read_tokens",
    }
    base = {
        (row["model"], row["meter"]): row
        for row in book.filter(service_tier="standard", context_above=0, region="").iter_rows(named=True)
    }
    for model in random.Random(4).sample(priced, 200):
        for key, meter in keys.items():
            if (written := listed[model].get(key)) is not None:
                row = base[model, meter]
                assert abs(row["rate"] - Decimal(written)) <= Decimal("5e-19"), (model, key)
                assert row["provider"] == listed[model]["litellm_provider"]


PLAIN = {"input_tokens": 176, "cache_read_tokens": 1024, "output_tokens": 80}
CACHED = {
    "input_tokens": 50,
    "cache_read_tokens": 1500,
    "cache_write_5m_tokens": 1200,
    "cache_write_1h_tokens": 800,
    "output_tokens": 20,
}


@pytest.mark.parametrize(
    ("model", "meters", "cost"),
    [
        # 176 x 0.0000025 + 1024 x 0.00000125 + 80 x 0.00001
        ("gpt-4o", PLAIN, "0.00252"),
        # 50 x 0.000003 + 1500 x 0.0000003 + 1200 x 0.00000375 + 800 x 0.000006 + 20 x 0.000015
        ("claude-sonnet-4-5", CACHED, "0.0102"),
        ("text-embedding-3-small", {"input_tokens": 7}, "0.00000014"),
    ],
)
def test_the_rates_give_the_costs_worked_out_by_hand(book: pl.DataFrame, model: str, meters: dict[str, int], cost: str) -> None:
    rates = {meter: rate(book, model, meter) or Decimal(0) for meter in meters}
    assert sum((rates[meter] * tokens for meter, tokens in meters.items()), Decimal(0)) == Decimal(cost)


def test_every_priced_call_of_the_captures_costs_what_litellm_said(book: pl.DataFrame) -> None:
    """Straightforward arithmetic on the payload itself: uncached, read, written for 5 minutes, written for an hour, generated."""
    compared = 0
    for path in sorted(CAPTURES.glob("*.json")):
        told = json.loads(path.read_text(), parse_float=Decimal)
        for payload in told if isinstance(told, list) else [told]:
            if not payload.get("response_cost"):
                continue
            model = payload["model"].split("/", 1)[1]
            details = payload["metadata"]["usage_object"].get("prompt_tokens_details") or {}
            read, written = details.get("cached_tokens") or 0, details.get("cache_creation_tokens") or 0
            for_an_hour = (details.get("cache_creation_token_details") or {}).get("ephemeral_1h_input_tokens") or 0
            cost = sum(
                (rate(book, model, meter) or Decimal(0)) * tokens
                for meter, tokens in (
                    ("input_tokens", payload["prompt_tokens"] - read - written),
                    ("cache_read_tokens", read),
                    ("cache_write_5m_tokens", written - for_an_hour),
                    ("cache_write_1h_tokens", for_an_hour),
                    ("output_tokens", payload["completion_tokens"]),
                )
            )
            assert abs(cost - payload["response_cost"]) < Decimal("1e-12"), path.name
            compared += 1
    assert compared == 58


def test_tiered_ranges_become_context_sizes(tmp_path: Path) -> None:
    path = a_map(
        tmp_path,
        **{
            "qwen-x": {
                "tiered_pricing": [
                    {"range": [0, 256e3], "input_cost_per_token": 5e-8, "output_cost_per_token": 4e-7},
                    {"range": [256e3, 1e6], "input_cost_per_token": 2.5e-7, "output_cost_per_token": 2e-6},
                ]
            }
        },
    )
    frame = import_litellm_map(path)
    assert rate(frame, "qwen-x", "input_tokens") == Decimal("5e-8")
    assert rate(frame, "qwen-x", "output_tokens", above=256_000) == Decimal("0.000002")


def test_no_price_key_is_passed_over_in_silence() -> None:
    listed = json.loads(litellm_map_path().read_bytes())
    told = coverage()
    models = {row["key"]: row["models"] for row in told.iter_rows(named=True)}
    for word in ("cost", "pricing", "multiplier"):
        keys = {k for m, e in listed.items() if m not in ("sample_spec", "fallback_generalizations") for k in e if word in k}
        for key in keys:
            assert models[key] == sum(
                key in e for m, e in listed.items() if m not in ("sample_spec", "fallback_generalizations")
            ), key
    assert told.filter((pl.col("rates") == 0) & (pl.col("reason") == "")).height == 0
    assert told.filter(pl.col("rates") > 0)["reason"].unique().to_list() == [""]
    assert told["rates"].sum() == import_litellm_map().height
    # Every key with "token" in it gives rates, but for those whose meter does not exist.
    without = told.filter(
        (pl.col("rates") == 0) & pl.col("key").str.contains("token") & ~pl.col("key").str.contains("above_128k")
    )
    assert set(without["key"]) <= {
        "cache_creation_input_audio_token_cost",
        "cache_read_input_audio_token_cost",
        "cache_read_input_image_token_cost",
        "explicit_cache_read_input_token_cost",
        "citation_cost_per_token",
        "input_cost_per_token_cache_hit",
        "input_cost_per_video_token",
        "input_cost_per_video_token_batches",
        "output_cost_per_video_token",
        "input_dbu_cost_per_token",
        "output_dbu_cost_per_token",
    }


def test_a_price_that_mints_money_or_is_no_price_is_refused_and_its_neighbours_are_kept(tmp_path: Path) -> None:
    path = a_map(
        tmp_path,
        good={"input_cost_per_token": 1e-6},
        minting={"input_cost_per_token": -1, "output_cost_per_token": 2e-6},
        wordy={"input_cost_per_token": "cheap"},
        boolean={"input_cost_per_token": True},
        nobody={"litellm_provider": "", "input_cost_per_token": 1e-6},
    )
    path.write_text(path.read_text()[:-1] + ', "odd": 7, "nan": {"litellm_provider": "x", "input_cost_per_token": NaN}}')
    prices = read_litellm_map(path)
    assert {(r["model"], r["meter"]) for r in prices.frame.iter_rows(named=True)} == {
        ("good", "input_tokens"),
        ("minting", "output_tokens"),
    }
    assert {(p.place, p.field) for p in prices.problems} == {
        ("minting", "input_cost_per_token"),
        ("wordy", "input_cost_per_token"),
        ("boolean", "input_cost_per_token"),
        ("nobody", "litellm_provider"),
        ("odd", "entry"),
        ("nan", "input_cost_per_token"),
    }
    assert all(p.reason and p.remedy and p.uri == "map.json" for p in prices.problems)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a": 1}', b"[" * 100_000])
def test_what_is_no_price_map_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(FormatError) as told:
        import_litellm_map(path)
    assert "broken.json" in str(told.value)
    assert told.value.remedy


def test_a_missing_map_is_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ObjectMissingError, match="install litellm"):
        litellm_map_path()


def test_first_prices_serve_all_older_usage_and_importing_again_changes_nothing(books: Books) -> None:
    prices = read_litellm_map()
    first = import_prices(books, prices)
    assert (first.added, first.changed, first.valid_from, first.problems) == (prices.frame.height, 0, BEGINNING, ())
    version = books.store.version(PRICES)
    again = import_prices(books, prices)
    assert (again.added, again.unchanged) == (0, prices.frame.height)
    assert books.store.version(PRICES) == version
    assert "litellm 1." in prices.book
    assert "sha256:" in prices.book


def test_a_new_list_adds_only_what_changed_and_rewrites_nothing(books: Books, tmp_path: Path) -> None:
    import_prices(books, read_litellm_map(a_map(tmp_path, m={"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6})))
    before = books.store.scan(PRICES).collect()
    cheaper = a_map(tmp_path, m={"input_cost_per_token": 5e-7, "output_cost_per_token": 4e-6}, n={"input_cost_per_token": 3e-6})
    done = import_prices(books, read_litellm_map(cheaper), NOVEMBER)
    assert (done.read, done.added, done.changed, done.unchanged) == (3, 2, 1, 1)
    after = books.store.scan(PRICES).collect()
    assert before.join(after, on=before.columns, how="anti", nulls_equal=True).height == 0, "a row of the past is gone"
    dated = {(r["model"], r["meter"], r["valid_from"]): r["rate"] for r in after.iter_rows(named=True)}
    assert dated == {
        ("m", "input_tokens", BEGINNING): Decimal("0.000001"),
        ("m", "output_tokens", BEGINNING): Decimal("0.000004"),
        ("m", "input_tokens", NOVEMBER): Decimal("0.0000005"),
        ("n", "input_tokens", NOVEMBER): Decimal("0.000003"),
    }


def test_a_rate_already_recorded_for_a_moment_is_staged(books: Books, tmp_path: Path) -> None:
    import_prices(books, read_litellm_map(a_map(tmp_path, m={"input_cost_per_token": 1e-6})), OCTOBER)
    done = import_prices(books, read_litellm_map(a_map(tmp_path, m={"input_cost_per_token": 9e-6})), OCTOBER)
    assert (done.added, done.staged) == (0, 1)
    told = books.store.scan(PROBLEMS).select("place", "reason").collect().rows()
    assert [(place, reason.split(";")[0]) for place, reason in told] == [
        ("m", "0.000009 would replace 0.000001, recorded for the same moment")
    ]
    assert books.store.scan(PRICES).collect()["rate"].to_list() == [Decimal("0.000001")]


def test_a_hand_made_frame_is_checked_too(books: Books, book: pl.DataFrame) -> None:
    three = book.filter(model="gpt-4o", service_tier="standard", region="").sort("meter").head(3)
    bad = pl.concat(
        [
            three,
            three.head(1).with_columns(rate=pl.lit(Decimal(1)).cast(pl.Decimal(38, 18))),  # a second rate for the first meter
            three.head(1).with_columns(model=pl.lit("minting"), rate=pl.lit(Decimal(-1)).cast(pl.Decimal(38, 18))),
            three.head(1).with_columns(model=pl.lit("odd"), meter=pl.lit("smiles")),
        ]
    )
    done = import_prices(books, bad)
    assert (done.read, done.added) == (2, 2)
    assert {p.place for p in done.problems} == {"gpt-4o", "minting", "odd"}


@pytest.mark.slow
@settings(max_examples=10)
@given(order=st.permutations(range(12)))
def test_the_order_of_a_list_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    listed = json.loads(litellm_map_path().read_bytes())
    some = [(m, e) for m, e in listed.items() if isinstance(e, dict) and e.get("litellm_provider") == "anthropic"][:12]
    path = tmp_path_factory.mktemp("map") / "map.json"
    path.write_text(json.dumps(dict(some[i] for i in order)))
    shuffled = import_litellm_map(path).drop("book", "recorded_at").sort(PRICES.key)
    path.write_text(json.dumps(dict(some)))
    assert shuffled.equals(import_litellm_map(path).drop("book", "recorded_at").sort(PRICES.key))


@pytest.mark.slow
def test_nothing_in_ingest_imports_litellm() -> None:
    program = (
        "import importlib, pkgutil, sys, ingest\n"
        "for found in pkgutil.walk_packages(ingest.__path__, 'ingest.'): importlib.import_module(found.name)\n"
        "from ingest.prices.litellm_map import import_litellm_map\n"
        "assert import_litellm_map().height > 10_000\n"
        "assert 'ingest.sources.litellm.source' in sys.modules and 'litellm' not in sys.modules, 'litellm was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
