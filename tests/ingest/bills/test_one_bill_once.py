"""RA-1e: one bill is booked once, whatever its files are called; a delivery that breaks off changes no month in force."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import lzma
import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ingest.bills.datasets import Decisions
from ingest.run import IngestReport, ingest
from ledger.books import Books
from ledger.errors import UsageError
from ledger.tables import CHARGES, IMPORT_TOTALS
from tests.ingest.sources.test_focus import ROW
from tests.support.amounts import sum_of
from tests.support.paths import DATA

CASES = DATA / "cases"


def billed(books: Books, month: str | None = None) -> Decimal:
    """The billed cost in force, which the totals of the files repeat."""
    is_asked = pl.lit(value=True) if month is None else pl.col("billing_month") == month
    rows = books.store.scan(CHARGES).filter(is_asked).collect()
    totals = books.store.scan(IMPORT_TOTALS).filter(is_asked, pl.col("cost_column") == "billed_cost")
    assert sum_of(rows["billed_cost"]) == sum(map(Decimal, totals.collect()["total"]), Decimal(0))
    return sum_of(rows["billed_cost"])


def bill(path: Path, *rows: dict[str, str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(rows))
    return str(path)


def text(rows: Sequence[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*ROW, "SubAccountId", "SkuId"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def row(cost: str, day: int = 5, **fields: str) -> dict[str, str]:
    month = fields.pop("month", "2026-10")
    period = {
        "BillingPeriodStart": f"{month}-01T00:00:00Z",
        "ChargePeriodStart": f"{month}-{day:02d}T00:00:00Z",
        "ChargePeriodEnd": f"{month}-{day + 1:02d}T00:00:00Z",
    }
    costs = dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost)
    return ROW | {"SubAccountId": "1", "SkuId": "k"} | period | costs | fields


def reasons(report: IngestReport) -> list[tuple[str, str]]:
    return [(problem.severity, problem.reason) for problem in report.problems]


def test_equal_names_in_two_folders_are_two_datasets(books: Books) -> None:
    folder = CASES / "matching-13"
    for name in ("aws", "openai", "aws"):
        assert not ingest(books, "focus", [str(folder / name / "export.csv")]).errors
    assert billed(books) == Decimal(14)
    assert set(books.store.scan(CHARGES).select("scope").collect()["scope"]) == {"export.csv", "openai/export.csv"}


def test_equal_names_in_one_command_are_two_datasets(books: Books) -> None:
    assert not ingest(books, "focus", [str(CASES / "matching-13" / "*" / "export.csv")]).errors
    assert billed(books) == Decimal(14)


@pytest.mark.parametrize("order", list(itertools.permutations(("to-15.csv", "to-31.csv"))))
def test_a_month_downloaded_twice_is_in_force_once(books: Books, order: tuple[str, str]) -> None:
    for name in order:
        assert not ingest(books, "focus", [str(CASES / "matching-13" / name)]).errors
    assert billed(books) == Decimal(7)
    ingest(books, "focus", [str(CASES / "matching-13" / "to-15.csv")])  # a scheduled re-read of the older file
    assert billed(books) == Decimal(7)


@pytest.mark.parametrize("order", list(itertools.permutations([("focus", "to-15.csv"), ("aws-cur", "cur.csv")])))
def test_formats_of_one_bill_are_one_bill(books: Books, order: tuple[tuple[str, str], ...]) -> None:
    for source, name in order:
        assert not ingest(books, source, [str(CASES / "matching-13" / name)]).errors
    assert billed(books) == Decimal(3)


def test_a_restated_bill_under_another_name_replaces_the_first(books: Books) -> None:
    ingest(books, "focus", [str(CASES / "one-bill-twice" / "september.csv")])
    assert billed(books) == Decimal(28)
    report = ingest(books, "focus", [str(CASES / "one-bill-twice" / "september-restated.csv")])
    assert billed(books) == Decimal("28.1")
    assert [severity for severity, _ in reasons(report)] == ["warning"]
    assert "'september.csv', and replaced it for 2026-09" in reasons(report)[0][1]
    third_report = ingest(books, "focus", [str(CASES / "one-bill-twice" / "september.csv")])
    assert billed(books) == Decimal("28.1"), "bytes that were restated do not come back by a re-read"
    assert [severity for severity, _ in reasons(third_report)] == ["warning"]


def test_two_files_of_one_command_that_cannot_be_put_in_order_are_refused_by_name(books: Books) -> None:
    report = ingest(books, "focus", [str(CASES / "one-bill-twice" / "*.csv")])
    assert billed(books) == Decimal("28.1")  # september-restated.csv comes first by name
    assert report.errors == 1
    assert "'september-restated.csv' is in force for 2026-09" in report.problems[0].reason
    assert "--replaces 'september-restated.csv'" in report.problems[0].remedy


def folder_of(tmp_path: Path, **files: bytes | str) -> str:
    """A folder with files, named by keyword: ``a="…"`` is ``a.csv``."""
    folder = tmp_path / "bills"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def test_a_bill_and_its_restatement_in_one_folder_are_refused_by_name(books: Books, tmp_path: Path) -> None:
    first, second = ((CASES / "one-bill-twice" / f"{name}.csv").read_bytes() for name in ("september", "september-restated"))
    folder = folder_of(tmp_path, september=first, september_1=second)
    report = ingest(books, "focus", [folder])
    assert report.errors == 1 and not billed(books)
    assert "'september.csv'" in report.problems[0].reason and "'september_1.csv'" in report.problems[0].reason
    Path(folder, "september_1.csv").unlink()
    assert not ingest(books, "focus", [folder]).errors
    Path(folder, "september_1.csv").write_bytes(second)
    assert ingest(books, "focus", [folder]).errors == 1
    assert billed(books) == Decimal(28), "the month in force stays"


def test_an_older_download_and_a_copy_in_one_folder_are_left_out(books: Books, tmp_path: Path) -> None:
    older, newer = ((CASES / "matching-13" / name).read_bytes() for name in ("to-15.csv", "to-31.csv"))
    copied = newer.replace(b"\n", b"\r\n")
    report = ingest(books, "focus", [folder_of(tmp_path, a=older, b=newer, c=copied)])
    assert billed(books) == Decimal(7)
    assert [severity for severity, _ in reasons(report)] == ["warning", "warning"]
    assert all("it was not booked again" in reason for _, reason in reasons(report))


def test_parts_of_one_bill_in_a_folder_are_booked_together(books: Books, tmp_path: Path) -> None:
    """Rows that only their tags tell apart, dealt out over three files; and a small file whose row is like one of them but for its day."""
    tagged_rows = [row("1", day, Tags=json.dumps({"agent": f"a{number}"})) for number in range(9) for day in (1, 2)]
    files = {f"part{n}": text(tagged_rows[n::3]) for n in range(3)}
    assert not ingest(books, "focus", [folder_of(tmp_path, **files, late=text([row("1", 3)]))]).problems
    assert billed(books) == Decimal(19)


def test_equal_extracts_of_google_in_a_folder_are_read_once(books: Books, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes((DATA / "gcp" / "export.jsonl").read_bytes())
    report = ingest(books, "gcp", [str(tmp_path)])
    assert (report.files, report.rows) == (1, 15)


def test_a_line_of_a_cur_restated_under_another_name(books: Books) -> None:
    for name in ("cur-small.csv", "cur-small-restated.csv"):
        ingest(books, "aws-cur", [str(CASES / "first-hour-01" / name)])
    assert billed(books) == Decimal("0.04")


def test_a_focus_file_of_the_account_of_a_cur(books: Books) -> None:
    ingest(books, "aws-cur", [str(CASES / "first-hour-01" / "cur-small.csv")])
    ingest(books, "focus", [str(CASES / "first-hour-01" / "2026-10.csv")])
    ingest(books, "focus", [str(CASES / "first-hour-01" / "2026-10-tagged.csv")])
    assert billed(books) == Decimal("0.03")


def test_a_bill_that_meets_another_in_part_is_refused_until_the_user_decides(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [bill(tmp_path / "a.csv", row("1", 5), row("2", 6))])
    second = bill(tmp_path / "b.csv", row("4", 6), row("8", 7))
    report = ingest(books, "focus", [second])
    assert report.errors == 1
    assert "(1 of its 2)" in report.problems[0].reason
    assert billed(books) == Decimal(3)
    ingest(books, "focus", [second], decisions=Decisions(beside=("a.csv",)))
    assert billed(books) == Decimal(15)
    assert not ingest(books, "focus", [second]).errors, "what was decided holds for the next delivery"
    assert billed(books) == Decimal(15)


@pytest.mark.parametrize("payer_fields", [{"ProviderName": "Google Cloud"}, {"BillingAccountId": "43"}, {"BillingAccountId": ""}])
def test_a_bill_of_one_payer_is_no_restatement_of_a_file_with_others(
    books: Books, tmp_path: Path, payer_fields: dict[str, str]
) -> None:
    """A file of three clouds, then the corrected bill of one of them: it would take the money of the others with it."""
    ingest(books, "focus", [bill(tmp_path / "all.csv", row("1"), row("20") | {"SkuId": "other"} | payer_fields)])
    (problem,) = ingest(books, "focus", [bill(tmp_path / "one.csv", row("1.5"))]).problems
    assert problem.severity == "error"
    assert "(1 of its 2)" in problem.reason
    assert billed(books) == Decimal(21)


def test_replaces_takes_the_place_of_a_dataset(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [bill(tmp_path / "a.csv", row("1", 5), row("2", 6))])
    ingest(books, "focus", [bill(tmp_path / "b.csv", row("2", 6))], decisions=Decisions(replaces=("a.csv",)))
    assert billed(books) == Decimal(2)


def test_a_decision_on_a_dataset_that_does_not_exist(books: Books, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--beside 'x'"):
        ingest(books, "focus", [bill(tmp_path / "a.csv", row("1"))], decisions=Decisions(beside=("x",)))


def test_bills_of_other_accounts_services_and_days_stand_beside_each_other(books: Books, tmp_path: Path) -> None:
    files = [
        bill(tmp_path / "a.csv", row("1")),
        bill(tmp_path / "account.csv", row("2", SubAccountId="2")),
        bill(tmp_path / "sku.csv", row("4", SkuId="k2")),
        bill(tmp_path / "day.csv", row("8", 6)),
        bill(tmp_path / "payer.csv", row("16", BillingAccountId="43")),
        bill(tmp_path / "provider.csv", row("32", ProviderName="Other")),
    ]
    assert not ingest(books, "focus", files).errors
    assert billed(books) == Decimal(63)


def test_one_file_for_a_month_restates_the_files_of_its_halves(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [bill(tmp_path / "first.csv", row("1", 5)), bill(tmp_path / "second.csv", row("2", 20))])
    ingest(books, "focus", [bill(tmp_path / "month.csv", row("1", 5), row("2.5", 20))])
    assert billed(books) == Decimal("3.5")


def test_an_address_used_for_another_payer_is_another_dataset(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [bill(tmp_path / "report.csv", row("1"))])
    ingest(books, "focus", [bill(tmp_path / "report.csv", row("2", BillingAccountId="43", SkuId="other"))])
    assert billed(books) == Decimal(3)
    ingest(books, "focus", [bill(tmp_path / "report.csv", row("2.5", BillingAccountId="43", SkuId="other"))])
    assert billed(books) == Decimal("3.5")


def test_a_month_that_a_file_no_longer_holds_is_withdrawn(books: Books, tmp_path: Path) -> None:
    path = bill(tmp_path / "a.csv", row("1", month="2026-09"), row("2"))
    ingest(books, "focus", [path])
    report = ingest(books, "focus", [bill(tmp_path / "a.csv", row("2"))])
    assert (billed(books, "2026-09"), billed(books)) == (Decimal(0), Decimal(2))
    assert "2026-09" in report.months
    assert ("warning", "holds no row of 2026-09 any more; that month of 'a.csv' was withdrawn") in reasons(report)


def test_a_name_reused_for_the_next_month_withdraws_nothing(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [bill(tmp_path / "latest.csv", row("1", month="2026-09"))])
    ingest(books, "focus", [bill(tmp_path / "latest.csv", row("2"))])
    assert billed(books) == Decimal(3)


WHOLE = text([row("100", 1), row("200", 2), row("400", 3)])


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(WHOLE[: WHOLE.rindex("400") + 2].encode(), id="in the last line"),
        pytest.param(WHOLE[:-1].encode(), id="no line end"),
        pytest.param(WHOLE[: WHOLE.rindex("400")].encode() + b"\n", id="last line of fewer fields"),
        pytest.param(gzip.compress(WHOLE.encode())[:-9], id="cut archive"),
    ],
)
@pytest.mark.parametrize("name", ["oct.csv", "oct-again.csv"])
def test_a_delivery_that_breaks_off_leaves_the_month_in_force(books: Books, tmp_path: Path, cut: bytes, name: str) -> None:
    (tmp_path / "oct.csv").write_text(WHOLE)
    ingest(books, "focus", [str(tmp_path / "oct.csv")])
    (tmp_path / name).write_bytes(cut)
    report = ingest(books, "focus", [str(tmp_path / name)])
    assert billed(books) == Decimal(700)
    assert name != "oct.csv" or report.errors
    (tmp_path / name).write_text(WHOLE + text([row("800", 4)]).split("\n", 1)[1])
    assert not ingest(books, "focus", [str(tmp_path / name)]).errors
    assert billed(books) == Decimal(1500)


EXPORTS = {
    "anthropic-console": "anthropic_console/sample.csv",
    "azure": "azure_exports/ea_anonymous.csv",
    "cursor": "cursor/sample.csv",
    "focus": "focus_sample/focus_sample_1000.csv",
    "gcp": "gcp/export.jsonl",
    "github-copilot": "github_copilot/sample.csv",
    "openai-console": "openai_console/sample.csv",
    "openrouter": "openrouter/sample.csv",
}
"""A small file of each source that reads a bill from one file."""


@pytest.mark.parametrize("source", EXPORTS)
def test_no_source_lets_a_file_that_breaks_off_replace_a_month(books: Books, tmp_path: Path, source: str) -> None:
    whole = (DATA / EXPORTS[source]).read_bytes()
    path = tmp_path / Path(EXPORTS[source]).name
    path.write_bytes(whole)
    ingest(books, source, [str(path)])
    in_force = books.store.scan(CHARGES).drop("raw_id").collect()
    second_half = whole.index(b"\n", len(whole) // 2) + 1
    packed = gzip.compress(whole), lzma.compress(whole)
    for cut in (whole[: second_half + 5], whole[:-20], packed[0][:-8], packed[0][: len(packed[0]) // 2], packed[1][:-5]):
        path.write_bytes(cut)
        assert ingest(books, source, [str(path)]).errors
        assert_frame_equal(books.store.scan(CHARGES).drop("raw_id").collect(), in_force, check_row_order=False)


def test_a_first_import_keeps_its_whole_rows_until_a_whole_file_comes(books: Books, tmp_path: Path) -> None:
    (tmp_path / "oct.csv").write_text(WHOLE[: WHOLE.rindex("400") + 2])
    assert ingest(books, "focus", [str(tmp_path / "oct.csv")]).errors
    assert billed(books) == Decimal(300)
    (tmp_path / "oct.csv").write_text(WHOLE)
    assert not ingest(books, "focus", [str(tmp_path / "oct.csv")]).errors
    assert billed(books) == Decimal(700)


def test_a_sender_that_never_ends_the_last_line_is_read_on(books: Books, tmp_path: Path) -> None:
    (tmp_path / "oct.csv").write_text(text([row("100", 1)])[:-1])
    ingest(books, "focus", [str(tmp_path / "oct.csv")])
    (tmp_path / "oct.csv").write_text(text([row("100", 1), row("200", 2)])[:-1])
    ingest(books, "focus", [str(tmp_path / "oct.csv")])
    assert billed(books) == Decimal(300)


def test_extracts_of_google_that_break_off(books: Books, tmp_path: Path) -> None:
    charge = {
        "billing_account_id": "A", "service": {"id": "s", "description": "Vertex AI"}, "sku": {"id": "k", "description": "tokens"},
        "usage_start_time": "2026-10-05T00:00:00Z", "usage_end_time": "2026-10-05T01:00:00Z", "project": {"id": "p"},
        "cost": 1.5, "currency": "USD", "cost_type": "regular", "invoice": {"month": "202610"}, "credits": [],
        "export_time": "2026-10-06T00:00:00Z", "usage": {"amount": 1, "unit": "count"}, "cost_at_list": 1.5,
    }  # fmt: skip
    hours = [
        {"usage_start_time": f"2026-10-05T0{hour}:00:00Z", "usage_end_time": f"2026-10-05T0{hour + 1}:00:00Z"}
        for hour in range(3)
    ]
    whole = "".join(json.dumps(charge | hour) + "\n" for hour in hours)
    path = tmp_path / "extract.jsonl"
    path.write_text(whole)
    assert not ingest(books, "gcp", [str(path)]).errors
    path.write_text(whole[:-40])
    assert ingest(books, "gcp", [str(path)]).errors
    assert billed(books) == Decimal("4.5")


def test_a_folder_moved_keeps_its_dataset(books: Books, tmp_path: Path) -> None:
    bill(tmp_path / "one" / "a.csv", row("1", 5))
    bill(tmp_path / "one" / "b.csv", row("2", 6))
    ingest(books, "focus", [str(tmp_path / "one")])
    shutil.move(tmp_path / "one", tmp_path / "two")
    bill(tmp_path / "two" / "c.csv", row("4", 7))
    report = ingest(books, "focus", [str(tmp_path / "two")])
    assert (billed(books), report.errors) == (Decimal(7), 0), reasons(report)
