"""Taxes follow the taxed charges of their invoice, whatever service or account their rows name (RA-5). Dollars worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ingest.run import ingest
from ledger.books import Books
from ledger.tables import BALANCE
from tests.attribution.test_rules import OWNERS, call, rows, total
from tests.support.books_by_hand import charge, charges, spans, write
from tests.support.cases import book_case
from tests.support.paths import DATA

D = Decimal
OCTOBER = {
    "charge_period_start": datetime(2026, 10, 1, tzinfo=UTC),
    "charge_period_end": datetime(2026, 11, 1, tzinfo=UTC),
}


def tax(cost: str, **columns: Any) -> dict[str, Any]:
    whole_invoice = {"sub_account_id": None, "region_id": None, "sku_meter": None, "consumed_unit": None, "invoice_id": "inv-1"}
    return charge(cost, **{**whole_invoice, "charge_category": "Tax", "service_name": "Tax", **OCTOBER, **columns})


def of_team(name: str, cost: str, **columns: Any) -> dict[str, Any]:
    """Storage that a tag gives to a team."""
    return charge(
        cost,
        service_name="Amazon S3",
        sku_meter="Disk",
        consumed_unit="GB-Mo",
        **{"invoice_id": "inv-1", "tags": f'{{"user_team":"{name}"}}', **columns},
    )


def balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


def test_a_tax_row_with_a_service_of_its_own_follows_its_invoice(books: Books) -> None:
    book_case(books, "tax-of-its-own-service", ("otlp", "spans.json"), ("focus", "bill.csv"))
    assert total(books, "initiator_team", charge_category="Tax") == {"X": D("0.30"), "Y": D("0.90")}
    assert balanced(books)


@pytest.mark.slow
def test_a_second_tax_row_without_service_changes_nothing_of_the_first(books: Books) -> None:
    book_case(books, "tax-of-its-own-service", ("otlp", "spans.json"), ("focus", "bill-and-tax-without-service.csv"))
    assert total(books, "initiator_team", charge_category="Tax") == {"X": D("0.3025"), "Y": D("0.9075")}


@pytest.mark.slow
@pytest.mark.parametrize("other_files", [(), (("otlp", "spans.json"), ("focus", "bill-and-tax-without-service.csv"))])
def test_google_taxes_follow_google_charges_with_or_without_another_bill(
    books: Books, other_files: tuple[tuple[str, str], ...]
) -> None:
    book_case(books, "tax-of-its-own-service", ("otlp", "google-spans.json"), ("gcp", "google.jsonl"), *other_files)
    shares = total(books, "initiator_team", charge_category="Tax", provider="Google Cloud")
    assert shares == {"X": D("0.125"), "Y": D("0.375")}


def test_a_tax_without_account_is_on_all_charges_of_its_invoice(books: Books) -> None:
    """Not only on the support fee, which has no account either."""
    book_case(books, "tax-without-account", ("otlp", "spans.json"), ("focus", "bill.csv"))
    assert total(books, "initiator_team", charge_category="Tax") == {"X": D("0.09"), "Y": D("0.27"), None: D("0.84")}


@pytest.mark.slow
def test_the_tax_of_googles_export_finds_its_charges(books: Books) -> None:
    """`tests/data/gcp`: 5.19 of service "Invoice" on a month of 19.15 of usage and fees, whose credits are taken off first."""
    ingest(books, "gcp", [str(DATA / "gcp" / "export.jsonl")])
    attribute(books)
    assert total(books, "charge_category", reason="tax_without_charge") == {}
    assert sum(total(books, "initiator_team", charge_category="Tax").values()) == D("5.19")
    assert "tax" in {reason for (reason,) in rows(books, "reason", charge_category="Tax")}
    assert balanced(books)


@pytest.mark.slow
def test_the_most_specific_charges_are_taxed(books: Books) -> None:
    """Storage of Growth in 1111 at 4, tokens of coder in 1111 at 6, storage of Care in 2222 at 10."""
    facts = spans(call(1, 1, None, 2000, agent_name="coder", account_id="1111", region="us-east-1"))
    bill = [
        of_team("Growth", "4"),
        charge("6", tokens_k="2", invoice_id="inv-1"),
        of_team("Care", "10", sub_account_id="2222"),
        of_team("Ops", "80", invoice_id="inv-2"),
    ]
    taxes = [
        tax("0.4", sub_account_id="1111", service_name="Amazon S3"),
        tax("1", sub_account_id="1111", tags='{"n":"account"}'),
        tax("0.07", service_name="Amazon S3", tags='{"n":"service"}'),
        tax("2", sub_account_id="3333", tags='{"n":"account that no charge has"}'),
        tax("0.005", invoice_id="inv-unknown", service_name=None),
        tax("0.0001", invoice_id=None, service_name="Amazon Bedrock"),
    ]
    write(books, spans=facts, charges=charges(*bill, *taxes), owners=OWNERS)
    attribute(books)
    by_team = total(books, "initiator_team", charge_category="Tax")
    assert by_team == {
        "Growth": D("0.4") + D("0.4") + D("0.02") + D("0.4") + D("0.0002"),
        "Dev": D("0.6") + D("0.6") + D("0.0003") + D("0.0001"),
        "Care": D("0.05") + D("1") + D("0.0005"),
        "Ops": D("0.004"),
    }
    assert balanced(books)


def test_taxes_do_not_follow_taxes(books: Books) -> None:
    """A bill of taxes that name each other's service, account and invoice has no taxed charge; neither has next month's on the same invoice."""
    november = {"billing_month": "2026-11", "charge_period_start": OCTOBER["charge_period_end"]}
    november["charge_period_end"] = datetime(2026, 12, 1, tzinfo=UTC)
    bill = [
        tax("3", sub_account_id="1111", tags='{"user_team":"Growth"}'),
        tax("2", sub_account_id="1111"),
        tax("1", **november),
        tax("-0.5", billing_month="2026-11", charge_class="Correction"),
    ]
    write(books, charges=charges(*bill), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_team", month="2026-10") == {"Growth": D("3"), None: D("2")}
    assert total(books, "reason", month="2026-11") == {"tax_without_charge": D("0.5")}
    assert balanced(books)


def test_a_tax_stays_with_its_payer_and_one_without_payer_is_on_all(books: Books) -> None:
    bill = [
        of_team("Growth", "1"),
        of_team("Care", "3", billing_account_id="8888"),
        tax("0.8"),
        tax("0.4", billing_account_id=None),
        tax("0.1", billing_account_id="7777"),
    ]
    write(books, charges=charges(*bill))
    attribute(books)
    assert total(books, "initiator_team", charge_category="Tax") == {"Growth": D("0.9"), "Care": D("0.3"), None: D("0.1")}
    assert balanced(books)


def test_a_past_tax_with_a_service_of_its_own_follows_the_past_month(books: Books) -> None:
    """Google corrects October's tax on November's invoice: Growth's October pays, not Care's November."""
    bill = [
        of_team("Growth", "1", invoice_id=None),
        of_team(
            "Care",
            "9",
            invoice_id=None,
            billing_month="2026-11",
            charge_period_start=datetime(2026, 11, 5, tzinfo=UTC),
            charge_period_end=datetime(2026, 11, 6, tzinfo=UTC),
        ),
        tax("0.2", invoice_id=None, service_name="Invoice", billing_month="2026-11"),
    ]
    write(books, charges=charges(*bill))
    attribute(books)
    assert total(books, "initiator_team", charge_category="Tax") == {"Growth": D("0.2")}
