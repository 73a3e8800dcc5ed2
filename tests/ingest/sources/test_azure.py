"""Azure's exports: every header dialect, one run a month, and actual and amortised cost never mixed."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from attribution.run import attribute
from ingest import azure_blobs
from ingest.run import IngestReport, ingest
from ingest.source import Window
from ledger import money
from ledger.books import Books
from ledger.tables import CHARGES, COSTS, IMPORT_TOTALS
from tests.support.books_by_hand import span, spans, write
from tests.support.paths import DATA
from tests.support.provider_server import SAS, Provider, serving

D = Decimal
REAL = DATA / "azure_exports"
ACCOUNT = "/subscriptions/1A/resourceGroups/rg/providers/Microsoft.CognitiveServices/accounts/Bright"
ROW = {
    "BillingAccountId": "8611537",
    "BillingPeriodStartDate": "10/01/2026",
    "SubscriptionId": "1A",
    "Date": "10/05/2026",
    "Product": "Azure OpenAI - gpt-4o-0806-Inp-glbl - US East 2",
    "MeterId": "0a1b",
    "MeterCategory": "Cognitive Services",
    "MeterSubCategory": "Azure OpenAI",
    "MeterName": "gpt-4o-0806-Inp-glbl Tokens",
    "ConsumedService": "Microsoft.CognitiveServices",
    "UnitOfMeasure": "1K",
    "Quantity": "1000",
    "UnitPrice": "0.0025",
    "PayGPrice": "0.003",
    "Cost": "2.5",
    "BillingCurrency": "USD",
    "ResourceLocation": "eastus2",
    "ResourceId": ACCOUNT,
    "Tags": '"team": "care"',
    "ChargeType": "Usage",
    "Frequency": "UsageBased",
    "PublisherType": "Azure",
    "PricingModel": "OnDemand",
    "ReservationId": "",
}
PURCHASE = {
    "ChargeType": "Purchase",
    "Frequency": "Recurring",
    "PricingModel": "Reservation",
    "ReservationId": "r1",
    "Quantity": "1",
    "MeterName": "Provisioned Managed Global Unit",
    "UnitOfMeasure": "1 Hour",
    "Cost": "260",
    "Date": "10/01/2026",
    "PayGPrice": "0",
}
COVERED = PURCHASE | {"ChargeType": "Usage", "Frequency": "UsageBased", "Cost": "0", "Quantity": "24", "Date": "10/05/2026"}


def table(*rows: dict[str, str]) -> bytes:
    return ("\r\n".join([",".join(ROW), *(",".join(_quoted(v) for v in (ROW | row).values()) for row in rows)]) + "\r\n").encode()


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',"') else value


def export(
    folder: Path,
    *files: bytes,
    kind: str = "ActualCost",
    name: str = "",
    run: str = "202610060400",
    start: str = "2026-10-01",
    end: str = "2026-10-31",
    owner: str = "/subscriptions/1A",
    sizes: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
) -> Path:
    """A run of an export as Azure lays it down; its folder."""
    name = name or f"daily-{kind}"
    place = folder / name / f"{start.replace('-', '')}-{end.replace('-', '')}" / run / "6f2c"
    place.mkdir(parents=True, exist_ok=True)
    blobs: list[dict[str, Any]] = []
    for number, content in enumerate(files):
        ending = ".csv.gz" if content[:2] == b"\x1f\x8b" else ".csv"
        (place / f"part_{number}_0001{ending}").write_bytes(content)
        blob: dict[str, Any] = {"blobName": f"{place.relative_to(folder)}/part_{number}_0001{ending}"}
        blob["byteCount"] = sizes[number] if sizes else len(content)
        blobs.append(blob | ({"dataRowCount": counts[number]} if counts else {}))
    manifest = {
        "manifestVersion": "2024-04-01",
        "byteCount": sum(map(len, files)),
        "blobCount": len(blobs),
        "exportConfig": {
            "exportName": name,
            "resourceId": f"{owner}/providers/Microsoft.CostManagement/exports/{name}",
            "dataVersion": "2023-12-01-preview",
            "apiVersion": "2023-07-01-preview",
            "type": kind,
            "timeFrame": "MonthToDate",
            "granularity": "Daily",
        },
        "deliveryConfig": {"partitionData": True, "dataOverwriteBehavior": "CreateNewReport", "fileFormat": "Csv"},
        "runInfo": {
            "executionType": "Scheduled",
            "submittedTime": f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[8:10]}:{run[10:12]}:00.0000000Z",
            "runId": f"run-{run}-{name}",
            "startDate": f"{start}T00:00:00",
            "endDate": f"{end}T00:00:00",
        },
        "blobs": blobs,
    }
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8-sig")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, apart from the books."""
    path = tmp_path / "exports"
    path.mkdir()
    return path


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("charge_period_start", "line")


def total(books: Books, column: str = "billed_cost") -> Decimal:
    return Decimal(charges(books)[column].sum() or 0)


def reasons(report: IngestReport) -> list[str]:
    return [p.reason for p in report.problems]


# ── header dialects ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "column"), [("ea_anonymous", "CostInBillingCurrency"), ("EA_ActualCost_Small", "Cost")])
def test_a_real_export_is_kept_to_the_last_digit(books: Books, name: str, column: str) -> None:
    path = REAL / f"{name}.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        written = [D(row[column]) for row in csv.DictReader(file)]
    report = ingest(books, "azure", [str(path)])

    assert (report.rows, report.errors, report.months) == (len(written), 0, ["2023-09"])
    booked = books.store.scan(IMPORT_TOTALS).filter(pl.col("cost_column") == "billed_cost").collect().row(0, named=True)
    assert D(booked["total"]) == sum(written)
    assert total(books) + D(booked["rounding"]) == sum(written)
    assert set(charges(books)["provider_name"]) == {"Microsoft"}


def test_every_header_dialect_says_the_same(books: Books) -> None:
    with (REAL / "expected.csv").open(newline="") as file:
        expected = [tuple(row.values()) for row in csv.DictReader(file)]
    for name in sorted({row[0] for row in expected}):
        ingest(books, "azure", [str(REAL / name)])
    columns = ("sub_account_id", "service_name", "sku_meter", "region_id", "billed_cost", "billing_currency")
    kept = charges(books).sort("scope")
    reasons = [
        (scope, day, month, *(money.text(v) if isinstance(v, Decimal) else v for v in rest))
        for scope, day, month, *rest in kept.select(
            "scope",
            pl.col("charge_period_start").dt.strftime("%Y-%m-%d"),
            "billing_month",
            *columns,
            *("consumed_quantity", "consumed_unit", "charge_category"),
        ).iter_rows()
    ]
    assert reasons == expected


def test_an_export_without_currency_and_a_row_without_amount_are_refused_by_name(books: Books) -> None:
    bare = ingest(books, "azure", [str(REAL / "no_currency.csv")])
    assert reasons(bare) == ["no Azure cost export: columns are missing: BillingCurrency"]
    empty = ingest(books, "azure", [str(REAL / "header_BOM.csv")])
    assert [(p.place, p.field, p.reason) for p in empty.problems] == [("line 2", "PreTaxCost", "the charge has no amount")]
    assert charges(books).is_empty()


def test_tags_with_and_without_braces_and_two_spellings_of_one_resource(books: Books, folder: Path) -> None:
    rows = [
        {},
        {"Tags": '{"team": "care"}', "ResourceId": ACCOUNT.upper()},
        {"ResourceId": f"{ACCOUNT}/projects/p1", "Tags": "team"},
    ]
    (folder / "costs.csv").write_bytes(table(*rows))
    report = ingest(books, "azure", [str(folder / "costs.csv")])
    kept = charges(books)
    assert kept["tags"].to_list() == ['{"team":"care"}', '{"team":"care"}', None]
    assert kept["resource_id"].unique().to_list() == [ACCOUNT.lower()]
    assert [(p.place, p.severity) for p in report.problems] == [("line 4", "warning")]


def test_list_cost_is_the_pay_as_you_go_price_in_the_billing_currency(books: Books, folder: Path) -> None:
    head = "date,subscriptionId,meterCategory,meterName,unitOfMeasure,quantity,payGPrice,billingCurrency,pricingCurrency,"
    head += "exchangeRatePricingToBilling,costInBillingCurrency,paygCostInBillingCurrency\n"
    same = "10/05/2026,1A,Cognitive Services,m,1K,10,0.3,EUR,USD,0.9,2.5,\n"  # 10 × 0.3 × 0.9
    (folder / "costs.csv").write_text(head + same + same.replace("2.5,", "2.5,2.71"))
    ingest(books, "azure", [str(folder / "costs.csv")])
    assert charges(books).select("list_cost", "billed_cost", "list_unit_price").rows() == [
        (D("2.7"), D("2.5"), None),  # the price is in dollars: it is not the bill's
        (D("2.71"), D("2.5"), None),
    ]


def test_parquet_says_the_same_as_csv(books: Books, folder: Path) -> None:
    frame = pl.read_csv(table({}, {"Cost": "0.1"}), schema_overrides=dict.fromkeys(ROW, pl.String))
    amounts = pl.col("Cost", "Quantity", "UnitPrice", "PayGPrice").cast(pl.Float64)
    frame.with_columns(amounts, pl.col("Date").str.to_datetime("%m/%d/%Y")).write_parquet(folder / "costs.parquet")
    (folder / "costs.csv").write_bytes(table({}, {"Cost": "0.1"}))
    for ending in ("csv", "parquet"):
        assert ingest(books, "azure", [str(folder / f"costs.{ending}")], scope=ending).problems == []
    by_scope = {name: charges(books).filter(pl.col("scope") == name).sort("billed_cost") for name in ("csv", "parquet")}
    same = [c for c in CHARGES.schema if c not in ("charge_id", "raw_id", "scope", "line")]
    assert by_scope["csv"].select(same).equals(by_scope["parquet"].select(same))
    assert by_scope["csv"]["billed_cost"].to_list() == [D("0.1"), D("2.5")]


def test_what_a_charge_is(books: Books, folder: Path) -> None:
    kinds = ["Usage", "Purchase", "Refund", "Tax", "RoundingAdjustment", "Mystery"]
    (folder / "costs.csv").write_bytes(table(*({"ChargeType": kind} for kind in kinds)))
    report = ingest(books, "azure", [str(folder / "costs.csv")])
    assert charges(books)["charge_category"].to_list() == ["Usage", "Purchase", "Credit", "Tax", "Adjustment", "Adjustment"]
    assert [(p.place, p.severity) for p in report.problems] == [("line 7", "warning")]
    assert total(books) == D(15)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_several_runs_the_newest_is_the_month(books: Books, folder: Path) -> None:
    """CreateNewReport keeps every run beside the others; each is the whole month to date."""
    export(folder, table({}), run="202610060400")
    export(folder, table({}, {}), run="202610070400")
    export(folder, table({"Cost": "9"}), run="202610050400")
    report = ingest(books, "azure", [str(folder)])
    assert (total(books), report.problems) == (D(5), [])
    assert charges(books)["scope"].unique().to_list() == ["azure.subscriptions.1a"]

    again = ingest(books, "azure", [str(folder)])
    assert (again.rows_changed, total(books)) == (0, D(5))


def test_an_overwritten_report_replaces_its_month_and_leaves_the_others(books: Books, folder: Path) -> None:
    september = {"Date": "09/05/2026", "BillingPeriodStartDate": "09/01/2026"}
    export(folder, table(september), start="2026-09-01", end="2026-09-30", run="202609300400")
    place = export(folder, table({}, {}))
    ingest(books, "azure", [str(folder)])
    assert total(books) == D("7.5")
    for path in place.iterdir():
        path.unlink()
    export(folder, table({"Cost": "1"}))
    ingest(books, "azure", [str(folder)])
    assert total(books) == D("3.5")


def test_partitions_are_read_together_in_any_order_or_not_at_all(books: Books, folder: Path) -> None:
    parts = [table({}, {"Cost": "1"}), gzip.compress(table({"Cost": "7"}), mtime=0)]
    export(folder, *parts, counts=[2, 1])
    assert ingest(books, "azure", [str(folder)]).problems == []
    assert total(books) == D("10.5")
    export(folder, *reversed(parts), counts=[1, 2], run="202610070400")
    assert ingest(books, "azure", [str(folder)]).rows_changed == 0

    place = export(folder, *parts, table({"Cost": "100"}), run="202610080400")
    (place / "part_1_0001.csv.gz").unlink()
    report = ingest(books, "azure", [str(folder)])
    assert [(p.place.rsplit("/", 1)[-1], p.field) for p in report.problems] == [("part_1_0001.csv.gz", "blobs")]
    assert "which is missing" in report.problems[0].reason and "left as it was" in report.problems[0].remedy
    assert total(books) == D("10.5")


def test_a_blob_of_another_size_or_other_rows_than_its_manifest_says_is_refused(books: Books, folder: Path) -> None:
    content = table({}, {})
    export(folder, content, sizes=[len(content) + 1])
    short = ingest(books, "azure", [str(folder)])
    assert [p.reason.split(" has ")[1] for p in short.problems] == [
        f"{len(content)} bytes, and the manifest says {len(content) + 1}"
    ]
    export(folder, content, counts=[3])
    lacking = ingest(books, "azure", [str(folder)])
    assert reasons(lacking) == ["the file holds 2 rows, and its manifest says 3"]
    assert charges(books).is_empty()


def test_a_run_that_is_not_one_month_from_its_first_day_is_refused_by_name(books: Books, folder: Path) -> None:
    export(folder, table({}), start="2026-10-05")
    export(folder, table({}), start="2026-07-01", end="2026-09-30", name="history")
    (folder / "manifest.json").write_text('{"exportConfig": ')
    charge_rows = {p.uri.split("/exports/")[1].split("/")[0]: p.reason for p in ingest(books, "azure", [str(folder)]).problems}
    assert charge_rows["daily-ActualCost"] == "the run begins on 2026-10-05, and a month is replaced whole"
    assert charge_rows["history"] == "the run covers 2026-07-01 to 2026-09-30, more than a month"
    assert charge_rows["manifest.json"].startswith("the manifest is no JSON")
    assert charges(books).is_empty()


def test_exports_that_are_no_bills_are_left_aside_and_a_folder_without_manifest_is_refused(books: Books, folder: Path) -> None:
    export(folder, table({}))
    export(folder, b"MeterId,Price\n1,2\n", kind="PriceSheet")
    assert ingest(books, "azure", [str(folder)]).problems == []
    assert total(books) == D("2.5")
    for manifest in folder.rglob("manifest.json"):
        manifest.unlink()
    assert "no manifest says" in reasons(ingest(books, "azure", [str(folder)]))[0]


# ── actual and amortised ────────────────────────────────────────────────────────────────────────────────────────────


def test_actual_and_amortised_cost_beside_each_other_are_billed_and_effective_cost(books: Books, folder: Path) -> None:
    """Invoiced: 260 for a reservation and 2.5 of tokens. Amortised: a day of it, 8, of which 5 was used."""
    export(folder, table(PURCHASE, COVERED, {}))
    export(
        folder,
        table(COVERED | {"Cost": "5"}, COVERED | {"Cost": "3", "ChargeType": "UnusedReservation"}, {}),
        kind="AmortizedCost",
    )
    report = ingest(books, "azure", [str(folder)])

    assert report.problems == []
    assert (total(books), total(books, "effective_cost")) == (D("262.5"), D("10.5"))
    kept = charges(books)
    tokens = kept.filter(pl.col("consumed_unit") == "Tokens")
    assert tokens["consumed_quantity"].sum() == D(1_000_000), "the same usage, told by both, is counted once"
    assert tokens["list_cost"].sum() == D(3)
    assert dict(kept.group_by("charge_category").agg(pl.col("billed_cost").sum()).iter_rows()) == {
        "Purchase": D(260),
        "Usage": D("2.5"),
    }
    unused = kept.filter(pl.col("commitment_discount_status") == "Unused")
    assert unused.select("billed_cost", "effective_cost").rows() == [(D(0), D(3))]


def test_the_second_view_joins_the_first_whichever_comes_first(books: Books, folder: Path) -> None:
    export(folder, table(COVERED | {"Cost": "5"}), kind="AmortizedCost")
    alone = ingest(books, "azure", [str(folder)])
    assert reasons(alone) == ["amortised cost is not what is invoiced; billed cost is taken as amortised"]
    assert (total(books), total(books, "effective_cost")) == (D(5), D(5))
    export(folder, table(PURCHASE, COVERED))
    ingest(books, "azure", [str(folder)])
    assert (total(books), total(books, "effective_cost")) == (D(260), D(5))
    assert charges(books)["scope"].n_unique() == 1


def test_one_view_that_is_broken_leaves_the_month_as_it_was(books: Books, folder: Path) -> None:
    export(folder, table(PURCHASE, COVERED))
    place = export(folder, table(COVERED | {"Cost": "5"}), kind="AmortizedCost")
    ingest(books, "azure", [str(folder)])
    (place / "part_0_0001.csv").unlink()
    report = ingest(books, "azure", [str(folder)])
    assert [p.severity for p in report.problems] == ["error"]
    assert (total(books), total(books, "effective_cost")) == (D(260), D(5))


def test_without_commitments_the_two_views_are_one(books: Books, folder: Path) -> None:
    for kind in ("ActualCost", "AmortizedCost"):
        export(folder, table({}), kind=kind)
    ingest(books, "azure", [str(folder)])
    assert charges(books).select("billed_cost", "effective_cost", "consumed_quantity").rows() == [
        (D("2.5"), D("2.5"), D(1_000_000))
    ]


def test_actual_cost_alone_says_that_commitments_stay_on_their_purchase(books: Books, folder: Path) -> None:
    export(folder, table(PURCHASE, COVERED))
    report = ingest(books, "azure", [str(folder)])
    assert [(p.rows, p.severity) for p in report.problems] == [(2, "warning")]
    assert "effective cost is as billed" in report.problems[0].reason


def test_a_second_export_of_the_same_view_is_left_aside_by_name(books: Books, folder: Path) -> None:
    export(folder, table({}), name="old", run="202610050400")
    export(folder, table({}), name="new", run="202610060400")
    report = ingest(books, "azure", [str(folder)])
    assert reasons(report) == ["the export 'old' also covers 2026-10 of azure.subscriptions.1a; 'new' is read instead"]
    assert total(books) == D("2.5")


def test_exports_of_an_account_and_of_its_subscription_do_not_add_up(books: Books, folder: Path) -> None:
    export(folder, table({}))
    ingest(books, "azure", [str(folder)])
    account = folder.parent / "account"
    export(account, table({}, {"SubscriptionId": "2B"}), owner="/providers/Microsoft.Billing/billingAccounts/8611537")
    report = ingest(books, "azure", [str(account)])
    assert [p.severity for p in report.problems] == ["error"]
    assert total(books) == D("2.5")
    for group in ("rg1", "rg2"):  # two groups of another subscription: neither holds the other
        export(
            folder,
            table({"SubscriptionId": "3C", "ResourceId": ACCOUNT + group}),
            owner=f"/subscriptions/3C/resourceGroups/{group}",
            name=group,
        )
    assert ingest(books, "azure", [str(folder)]).problems == []
    assert total(books) == D("7.5")


def test_an_amortised_file_that_is_taken_for_actual_cost_is_refused(books: Books, folder: Path) -> None:
    content = table(COVERED | {"Cost": "3", "ChargeType": "UnusedReservation"})
    (folder / "costs.csv").write_bytes(content)
    report = ingest(books, "azure", [str(folder / "costs.csv")])
    assert (report.rows, reasons(report)) == (
        0,
        ["this is an export of amortised cost (it holds unused commitments), read as actual cost"],
    )
    (folder / "costs-amortized.csv").write_bytes(content)
    assert ingest(books, "azure", [str(folder / "costs-amortized.csv")]).rows == 1


def test_named_files_of_both_views_are_not_mixed(books: Books, folder: Path) -> None:
    (folder / "oct-actual.csv").write_bytes(table(PURCHASE, COVERED))
    (folder / "oct-amortized.csv").write_bytes(table(COVERED | {"Cost": "5"}))
    report = ingest(books, "azure", [f"{folder}/*.csv"])
    assert total(books) == D(260)
    left = next(p for p in report.problems if p.severity == "error")
    assert left.uri.endswith("oct-amortized.csv") and "count twice" in left.reason


# ── FOCUS ───────────────────────────────────────────────────────────────────────────────────────────────────────────

FOCUS = {
    "BilledCost": "2.5",
    "EffectiveCost": "2",
    "ListCost": "3",
    "ContractedCost": "2.5",
    "BillingCurrency": "USD",
    "BillingAccountId": "8611537",
    "BillingAccountName": "Bright",
    "ServiceName": "Azure OpenAI",
    "ServiceCategory": "AI",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ProviderName": "Microsoft",
    "ChargePeriodStart": "2026-10-05T00:00:00Z",
    "ChargePeriodEnd": "2026-10-06T00:00:00Z",
    "PublisherName": "Microsoft",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "tokens",
    "InvoiceIssuerName": "Microsoft",
    "PricingQuantity": "1000",
    "PricingUnit": "1K",
    "x_SkuMeterName": "gpt-4o-0806-Inp-glbl Tokens",
}


def test_a_focus_export_says_both_views_and_goes_before_them(books: Books, folder: Path) -> None:
    content = (",".join(FOCUS) + "\n" + ",".join(FOCUS.values()) + "\n").encode()
    export(folder, content, kind="FocusCost", counts=[1])
    export(folder, table({}, {}))
    report = ingest(books, "azure", [str(folder)])
    assert charges(books).select("billed_cost", "effective_cost", "sku_meter", "source").rows() == [
        (D("2.5"), D(2), "gpt-4o-0806-Inp-glbl Tokens", "azure")
    ]
    assert "'daily-FocusCost' is read instead" in " ".join(reasons(report))
    export(folder, content, kind="FocusCost", counts=[2], run="202610090400")
    lacking = ingest(books, "azure", [str(folder)])
    assert "the file holds 1 row, and its manifest says 2" in reasons(lacking)
    assert {p.source for p in lacking.problems} == {"azure"} and total(books) == D("2.5")


# ── blob storage ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A storage account, and a signature to read it."""
    monkeypatch.setenv(azure_blobs.KEY, f"?{SAS}")
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    with serving() as provider:
        yield provider


def upload(provider: Provider, folder: Path) -> None:
    provider.blobs = {f"costs/bright/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_exports_are_read_from_blob_storage_and_the_signature_is_never_told(
    books: Books, folder: Path, azure: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    export(folder, table(PURCHASE, COVERED, {}), table({"Cost": "1"}))
    export(folder, table(COVERED | {"Cost": "5"}, {}, {"Cost": "1"}), kind="AmortizedCost")
    upload(azure, folder)
    azure.blobs["costs/bright-old/manifest.json"] = b"{}"
    report = ingest(books, "azure", [f"{azure.address}/costs/bright"])

    assert report.problems == []
    assert (total(books), total(books, "effective_cost")) == (D("263.5"), D("8.5"))
    assert azure.count("/costs") == 3, "five blobs and one beside the folder, two a page"
    kept = [path for path in books.home.rglob("*") if path.is_file()]
    signature = "c2VjcmV0"
    assert not [path for path in kept if signature.encode() in path.read_bytes() or signature in path.name]
    assert signature not in caplog.text


def test_a_month_is_fetched_again_when_there_is_a_new_run_or_its_days_are_asked_for(
    books: Books, folder: Path, azure: Provider
) -> None:
    address = f"{azure.address}/costs/bright"

    def fetched() -> int:
        """Blobs of the bill that were read since the last time, by a visit that changes nothing."""
        count = sum(path.endswith(".csv") for path, _ in azure.asked)
        azure.asked.clear()
        return count

    export(folder, table({}), table({"Cost": "1"}))
    upload(azure, folder)
    ingest(books, "azure", [address])
    assert fetched() == 2
    ingest(books, "azure", [address])
    assert fetched() == 0
    assert ingest(books, "azure", [address], window=Window(date(2026, 10, 1), None)).rows_changed == 0
    assert fetched() == 2
    export(folder, table({}), run="202610070400")
    upload(azure, folder)
    ingest(books, "azure", [address])
    assert (fetched(), total(books)) == (1, D("2.5"))


def test_a_large_blob_is_read_in_parts_of_one_version(
    books: Books, folder: Path, azure: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_blobs, "_PART_BYTES", 700)
    export(folder, table(*({"Cost": str(n)} for n in range(10))))
    upload(azure, folder)
    assert ingest(books, "azure", [f"{azure.address}/costs/bright"]).problems == []
    assert total(books) == D(45)

    export(folder, table(*({"Cost": "2"} for _ in range(10))), run="202610070400")
    upload(azure, folder)
    asked: list[str] = []

    def overwrite(path: str, query: dict[str, list[str]]) -> None:
        asked.append(path)
        if path.endswith(".csv") and asked.count(path) == 2:
            azure.blobs[path.removeprefix("/")] = table(*({"Cost": "1"} for _ in range(10)))

    azure.before = overwrite
    report = ingest(books, "azure", [f"{azure.address}/costs/bright"])
    assert reasons(report) == ["the blob was overwritten while it was read"]
    assert total(books) == D(45)


def test_what_is_wrong_with_the_address_or_the_signature_is_told(
    books: Books, azure: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reasons(ingest(books, "azure", [f"{azure.address}/costs/nothing"])) == ["no blobs here"]
    signed = ingest(books, "azure", [f"{azure.address}/costs?sig=abc"])
    assert "would be stored" in reasons(signed)[0]
    monkeypatch.setenv(azure_blobs.KEY, "sv=1&sig=wrong")
    refused = ingest(books, "azure", [f"{azure.address}/costs"])
    assert [(p.reason.split()[0], p.remedy) for p in refused.problems] == [
        ("403", "the key is missing, wrong, or lacks the right to read this")
    ]
    monkeypatch.delenv(azure_blobs.KEY)
    assert reasons(ingest(books, "azure", [f"{azure.address}/costs"])) == [
        "no signature in the environment (AZURE_STORAGE_SAS_TOKEN)"
    ]


def test_exports_are_read_from_s3(books: Books, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="azure-bills")
    export(folder, table({}), table({"Cost": "1"}))
    export(folder, table({"Cost": "50"}), run="202610010400")
    for path in folder.rglob("*.*"):
        client.put_object(Bucket="azure-bills", Key=f"exports/{path.relative_to(folder)}", Body=path.read_bytes())
    report = ingest(books, "azure", ["s3://azure-bills/exports"])
    server.stop()
    assert (report.problems, total(books)) == ([], D("3.5"))


# ── cut off ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_file_cut_off_anywhere_gives_whole_rows_or_a_reason(books: Books, folder: Path) -> None:
    whole = table({"Cost": "1.25"}, {"Cost": "1.25"}, {"Cost": "1.25"})
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    path = folder / "costs.csv"
    for cut in sorted({*range(0, len(whole), 97), *ends}):
        path.write_bytes(whole[:cut])
        report = ingest(books, "azure", [str(path)], scope=f"cut {cut}")
        rows = charges(books).filter(pl.col("scope") == f"cut {cut}")
        sound = max(sum(end <= cut for end in ends) - 1, 0)
        assert rows.height in (sound, sound + 1) and set(rows["billed_cost"]) <= {D("1.25")}, cut
        assert report.problems or cut in ends, cut


def test_an_export_cut_off_anywhere_is_refused_by_its_manifest(books: Books, folder: Path) -> None:
    whole = table({}, {})
    place = export(folder, whole)
    for cut in range(0, len(whole), 97):
        (place / "part_0_0001.csv").write_bytes(whole[:cut])
        report = ingest(books, "azure", [str(folder)])
        assert (report.rows, report.errors) == (0, 1), cut
    assert charges(books).is_empty()


# ── to the agent ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bill_finds_the_agents_that_made_the_calls(books: Books, folder: Path) -> None:
    """Input: 2.5 for 1 000 000 tokens, of which care-bot logged 800 000. Cached: 0.5 for 400 000. Output: 3 for 300 000, coder's."""
    cached = {"MeterName": "gpt 4o 0806 cached Inp glbl Tokens", "Quantity": "400", "Cost": "0.5"}
    output = {"MeterName": "gpt-4o-0806-Outp-glbl Tokens", "Quantity": "0.3", "UnitOfMeasure": "1M", "Cost": "3"}
    export(folder, table({}, cached, output, {"MeterName": "P4 LRS Disk", "MeterCategory": "Storage", "Cost": "4"}))
    ingest(books, "azure", [str(folder)])
    reasons = {"provider": "azure", "response_model": "gpt-4o-2024-08-06", "usage_scope": "leaf", "input_includes_cache": True}
    facts = spans(
        span(1, 1, agent_name="care-bot"),
        span(1, 2, 1, input_tokens=1_200_000, cache_read_tokens=400_000, **reasons),
        span(2, 3, agent_name="coder"),
        span(2, 4, 3, output_tokens=300_000, **reasons),
    )
    write(books, spans=facts, owners="agent,team\ncare-bot,Care\ncoder,Dev\n")
    run = attribute(books)

    costs = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    by_agent = dict(costs.group_by("initiator_agent").agg(pl.col("billed_cost").sum()).iter_rows())
    assert (by_agent["care-bot"], by_agent["coder"]) == (D("2.5"), D(3))  # 2.5 · 0.8 + 0.5
    assert costs["billed_cost"].sum() == D(10)
