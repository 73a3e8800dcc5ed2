"""OpenAI's bill: every page, every digit, the rest that is in no group, and a month that changes while it is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ingest.run import IngestReport, ingest
from ingest.source import RawObject, Window
from ingest.sources.openai import SOURCE
from ledger import money, periods
from ledger.books import Books
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, COSTS, IMPORT_TOTALS
from tests.support.books_by_hand import span, spans, write
from tests.support.paths import DATA
from tests.support.provider_server import OPENAI_KEY, Fault, Provider, serving

D = Decimal
GOLDEN = DATA / "openai_costs"
OCTOBER = Window(date(2026, 10, 1), date(2026, 11, 1))
NOW = datetime(2026, 11, 5, 9, tzinfo=UTC)
MINI = "gpt-4o-mini-2024-07-18"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, apart from the books."""
    path = tmp_path / "pages"
    path.mkdir()
    return path


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """OpenAI on the fifth of November, and the key to ask it."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", OPENAI_KEY)
    monkeypatch.setattr(periods, "now", lambda: NOW)
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    with serving() as provider:
        yield provider


def cost(day: str, amount: str, line_item: str = f"{MINI}, input", **told: Any) -> dict[str, Any]:
    return {"day": day, "amount": amount, "line_item": line_item, "project_id": "proj_a", "api_key_id": "key_1"} | told


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("charge_period_start", "line")


def by_day(books: Books) -> dict[str, Decimal]:
    rows = charges(books).group_by(pl.col("charge_period_start").dt.strftime("%d")).agg(pl.col("billed_cost").sum())
    return dict(sorted(rows.iter_rows()))


def problems(report: IngestReport) -> list[tuple[str, str]]:
    return [(p.severity, p.reason) for p in report.problems]


# ── saved pages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saved_pages_are_booked_as_an_accountant_would(books: Books) -> None:
    report = ingest(books, "openai", [str(GOLDEN)])
    with (GOLDEN / "expected.csv").open(newline="") as file:
        expected = [tuple(row.values()) for row in csv.DictReader(file)]
    kept = charges(books).select(
        pl.col("charge_period_start").dt.strftime("%Y-%m-%d"),
        *("charge_description", "sub_account_id", "principal", "billed_cost", "consumed_quantity", "consumed_unit"),
    )
    told = [
        (day, item, project or "", key or "", money.text(dollars), money.text(quantity) or "", unit or "")
        for day, item, project, key, dollars, quantity, unit in kept.iter_rows()
    ]

    assert told == expected
    assert problems(report) == [("warning", "the groups of a day are not its total; the difference is a row of its own")]
    assert set(charges(books)["scope"]) == {"openai.org-bright"}
    # 0.0000045 + 0.0000342 + 3.375 + 0.5 + 0.000123456789012345 + 2.5 + 0.25, with all its digits
    totals = books.store.scan(IMPORT_TOTALS).filter(pl.col("cost_column") == "billed_cost").collect()
    assert totals.select("total", "rounding").row(0) == ("6.625162156789012345", "0.000000000000012345")


def test_the_order_of_saved_pages_and_a_second_visit_change_nothing(books: Books, folder: Path) -> None:
    ingest(books, "openai", [str(GOLDEN)])
    before = charges(books).drop("raw_id", "line")
    for number, name in enumerate(("usage", "totals", "costs-2", "costs-1")):
        (folder / f"{number}.json").write_bytes((GOLDEN / f"{name}.json").read_bytes())
    again = ingest(books, "openai", [str(folder)])

    assert again.rows_changed == 0
    assert charges(books).drop("raw_id", "line").sort(pl.all()).equals(before.sort(pl.all()))


def test_a_missing_page_or_a_month_that_begins_late_is_refused_by_name(books: Books, folder: Path) -> None:
    page = folder / "costs-1.json"
    page.write_bytes((GOLDEN / "costs-1.json").read_bytes())
    alone = ingest(books, "openai", [str(folder)])
    assert (alone.rows, problems(alone)) == (0, [("error", "the page after this one is missing, from 2026-10-03 on")])
    assert alone.problems[0].uri == str(page)

    page.unlink()
    (folder / "costs-2.json").write_bytes((GOLDEN / "costs-2.json").read_bytes())
    late = ingest(books, "openai", [str(folder)])
    assert (late.rows, problems(late)) == (0, [("error", "the pages begin on 2026-10-03, and a month is replaced whole")])


def test_a_day_told_twice_and_differently_is_not_guessed(books: Books, folder: Path) -> None:
    for name in ("costs-1", "costs-2"):
        (folder / f"{name}.json").write_bytes((GOLDEN / f"{name}.json").read_bytes())
    other = json.loads((GOLDEN / "costs-2.json").read_bytes())
    other["data"][0]["results"][0]["amount"]["value"] = "2.51"
    (folder / "later.json").write_text(json.dumps(other))
    report = ingest(books, "openai", [str(folder)])
    assert (report.rows, problems(report)) == (0, [("error", "another page has other results for 2026-10-03")])


def test_a_page_cut_off_anywhere_books_nothing_and_says_so(books: Books, folder: Path) -> None:
    whole = (GOLDEN / "costs-2.json").read_bytes().rstrip()
    rest = [p for p in GOLDEN.glob("*.json") if p.name != "costs-2.json"]
    for path in rest:
        (folder / path.name).write_bytes(path.read_bytes())
    for cut in range(0, len(whole), 41):
        (folder / "costs-2.json").write_bytes(whole[:cut])
        report = ingest(books, "openai", [str(folder)])
        assert (report.rows, report.errors, len(report.problems)) == (0, 1, 1), cut
        assert report.problems[0].uri.endswith("costs-2.json") and report.problems[0].remedy
    assert charges(books).is_empty()


def test_a_kept_month_cut_off_anywhere_is_refused_and_whole_again_it_is_the_same(books: Books, folder: Path) -> None:
    ingest(books, "openai", [str(GOLDEN)])
    before = charges(books)
    kept = [p for p in (books.home / "raw" / "openai").iterdir() if p.read_bytes().startswith(b'{"bundle"')]
    whole = kept[0].read_bytes()
    path = folder / "october.jsonl"
    ends = {i + near for i, byte in enumerate(whole) if byte == 10 for near in (-1, 0, 1)}
    for cut in sorted({*range(0, len(whole), 31), *ends} & set(range(len(whole)))):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            list(SOURCE.read(RawObject("october", path, "0" * 64, cut), IngestSettings()))
    path.write_bytes(whole)
    assert ingest(books, "openai", [str(path)]).rows_changed == 0
    assert charges(books).equals(before)


def test_a_result_without_a_usable_amount_costs_only_itself_and_shows_as_remainder(books: Books, folder: Path) -> None:
    for path in GOLDEN.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes().replace(b'"3.3750000000000000000000000000000"', b'"a lot"'))
    report = ingest(books, "openai", [str(folder)])
    assert [(p.place, p.field, p.reason) for p in report.problems if p.severity == "error"] == [
        ("result 4", "amount.value", "'a lot' is no amount")
    ]
    assert by_day(books) == {"01": D("0.0000387"), "02": D("3.875123456789"), "03": D("2.75")}


# ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_month_is_asked_in_pages_and_ingested_twice_it_is_there_once(
    books: Books, openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.bills.paged_api._MAX_BUCKETS", 7)
    openai.costs = [cost(f"2026-10-{day:02d}", f"0.{day:02d}", quantity=day) for day in range(1, 32)]
    report = ingest(books, "openai", [openai.address], window=OCTOBER)

    assert report.problems == [] and report.months == ["2026-10"]
    assert charges(books).height == 31
    assert sum(by_day(books).values()) == D("4.96")  # (1 + … + 31) / 100
    # five pages of seven days: totals, groups, totals again
    assert openai.count("/v1/organization/costs") == 15

    again = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert (again.rows, again.rows_changed) == (31, 0)
    assert charges(books).height == 31


def test_a_restated_day_replaces_its_month_and_no_other(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-09-30", "9"), cost("2026-10-01", "1"), cost("2026-10-02", "2")]
    ingest(books, "openai", [openai.address], window=Window(date(2026, 9, 1), date(2026, 11, 1)))
    openai.costs = [cost("2026-09-30", "0"), cost("2026-10-01", "1"), cost("2026-10-02", "1.5")]
    ingest(books, "openai", [openai.address], window=OCTOBER)
    assert by_day(books) == {"01": D(1), "02": D("1.5"), "30": D(9)}


def test_what_live_runs_kept_is_read_again_the_last_of_each_month(books: Books, openai: Provider) -> None:
    both = Window(date(2026, 9, 1), date(2026, 11, 1))
    openai.costs = [cost("2026-09-30", "9"), cost("2026-10-01", "1")]
    ingest(books, "openai", [openai.address], window=both)
    openai.costs = [cost("2026-09-30", "9"), cost("2026-10-01", "2")]
    ingest(books, "openai", [openai.address], window=both)
    before = charges(books)
    report = ingest(books, "openai", [str(books.home / "raw" / "openai")])
    assert (report.problems, report.rows, report.rows_changed) == ([], 2, 0)
    assert charges(books).equals(before) and by_day(books) == {"01": D(2), "30": D(9)}


def test_what_the_groups_lack_of_the_total_is_a_row_of_its_own(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1.10"), cost("2026-10-05", "0.20", f"{MINI}, output")]
    openai.missing = {"2026-10-05": "0.07"}
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    rest = charges(books).filter(pl.col("sku_id") == "remainder").row(0, named=True)

    assert (rest["billed_cost"], rest["billing_account_id"], rest["sub_account_id"]) == (D("0.07"), "org-bright", None)
    assert by_day(books) == {"05": D("1.37")}
    assert [(p.rows, p.severity) for p in report.problems] == [(1, "warning")]


def test_a_month_that_changes_under_the_reader_is_read_again_until_it_holds_still(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1")]
    asked: list[str] = []

    def restate(path: str, query: dict[str, list[str]]) -> None:
        asked.append(path)
        if len(asked) == 2:  # between the total and its groups
            openai.costs = [cost("2026-10-05", "1"), cost("2026-10-06", "4")]

    openai.before = restate
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert (by_day(books), report.problems) == ({"05": D(1), "06": D(4)}, [])
    assert openai.count("/v1/organization/costs") == 5


def test_a_month_that_never_holds_still_is_booked_as_read_last_and_told(books: Books, openai: Provider) -> None:
    def grow(path: str, query: dict[str, list[str]]) -> None:
        openai.costs.append(cost("2026-10-05", "1"))

    openai.before = grow
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert ("warning", "2026-10 changed while it was read, 3 times; what was read last is booked") in problems(report)
    # groups and total were asked one after the other: the row that came between them is the remainder
    assert by_day(books) == {"05": D(7)} and charges(books).filter(pl.col("sku_id") == "remainder")["billed_cost"].to_list() == [
        D(1)
    ]


def test_throttling_and_faults_are_waited_out(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1")]
    openai.faults = [
        Fault("/v1/organization/costs", 429, {"retry-after": "0"}),
        Fault("/v1/organization/costs", 503),
        Fault("/v1/organization/usage/completions", 500),
    ]
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert (by_day(books), report.problems) == ({"05": D(1)}, [])


def test_a_wrong_key_is_told_with_its_remedy_and_never_shown(
    books: Books, openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-proj-wrong")
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert [p.reason for p in report.problems] == ["401 Unauthorized: Incorrect API key provided"]
    assert "sk-proj-wrong" not in str(report.problems)

    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    report = ingest(books, "openai", [openai.address])
    assert [(p.reason, p.remedy) for p in report.problems] == [
        ("no key in the environment (OPENAI_ADMIN_KEY)", "set OPENAI_ADMIN_KEY to an admin key")
    ]


def test_usage_that_may_not_be_read_costs_only_the_check(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1")]
    openai.faults = [Fault("/v1/organization/usage/completions", 403)]
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert by_day(books) == {"05": D(1)}
    assert [p.severity for p in report.problems] == ["warning"] and "its costs are booked" in report.problems[0].reason


def test_an_organisation_that_may_not_group_by_key_is_asked_without(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1", api_key_id="key_1"), cost("2026-10-05", "2", api_key_id="key_2")]
    openai.usage = [
        {"day": "2026-10-05", "project_id": "proj_a", "api_key_id": key, "model": MINI, "input_tokens": tokens}
        for key, tokens in (("key_1", 100), ("key_2", 200))
    ]
    openai.refused_groups = ("api_key_id",)
    ingest(books, "openai", [openai.address], window=OCTOBER)
    assert charges(books).select("billed_cost", "principal", "consumed_quantity").rows() == [(D(3), None, D(300))]


def test_billed_and_used_quantities_that_differ_are_told(books: Books, openai: Provider) -> None:
    openai.costs = [cost("2026-10-05", "1", quantity=1000)]
    openai.usage = [{"day": "2026-10-05", "project_id": "proj_a", "api_key_id": "key_1", "model": MINI, "input_tokens": 1500}]
    report = ingest(books, "openai", [openai.address], window=OCTOBER)
    assert [(p.place, p.reason) for p in report.problems] == [(f"{MINI}, input", "1000 tokens are billed and 1500 were used")]
    assert charges(books)["consumed_quantity"].to_list() == [D(1000)]


@pytest.mark.slow
def test_later_visits_ask_only_the_months_that_may_still_change(
    books: Books, openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai.costs = [cost("2026-09-10", "1"), cost("2026-10-10", "2"), cost("2026-11-03", "3")]

    def months_asked() -> list[str]:
        starts = [datetime.fromtimestamp(int(q["start_time"][0]), UTC).strftime("%Y-%m") for p, q in openai.asked if "usage" in p]
        openai.asked.clear()
        return starts

    ingest(books, "openai", [openai.address])
    assert months_asked() == ["2026-11", "2026-10", "2026-09"]  # the first visit: three months, newest first
    ingest(books, "openai", [openai.address])
    assert months_asked() == ["2026-11", "2026-10"]  # September was over for 35 days
    monkeypatch.setattr(periods, "now", lambda: datetime(2027, 2, 20, tzinfo=UTC))
    ingest(books, "openai", [openai.address])
    assert months_asked() == ["2027-02", "2027-01", "2026-12", "2026-11", "2026-10"]  # none that was missed is left out
    ingest(books, "openai", [openai.address])
    assert months_asked() == ["2027-02", "2027-01"]
    assert by_day(books) == {"03": D(3), "10": D(3)}


def test_an_organisation_s_own_key_is_named_by_the_address(
    books: Books, openai: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY_EMEA", OPENAI_KEY)
    openai.costs = [cost("2026-10-05", "1")]
    ingest(books, "openai", [f"{openai.address}#emea"], window=OCTOBER)
    assert by_day(books) == {"05": D(1)}


def test_the_server_speaks_as_openai_s_own_client_expects(openai: Provider) -> None:
    from openai import OpenAI
    from openai.types.admin.organization.usage_costs_response import DataResultOrganizationCostsResult

    openai.costs = [cost("2026-10-05", "1.5", quantity=30)]
    with OpenAI(api_key="unused", admin_api_key=OPENAI_KEY, base_url=f"{openai.address}/v1", max_retries=0) as client:
        page = client.admin.organization.usage.costs(start_time=1790812800, end_time=1793491200, limit=31, group_by=["line_item"])
    result = page.data[4].results[0]
    assert isinstance(result, DataResultOrganizationCostsResult)
    assert (result.line_item, result.quantity, result.amount and result.amount.currency) == (f"{MINI}, input", 30.0, "usd")
    assert openai.asked[0][1]["group_by[]"] == ["line_item"]


# ── to the agent ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bill_finds_the_agents_that_made_the_calls(books: Books, openai: Provider) -> None:
    """Input: 4 dollars for 1 000 000 tokens, of which care-bot logged 750 000 and nobody 250 000. Output: 2 for 1 000, all of coder's."""
    openai.costs = [
        cost("2026-10-05", "4", quantity=1_000_000),
        cost("2026-10-05", "2", f"{MINI}, output", quantity=1000),
        cost("2026-10-05", "0.5", "web search tool calls", quantity=50),
    ]
    openai.missing = {"2026-10-05": "0.07"}
    ingest(books, "openai", [openai.address], window=OCTOBER)
    told = {"provider": "openai", "response_model": MINI, "usage_scope": "leaf", "input_includes_cache": True}
    facts = spans(
        span(1, 1, agent_name="care-bot"),
        span(1, 2, 1, input_tokens=750_000, **told),
        span(2, 3, agent_name="coder"),
        span(2, 4, 3, output_tokens=1000, **told),
    )
    write(books, spans=facts, owners="agent,team\ncare-bot,Care\ncoder,Dev\n")
    run = attribute(books)

    costs = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    found = costs.group_by("initiator_agent").agg(pl.col("billed_cost").sum())
    by_agent = dict(found.iter_rows())
    assert (by_agent["care-bot"], by_agent["coder"]) == (D(3), D(2))
    assert costs["billed_cost"].sum() == D("6.57")
