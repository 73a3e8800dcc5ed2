"""Cloud Billing asked directly: every project under its account, every list price to the nano."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from ingest.google import client
from ingest.prices import gcp_catalog
from ingest.prices.gcp_catalog import SkuMeaning
from ledger.books import Books
from ledger.errors import ObjectMissingError, StoreUnreachable
from ledger.tables import PRICES
from rootcost.cli import app
from tests.support.gcp_server import Google, Row, refusal, serving
from tests.support.paths import DATA

DATA = DATA / "gcp_catalog"
VERTEX = "services/C7E2-9256-1C43"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_SECONDS", 5.0)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """The catalog of the golden folder, two billing accounts, and pages of three."""
    held = Google(**json.loads((DATA / "catalog.json").read_text()))
    held.accounts = [
        {"name": "billingAccounts/012345-6789AB-CDEF01", "displayName": "Acme", "open": True, "currencyCode": "EUR"},
        {"name": "billingAccounts/FFFFFF-000000-111111", "displayName": "Old", "open": False, "currencyCode": "USD"},
    ]
    paid = [{"name": f"projects/p-{n}/billingInfo", "projectId": f"p-{n}", "billingEnabled": n != 3} for n in range(5)]
    held.projects = {held.accounts[0]["name"]: paid}
    with serving(held):
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING", held.address + "/")
        yield held


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--home", str(home), *arguments])


def by_first_words(service: str, sku: str, unit: str) -> SkuMeaning:
    """A classifier of the test's own: the model is what stands before Text."""
    model, _, rest = sku.partition(" Text ")
    meter = (
        {"Input": "input_tokens", "Output": "output_tokens"}.get(rest.split(" ")[0])
        if unit == "count" and "Caching" not in rest
        else None
    )
    return SkuMeaning(model, meter, factor=Decimal(1))


def slug(model: str) -> str:
    return "-".join(model.lower().replace(" ga", "").replace(" global", "").split())


# ── who pays for what ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_project_is_listed_under_the_account_that_pays_for_it(google: Google) -> None:
    found = gcp_catalog.projects()

    assert [(row.billing_account, row.project, row.billing_enabled) for row in found] == [
        *(("012345-6789AB-CDEF01", f"p-{n}", n != 3) for n in range(5)),
        ("FFFFFF-000000-111111", None, False),
    ]
    assert (found[0].account_name, found[0].currency, found[0].account_open, found[-1].account_open) == (
        "Acme",
        "EUR",
        True,
        False,
    )
    assert [path for _, path in google.asked].count("/v1/billingAccounts/012345-6789AB-CDEF01/projects") == 2  # two pages


def test_the_command_lists_them_and_names_the_export_s_table(google: Google, home: Path) -> None:
    rows = json.loads(run(home, "gcp", "projects", "--format", "json").stdout)

    assert len(rows) == 6 and rows[0]["export"] == "gcp_billing_export_resource_v1_012345_6789AB_CDEF01"
    shown = run(home, "gcp", "projects")
    assert shown.exit_code == 0 and "p-4" in shown.stdout and "rootcost ingest gcp bigquery://" in shown.stderr
    assert run(home, "gcp", "projects", "--format", "csv").stdout.startswith("billing_account,account_name,currency")


def test_credentials_that_see_nothing_are_told_what_they_lack(google: Google, home: Path) -> None:
    google.accounts = []
    assert "roles/billing.viewer" in run(home, "gcp", "projects").stderr

    google.always = [("/v1/billingAccounts", refusal(403, "forbidden", "The caller does not have permission"))]
    refused = run(home, "gcp", "projects")
    assert refused.exit_code == 1 and "The caller does not have permission" in refused.stderr
    assert "grant the account roles/billing.viewer" in refused.stderr and "Traceback" not in refused.output


# ── list prices ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_catalog_s_prices_are_in_the_book_as_read_by_hand(google: Google, home: Path) -> None:
    done = run(home, "prices", "import", "--from", "gcp")

    assert done.exit_code == 0 and done.stdout.startswith("16 prices added")
    with Books.open(home) as books, (DATA / "expected.csv").open(newline="") as file:
        kept = books.store.scan(PRICES).collect().sort("provider", "model", "meter", "service_tier", "context_above", "region")
        found = [
            [
                r["provider"],
                r["model"],
                r["meter"],
                r["service_tier"],
                str(r["context_above"]),
                r["region"],
                f"{r['rate'] * 10**6:.2f}",
            ]
            for r in kept.iter_rows(named=True)
        ]
        assert found == list(csv.reader(file))[1:]
        assert set(kept["currency"]) == {"USD"} and set(kept["origin"]) == {"list"}
        assert kept["book"].str.starts_with("gcp-catalog sha256:").all()


def test_the_same_catalog_twice_adds_nothing_and_a_changed_price_is_a_dated_row(google: Google, home: Path) -> None:
    run(home, "prices", "import", "--from", "gcp")
    assert run(home, "prices", "import", "--from", "gcp").stdout.startswith("0 prices added")

    google.skus[VERTEX][0]["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]["nanos"] = 330
    assert run(home, "prices", "diff", "--from", "gcp").stdout.startswith("1 change,")
    assert run(home, "prices", "import", "--from", "gcp").stdout.startswith("1 price added (1 of them changed)")

    with Books.open(home) as books:
        rates = books.store.scan(PRICES).filter(
            model="gemini-2.5-flash", provider="vertex_ai", meter="input_tokens", service_tier="standard"
        )
        assert rates.collect().sort("valid_from")["rate"].to_list() == [Decimal("0.0000003"), Decimal("0.00000033")]


def test_a_price_that_looks_wrong_waits_like_any_other(google: Google, home: Path) -> None:
    run(home, "prices", "import", "--from", "gcp")
    google.skus[VERTEX][0]["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]["nanos"] = 300000

    done = run(home, "prices", "import", "--from", "gcp")

    assert done.exit_code == 1 and "1 price staged" in done.stdout


def test_names_are_those_the_book_has_already(google: Google, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "provider,model,meter,unit,rate,currency\nvertex_ai,claude-sonnet-4-5@20250929,output_tokens,1M tokens,15,USD\n"
    )
    run(home, "prices", "import", str(tmp_path / "mine.csv"), "--origin", "contract")
    run(home, "prices", "import", "--from", "gcp")

    with Books.open(home) as books:
        models = books.store.scan(PRICES).filter(origin="list").collect()["model"].unique()
    assert "claude-sonnet-4-5" in models and "claude-sonnet-4.5" not in models


def test_the_option_goes_with_no_file_and_no_other_origin(google: Google, home: Path, tmp_path: Path) -> None:
    for more in (["list.csv"], ["--origin", "contract"], ["--book", "x"]):
        done = run(home, "prices", "import", "--from", "gcp", *more)
        assert done.exit_code == 2 and "leave out the file" in done.stderr


def test_units_and_nanos_are_one_amount() -> None:
    def told(units: int, nanos: int) -> Decimal:
        return gcp_catalog._money(SimpleNamespace(units=units, nanos=nanos))

    assert told(0, 1) == Decimal("0.000000001") and told(2700, 0) == 2700 and told(1, 750_000_000) == Decimal("1.75")


def test_of_volume_tiers_the_first_that_is_not_free_counts_and_is_told(google: Google) -> None:
    listed = gcp_catalog.price_list(by_first_words, slug)

    tiered = next(p for p in listed.problems if p.field == "tieredRates")
    assert "Gemini 2.0 Flash" in tiered.reason and tiered.rows == 1
    assert listed.frame.filter(model="gemini-2.0-flash")["rate"].to_list() == [Decimal("0.0000001")]


def test_what_nobody_knows_is_left_out_and_counted(google: Google) -> None:
    listed = gcp_catalog.price_list(by_first_words, slug)

    unknown = next(p for p in listed.problems if p.field == "description")
    # Of twenty, ten are priced; an eleventh is the preview of one of them.
    assert unknown.severity == "warning" and unknown.rows == 9 and listed.frame.height == 10
    assert not listed.frame.filter(pl.col("model").str.contains("vector|provisioned")).height


def test_a_page_that_changes_under_the_reader_doubles_nothing(google: Google) -> None:
    before = gcp_catalog.price_list(by_first_words, slug).frame

    def moved() -> None:
        skus = google.skus[VERTEX]
        skus.insert(0, skus[-1])  # what was the last page's is now the first's, and all others move back by one

    google.between_pages = moved
    assert gcp_catalog.price_list(by_first_words, slug).frame.equals(before)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_waited_out(google: Google, status: int) -> None:
    before = gcp_catalog.price_list(by_first_words, slug).frame
    fault = refusal(status, "busy", "try again")
    google.faults = [("/v1/services", fault), ("/skus", fault)]

    assert gcp_catalog.price_list(by_first_words, slug).frame.equals(before) and not google.faults


def test_lasting_faults_and_refusals_change_nothing(google: Google, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRY_SECONDS", 0.05)
    busy: list[tuple[str, tuple[int, Row]]] = [("/skus", refusal(503, "busy", "The service is unavailable"))]
    google.always = busy
    with pytest.raises(StoreUnreachable, match=r"503 .*The service is unavailable"):
        gcp_catalog.price_list(by_first_words, slug)

    google.always = [("/v1/services", refusal(403, "forbidden", "Cloud Billing API has not been used in project 1 before"))]
    done = run(home, "prices", "import", "--from", "gcp")
    assert done.exit_code == 1 and "enable the Cloud Billing API" in done.stderr
    with Books.open(home) as books:
        assert not books.store.scan(PRICES).collect().height


def test_a_catalog_without_models_is_refused(google: Google) -> None:
    google.services = google.services[:1]
    with pytest.raises(ObjectMissingError, match="no service that sells models"):
        gcp_catalog.price_list(by_first_words, slug)


def test_only_services_that_sell_models_are_asked(google: Google) -> None:
    gcp_catalog.price_list(by_first_words, slug)

    asked = {path.split("/")[3] for _, path in google.asked if path.endswith("/skus")}
    assert asked == {"C7E2-9256-1C43", "AEFD-7695-64FA", "9999-AAAA-0001"}
