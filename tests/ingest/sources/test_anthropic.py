"""Anthropic's bill: cents to dollars, tokens to the costs they pay for, the default workspace, and what no group holds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ingest.run import ingest
from ingest.source import RawObject, Window
from ingest.sources.anthropic import SOURCE
from ledger import money, periods
from ledger.books import Books
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, COSTS
from tests.support.books_by_hand import span, spans, write
from tests.support.paths import DATA
from tests.support.provider_server import ANTHROPIC_KEY, Fault, Provider, serving

D = Decimal
GOLDEN = DATA / "anthropic_costs"
OCTOBER = Window(date(2026, 10, 1), date(2026, 11, 1))
SONNET = "claude-sonnet-4-6"
COST_PATH, USAGE_PATH = "/v1/organizations/cost_report", "/v1/organizations/usage_report/messages"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, apart from the books."""
    path = tmp_path / "pages"
    path.mkdir()
    return path


@pytest.fixture
def anthropic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Anthropic on the fifth of November, and the key to ask it."""
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", ANTHROPIC_KEY)
    monkeypatch.setattr(periods, "now", lambda: datetime(2026, 11, 5, 9, tzinfo=UTC))
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    with serving() as provider:
        yield provider


def cost(day: str, cents: str, token_type: str | None = "uncached_input_tokens", **told: Any) -> dict[str, Any]:
    row = {"day": day, "amount": cents, "workspace_id": "wrkspc_a", "description": f"Claude Sonnet 4.6 Usage - {token_type}"}
    tokens = {"model": SONNET, "cost_type": "tokens", "service_tier": "standard", "context_window": "0-200k"}
    return row | tokens | {"token_type": token_type} | told


def usage(day: str, **told: Any) -> dict[str, Any]:
    row = {"day": day, "workspace_id": "wrkspc_a", "model": SONNET, "service_tier": "standard", "context_window": "0-200k"}
    return row | told


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("charge_period_start", "line")


def by_day(books: Books) -> dict[str, Decimal]:
    rows = charges(books).group_by(pl.col("charge_period_start").dt.strftime("%d")).agg(pl.col("billed_cost").sum())
    return dict(sorted(rows.iter_rows()))


# ── saved pages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saved_pages_are_booked_as_an_accountant_would(books: Books) -> None:
    """Cents become dollars, and each cost gets the tokens it pays for."""
    report = ingest(books, "anthropic", [str(GOLDEN)])
    with (GOLDEN / "expected.csv").open(newline="") as file:
        expected = [tuple(row.values()) for row in csv.DictReader(file)]
    kept = charges(books).select(
        pl.col("charge_period_start").dt.strftime("%Y-%m-%d"),
        *("sku_meter", "sub_account_id", "billed_cost", "consumed_quantity", "consumed_unit"),
    )
    told = [
        (day, meter, workspace or "", money.text(dollars), money.text(quantity) or "", unit or "")
        for day, meter, workspace, dollars, quantity, unit in kept.iter_rows()
    ]

    assert told == expected
    assert kept["billed_cost"].sum() == D("1.9938912")  # 155.88912 + 43.5 cents
    assert [(p.place, p.reason) for p in report.problems] == [
        (SONNET, "5700 tokens of the priority tier are in the usage report, and never in the cost report"),
        ("1 row", "the groups of a day are not its total; the difference is a row of its own"),
    ]


def test_order_of_pages_and_a_second_visit_change_nothing(books: Books, folder: Path) -> None:
    ingest(books, "anthropic", [str(GOLDEN)])
    before = charges(books).drop("raw_id")
    for number, name in enumerate(("totals", "usage", "costs-2", "costs-1")):
        (folder / f"{number}.json").write_bytes((GOLDEN / f"{name}.json").read_bytes())
    assert ingest(books, "anthropic", [str(folder)]).rows_changed == 0
    assert charges(books).drop("raw_id").equals(before)


def test_a_page_cut_off_anywhere_books_nothing_and_says_so(books: Books, folder: Path) -> None:
    whole = (GOLDEN / "costs-2.json").read_bytes().rstrip()
    for path in GOLDEN.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    for cut in range(0, len(whole), 61):
        (folder / "costs-2.json").write_bytes(whole[:cut])
        report = ingest(books, "anthropic", [str(folder)])
        assert (report.rows, report.errors, len(report.problems)) == (0, 1, 1), cut
        assert report.problems[0].uri.endswith("costs-2.json") and report.problems[0].remedy
    assert charges(books).is_empty()


def test_a_kept_month_cut_off_anywhere_is_refused(books: Books, folder: Path) -> None:
    ingest(books, "anthropic", [str(GOLDEN)])
    kept = next(p for p in (books.home / "raw" / "anthropic").iterdir() if p.read_bytes().startswith(b'{"bundle"'))
    whole, path = kept.read_bytes(), folder / "october.jsonl"
    ends = {i + near for i, byte in enumerate(whole) if byte == 10 for near in (-1, 0, 1)}
    for cut in sorted({*range(0, len(whole), 31), *ends} & set(range(len(whole)))):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            list(SOURCE.read(RawObject("october", path, "0" * 64, cut), IngestSettings()))


def test_cents_of_another_currency_are_not_taken_for_cents(books: Books, folder: Path) -> None:
    for path in GOLDEN.glob("costs-*.json"):
        (folder / path.name).write_bytes(path.read_bytes().replace(b'"USD"', b'"JPY"', 1))
    report = ingest(books, "anthropic", [str(folder)])
    assert [p.reason for p in report.problems if p.severity == "error"] == [
        "'123.78912 (smallest units of JPY)' is no amount",
        "'6.00 (smallest units of JPY)' is no amount",
    ]


# ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_month_is_asked_in_pages_and_ingested_twice_it_is_there_once(
    books: Books, anthropic: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.bills.paged_api._MAX_BUCKETS", 7)
    anthropic.report = [cost(f"2026-10-{day:02d}", f"{day}.5") for day in range(1, 32)]
    anthropic.messages = [usage(f"2026-10-{day:02d}", uncached_input_tokens=day * 10) for day in range(1, 32)]
    report = ingest(books, "anthropic", [anthropic.address], window=OCTOBER)

    assert report.problems == [] and charges(books).height == 31
    assert charges(books)["billed_cost"].sum() == D("5.115")  # (1 + … + 31 + 31 · 0.5) cents
    assert charges(books)["consumed_quantity"].sum() == D(4960)
    assert (anthropic.count(COST_PATH), anthropic.count(USAGE_PATH)) == (15, 5)
    assert ingest(books, "anthropic", [anthropic.address], window=OCTOBER).rows_changed == 0


def test_the_default_workspace_has_no_id(books: Books, anthropic: Provider) -> None:
    anthropic.report = [cost("2026-10-05", "100", workspace_id=None), cost("2026-10-05", "7")]
    anthropic.messages = [
        usage("2026-10-05", workspace_id=None, uncached_input_tokens=1000),
        usage("2026-10-05", uncached_input_tokens=70),
    ]
    ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    assert set(charges(books).select("sub_account_id", "billed_cost", "consumed_quantity").rows()) == {
        ("default", D(1), D(1000)),
        ("wrkspc_a", D("0.07"), D(70)),
    }


def test_costs_of_one_kind_that_usage_cannot_tell_apart_get_no_quantity(books: Books, anthropic: Provider) -> None:
    """Fast mode has a price of its own and a description of its own, but the usage is one figure."""
    anthropic.report = [cost("2026-10-05", "10"), cost("2026-10-05", "60", description="Claude Sonnet 4.6 Usage - Fast Mode")]
    anthropic.messages = [usage("2026-10-05", uncached_input_tokens=1000)]
    ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    assert charges(books)["consumed_quantity"].to_list() == [None, None]
    assert by_day(books) == {"05": D("0.7")}


def test_a_restated_month_and_one_that_changes_under_the_reader(books: Books, anthropic: Provider) -> None:
    anthropic.report = [cost("2026-10-05", "100")]
    ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    asked: list[str] = []

    def restate(path: str, query: dict[str, list[str]]) -> None:
        asked.append(path)
        if len(asked) == 2:  # between the total and its groups
            anthropic.report = [cost("2026-10-05", "90"), cost("2026-10-06", "20")]

    anthropic.before = restate
    report = ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    assert (by_day(books), report.problems) == ({"05": D("0.9"), "06": D("0.2")}, [])


def test_several_organisations_have_a_key_and_a_dataset_each(
    books: Books, anthropic: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY_EMEA", ANTHROPIC_KEY)
    for label, cents in (("", "100"), ("#emea", "7")):
        anthropic.report = [cost("2026-10-05", cents)]
        ingest(books, "anthropic", [anthropic.address + label], window=OCTOBER)
    assert set(charges(books).select("scope", "billed_cost").rows()) == {("anthropic", D(1)), ("anthropic.emea", D("0.07"))}


def test_faults_are_waited_out_and_a_wrong_key_is_told(
    books: Books, anthropic: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    anthropic.report = [cost("2026-10-05", "100")]
    anthropic.faults = [Fault(COST_PATH, 429, {"retry-after": "0"}), Fault(COST_PATH, 529), Fault(USAGE_PATH, 403)]
    report = ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    assert by_day(books) == {"05": D(1)}
    assert [p.severity for p in report.problems] == ["warning"] and "booked without quantities" in report.problems[0].reason

    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", "sk-ant-wrong")
    report = ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    assert [p.reason for p in report.problems] == ["401 Unauthorized: invalid x-api-key"]
    assert by_day(books) == {"05": D(1)} and "sk-ant-wrong" not in str(report.problems)


# ── to the agent ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bill_finds_the_agents_that_made_the_calls(books: Books, anthropic: Provider) -> None:
    """300 cents for 1 000 000 input tokens, of which care-bot logged 600 000; 4.5 cents for 3 000 of output and 30 for cache reads, all of
    coder's; 12 cents of search, and 1.25 that no group holds, are nobody's.
    """
    anthropic.report = [
        cost("2026-10-05", "300"),
        cost("2026-10-05", "4.5", "output_tokens"),
        cost("2026-10-05", "30", "cache_read_input_tokens"),
        cost("2026-10-05", "12", None, description="Web Search Usage", model=None, cost_type="web_search"),
    ]
    anthropic.messages = [
        usage("2026-10-05", uncached_input_tokens=1_000_000, output_tokens=3000, cache_read_input_tokens=1_000_000)
    ]
    anthropic.missing = {"2026-10-05": "1.25"}
    ingest(books, "anthropic", [anthropic.address], window=OCTOBER)
    told = {"provider": "anthropic", "response_model": SONNET, "usage_scope": "leaf", "input_includes_cache": False}
    facts = spans(
        span(1, 1, agent_name="care-bot"),
        span(1, 2, 1, input_tokens=600_000, **told),
        span(2, 3, agent_name="coder"),
        span(2, 4, 3, output_tokens=3000, cache_read_tokens=1_000_000, **told),
    )
    write(books, spans=facts, owners="agent,team\ncare-bot,Care\ncoder,Dev\n")
    run = attribute(books)

    costs = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    by_agent = dict(costs.group_by("initiator_agent").agg(pl.col("billed_cost").sum()).iter_rows())
    assert (by_agent["care-bot"], by_agent["coder"]) == (D("1.8"), D("0.345"))
    assert costs["billed_cost"].sum() == D("3.4775")
