"""AWS bills: what each line costs, on which basis, and which files make a month."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.run import IngestReport, ingest
from ingest.sources.aws_cur import columns as aws_cur_columns
from ledger import money
from ledger.books import Books
from ledger.tables import CHARGES, COST_COLUMNS, IMPORT_TOTALS, PROBLEMS
from tests.support.cur_exports import MONTH, line, manifest, parquet
from tests.support.paths import DATA

REAL = DATA / "aws_cur_anonymous" / "aws_cur_legacy_anonymous.csv"
EXPORT = "cur/agents"


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("billing_month", "scope", "raw_id", "line")


def read(books: Books, tmp_path: Path, *lines: dict[str, Any], **how: Any) -> pl.DataFrame:
    path = tmp_path / "cur.snappy.parquet"
    path.write_bytes(parquet(*lines, **how))
    report = ingest(books, "aws-cur", [str(path)])
    assert not [p for p in report.problems if p.severity == "error"]
    return charges(books)


def legacy(rows: list[dict[str, str]]) -> bytes:
    """A legacy report with the header of the real one, and tag columns where rows have them."""
    with REAL.open(newline="") as file:
        header = next(csv.reader(file))
    names = list(dict.fromkeys([*header, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


LEGACY = {
    "bill/BillingPeriodStartDate": "2026-10-01T00:00:00Z",
    "bill/PayerAccountId": "111122223333",
    "lineItem/LineItemType": "Usage",
    "lineItem/UsageStartDate": "2026-10-05T01:00:00Z",
    "lineItem/UsageEndDate": "2026-10-05T02:00:00Z",
    "lineItem/CurrencyCode": "USD",
    "lineItem/UnblendedCost": "0.25",
}


def test_a_real_month_of_a_legacy_report_is_usage_plus_tax_to_the_last_digit(books: Books) -> None:
    report = ingest(books, "aws-cur", [str(REAL)])
    kept = charges(books)

    assert (kept.height, report.problems, report.months) == (1281, [], ["2023-11"])
    by_category = dict(kept.group_by("charge_category").agg(pl.col("billed_cost").sum()).rows())
    assert by_category == {"Usage": Decimal("1.60230869740"), "Tax": Decimal("0.08")}
    with REAL.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert kept["billed_cost"].sum() == sum(Decimal(r["lineItem/UnblendedCost"]) for r in rows) == Decimal("1.68230869740")
    assert kept["effective_cost"].sum() == Decimal("1.68230869740")
    assert kept["final"].unique().to_list() == [False], "no invoice yet"
    usage = kept.filter(pl.col("charge_category") == "Usage").row(0, named=True)
    first = next(r for r in rows if r["lineItem/LineItemType"] == "Usage")
    assert (usage["sku_meter"], usage["operation"], usage["product_code"], usage["service_name"], usage["sku_id"]) == (
        first["lineItem/UsageType"],
        first["lineItem/Operation"],
        first["lineItem/ProductCode"],
        first["product/ProductName"],
        first["product/sku"],
    )


@pytest.mark.parametrize("cut", range(2000, REAL.stat().st_size, 149_173))
def test_a_report_cut_off_anywhere_keeps_its_whole_lines(books: Books, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cur.csv"
    path.write_bytes(REAL.read_bytes()[:cut])
    report = ingest(books, "aws-cur", [str(path)])
    whole = REAL.read_bytes()[:cut].count(b"\n") - 1
    assert report.problems and whole <= report.rows <= whole + 1


# What each line type costs: cash, amortised, list, contracted, category. Figures by hand from the table in billing terms.
TYPES: list[tuple[str, dict[str, Any], str, str]] = [
    ("Usage", {"pricing_public_on_demand_cost": 12.0, "line_item_net_unblended_cost": 9.0}, "9 9 12 9", "Usage"),
    (
        "DiscountedUsage",
        {"cost": 0.0, "pricing_public_on_demand_cost": 12.0, "reservation_effective_cost": 7.0},
        "0 7 12 12",
        "Usage",
    ),
    (
        "RIFee",
        {
            "cost": 100.0,
            "reservation_unused_amortized_upfront_fee_for_billing_period": 0.1,
            "reservation_unused_recurring_fee": 0.2,
        },
        "100 0.3 100 100",
        "Purchase",
    ),
    (
        "SavingsPlanCoveredUsage",
        {"cost": 10.0, "pricing_public_on_demand_cost": 12.0, "savings_plan_savings_plan_effective_cost": 6.0},
        "10 6 12 10",
        "Usage",
    ),
    ("SavingsPlanNegation", {"cost": -10.0}, "-10 0 0 0", "Usage"),
    ("SavingsPlanUpfrontFee", {"cost": 500.0}, "500 0 500 500", "Purchase"),
    (
        "SavingsPlanRecurringFee",
        {"cost": 8.0, "savings_plan_total_commitment_to_date": 8.1, "savings_plan_used_commitment": 6.0},
        "8 2.1 8 8",
        "Purchase",
    ),
    ("Fee", {"cost": 29.0}, "29 29 29 29", "Purchase"),
    ("Fee", {"cost": 300.0, "reservation_reservation_a_r_n": "arn:aws:ec2:ri/1"}, "300 0 300 300", "Purchase"),
    ("Tax", {"cost": 0.08}, "0.08 0.08 0.08 0.08", "Tax"),
    ("Credit", {"cost": -5.0}, "-5 -5 -5 -5", "Credit"),
    ("Refund", {"cost": -1.5}, "-1.5 -1.5 -1.5 -1.5", "Adjustment"),
    ("Refund", {"cost": -1.5, "line_item_usage_type": "USE1-NovaPro-input-tokens"}, "-1.5 -1.5 -1.5 -1.5", "Usage"),
    ("EdpDiscount", {"cost": -2.0}, "-2 -2 -2 -2", "Credit"),
    ("PrivateRateDiscount", {"cost": -2.0}, "-2 -2 -2 -2", "Credit"),
    ("BundledDiscount", {"cost": -3.0}, "-3 -3 -3 -3", "Credit"),
    ("SomethingNew", {"cost": 4.0}, "4 4 4 4", "Adjustment"),
]


def test_every_line_type_costs_what_the_amortisation_table_says(books: Books, tmp_path: Path) -> None:
    every = {name: None for _, more, _, _ in TYPES for name in more if name != "cost"}
    lines = [
        line(more.get("cost", 10.0), kind, **{**every, **{k: v for k, v in more.items() if k != "cost"}})
        for kind, more, _, _ in TYPES
    ]
    kept = read(books, tmp_path, *lines)

    found = [" ".join(str(money.text(row[c])) for c in COST_COLUMNS) for row in kept.iter_rows(named=True)]
    assert list(zip(kept["line_item_type"], found, kept["charge_category"], strict=True)) == [
        (k, costs, cat) for k, _, costs, cat in TYPES
    ]
    assert kept.filter(pl.col("charge_class") == "Correction")["line_item_type"].to_list() == ["Refund", "Refund"]
    assert [p["reason"] for p in books.store.scan(PROBLEMS).collect().iter_rows(named=True)] == [
        "'SomethingNew' is an unknown line item type; booked as an Adjustment"
    ]


def test_an_hour_under_a_savings_plan_is_paid_once_on_every_basis(books: Books, tmp_path: Path) -> None:
    # Plan: 8.00 an hour. Usage worth 10.00 on demand costs 6.00 under the plan; 2.00 are unused.
    arn = {"savings_plan_savings_plan_a_r_n": "arn:aws:savingsplans:sp/1"}
    kept = read(
        books,
        tmp_path,
        line(
            10.0,
            "SavingsPlanCoveredUsage",
            pricing_public_on_demand_cost=10.0,
            savings_plan_savings_plan_effective_cost=6.0,
            **arn,
        ),
        line(-10.0, "SavingsPlanNegation", **arn),
        line(8.0, "SavingsPlanRecurringFee", savings_plan_total_commitment_to_date=8.0, savings_plan_used_commitment=6.0, **arn),
    )

    assert (kept["billed_cost"].sum(), kept["effective_cost"].sum()) == (Decimal(8), Decimal(8))
    assert kept.select("charge_category", "commitment_discount_status", "pricing_category").rows() == [
        ("Usage", "Used", "Committed"),
        ("Usage", None, None),
        ("Purchase", "Unused", None),
    ]
    assert kept["commitment_discount_id"].unique().to_list() == ["arn:aws:savingsplans:sp/1"]


def test_without_amortisation_columns_a_plan_stays_on_its_billed_cost_as_a_whole(books: Books, tmp_path: Path) -> None:
    lines = (line(10.0, "SavingsPlanCoveredUsage"), line(-10.0, "SavingsPlanNegation"), line(8.0, "SavingsPlanRecurringFee"))
    kept = read(books, tmp_path, *lines)

    assert kept["effective_cost"].sum() == Decimal(8)
    (problem,) = books.store.scan(PROBLEMS).collect().iter_rows(named=True)
    assert (problem["severity"], problem["rows"]) == ("warning", 3) and "savings plans" in problem["reason"]


def test_a_bedrock_line_says_who_called_which_model_and_how_much(books: Books, tmp_path: Path) -> None:
    role = "arn:aws:sts::444455556666:assumed-role/agents/support-bot"
    profile = "arn:aws:bedrock:us-east-1:444455556666:application-inference-profile/p1"
    more: dict[str, Any] = {
        "line_item_iam_principal": role,
        "line_item_resource_id": profile,
        "line_item_usage_amount": 1234.5,
        "pricing_unit": "1K tokens",
        "pricing_public_on_demand_rate": "0.0000033",
        "line_item_unblended_rate": "0.000003",
        "product_region_code": "us-east-1",
        "product": {"product_name": "Claude Sonnet 4.6 (Amazon Bedrock Edition)"},
        "bill_billing_entity": "AWS Marketplace",
    }
    row = read(books, tmp_path, line(3.7035, **more), line(-1.0, "EdpDiscount", **more)).row(0, named=True)

    assert {
        k: row[k]
        for k in ("principal", "resource_id", "consumed_unit", "region_id", "sub_account_id", "provider_name", "publisher_name")
    } == {
        "principal": role,
        "resource_id": profile,
        "consumed_unit": "1K tokens",
        "region_id": "us-east-1",
        "sub_account_id": "444455556666",
        "provider_name": "AWS",
        "publisher_name": "AWS Marketplace",
    }
    assert row["consumed_quantity"] == Decimal("1234.5")
    assert (row["list_unit_price"], row["contracted_unit_price"]) == (Decimal("0.0000033"), Decimal("0.000003"))
    assert row["service_name"] == "Claude Sonnet 4.6 (Amazon Bedrock Edition)"
    assert charges(books)["consumed_quantity"].to_list() == [Decimal("1234.5"), None], (
        "a discount repeats the usage amount; it is no usage"
    )


@pytest.mark.parametrize("lists", [False, True], ids=["map", "list of structs"])
def test_tags_of_all_maps_become_one_object_with_keys_as_written(books: Books, tmp_path: Path, lists: bool) -> None:
    kept = read(
        books,
        tmp_path,
        line(
            1.0,
            resource_tags={"user_team": "care", "user_empty": ""},
            tags={"iamPrincipal/agent": 'the "bot"'},
            cost_category={"Unit": "EU"},
        ),
        line(2.0, resource_tags={}, tags=None),
        line(3.0, resource_tags={"user_team": "data"}),
        line(4.0, resource_tags={"user_team": "care"}),
        lists=lists,
    )
    assert kept["tags"].to_list() == [
        '{"costCategory/Unit":"EU","iamPrincipal/agent":"the \\"bot\\"","user_team":"care"}',
        None,
        '{"user_team":"data"}',
        '{"user_team":"care"}',
    ]


def test_tags_in_text_reports_are_the_same_object(books: Books, tmp_path: Path) -> None:
    two = io.StringIO()
    columns = {**line("0.5"), "resource_tags": '{"user_team": "care"}', "cost_category": '{"Unit": "EU"}', "tags": "{}"}
    writer = csv.DictWriter(two, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerow(columns)
    (tmp_path / "two.csv.gz").write_bytes(gzip.compress(two.getvalue().encode()))
    (tmp_path / "one.csv").write_bytes(
        legacy([{**LEGACY, "resourceTags/user:team": "care", "resourceTags/user:x": "", "costCategory/Unit": "EU"}])
    )
    report = ingest(books, "aws-cur", [str(tmp_path / "two.csv.gz"), str(tmp_path / "one.csv")])

    assert report.problems == []
    assert charges(books)["tags"].to_list() == [
        '{"costCategory/Unit":"EU","resourceTags/user:team":"care"}',
        '{"costCategory/Unit":"EU","user_team":"care"}',
    ]


def test_split_rows_are_left_aside_and_their_parent_is_kept(books: Books, tmp_path: Path) -> None:
    split = {"split_line_item_parent_resource_id": "i-1"}
    kept = read(books, tmp_path, line(4.0, line_item_resource_id="i-1"), line(3.0, **split), line(1.0, **split))

    assert kept["billed_cost"].to_list() == [Decimal(4)]
    (problem,) = books.store.scan(PROBLEMS).collect().iter_rows(named=True)
    assert (problem["severity"], problem["rows"]) == ("warning", 2)


def test_doubles_of_a_parquet_report_keep_their_shortest_text_and_its_full_sum(books: Books, tmp_path: Path) -> None:
    read(books, tmp_path, line(0.1), line(0.2), line(1.2345678901234568e-05))

    row = books.store.scan(IMPORT_TOTALS).filter(pl.col("cost_column") == "billed_cost").collect().row(0, named=True)
    assert row["total"] == "0.300012345678901234568"
    assert row["rounding"] == "-0.000000000000098765432"  # 0.000012345678901… is kept as 0.000012345679


@pytest.mark.parametrize("packed", ["csv", "gz", "zip"])
def test_a_legacy_report_reads_the_same_however_it_is_packed(books: Books, tmp_path: Path, packed: str) -> None:
    text = legacy([LEGACY, {**LEGACY, "lineItem/UnblendedCost": "abc"}])
    path = tmp_path / f"cur.{packed}"
    if packed == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cur-1.csv", text)
    else:
        path.write_bytes(gzip.compress(text) if packed == "gz" else text)
    report = ingest(books, "aws-cur", [str(path)])

    assert [(p.place, p.field) for p in report.problems] == [("line 3", "lineItem/UnblendedCost")]
    assert charges(books)["billed_cost"].to_list() == [Decimal("0.25")]


def test_needed_columns_that_are_missing_are_all_named(books: Books, tmp_path: Path) -> None:
    (tmp_path / "cur.csv").write_text("line_item_unblended_cost,line_item_line_item_type\n1,Usage\n")
    (problem,) = ingest(books, "aws-cur", [str(tmp_path / "cur.csv")]).problems
    for name in aws_cur_columns.NEEDED:
        assert (name in problem.reason) == (name not in ("line_item_unblended_cost", "line_item_line_item_type"))


# Folders, as copied from a bucket


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def overwritten(root: Path, files: dict[str, bytes], *, execution: str = "run-1", month: str = MONTH) -> None:
    """One delivery of an export that overwrites: data and manifest at fixed places."""
    data = f"{EXPORT}/data/BILLING_PERIOD={month}"
    for name, content in files.items():
        put(root, f"{data}/{name}", content)
    names = [f"s3://bills/{data}/{name}" for name in files]
    put(root, f"{EXPORT}/metadata/BILLING_PERIOD={month}/agents-Manifest.json", manifest(names, execution=execution, month=month))


def created(root: Path, run: str, content: bytes, *, execution: str) -> None:
    """One delivery of an export that keeps its runs: a folder a run."""
    data = f"{EXPORT}/data/BILLING_PERIOD={MONTH}/{run}/agents-00001.snappy.parquet"
    put(root, data, content)
    put(
        root,
        f"{EXPORT}/metadata/BILLING_PERIOD={MONTH}/{run}/agents-Manifest.json",
        manifest([f"s3://bills/{data}"], execution=execution),
    )


def run(books: Books, root: Path) -> IngestReport:
    return ingest(books, "aws-cur", [str(root / EXPORT)])


def test_only_the_files_the_manifest_names_are_read(books: Books, tmp_path: Path) -> None:
    overwritten(tmp_path, {"agents-00001.snappy.parquet": parquet(line(1.0)), "agents-00002.snappy.parquet": parquet(line(2.0))})
    put(tmp_path, f"{EXPORT}/data/BILLING_PERIOD={MONTH}/agents-00003.snappy.parquet", parquet(line(99.0)))
    report = run(books, tmp_path)

    assert (report.problems, report.files) == ([], 2)
    kept = charges(books)
    assert kept["billed_cost"].sum() == Decimal(3)
    assert kept["scope"].unique().to_list() == ["111122223333.agents-0f3c"]


def test_an_overwritten_export_restates_its_month_and_only_its_month(books: Books, tmp_path: Path) -> None:
    name = "agents-00001.snappy.parquet"
    overwritten(tmp_path, {name: parquet(line(1.0), line(2.0))})
    overwritten(tmp_path, {name: parquet(line(7.0, month="2026-09"))}, month="2026-09")
    assert run(books, tmp_path).months == ["2026-09", "2026-10"]
    overwritten(tmp_path, {name: parquet(line(1.0), line(2.5))}, execution="run-2")
    report = run(books, tmp_path)

    assert report.rows_changed == 2
    assert charges(books)["billed_cost"].to_list() == [Decimal(7), Decimal(1), Decimal("2.5")]


def test_of_the_runs_an_export_keeps_the_newest_is_the_month(books: Books, tmp_path: Path) -> None:
    # The newest run is written first, so that neither name order nor file time gives it away.
    created(tmp_path, "2026-11-02T04:00:00.000Z-aaaa", parquet(line(3.0)), execution="aaaa")
    created(tmp_path, "2026-11-01T04:00:00.000Z-ffff", parquet(line(1.0)), execution="ffff")
    assert run(books, tmp_path).problems == []
    assert charges(books)["billed_cost"].to_list() == [Decimal(3)]


def test_a_manifest_that_names_a_missing_file_leaves_the_month_as_it_was(books: Books, tmp_path: Path) -> None:
    first = {"agents-00001.snappy.parquet": parquet(line(1.0)), "agents-00002.snappy.parquet": parquet(line(2.0))}
    overwritten(tmp_path, first)
    run(books, tmp_path)
    overwritten(
        tmp_path, {"agents-00001.snappy.parquet": parquet(line(5.0)), "agents-00002.snappy.parquet": b""}, execution="run-2"
    )
    (tmp_path / EXPORT / f"data/BILLING_PERIOD={MONTH}/agents-00002.snappy.parquet").unlink()
    (problem,) = run(books, tmp_path).problems

    assert "agents-00002.snappy.parquet, which is missing" in problem.reason and f"{MONTH} was left as it was" in problem.remedy
    assert charges(books)["billed_cost"].sum() == Decimal(3)
    overwritten(tmp_path, first, execution="run-3")
    assert run(books, tmp_path).problems == [] and books.store.scan(PROBLEMS).collect().height == 0


@pytest.mark.parametrize("cut", [0, 4, 500, -1])
def test_a_cut_off_file_of_a_manifest_leaves_the_month_as_it_was(books: Books, tmp_path: Path, cut: int) -> None:
    name = "agents-00001.snappy.parquet"
    overwritten(tmp_path, {name: parquet(line(1.0))})
    run(books, tmp_path)
    overwritten(tmp_path, {name: parquet(line(9.0))[:cut]}, execution="run-2")
    report = run(books, tmp_path)

    assert report.errors >= 1 and all(p.uri.endswith(name) for p in report.problems)
    assert charges(books)["billed_cost"].to_list() == [Decimal(1)]


def test_a_folder_of_files_without_a_manifest_is_refused(books: Books, tmp_path: Path) -> None:
    put(tmp_path, "data/a.snappy.parquet", parquet(line(1.0)))
    (problem,) = ingest(books, "aws-cur", [str(tmp_path / "data")]).problems
    assert "no manifest" in problem.reason and charges(books).height == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"dataFiles": 5}', b'{"dataFiles": [""]}', b"\xff\xfe", b'{"reportKeys": ["x.csv"]}']
)
def test_a_damaged_manifest_is_a_problem(books: Books, tmp_path: Path, content: bytes) -> None:
    put(tmp_path, "cur/x-Manifest.json", content)
    report = ingest(books, "aws-cur", [str(tmp_path / "cur")])
    assert report.errors == 1 and charges(books).height == 0


@pytest.mark.parametrize("kept", [False, True], ids=["overwritten", "runs kept"])
def test_a_legacy_report_is_read_by_its_report_keys(books: Books, tmp_path: Path, kept: bool) -> None:
    def deliver(assembly: str, cost: str) -> None:
        period = "cur/monthly/20261001-20261101"
        key = f"{period}/{assembly}/monthly-1.csv.gz" if kept else f"{period}/monthly-1.csv.gz"
        told = {
            "assemblyId": assembly,
            "account": "111122223333",
            "reportName": "monthly",
            "reportKeys": [key],
            "billingPeriod": {"start": "20261001T000000.000Z", "end": "20261101T000000.000Z"},
        }
        put(tmp_path, key, gzip.compress(legacy([{**LEGACY, "lineItem/UnblendedCost": cost}])))
        put(tmp_path, f"{period}/monthly-Manifest.json", json.dumps(told).encode())
        put(tmp_path, f"{period}/{assembly}/monthly-Manifest.json", json.dumps(told).encode())

    for assembly, cost in (("9f", "1"), ("1a", "2")):
        deliver(assembly, cost)
        assert ingest(books, "aws-cur", [str(tmp_path / "cur")]).problems == []

    assert charges(books).select("scope", "billed_cost").rows() == [("111122223333.monthly", Decimal(2))]


def test_the_same_file_by_its_own_name_does_not_double_the_export(books: Books, tmp_path: Path) -> None:
    name = "agents-00001.snappy.parquet"
    overwritten(tmp_path, {name: parquet(line(1.0))})
    run(books, tmp_path)
    (problem,) = ingest(books, "aws-cur", [str(tmp_path / EXPORT / f"data/BILLING_PERIOD={MONTH}/{name}")]).problems

    assert problem.field == "scope" and charges(books)["billed_cost"].sum() == Decimal(1)
