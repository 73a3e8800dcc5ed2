"""FOCUS files: every digit, every row, and what is wrong with the rest."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.run import ingest
from ingest.sources.focus import columns as focus_columns
from ledger import money
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import CHARGES, COST_COLUMNS, IMPORT_TOTALS, PROBLEMS, RAW_FILES
from tests.support.amounts import sum_of
from tests.support.paths import DATA

SAMPLE = DATA / "focus_sample" / "focus_sample_1000.csv"
SPEC = DATA / "focus_spec"
FOCUS_COSTS = dict(zip(COST_COLUMNS, ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), strict=True))

ROW = {
    "BilledCost": "1.5",
    "EffectiveCost": "1.5",
    "ListCost": "2",
    "ContractedCost": "1.75",
    "BillingAccountId": "42",
    "BillingAccountName": "Acme",
    "BillingCurrency": "EUR",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "tokens, of a model",
    "ChargePeriodStart": "2026-10-05T01:00:00Z",
    "ChargePeriodEnd": "2026-10-05T02:00:00Z",
    "InvoiceIssuerName": "Cloud",
    "PricingQuantity": "3",
    "PricingUnit": "1000 Tokens",
    "ProviderName": "Cloud",
    "PublisherName": "Cloud",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Models",
    "Tags": '{"team": "care", "tier": 1}',
}


def write(path: Path, *rows: dict[str, str], columns: list[str] | None = None) -> str:
    names = columns or list(ROW)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return str(path)


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("scope", "raw_id", "line")


def total(books: Books, column: str = "billed_cost") -> Decimal:
    return sum_of(charges(books)[column])


def test_a_real_month_is_kept_to_the_last_digit_in_all_four_cost_columns(books: Books) -> None:
    report = ingest(books, "focus", [str(SAMPLE)])
    kept = charges(books)

    assert kept.height == report.rows == 1000 and report.errors == 0
    assert report.months == ["2024-09", "2024-10"]
    assert {c: money.text(sum_of(kept[c])) for c in COST_COLUMNS} == {
        "billed_cost": "20.52022672899",
        "effective_cost": "14.97651418586",
        "list_cost": "20.39090575119",
        "contracted_cost": "14.97626039326",
    }
    assert kept.filter(pl.any_horizontal(pl.col(c) < 0 for c in COST_COLUMNS)).height == 13


def test_each_provider_s_sum_is_that_of_a_plain_decimal_sum_over_the_file(books: Books) -> None:
    expected: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    with SAMPLE.open(newline="") as file:
        for row in csv.DictReader(file):
            for ours, theirs in FOCUS_COSTS.items():
                expected[row["ProviderName"], ours] += Decimal(row[theirs]) if row[theirs] not in ("NULL", "") else 0

    ingest(books, "focus", [str(SAMPLE)])
    kept = charges(books)

    found = {(p, c): part[c].sum() or Decimal(0) for (p,), part in kept.group_by("provider_name") for c in COST_COLUMNS}
    assert found == dict(expected)
    totals = books.store.scan(IMPORT_TOTALS).collect()
    booked: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in totals.iter_rows(named=True):
        booked[row["provider"], row["cost_column"]] += Decimal(row["total"])
        assert row["rounding"] == "0"
    assert dict(booked) == dict(expected)


def test_null_written_as_text_is_no_value_and_tags_are_one_spelling_of_json(books: Books) -> None:
    ingest(books, "focus", [str(SAMPLE)])
    kept = charges(books)

    assert kept.select(pl.any_horizontal((pl.col(pl.String) == "NULL").any())).row(0) == (False,)
    second = kept.row(1, named=True)
    assert second["tags"] == '{"application":"BrightLensMatrix","business_unit":"ViennaAI","environment":"dev"}'
    assert second["list_unit_price"] == Decimal("0.008")
    assert str(second["charge_period_start"]) == "2024-09-30 22:00:00+00:00"
    assert second["sub_account_id"] == "43883916739"


def test_an_empty_contracted_cost_is_unknown_and_said_once(books: Books) -> None:
    report = ingest(books, "focus", [str(SAMPLE)])

    assert charges(books)["contracted_cost"].null_count() == 7
    assert [(p.field, p.rows, p.severity) for p in report.problems] == [("ContractedCost", 7, "warning")]


def test_ingesting_again_changes_nothing(books: Books) -> None:
    ingest(books, "focus", [str(SAMPLE)])
    before, version = charges(books), books.store.version(CHARGES)
    again = ingest(books, "focus", [str(SAMPLE)])

    assert (again.rows, again.rows_changed, again.already_known) == (1000, 0, 1)
    assert charges(books).equals(before)
    assert books.store.version(CHARGES) == version
    assert books.store.scan(RAW_FILES).collect().height == 1
    assert books.store.scan(PROBLEMS).collect().height == 1


def test_a_restated_month_replaces_itself_and_leaves_other_months_alone(books: Books, tmp_path: Path) -> None:
    november = {"BillingPeriodStart": "2026-11-01T00:00:00Z", "ChargePeriodStart": "2026-11-02", "ChargePeriodEnd": "2026-11-03"}
    path = tmp_path / "bill.csv"
    ingest(books, "focus", [write(path, {}, {"BilledCost": "10"}, november)])
    report = ingest(books, "focus", [write(path, {}, {"BilledCost": "11"}, november)])

    assert report.rows_changed == 2  # one went, one came
    assert charges(books).group_by("billing_month").agg(pl.col("billed_cost").sum()).sort("billing_month").rows() == [
        ("2026-10", Decimal("12.5")),
        ("2026-11", Decimal("1.5")),
    ]


def test_identical_rows_are_all_kept_under_ids_of_their_own(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [write(tmp_path / "bill.csv", {}, {}, {})])

    ids = charges(books)["charge_id"].to_list()
    assert [i.removeprefix(ids[0]) for i in ids] == ["", "-2", "-3"]
    assert total(books) == Decimal("4.5")


def test_the_same_bytes_under_another_name_do_not_double_the_bill(books: Books, tmp_path: Path) -> None:
    ingest(books, "focus", [write(tmp_path / "bill.csv", {})])
    report = ingest(books, "focus", [write(tmp_path / "copy.csv", {})])

    assert total(books) == Decimal("1.5")
    (problem,) = report.problems
    assert problem.field == "scope" and "'bill.csv'" in problem.reason and "--scope 'bill.csv'" in problem.remedy
    assert ingest(books, "focus", [str(tmp_path / "copy.csv")], scope="bill.csv").errors == 0
    assert total(books) == Decimal("1.5")


def test_fifteen_decimals_are_rounded_half_to_even_and_the_difference_is_a_figure_of_its_own(
    books: Books, tmp_path: Path
) -> None:
    # MO-1a. 0.123456789012500 is half way: even keeps …012; 0.000000000001700 goes up to …002.
    rows = [{"BilledCost": "0.123456789012500"}, {"BilledCost": "0.000000000001700"}, {"BilledCost": "1"}]
    report = ingest(books, "focus", [write(tmp_path / "azure.csv", *rows)])

    assert charges(books)["billed_cost"].to_list() == [Decimal("0.123456789012"), Decimal("0.000000000002"), Decimal(1)]
    row = books.store.scan(IMPORT_TOTALS).filter(pl.col("cost_column") == "billed_cost").collect().row(0, named=True)
    assert row["total"] == "1.1234567890142"
    assert row["rounding"] == "0.0000000000002"  # +0.0000000000005 − 0.0000000000003
    assert report.totals["EUR"]["billed_cost"] == Decimal("1.1234567890142")
    assert report.rounding["EUR"]["billed_cost"] == Decimal("2E-13")


def test_bad_rows_are_told_by_line_and_the_good_ones_are_kept(books: Books, tmp_path: Path) -> None:
    path = write(
        tmp_path / "bill.csv",
        {},
        {"BilledCost": "12,50"},
        {"BillingCurrency": ""},
        {"ChargePeriodEnd": "2026-10-04T00:00:00Z"},
        {"ChargeCategory": "Rental"},
        {"ChargePeriodStart": "05/10/2026"},
        {"EffectiveCost": "NaN"},
        {"BilledCost": "null"},
        {"BilledCost": "-2", "ChargeCategory": "credit"},
        {"ProviderName": ""},
        {"Tags": "team=care"},
    )
    report = ingest(books, "focus", [path])

    assert [(p.place, p.field, p.reason) for p in sorted(report.problems, key=lambda p: int(p.place.split()[1]))] == [
        ("line 3", "BilledCost", "'12,50' is no amount"),
        ("line 4", "BillingCurrency", "the currency is missing"),
        ("line 5", "ChargePeriodEnd", "'2026-10-04T00:00:00Z' is before the charge's start"),
        ("line 6", "ChargeCategory", "'Rental' is no charge category"),
        ("line 7", "ChargePeriodStart", "'05/10/2026' is no time"),
        ("line 8", "EffectiveCost", "'NaN' is no amount"),
        ("line 9", "BilledCost", "the charge has no amount"),
        ("line 11", "ProviderName", "the provider is missing"),
        ("line 12", "Tags", "'team=care' is no JSON object; the row was kept without tags"),
    ]
    kept = charges(books)
    assert kept["billed_cost"].to_list() == [Decimal("1.5"), Decimal(-2), Decimal("1.5")]
    assert kept["charge_category"].to_list() == ["Usage", "Credit", "Usage"]
    assert books.store.scan(RAW_FILES).collect().row(0, named=True)["rows_refused"] == 8


def test_a_mended_file_clears_its_problems(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    ingest(books, "focus", [write(path, {}, {"BilledCost": "x"})])
    other = write(tmp_path / "other.csv", {"BilledCost": "y"})
    ingest(books, "focus", [other])
    ingest(books, "focus", [write(path, {}, {"BilledCost": "7"})])

    assert books.store.scan(PROBLEMS).collect()["uri"].to_list() == [other]
    assert total(books) == Decimal("8.5")


def test_very_many_bad_rows_are_told_singly_a_thousand_times_and_then_in_a_sum(books: Books, tmp_path: Path) -> None:
    path = write(tmp_path / "bill.csv", {}, *({"BilledCost": f"x{i}"} for i in range(3000)))
    report = ingest(books, "focus", [path])

    assert report.errors == 3000 and len(report.problems) == 1001
    assert [(p.place, p.reason) for p in report.problems if p.rows > 1] == [("2,000 more rows", "is no amount")]
    assert total(books) == Decimal("1.5")


@pytest.mark.parametrize("cut", range(37, SAMPLE.stat().st_size, 47_777))
def test_a_file_cut_off_anywhere_keeps_its_whole_rows(books: Books, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(SAMPLE.read_bytes()[:cut])
    report = ingest(books, "focus", [str(path)])

    whole = SAMPLE.read_bytes()[:cut].count(b"\n") - 1  # no line of the sample breaks inside quotes
    assert report.problems
    assert max(whole, 0) <= report.rows <= max(whole, 0) + 1
    if report.rows:
        with SAMPLE.open(newline="") as file:
            texts = [row["BilledCost"] for row in csv.DictReader(file)][: report.rows]
        assert total(books) == sum(map(Decimal, texts))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_compressed_file_cut_off_gives_all_that_can_be_unpacked(books: Books, tmp_path: Path, share: float) -> None:
    packed = gzip.compress(SAMPLE.read_bytes(), 1)
    path = tmp_path / "bill.csv.gz"
    path.write_bytes(packed[: int(len(packed) * share)])
    report = ingest(books, "focus", [str(path)])

    assert any("cut off" in p.reason for p in report.problems)
    assert 1000 * share * 0.8 < report.rows < 1000


def test_compressed_and_plain_text_say_the_same(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv.gz"
    path.write_bytes(gzip.compress(SAMPLE.read_bytes()[:300_000]) + gzip.compress(SAMPLE.read_bytes()[300_000:]))
    assert ingest(books, "focus", [str(path)]).totals["USD"]["billed_cost"] == Decimal("20.52022672899")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_read(books: Books, tmp_path: Path, encoding: str) -> None:
    path = Path(write(tmp_path / "bill.csv", {"ServiceName": "Modelle für Müller"}))
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert ingest(books, "focus", [str(path)]).problems == []
    assert charges(books)["service_name"].to_list() == ["Modelle für Müller"]


def test_broken_lines_are_left_out_one_by_one(books: Books, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "bill.csv", *({"BilledCost": str(i), "ChargeDescription": f"row {i}"} for i in range(1, 9))))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"row 1", b"M\xfcller")
    lines[2] = lines[2].replace(b"row 2", b"\0\0")
    lines[3] = lines[3] + b",surplus"
    lines[4] = lines[4].replace(b"row 4", b'"two\nlines"')
    lines[5] = lines[5].replace(b"row 5", b'"a stray quote')
    lines[6] = b"short,row"
    path.write_bytes(b"\n".join(lines))
    report = ingest(books, "focus", [str(path)])

    assert charges(books)["billed_cost"].to_list() == [4, 7, 8]
    assert charges(books)["charge_description"].to_list() == ["two\nlines", "row 7", "row 8"]
    assert [(p.place, p.reason.split(":")[0]) for p in report.problems] == [
        ("line 2", "byte 76 of the line is not UTF-8"),
        ("line 3", "the line holds NUL bytes"),
        ("line 4", "the line has 23 fields, the header 22"),
        ("line 7", "the line cannot be parsed"),
        ("line 8", "the line has 2 fields, the header 22"),
    ]


def test_line_numbers_hold_where_rows_have_line_breaks(books: Books, tmp_path: Path) -> None:
    path = write(tmp_path / "bill.csv", {"ChargeDescription": "one\ntwo\nthree"}, {"BilledCost": "x"})
    assert [p.place for p in ingest(books, "focus", [path]).problems] == ["line 5"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\x00" * 5000, "the file is no text"),
        (b"PAR1" + b"\x01" * 900, "no readable Parquet file"),
        (b"PK\x03\x04 no archive", "the archive cannot be unpacked"),
        (b"a,b,c\n1,2,3\n", "mandatory columns are missing"),
        (b"\xff\xd8\xff\xe0 a picture", "no text in UTF-8 or UTF-16"),
    ],
)
def test_a_file_that_is_no_focus_file_is_one_problem_and_the_others_go_on(
    books: Books, tmp_path: Path, content: bytes, said: str
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(content)
    report = ingest(books, "focus", [str(bad), write(tmp_path / "good.csv", {})])

    assert [p.uri for p in report.problems] == [str(bad)] and said in report.problems[0].reason
    assert total(books) == Decimal("1.5")


def test_missing_columns_are_all_named_with_the_version_read() -> None:
    with pytest.raises(FormatError, match=r"ChargeCategory, .*EffectiveCost, .*ListCost.*FOCUS 1\.2") as refused:
        focus_columns.layout(
            [c for c in ROW if c not in ("ChargeCategory", "EffectiveCost", "ListCost")] + ["InvoiceId"], location="bill.csv"
        )
    assert "ContractedCost" not in refused.value.what


MANDATORY = [c.name for c in focus_columns.columns() if c.level == "mandatory"]
NEW = ("ServiceProviderName", "HostProviderName")


@pytest.mark.parametrize("missing", [name for name in MANDATORY if name not in NEW])
def test_any_mandatory_column_that_is_missing_refuses_the_file_by_name(books: Books, tmp_path: Path, missing: str) -> None:
    path = write(tmp_path / "bill.csv", {}, columns=[c for c in ROW if c != missing])
    (problem,) = ingest(books, "focus", [path]).problems
    assert problem.reason.endswith(f"mandatory columns are missing: {missing} (read as FOCUS 1.0)")
    assert problem.severity == "error" and problem.remedy and charges(books).height == 0


@pytest.mark.parametrize(
    ("version", "more", "less"),
    [
        ("1.1", ["SkuMeter"], []),
        ("1.2", ["SkuMeter", "InvoiceId"], []),
        ("1.3", ["InvoiceId", *NEW, "ContractApplied"], []),
        ("1.3", ["InvoiceId", *NEW], ["ProviderName", "PublisherName"]),
        ("1.4", ["InvoiceId", *NEW, "InvoiceDetailId"], ["ProviderName", "PublisherName"]),
    ],
)
def test_every_version_is_read_and_asks_for_its_own_columns(version: str, more: list[str], less: list[str]) -> None:
    header = [c for c in ROW if c not in less] + more
    assert focus_columns.layout(header, location="bill.csv").version == version
    for name in {"ServiceName", *(NEW if more.count("HostProviderName") else ())}:
        if name == "ServiceProviderName" and not less:
            continue  # the old names stand in for it
        with pytest.raises(FormatError, match=name):
            focus_columns.layout([c for c in header if c != name], location="bill.csv")


def test_an_older_file_may_borrow_a_newer_column() -> None:
    assert focus_columns.layout([*ROW, "InvoiceDetailId"], location="bill.csv").headers["ProviderName"] == "ProviderName"


def test_columns_in_another_case_are_found_and_said(books: Books, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "bill.csv", {}))
    path.write_text(path.read_text().replace("BilledCost", "billedcost", 1))
    (problem,) = ingest(books, "focus", [str(path)]).problems
    assert (problem.field, problem.place, problem.severity) == ("BilledCost", "header", "warning")
    assert total(books) == Decimal("1.5")


def test_a_later_version_names_its_provider_otherwise_and_says_which_invoice(books: Books, tmp_path: Path) -> None:
    columns = [c for c in ROW if c not in ("ProviderName", "PublisherName")]
    columns += [
        "ServiceProviderName",
        "HostProviderName",
        "InvoiceId",
        "InvoiceDetailId",
        "x_UsageType",
        "x_ServiceCode",
        "x_Operation",
    ]
    said = {
        "ServiceProviderName": "AWS",
        "HostProviderName": "AWS",
        "x_UsageType": "USE1-NovaPro-input-tokens",
        "x_ServiceCode": "AmazonBedrock",
    }
    path = write(tmp_path / "bill.csv", {**said, "InvoiceId": "i-1"}, {**said, "InvoiceId": ""}, columns=columns)
    assert ingest(books, "focus", [path], now=datetime(2026, 11, 14, tzinfo=UTC)).problems == []

    kept = charges(books)
    assert kept["provider_name"].to_list() == ["AWS", "AWS"]
    assert kept["final"].to_list() == [False, False], "October is rewritten for two weeks, invoiced or not"
    ingest(books, "focus", [path], now=datetime(2026, 11, 15, tzinfo=UTC))
    assert charges(books)["final"].to_list() == [True, False]
    assert kept["sku_meter"][0] == "USE1-NovaPro-input-tokens" and kept["product_code"][0] == "AmazonBedrock"


def test_parquet_doubles_are_their_shortest_text(books: Books, tmp_path: Path) -> None:
    frame = pl.DataFrame([ROW, {**ROW, "BilledCost": "0.1"}, {**ROW, "BilledCost": "1e-7"}]).with_columns(
        pl.col("BilledCost").cast(pl.Float64),
        pl.col("ListCost").cast(pl.Decimal(20, 4)),
        pl.col("ChargePeriodStart").str.to_datetime("%+", time_zone="UTC"),
        pl.col("ChargePeriodEnd").str.to_datetime("%+", time_zone="UTC").dt.replace_time_zone(None).cast(pl.Datetime("ms")),
    )
    frame.write_parquet(tmp_path / "bill.parquet")
    assert ingest(books, "focus", [str(tmp_path / "bill.parquet")]).problems == []

    kept = charges(books)
    assert kept["billed_cost"].to_list() == [Decimal("1.5"), Decimal("0.1"), Decimal("0.0000001")]
    assert kept["list_cost"].to_list() == [Decimal(2)] * 3
    assert str(kept["charge_period_end"][0]) == "2026-10-05 02:00:00+00:00"


def test_a_folder_is_one_dataset_and_its_bad_file_does_not_take_the_month_along(books: Books, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    write(folder / "part-1.csv", {"BilledCost": "1"})
    write(folder / "part-2.csv", {"BilledCost": "2", "ChargePeriodStart": "2026-10-05T00:00:00Z"})
    (folder / "readme.txt").write_text("not a bill")
    assert ingest(books, "focus", [str(folder)]).problems == []
    assert charges(books)["scope"].unique().to_list() == ["export"] and total(books) == 3

    (folder / "part-2.csv").write_bytes(b"")
    report = ingest(books, "focus", [str(folder)])
    assert total(books) == 3, "the month stays as it was: a file it was made of cannot be read"
    assert [p.reason for p in report.problems] == [
        "the file is empty",
        "2026-10 of 'export' was made from this file too, which cannot be read now; the month was left as it was",
    ]

    write(folder / "part-2.csv", {"BilledCost": "5", "ChargePeriodStart": "2026-10-05T00:00:00Z"})
    assert ingest(books, "focus", [str(folder)]).problems == [] and total(books) == 6
    assert books.store.scan(PROBLEMS).collect().height == 0


def test_the_specification_s_own_commitment_example_sums_to_its_hour(books: Books, tmp_path: Path) -> None:
    # A commitment of 1.00 an hour, 0.75 of it used: nothing is billed, 1.00 is effective, 0.25 of it unused.
    with (SPEC / "commitment_discount_usage_scenario_3.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "bill.csv"
    names = [*ROW, *(c for c in rows[0] if c not in ROW)]
    ingest(books, "focus", [write(path, *rows, columns=names)])

    kept = charges(books)
    assert (kept["billed_cost"].sum(), kept["effective_cost"].sum()) == (Decimal(0), Decimal(1))
    assert kept.filter(pl.col("commitment_discount_status") == "Unused")["effective_cost"].to_list() == [Decimal("0.25")]
    assert kept["consumed_unit"].to_list() == ["Hour", None]


@given(
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20), min_size=1, max_size=30)
)
def test_what_is_kept_and_what_is_rounded_away_are_together_what_was_written(amounts: list[Decimal]) -> None:
    texts = pl.Series("t", [str(a) for a in amounts], dtype=pl.String)
    kept = texts.to_frame().select(money.parse(pl.col("t")))["t"]

    assert kept.to_list() == [money.quantize(a) for a in amounts]
    written = texts.to_frame().select(money.beyond_twelve_places(pl.col("t")))["t"]
    with localcontext() as context:
        context.prec = 999
        assert money.rounding_loss(written, kept) == sum((Decimal(t) - k for t, k in zip(texts, kept, strict=True)), Decimal(0))


def test_a_currency_in_lower_case_is_read_in_upper_case_with_one_remark(books: Books, tmp_path: Path) -> None:
    path = write(tmp_path / "bill.csv", {"BillingCurrency": "eur"}, {"BillingCurrency": "EUR"}, {"BillingCurrency": "Eur"})
    report = ingest(books, "focus", [path])
    assert charges(books)["billing_currency"].to_list() == ["EUR"] * 3
    (remark,) = [p for p in report.problems if p.field == "BillingCurrency"]
    assert (remark.severity, remark.rows) == ("warning", 2)
    assert remark.reason == "Eur, eur is not in upper case; read as if it were"
    assert report.totals["EUR"]["billed_cost"] == Decimal("4.5")


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        ("lineItem/UsageType,lineItem/UnblendedCost", "rootcost ingest aws-cur"),
        ("line_item_usage_type,line_item_unblended_cost", "rootcost ingest aws-cur"),
        ("MeterCategory,CostInBillingCurrency", "Cost and usage details (FOCUS)"),
        ("colour,size", "name the source that fits the file"),
    ],
)
def test_a_bill_in_another_format_is_told_where_to_go(books: Books, tmp_path: Path, header: str, remedy: str) -> None:
    (tmp_path / "bill.csv").write_text(f"{header}\n1,2\n")
    (problem,) = ingest(books, "focus", [str(tmp_path / "bill.csv")]).problems
    assert remedy in problem.remedy


def test_a_path_that_is_not_there_is_no_lasting_problem_and_takes_older_ones_along(books: Books, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "bill.csv", {"BilledCost": "much"}))
    ingest(books, "focus", [str(path)])
    assert books.store.scan(PROBLEMS).collect().height == 1
    path.unlink()
    report = ingest(books, "focus", [str(path)])
    assert (report.errors, report.not_kept) == (1, report.problems)
    assert books.store.scan(PROBLEMS).collect().height == 0
