"""Google's bill: every row and every digit of the export, whatever way it comes, and no month half-read."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.run import attribute
from ingest import checkpoints
from ingest.google import bigquery, client
from ingest.run import IngestReport, ingest
from ingest.source import RawObject, Window
from ingest.sources.gcp import rows as gcp_rows
from ingest.sources.gcp.source import SOURCE
from ledger import money
from ledger.books import Books
from ledger.errors import FormatError, UsageError
from ledger.settings import IngestSettings
from ledger.tables import BALANCE, CHARGES, COSTS, IMPORT_TOTALS, PROBLEMS
from tests.support.amounts import sum_of
from tests.support.gcp_server import Google, Row, Table, refusal, serving
from tests.support.paths import DATA

DATA = DATA / "gcp"
EXPORT = DATA / "export.jsonl"
ACCOUNT = "012345-6789AB-CDEF01"
NAME = "gcp_billing_export_resource_v1_012345_6789AB_CDEF01"
TABLE = f"acme-finops.billing.{NAME}"
ADDRESS = f"bigquery://{TABLE}"
TIMES = ("usage_start_time", "usage_end_time", "export_time")
OCTOBER = "24.640007000000000002"
"""By hand: 0.3 + 0.3 + 0.9 + 0.00000225 + 0.030000000000000002 + 3.6 + 3 + 0.5 + 6.17 + 6 + 0.15 - 1.5 + 5.19 + 0.00000475."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_SECONDS", 5.0)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)


def exported() -> list[Row]:
    """The golden rows, as a table holds them."""
    rows = [json.loads(line) for line in EXPORT.read_text().splitlines()]
    for row in rows:
        row |= {name: datetime.fromisoformat(row[name]) for name in TIMES}
        row["loaded"] = row["export_time"].replace(hour=0, minute=0, second=0, microsecond=0)
    return rows


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """BigQuery on loopback with the golden rows in the detailed export."""
    rows = exported()
    stored_rows = Google(tables={TABLE: Table([name for name in rows[0] if name != "loaded"], rows)})
    with serving(stored_rows):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", stored_rows.address)
        yield stored_rows


def charges(books: Books) -> pl.DataFrame:
    return books.store.scan(CHARGES).collect().sort("billing_month", "charge_id")


def billed(books: Books, month: str = "2026-10") -> Decimal:
    rows = books.store.scan(IMPORT_TOTALS).filter(pl.col("billing_month") == month, cost_column="billed_cost").collect()
    return sum(map(Decimal, rows["total"]), money.ZERO)


def asked_months(google: Google) -> list[str]:
    given = [{p["name"]: p["parameterValue"]["value"] for p in q["queryParameters"]} for q in google.queries]
    return [reasons["month"] for reasons in given if "month" in reasons]


def later(row: Row, hours: int, **changes: Any) -> Row:
    at = datetime(2026, 11, 3, 2, tzinfo=UTC) + timedelta(hours=hours)
    return {**row, "export_time": at, "loaded": at.replace(hour=0), **changes}


# ── what a row means ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_row_is_booked_as_the_accountant_expects(books: Books) -> None:
    report = ingest(books, "gcp", [str(EXPORT)])
    kept = {row["line"]: row for row in charges(books).iter_rows(named=True)}

    with (DATA / "expected.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert report.rows == len(expected) == 15 and report.errors == 0
    for reasons in expected:
        row = kept[int(reasons["line"])]
        assert row["billing_month"] == reasons["billing_month"]
        assert row["charge_category"] == reasons["category"], reasons
        assert reasons["sku_or_sentence"] in (row["sku_meter"], row["charge_description"])
        for ours, theirs in (
            ("billed", "billed_cost"),
            ("billed", "effective_cost"),
            ("list", "list_cost"),
            ("contracted", "contracted_cost"),
        ):
            assert money.text(row[theirs]) == (money.text(money.quantize(Decimal(reasons[ours]))) if reasons[ours] else None), (
                reasons,
                theirs,
            )
        assert (row["sub_account_id"] or "") == reasons["project"]
        assert (row["tags"] or "") == reasons["tags"]


def test_the_month_comes_to_the_invoice_to_the_last_digit(books: Books) -> None:
    ingest(books, "gcp", [str(EXPORT)])

    assert billed(books) == Decimal(OCTOBER)
    (total,) = books.store.scan(IMPORT_TOTALS).filter(billing_month="2026-10", cost_column="billed_cost").collect().to_dicts()
    assert total["rounding"] == "0.000000000000000002" and total["provider"] == "Google Cloud"
    assert money.text(sum_of(charges(books).filter(billing_month="2026-10")["billed_cost"])) == "24.640007"


def test_identical_rows_are_two_charges(books: Books) -> None:
    ingest(books, "gcp", [str(EXPORT)])
    twins = charges(books).filter(pl.col("line").is_in([1, 2]))

    first, second = twins["charge_id"].sort()
    assert second == f"{first}-2" and twins["billed_cost"].sum() == Decimal("0.6")


def test_a_row_carries_what_the_classifier_and_the_rules_go_by(books: Books) -> None:
    ingest(books, "gcp", [str(EXPORT)])
    kept = {row["line"]: row for row in charges(books).iter_rows(named=True)}

    assert kept[1]["sku_meter"] == "Gemini 2.5 Flash GA Text Input - Predictions" and kept[1]["sku_id"] == "FDAB-647C-5A22"
    assert kept[1]["service_name"] == "Vertex AI" and kept[1]["product_code"] == "C7E2-9256-1C43"
    assert (kept[1]["consumed_quantity"], kept[1]["consumed_unit"]) == (Decimal(1_000_000), "count")
    assert kept[1]["contracted_unit_price"] == Decimal("0.0000003")  # $0.30 for a million counts
    assert (kept[8]["pricing_quantity"], kept[8]["pricing_unit"]) == (Decimal(1_000_000), "h")
    assert kept[6]["list_unit_price"] == Decimal("0.000004") and kept[6]["contracted_unit_price"] == Decimal("0.0000036")
    assert (kept[7]["publisher_name"], kept[7]["provider_name"], kept[7]["region_id"]) == ("Anthropic", "Google Cloud", "global")
    assert kept[9]["resource_id"].endswith("/instance/42") and kept[9]["commitment_discount_id"] == "cud-9"
    assert (kept[10]["charge_category"], kept[10]["commitment_discount_id"]) == ("Purchase", "sub-9")
    assert (
        kept[13]["charge_description"] == "Goodwill for the outage of 12 October" and kept[13]["line_item_type"] == "adjustment"
    )
    assert {kept[n]["billing_account_id"] for n in kept} == {ACCOUNT} and kept[14]["sub_account_id"] is None


def test_the_invoice_month_counts_and_not_the_hour_in_utc(books: Books) -> None:
    ingest(books, "gcp", [str(EXPORT)])
    (border,) = charges(books).filter(line=11).to_dicts()

    assert str(border["charge_period_start"]) == "2026-11-01 05:00:00+00:00" and border["billing_month"] == "2026-10"


def test_an_empty_list_cost_is_unknown_and_said_once(books: Books) -> None:
    report = ingest(books, "gcp", [str(EXPORT)])

    assert charges(books).filter(line=12)["list_cost"].to_list() == [None]
    assert [(p.field, p.rows, p.severity) for p in report.problems] == [("cost_at_list", 1, "warning")]


amounts = st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, allow_infinity=False, places=18)


@given(st.lists(st.tuples(amounts, st.lists(amounts, max_size=4)), min_size=1, max_size=8))
def test_credits_are_summed_in_their_row_with_every_digit(bills: list[tuple[Decimal, list[Decimal]]]) -> None:
    base = dict.fromkeys(gcp_rows.COLUMNS) | {"currency": "USD", "invoice": {"month": "202610"}, "cost_type": "regular"}
    net = Decimal(0)
    with localcontext() as context:
        context.prec = 100
        for cost, credits_ in bills:
            reasons, _ = gcp_rows.charge({**base, "cost": cost, "credits": [{"amount": c} for c in credits_]})
            net += Decimal(str(reasons["billed_cost"]))
        assert net == sum((cost for cost, _ in bills), Decimal(0)) + sum((c for _, given in bills for c in given), Decimal(0))


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"cost": "dear"}, "cost", "text of 4 characters is no amount"),
        ({"cost": None}, "cost", "the charge has no amount"),
        ({"cost": True}, "cost", "True is no amount"),
        ({"credits": [{"amount": "x"}]}, "credits.amount", "text of 1 character is no amount"),
        ({"credits": -1}, "credits", "-1 is no list of records"),
        ({"credits": ["a"]}, "credits", "a list of 1 value is no list of records"),
        ({"invoice": {"month": "202613"}}, "invoice.month", "'202613' is no month"),
        ({"invoice": None}, "invoice.month", "the invoice month is missing"),
        ({"invoice": "202610"}, "invoice", "'202610' is no record"),
        ({"currency": ""}, "currency", "the currency is missing"),
        ({"usage_start_time": "yesterday"}, "usage_start_time", "'yesterday' is no time"),
        ({"usage_end_time": "2026-10-01T00:00:00Z"}, "usage_end_time", "'2026-10-01T00:00:00Z' is before the charge's start"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_row_costs_only_itself(books: Books, tmp_path: Path, change: dict[str, Any], field: str, reason: str) -> None:
    good = json.loads(EXPORT.read_text().splitlines()[0])
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (good, good | change, good)))

    report = ingest(books, "gcp", [str(path)])

    assert report.rows == 2
    (problem,) = report.problems
    assert (problem.place, problem.field, problem.reason, problem.severity) == ("line 2", field, reason, "error")
    assert problem.remedy


def test_a_cost_type_nobody_knows_is_kept_and_told(books: Books, tmp_path: Path) -> None:
    row = json.loads(EXPORT.read_text().splitlines()[0]) | {"cost_type": "surprise"}
    (tmp_path / "e.jsonl").write_text(json.dumps(row))

    report = ingest(books, "gcp", [str(tmp_path / "e.jsonl")])

    assert charges(books)["charge_category"].to_list() == ["Adjustment"]
    assert [(p.field, p.severity) for p in report.problems] == [("cost_type", "warning")]


# ── extracts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_array(path: Path) -> Path:
    path.write_text("[" + ",\n".join(EXPORT.read_text().splitlines()) + "]")
    return path


def as_gzip(path: Path) -> Path:
    path.write_bytes(gzip.compress(EXPORT.read_bytes()))
    return path


def as_bq_extract(path: Path) -> Path:
    """`bq extract`: times in BigQuery's own spelling, NUMERIC as text, nulls left out."""
    lines = []
    for line in EXPORT.read_text().splitlines():
        row = {key: value for key, value in json.loads(line).items() if value is not None}
        row |= {name: datetime.fromisoformat(row[name]).strftime("%Y-%m-%d %H:%M:%S.%f UTC") for name in TIMES}
        if row.get("price"):
            row["price"] = {k: str(v) for k, v in row["price"].items()}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


def as_parquet(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{k: v for k, v in row.items() if k != "loaded"} for row in exported()]
    for row in rows:
        row["cost"] = float(row["cost"])
        row["cost_at_list"] = None if row["cost_at_list"] is None else float(row["cost_at_list"])
        row["credits"] = [{**c, "amount": float(c["amount"])} for c in row["credits"]]
        if row["price"]:
            row["price"] = {k: v if isinstance(v, str) else Decimal(str(v)) for k, v in row["price"].items()}
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    return path


@pytest.mark.parametrize("packed", [as_array, as_gzip, as_bq_extract, as_parquet], ids=lambda f: f.__name__)
def test_every_packing_of_the_same_rows_is_the_same_bill(books: Books, tmp_path: Path, packed: Any) -> None:
    suffix = {as_array: "json", as_gzip: "json.gz", as_bq_extract: "json", as_parquet: "parquet"}[packed]
    ingest(books, "gcp", [str(packed(tmp_path / f"extract.{suffix}"))])

    with Books.open(tmp_path / "plain") as plain:
        ingest(plain, "gcp", [str(EXPORT)])
        reasons = ["charge_id", "billing_month", "billed_cost", "list_cost", "tags"]
        assert charges(books).select(reasons).equals(charges(plain).select(reasons))


def test_shards_are_one_bill_in_any_order_and_twice_is_once(books: Books, tmp_path: Path) -> None:
    lines = EXPORT.read_text().splitlines()
    folder = tmp_path / "extract"
    folder.mkdir()
    for number in range(3):
        (folder / f"{NAME}-00000000000{number}.json").write_text("\n".join(lines[number::3]))

    report = ingest(books, "gcp", [str(folder)])
    again = ingest(books, "gcp", [str(folder)])

    assert report.rows == 15 and again.rows_changed == 0
    assert charges(books)["scope"].unique().to_list() == [ACCOUNT]
    assert billed(books) == Decimal(OCTOBER)
    with Books.open(tmp_path / "other") as other:
        shuffled = tmp_path / "shuffled"
        shuffled.mkdir()
        for number in range(3):
            (shuffled / f"{NAME}-00000000000{2 - number}.json").write_text("\n".join(reversed(lines[number::3])))
        ingest(other, "gcp", [str(shuffled)])
        assert charges(books)["charge_id"].equals(charges(other)["charge_id"])


def test_a_shard_that_cannot_be_read_keeps_the_month_as_it_was(books: Books, tmp_path: Path) -> None:
    folder = tmp_path / "extract"
    folder.mkdir()
    (folder / "a.json").write_text(EXPORT.read_text())
    ingest(books, "gcp", [str(folder)])
    (folder / "b.json").write_text("no rows\n")

    report = ingest(books, "gcp", [str(folder)])

    assert report.rows == 0 and billed(books) == Decimal(OCTOBER)
    assert [(Path(p.uri).name, p.reason) for p in report.problems if p.severity == "error"] == [
        ("b.json", "neither JSON nor Parquet")
    ]


@pytest.mark.slow
def test_the_folder_a_live_run_leaves_is_read_like_the_live_thing(google: Google, books: Books, tmp_path: Path) -> None:
    ingest(books, "gcp", [ADDRESS])
    google.tables[TABLE].rows.append(later(exported()[0], 4))
    ingest(books, "gcp", [ADDRESS])
    assert len(list((books.settings.home / "raw" / "gcp").glob("*2026-10.jsonl"))) == 2  # October as it was, and as it is

    with Books.open(tmp_path / "replayed") as replayed:
        ingest(replayed, "gcp", [str(books.settings.home / "raw" / "gcp")])
        assert charges(replayed).drop("line").equals(charges(books).drop("line"))
        assert billed(replayed) == Decimal(OCTOBER) + Decimal("0.3")


def read_cut(content: bytes, path: Path) -> tuple[int, list[str]]:
    path.write_bytes(content)
    rows, problems = 0, []
    try:
        for reading in SOURCE.read(RawObject(str(path), path, "x", len(content)), IngestSettings()):
            rows += reading.frame.height
            problems += [p.reason for p in reading.problems if p.severity == "error"]
    except FormatError as fault:
        problems.append(fault.what)
    return rows, problems


@pytest.mark.slow
def test_cut_at_every_byte_whole_rows_are_kept_and_the_rest_is_told(tmp_path: Path) -> None:
    needed = (*gcp_rows.NEEDED, "credits")
    rows_ = [json.loads(line) for line in EXPORT.read_text().splitlines()[2:4]]
    lines = [json.dumps({k: row[k] for k in needed}).encode() + b"\n" for row in rows_]
    content = b"".join(lines)
    for cut in range(1, len(content)):
        rows, problems = read_cut(content[:cut], tmp_path / "cut.jsonl")
        whole = sum(cut >= len(b"".join(lines[: n + 1])) - 1 for n in range(2))
        assert rows == whole, cut
        assert bool(problems) == (cut not in (len(lines[0]) - 1, len(lines[0]), len(content) - 1)), cut


@pytest.mark.slow
@pytest.mark.parametrize(("packed", "name"), [(as_gzip, "e.json.gz"), (as_parquet, "e.parquet"), (as_array, "e.json")])
def test_a_cut_file_of_any_packing_is_never_a_traceback_nor_silent(tmp_path: Path, packed: Any, name: str) -> None:
    content = packed(tmp_path / name).read_bytes()
    for cut in range(1, len(content), max(1, len(content) // 150)):
        rows, problems = read_cut(content[:cut], tmp_path / f"cut-{name}")
        assert rows <= 15 and problems, cut


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ('{"BilledCost": 1}', "rootcost ingest focus"),
        ('{"logging_time": "2026-10-01", "full_response": {}}', "rootcost ingest vertex"),
        ('{"a": 1}', "a row of the export has cost, currency"),
        ("billing_account_id,cost\n1,2\n", "newline-delimited JSON or as Parquet"),
    ],
)
def test_strangers_are_refused_with_the_way_to_go(books: Books, tmp_path: Path, content: str, remedy: str) -> None:
    (tmp_path / "x.json").write_text(content)

    (problem,) = ingest(books, "gcp", [str(tmp_path / "x.json")]).problems

    assert remedy in problem.remedy and not charges(books).height


# ── the live table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_is_the_same_bill_as_its_extract(google: Google, books: Books, tmp_path: Path) -> None:
    report = ingest(books, "gcp", [ADDRESS])

    assert report.rows == 15 and report.errors == 0 and billed(books) == Decimal(OCTOBER)
    assert charges(books)["scope"].unique().to_list() == [ACCOUNT]
    with Books.open(tmp_path / "plain") as plain:
        ingest(plain, "gcp", [str(EXPORT)])
        assert charges(plain)["charge_id"].equals(charges(books)["charge_id"])


def test_nothing_new_asks_for_nothing_and_twice_is_once(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    before, google.queries = charges(books), []

    report = ingest(books, "gcp", [ADDRESS])

    assert report.rows == 0 and asked_months(google) == [] and charges(books).equals(before)


def test_only_touched_invoice_months_are_read_again_and_whole(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    google.queries = []
    google.tables[TABLE].rows.append(later(exported()[12], 30, cost=-2, adjustment_info={"description": "and more"}))

    report = ingest(books, "gcp", [ADDRESS])

    assert asked_months(google) == ["202610"] and report.rows == 15 and report.rows_changed == 1
    assert billed(books) == Decimal(OCTOBER) - 2
    assert money.text(sum_of(charges(books).filter(billing_month="2026-11")["billed_cost"])) == "0.6"


def test_a_load_that_appears_late_with_an_earlier_time_is_noticed(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    late = later(exported()[0], -20)
    assert late["export_time"] < max(row["export_time"] for row in google.tables[TABLE].rows)
    google.tables[TABLE].rows.append(late)

    ingest(books, "gcp", [ADDRESS])

    assert billed(books) == Decimal(OCTOBER) + Decimal("0.3")


def test_marks_say_how_far_the_table_was_read(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])

    # The last seven days before the newest load held the three corrections and the border row of October, and November's row.
    assert checkpoints.load(books, "gcp") == {ADDRESS: "2026-11-03T02:00:00+00:00 202610=4 202611=1"}


@pytest.mark.slow
def test_the_same_table_in_another_order_is_the_same_bytes(google: Google, books: Books, tmp_path: Path) -> None:
    ingest(books, "gcp", [ADDRESS])
    random.Random(7).shuffle(google.tables[TABLE].rows)
    google.page_rows = 4

    with Books.open(tmp_path / "again") as again:
        ingest(again, "gcp", [ADDRESS])
        assert charges(again).equals(charges(books))


def test_lines_are_sorted_on_disk_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery, "_SORTED_LINES", 3)
    lines = [str(random.Random(n).randrange(50)) for n in range(40)]

    assert list(bigquery.sort_lines(lines)) == sorted(f"{line}\n".encode() for line in lines)


def test_pages_of_a_table_that_changes_meanwhile_are_those_of_one_moment(google: Google, books: Books) -> None:
    google.between_pages = lambda: google.tables[TABLE].rows.append(later(exported()[0], -1))

    ingest(books, "gcp", [ADDRESS])

    # Pages of the first question already saw rows appended; each answer is whole, and what came after its query is not in it.
    first = billed(books)
    google.between_pages = None
    ingest(books, "gcp", [ADDRESS])
    rows = google.tables[TABLE].rows
    expected = sum((Decimal("0.3") for row in rows[15:]), Decimal(OCTOBER))
    assert billed(books) == expected and first <= expected


def test_an_answer_that_ends_early_is_not_taken_for_a_short_month(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    google.tables[TABLE].rows.append(later(exported()[0], 9))
    google.ends_early = True

    report = ingest(books, "gcp", [ADDRESS])

    (problem,) = report.problems
    assert problem.reason.startswith("the answer holds ") and "ended after 3" in problem.reason
    assert billed(books) == Decimal(OCTOBER)
    google.ends_early = False
    ingest(books, "gcp", [ADDRESS])
    assert billed(books) == Decimal(OCTOBER) + Decimal("0.3")


@pytest.mark.parametrize(
    "fault",
    [
        refusal(503, "backendError", "Service is unavailable"),
        refusal(429, "rateLimitExceeded", "Exceeded rate limits"),
        refusal(403, "rateLimitExceeded", "Exceeded rate limits: too many concurrent queries"),
        refusal(500, "internalError", "An internal error occurred"),
    ],
    ids=["503", "429", "403 rate limit", "500"],
)
def test_passing_faults_are_waited_out(google: Google, books: Books, fault: tuple[int, Row]) -> None:
    google.faults = [("/tables/", fault), ("/queries", fault), ("/queries/job", fault)]

    report = ingest(books, "gcp", [ADDRESS])

    assert report.errors == 0 and billed(books) == Decimal(OCTOBER) and not google.faults


def test_a_lasting_fault_leaves_everything_as_it_was(google: Google, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRY_SECONDS", 0.1)
    google.always = [("/queries", refusal(503, "backendError", "Service is unavailable"))]

    report = ingest(books, "gcp", [ADDRESS])

    (problem,) = report.problems
    assert (
        "503 " in problem.reason
        and "Service is unavailable" in problem.reason
        and problem.remedy == "it is asked again with the next run"
    )
    assert not charges(books).height and checkpoints.load(books, "gcp") == {}


def test_a_fault_at_the_second_month_books_none_and_moves_no_mark(google: Google, books: Books) -> None:
    fault = refusal(403, "accessDenied", "Access Denied: Dataset acme-finops:billing")
    count = [0]
    answer = google.answer

    def failing(method: str, path: str, query: Any, body: Row) -> tuple[int, Row]:
        count[0] += "@month" in str(body.get("query"))
        return fault if count[0] == 2 else answer(method, path, query, body)

    google.answer = failing  # type: ignore[method-assign]
    report = ingest(books, "gcp", [ADDRESS])

    assert report.errors == 1 and not charges(books).height and checkpoints.load(books, "gcp") == {}


@pytest.mark.parametrize(
    ("fault", "says", "remedy"),
    [
        (
            refusal(403, "accessDenied", "Access Denied: User lacks bigquery.jobs.create"),
            "403 Access Denied",
            "roles/bigquery.jobUser",
        ),
        (refusal(401, "authError", "Invalid Credentials"), "no usable Google credentials", "GOOGLE_APPLICATION_CREDENTIALS"),
        (refusal(400, "invalidQuery", "Unrecognized name: invoice"), "400 Unrecognized name", "check that the table"),
        (refusal(404, "notFound", "Not found: Dataset acme-finops:billing"), "404 Not found", "check the project"),
    ],
    ids=["403", "401", "400", "404"],
)
def test_refusals_say_what_to_do(google: Google, books: Books, fault: tuple[int, Row], says: str, remedy: str) -> None:
    google.always = [("/queries", fault)]

    (problem,) = ingest(books, "gcp", [ADDRESS]).problems

    assert says in problem.reason and remedy in problem.remedy and problem.uri == ADDRESS


def test_missing_credentials_are_named(books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))

    (problem,) = ingest(books, "gcp", [ADDRESS]).problems

    assert problem.reason.startswith("no usable Google credentials") and "GOOGLE_APPLICATION_CREDENTIALS" in problem.remedy


def test_days_without_rows_are_skipped_by_partition(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    google.queries = []
    google.tables[TABLE].rows.append(later(exported()[0], 9))
    ingest(books, "gcp", [ADDRESS])

    loads, month = google.queries
    given = [{p["name"]: p["parameterValue"]["value"] for p in q["queryParameters"]} for q in (loads, month)]
    assert all("(_PARTITIONTIME >= @day OR _PARTITIONTIME IS NULL)" in q["query"] for q in (loads, month))
    assert given[0]["since"] == "2026-10-27 02:00:00+00:00" and given[0]["day"] == "2026-10-26 00:00:00+00:00"
    assert given[1]["day"] == "2026-09-01 00:00:00+00:00"


def test_a_copy_that_is_not_partitioned_or_lacks_the_newer_columns_is_read_too(google: Google, books: Books) -> None:
    rows = exported()
    lacking = (
        "price",
        "resource",
        "cost_at_list",
        "cost_at_effective_price_default",
        "subscription",
        "consumption_model",
        "loaded",
    )
    columns = [name for name in rows[0] if name not in lacking]
    google.tables["acme-finops.billing.copy"] = Table(columns, rows, parted_by=None)

    report = ingest(books, "gcp", ["bigquery://acme-finops.billing.copy"])

    assert report.errors == 0 and billed(books) == Decimal(OCTOBER)
    assert charges(books)["scope"].unique().to_list() == ["copy"]
    assert "_PARTITIONTIME" not in google.queries[-1]["query"] and "cost_at_list" not in google.queries[-1]["query"]


def test_a_dataset_names_its_exports_the_detailed_one_before_the_standard(google: Google, books: Books) -> None:
    standard = TABLE.replace("resource_", "")
    google.tables[standard] = Table(google.tables[TABLE].columns, exported())
    google.tables["acme-finops.billing.something_else"] = Table(["a"])

    report = ingest(books, "gcp", ["bigquery://acme-finops.billing"])
    again = ingest(books, "gcp", [f"bigquery://{standard}"])

    assert report.rows == 15 and asked_months(google) == ["202610", "202611"] * 2
    assert billed(books) == Decimal(OCTOBER) and again.errors == 0  # one account has one bill, whichever table tells it


def test_days_asked_for_again_are_read_again_and_leave_the_mark(google: Google, books: Books) -> None:
    ingest(books, "gcp", [ADDRESS])
    before, google.queries = checkpoints.load(books, "gcp"), []

    report = ingest(books, "gcp", [ADDRESS], window=Window(since=date(2026, 11, 1)))
    assert asked_months(google) == ["202611"] and report.rows == 1 and report.rows_changed == 0
    google.queries = []
    ingest(books, "gcp", [ADDRESS], window=Window(since=date(2026, 10, 5), until=date(2026, 11, 1)))
    assert asked_months(google) == ["202610"] and checkpoints.load(books, "gcp") == before


def test_an_empty_table_and_a_stranger_are_told(google: Google, books: Books) -> None:
    google.tables["p.d.empty"] = Table(google.tables[TABLE].columns)
    google.tables["p.d.focus"] = Table(["BilledCost", "ChargePeriodStart"])

    def said(address: str) -> IngestReport:
        return ingest(books, "gcp", [address])

    assert [(p.severity, p.reason) for p in said("bigquery://p.d.empty").problems] == [("warning", "holds no rows yet")]
    assert "rootcost ingest focus" in said("bigquery://p.d.focus").problems[0].remedy
    assert "404" in said("bigquery://p.d.nowhere").problems[0].reason
    with pytest.raises(UsageError, match="names no table"):
        said("bigquery://nothing")
    with pytest.raises(UsageError, match="names no table"):
        said("bigquery://p.d.t` WHERE 1=1 --")


def test_a_row_without_an_invoice_month_is_told_and_waits(google: Google, books: Books) -> None:
    google.tables[TABLE].rows.append(later(exported()[0], 1, invoice={"month": None}))

    report = ingest(books, "gcp", [ADDRESS])

    assert report.rows == 15
    assert [(p.field, p.rows) for p in report.problems if p.severity == "error"] == [("invoice.month", 1)]


@pytest.mark.slow
def test_a_mended_row_ends_its_problem(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(EXPORT.read_text().replace('"cost": 1.25,', '"cost": "dear",', 1))
    ingest(books, "gcp", [str(path)])
    assert books.store.scan(PROBLEMS).filter(severity="error").collect().height == 1

    path.write_text(EXPORT.read_text())
    ingest(books, "gcp", [str(path)])

    assert books.store.scan(PROBLEMS).filter(severity="error").collect().height == 0 and billed(books) == Decimal(OCTOBER)


# ── the bill meets the calls ────────────────────────────────────────────────────────────────────────────────────────────


def bill_line(sku: str, count: int, cost: str, **changes: Any) -> str:
    """A line of the golden export's kind, used on 5 October from 9 to 10; the cost's digits as written."""
    row = json.loads(EXPORT.read_text().splitlines()[0])
    row |= {"sku": {"id": sku, "description": sku}, "labels": [], "cost": "COST", "cost_at_list": "COST"}
    row["usage"] = {"amount": count, "unit": "count", "amount_in_pricing_units": count, "pricing_unit": "count"}
    return json.dumps(row | changes).replace('"COST"', cost)


def logged_call(request: int, agent: str, **usage: int) -> str:
    row = json.loads((DATA.parent / "vertex" / "calls.jsonl").read_text().splitlines()[0])
    row |= {"request_id": request, "full_request": row["full_request"] | {"labels": {"adk_agent_name": agent}}}
    row["full_response"] |= {"responseId": f"answer-{request}", "usageMetadata": usage}
    return json.dumps(row)


@pytest.mark.slow
def test_the_charges_of_gemini_meet_the_calls_and_the_books_balance(books: Books, tmp_path: Path) -> None:
    """Two agents share an hour: of 200,000 uncached input tokens one used 50,000, and so on, meter by meter."""
    flash = "Gemini 2.5 Flash GA"
    (tmp_path / "bill.jsonl").write_text(
        "\n".join(
            [
                bill_line(f"{flash} Text Input - Predictions", 200_000, "0.06"),
                bill_line(f"{flash} Text Input Caching", 150_000, "0.0045"),
                bill_line(f"{flash} Text Output - Predictions", 80_000, "0.2", credits=[{"type": "DISCOUNT", "amount": -0.04}]),
                bill_line(f"{flash} Thinking Text Output - Predictions", 10_000, "0.025"),
                bill_line("Tax", 0, "0.0249", cost_type="tax", project=None, usage=None, location=None),
            ]
        )
    )
    first = {
        "promptTokenCount": 200_000,
        "cachedContentTokenCount": 150_000,
        "candidatesTokenCount": 60_000,
        "thoughtsTokenCount": 10_000,
    }
    second = {"promptTokenCount": 150_000, "candidatesTokenCount": 20_000}
    (tmp_path / "calls.jsonl").write_text(
        "\n".join([logged_call(1, "triage-bot", **first), logged_call(2, "report-bot", **second)])
    )
    ingest(books, "gcp", [str(tmp_path / "bill.jsonl")])
    ingest(books, "vertex", [str(tmp_path / "calls.jsonl")])

    attribute(books, months=["2026-10"])

    balance = books.store.scan(BALANCE).filter(cost_column="billed_cost").collect()
    assert money.text(sum_of(balance["charges_in"])) == "0.2744" and balance["difference"].to_list() == [Decimal(0)]
    costs = books.store.scan(COSTS).filter(charge_category="Usage", basis="billed").collect()
    charge_rows = {
        (row["initiator_agent"], row["meter"]): money.text(row["billed_cost"])
        for row in costs.group_by("initiator_agent", "meter").agg(pl.col("billed_cost").sum()).iter_rows(named=True)
    }
    assert charge_rows == {
        ("triage-bot", "input_tokens"): "0.015",
        ("report-bot", "input_tokens"): "0.045",
        ("triage-bot", "cache_read_tokens"): "0.0045",
        ("triage-bot", "output_tokens"): "0.12",  # 60,000 of 80,000 tokens, of 0.2 less 0.04
        ("report-bot", "output_tokens"): "0.04",
        ("triage-bot", "reasoning_tokens"): "0.025",
    }
    assert set(costs["cost_class"]) == {"metered"} and set(costs["model"]) == {"gemini-2.5-flash"}
