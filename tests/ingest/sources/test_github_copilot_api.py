"""GitHub's billing API: days that sum to their month, one bill with the CSV report, and answers that are not what was asked."""

from __future__ import annotations

import csv
import json
import shutil
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
from ingest.sources.github_copilot_api import SOURCE
from ledger import money, periods
from ledger.books import Books
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, COSTS
from tests.support.paths import DATA
from tests.support.provider_server import GITHUB_TOKEN, Fault, Provider, serving

D = Decimal
NAME = "github-copilot-api"
GOLDEN = DATA / "github_copilot_api"
OCTOBER = Window(date(2026, 10, 1), date(2026, 11, 1))
PATH = "/organizations/acme/settings/billing/ai_credit/usage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The golden pages, to be changed."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "pages", ignore=shutil.ignore_patterns("expected.csv", "SOURCE.txt")))


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """GitHub on the fifth of November, and the token to ask it."""
    monkeypatch.setenv("GITHUB_BILLING_TOKEN", GITHUB_TOKEN)
    monkeypatch.setattr(periods, "now", lambda: datetime(2026, 11, 5, 9, tzinfo=UTC))
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    with serving() as provider:
        yield provider


def used(day: str, net: str, model: str = "GPT-5", **told: Any) -> dict[str, Any]:
    item = {"product": "Copilot", "sku": "Copilot AI Credits", "model": model, "unitType": "ai-credits", "pricePerUnit": 0.01}
    amounts = {"grossQuantity": D(net) * 100, "grossAmount": net, "netQuantity": D(net) * 100, "netAmount": net}
    return {"day": day} | item | amounts | told


def acme(github: Provider) -> str:
    return f"{github.address}/organizations/acme"


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("charge_period_start", "line")


def by_day(books: Books) -> dict[str, Decimal]:
    rows = charges(books).group_by(pl.col("charge_period_start").dt.strftime("%d")).agg(pl.col("billed_cost").sum())
    return dict(sorted(rows.iter_rows()))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_item(path: Path, **fields: Any) -> None:
    page = json.loads(path.read_text())
    page["usageItems"][0] |= fields
    path.write_text(json.dumps(page))


# ── saved pages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saved_pages_are_booked_as_an_accountant_would(books: Books) -> None:
    """What is billed after included credits is the charge, and what no day holds of the month is a row of its own."""
    report = ingest(books, NAME, [str(GOLDEN)])
    with (GOLDEN / "expected.csv").open(newline="") as file:
        expected = sorted(tuple(row.values()) for row in csv.DictReader(file))
    kept = charges(books).select(
        pl.col("charge_period_start").dt.strftime("%Y-%m-%d"),
        *("sku_meter", "sub_account_id", "billed_cost", "list_cost", "consumed_quantity", "consumed_unit"),
    )
    told = [
        (day, meter, account, money.text(billed), money.text(gross) or "", money.text(quantity) or "", unit or "")
        for day, meter, account, billed, gross, quantity, unit in kept.iter_rows()
    ]

    assert sorted(told) == expected
    assert kept["billed_cost"].sum() == D("1.569")  # the month's page: 0 + 1 + 0.4 + 0.169
    assert set(charges(books)["scope"]) == {"github-copilot-api.acme"}
    assert [p.reason for p in report.problems] == ["the days of a month are not its total; the difference is a row of its own"]


def test_order_of_pages_and_a_second_visit_change_nothing(books: Books, tmp_path: Path) -> None:
    ingest(books, NAME, [str(GOLDEN)])
    before = charges(books).drop("raw_id")
    for number, name in enumerate(("month", "day-3", "day-1", "day-2")):
        target = tmp_path / "again" / f"{number}.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(GOLDEN / f"{name}.json", target)
    assert ingest(books, NAME, [str(tmp_path / "again")]).rows_changed == 0
    assert charges(books).drop("raw_id").equals(before)


def test_the_csv_report_of_the_same_month_is_refused_beside_the_api(books: Books) -> None:
    ingest(books, NAME, [str(GOLDEN)])
    report = ingest(books, "github-copilot", [str(DATA / "github_copilot" / "sample.csv")])
    assert report.errors and "would count them twice" in report.problems[0].reason
    assert charges(books)["billed_cost"].sum() == D("1.569")


def test_the_api_is_refused_beside_the_csv_report_of_the_same_month(books: Books) -> None:
    ingest(books, "github-copilot", [str(DATA / "github_copilot" / "sample.csv")])
    in_force = charges(books)
    assert ingest(books, NAME, [str(GOLDEN)]).errors
    assert charges(books).equals(in_force)


def test_a_page_cut_off_anywhere_books_nothing_and_says_so(books: Books, folder: Path) -> None:
    whole = (folder / "day-3.json").read_bytes().rstrip()
    for cut in range(0, len(whole), 97):
        (folder / "day-3.json").write_bytes(whole[:cut])
        report = ingest(books, NAME, [str(folder)])
        assert (report.rows, report.errors, len(report.problems)) == (0, 1, 1), cut
        assert report.problems[0].uri.endswith("day-3.json") and report.problems[0].remedy
    assert charges(books).is_empty()


def test_a_kept_month_cut_off_anywhere_is_refused(books: Books, tmp_path: Path) -> None:
    ingest(books, NAME, [str(GOLDEN)])
    kept = next(p for p in (books.home / "raw" / NAME).iterdir() if p.read_bytes().startswith(b'{"bundle"'))
    whole, path = kept.read_bytes(), tmp_path / "october.jsonl"
    for cut in range(0, len(whole), 61):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            list(SOURCE.read(RawObject("october", path, "0" * 64, cut), IngestSettings()))


def test_a_day_that_is_missing_is_refused_unless_the_month_tells_its_cost(books: Books, folder: Path) -> None:
    (folder / "day-2.json").unlink()
    (folder / "month.json").rename(folder.parent / "month.json")
    report = ingest(books, NAME, [str(folder)])
    assert [(p.reason, p.severity) for p in report.problems] == [("the page of 2026-10-02 is missing", "error")]
    (folder.parent / "month.json").rename(folder / "month.json")
    assert not ingest(books, NAME, [str(folder)]).errors
    assert charges(books)["billed_cost"].sum() == D("1.569")


def test_pages_of_two_organisations_in_one_folder_are_refused(books: Books, folder: Path) -> None:
    edit(folder / "day-2.json", organization="other")
    report = ingest(books, NAME, [str(folder)])
    assert [p.reason for p in report.problems] == ["the pages are of several accounts"] and charges(books).is_empty()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"usageItems": None}, "the page holds no data"),
        ({"timePeriod": {"year": 2026}}, "the page holds no data"),
        ({"timePeriod": [2026, 10, 1]}, "the page holds no data"),
        ({"timePeriod": {"year": 2026, "month": 13, "day": 1}}, "a bucket's day is '2026-13-01'"),
        ({"timePeriod": {"year": 10**30, "month": 1, "day": 1}}, f"a bucket's day is '{10**30}-01-01'"),
        ({"usageItems": ["nonsense"]}, "the day 2026-10-01 holds no results"),
    ],
)
def test_a_page_of_another_shape_is_refused_by_name(books: Books, folder: Path, changed: dict[str, Any], reason: str) -> None:
    edit(folder / "day-1.json", **changed)
    report = ingest(books, NAME, [str(folder)])
    assert [p.reason for p in report.problems] == [reason] and report.problems[0].remedy
    assert charges(books).is_empty()


@pytest.mark.parametrize("amount", [None, "free", True, {}, "1e999999"])
def test_a_result_without_an_amount_is_told_and_shows_in_the_remainder(books: Books, folder: Path, amount: object) -> None:
    change_item(folder / "day-3.json", netAmount=amount)
    report = ingest(books, NAME, [str(folder)])
    assert "netAmount" in {p.field for p in report.problems if p.severity == "error"}
    assert charges(books)["billed_cost"].sum() == D("1.569")


def test_corrections_are_negative_and_huge_quantities_are_kept_apart_from_money(books: Books, folder: Path) -> None:
    (folder / "month.json").unlink()
    change_item(folder / "day-3.json", netAmount=-0.25, grossQuantity=-25, model=None)
    assert not ingest(books, NAME, [str(folder)]).errors
    row = charges(books).filter(pl.col("billed_cost") < 0)
    assert row.select("sku_meter", "billed_cost", "consumed_quantity").rows() == [("coding_agent_ai_credit", D("-0.25"), D(-25))]


def test_credits_that_nobody_owns_and_what_no_day_holds_have_a_reason_each(books: Books) -> None:
    """Nobody registered acme: no call explains 1.4 + 0.144 of credits, and the 0.025 without a day have no product."""
    ingest(books, NAME, [str(GOLDEN)])
    run = attribute(books)
    costs = books.store.scan(COSTS, {"run_id": [run.run_id]}).filter(pl.col("cost_class") == "unallocated").collect()
    by_reason = dict(costs.group_by("reason").agg(pl.col("billed_cost").sum()).iter_rows())
    assert by_reason == {"no_logged_use": D("1.544"), "ungrouped": D("0.025")}


# ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_day_is_asked_and_ingested_twice_it_is_there_once(books: Books, github: Provider) -> None:
    github.credits = [used(f"2026-10-{day:02d}", f"{day}.5") for day in range(1, 32)]
    report = ingest(books, NAME, [acme(github)], window=OCTOBER)
    assert report.problems == [] and charges(books)["billed_cost"].sum() == D("511.5")  # 1 + … + 31 + 31 · 0.5
    assert github.count(PATH) == 33
    assert by_day(books)["31"] == D("31.5")
    assert ingest(books, NAME, [acme(github)], window=OCTOBER).rows_changed == 0


def test_a_first_visit_reads_three_months_and_today(books: Books, github: Provider) -> None:
    github.credits = [used("2026-09-30", "1"), used("2026-10-01", "2"), used("2026-11-05", "4"), used("2026-08-31", "8")]
    assert not ingest(books, NAME, [acme(github)]).errors
    assert by_day(books) == {"01": D(2), "05": D(4), "30": D(1)}
    assert github.count(PATH) == 30 + 31 + 5 + 3 * 2


def test_a_month_that_changes_under_the_reader_is_read_again(books: Books, github: Provider) -> None:
    github.credits = [used("2026-10-05", "1")]
    asked: list[str] = []

    def restate(path: str, query: dict[str, list[str]]) -> None:
        asked.append(path)
        if len(asked) == 20:  # after the fifth was read
            github.credits = [used("2026-10-05", "0.9"), used("2026-10-06", "0.2")]

    github.before = restate
    report = ingest(books, NAME, [acme(github)], window=OCTOBER)
    assert (by_day(books), report.problems) == ({"05": D("0.9"), "06": D("0.2")}, [])


def test_what_the_month_has_and_no_day_is_booked_for_the_month(books: Books, github: Provider) -> None:
    github.credits = [used("2026-10-05", "1"), used("2026-10-06", "1", "Claude Sonnet 4.6")]
    github.missing = {"2026-10": "0.5"}
    ingest(books, NAME, [acme(github)], window=OCTOBER)
    rest = charges(books).filter(pl.col("sku_id") == "remainder")
    period = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    assert rest.select("billed_cost", "charge_period_start", "charge_period_end").rows() == [(D("0.5"), *period)]


def test_several_accounts_have_a_token_and_a_dataset_each(
    books: Books, github: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_BILLING_TOKEN_LABS", GITHUB_TOKEN)
    monkeypatch.setenv("GITHUB_BILLING_TOKEN", "github_pat_wrong")
    github.credits = [used("2026-10-05", "1")]
    report = ingest(
        books, NAME, [f"{github.address}/enterprises/Labs#labs", f"{github.address}/organizations/acme"], window=OCTOBER
    )
    assert set(charges(books).select("scope", "sub_account_id").rows()) == {("github-copilot-api.labs", "Labs")}
    assert [p.reason for p in report.problems] == ["401 Unauthorized: Bad credentials"]
    assert "github_pat_wrong" not in str(report.problems)


def test_faults_are_waited_out_and_a_404_says_what_it_may_mean(books: Books, github: Provider) -> None:
    github.credits = [used("2026-10-05", "1")]
    github.faults = [Fault(PATH, 429, {"retry-after": "0"}), Fault(PATH, 503)]
    assert not ingest(books, NAME, [acme(github)], window=OCTOBER).errors
    github.faults = [Fault(PATH, 404, body='{"message": "Not Found"}')]
    report = ingest(books, NAME, [acme(github)], window=OCTOBER)
    assert [p.reason for p in report.problems] == ["404 Not Found: Not Found"]
    assert "the token may read its billing" in report.problems[0].remedy
    assert by_day(books) == {"05": D(1)}


def test_an_answer_for_another_period_than_was_asked_books_nothing(books: Books, github: Provider) -> None:
    github.faults = [Fault(PATH, 200, body='{"timePeriod": {"year": 2026}, "organization": "acme", "usageItems": []}')]
    report = ingest(books, NAME, [acme(github)], window=OCTOBER)
    assert [p.reason for p in report.problems] == ["the answer's timePeriod is no month, not 2026-10-01 as requested"]
    assert charges(books).is_empty()


@pytest.mark.parametrize("path", ["", "/orgs/acme", "/organizations/", "/organizations/acme/settings"])
def test_an_address_without_an_account_is_refused_with_the_form_it_has(books: Books, github: Provider, path: str) -> None:
    report = ingest(books, NAME, [github.address + path])
    assert [p.reason for p in report.problems] == ["the address names no account"] and not github.asked
