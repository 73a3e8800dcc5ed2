"""Google's Cloud Billing APIs: which account pays for which project, and the catalog of list prices.

The catalog describes SKUs in words (`Gemini 2.5 Flash GA Text Input - Predictions`) and prices it in units and nanos of a currency,
in tiers of monthly use. Descriptions are classified by the same rules as bills; the caller passes the classifier (`Classify`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from ingest.google import client as google_client
from ingest.prices.updates import PriceList
from ledger.errors import ObjectMissingError
from ledger.money import RATE, unit_rate
from ledger.problems import Problem
from ledger.tables import METERS, PRICES

WHERE = "cloudbilling.googleapis.com"
BOOK = "gcp-catalog"
_READ_ACCOUNTS = "grant the account roles/billing.viewer on the billing account, or on the organisation"
_READ_CATALOG = "enable the Cloud Billing API in the project of the credentials; the catalog itself is public"
_SELLERS = re.compile(r"vertex ai|gemini|generative language|agent platform|claude|anthropic", re.IGNORECASE)
"""Services that sell models, by their display names."""
_GLOBAL = re.compile(r"\bglobal\b", re.IGNORECASE)
_GENERAL = re.compile(r"\bGA\b", re.IGNORECASE)
_MAX_EXAMPLES = 3


class SkuMeaning(NamedTuple):
    """The classification of a SKU; one unit of it is `factor` units of the meter. None: unclassified, or not of a model."""

    model: str | None
    meter: str | None
    service_tier: str = "standard"
    context_above: int = 0
    factor: Decimal | None = None


Classify = Callable[[str, str, str], SkuMeaning]
"""Service, SKU and unit, as the catalog writes them."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project and the account that pays for it; an account without projects has one row without any."""

    billing_account: str
    account_name: str
    currency: str
    account_open: bool
    project: str | None
    billing_enabled: bool


@dataclass(frozen=True, slots=True)
class Sku:
    """One SKU's list price in force for one `unit`, and which of its features the price book cannot represent."""

    service: str
    sku_id: str
    description: str
    regions: tuple[str, ...]
    unit: str
    price: Decimal
    currency: str
    tiers: int


def projects() -> list[Project]:
    """All billing accounts the credentials can see, and their projects, sorted by name."""
    from google.cloud import billing_v1

    rows = []
    with google_client.translate_errors(WHERE, _READ_ACCOUNTS):
        client = billing_v1.CloudBillingClient(**_connection())
        for account in client.list_billing_accounts(retry=google_client.retry()):
            paid = list(client.list_project_billing_info(name=account.name, retry=google_client.retry()))
            about = (_last_part(account.name), account.display_name, account.currency_code, account.open_)
            rows += [Project(*about, info.project_id, info.billing_enabled) for info in paid] or [Project(*about, None, False)]
    return sorted(dict.fromkeys(rows), key=lambda row: (row.billing_account, row.project or ""))


def price_list(classify: Classify, spell: Callable[[str], str], *, currency: str = "USD") -> PriceList:
    """The current list prices of models in the catalog. `spell` maps a model to the name that logs and other lists use.

    The catalog does not state since when a price has been valid: rates are undated. Raises `ObjectMissingError` where the
    catalog lists no service that sells models.
    """
    rows, unknown_skus, tiered_skus = list[dict[str, Any]](), list[str](), list[str]()
    for sku in skus(currency):
        meaning = classify(sku.service, sku.description, sku.unit)
        if meaning.meter not in METERS or not meaning.model or not meaning.factor:
            unknown_skus.append(sku.description)
            continue
        if sku.tiers > 1:
            tiered_skus.append(sku.description)
        rows.append(
            {
                "provider": "gemini" if re.search("gemini|generative", sku.service, re.IGNORECASE) else "vertex_ai",
                "model": spell(meaning.model),
                "meter": meaning.meter,
                "service_tier": meaning.service_tier,
                "context_above": meaning.context_above,
                "currency": sku.currency,
                "rate": unit_rate(sku.price, meaning.factor),
                "description": sku.description,
                "regions": list(sku.regions),
            }
        )
    frame = _with_regions(pl.DataFrame(rows, schema=_READ))
    csv_text = frame.sort(PRICES.key[1:-1]).write_csv() if frame.height else ""
    book = f"{BOOK} sha256:{hashlib.sha256(csv_text.encode()).hexdigest()[:16]}"
    columns = {"origin": pl.lit("list"), "book": pl.lit(book)}
    return PriceList(book, "list", WHERE, frame.with_columns(**columns), tuple(_report(unknown_skus, tiered_skus)))


def skus(currency: str = "USD") -> Iterator[Sku]:
    """The SKUs of services that sell models, each once, even if the catalog changes between two pages."""
    from google.cloud import billing_v1

    with google_client.translate_errors(WHERE, _READ_CATALOG):
        client = billing_v1.CloudCatalogClient(**_connection())
        services = {s.name: s.display_name for s in client.list_services(retry=google_client.retry())}
        sellers = {name: display_name for name, display_name in services.items() if _SELLERS.search(display_name)}
        if not sellers:
            raise ObjectMissingError("the catalog lists no service that sells models", where=WHERE, remedy="check the endpoint")
        sku_names: set[str] = set()
        for name, display_name in sorted(sellers.items()):
            request = billing_v1.ListSkusRequest(parent=name, currency_code=currency)
            for sku in client.list_skus(request=request, retry=google_client.retry()):
                if sku.name not in sku_names and sku.pricing_info:
                    sku_names.add(sku.name)
                    yield _sku(display_name, sku)


def _sku(service: str, sku: Any) -> Sku:
    """The newest price of the timeline. Of volume tiers the first that is not free: the price book has no volume tiers, and a free
    allowance belongs to the account, not to a call.
    """
    expression = sku.pricing_info[-1].pricing_expression
    tiers = [(_money(rate.unit_price), str(rate.unit_price.currency_code)) for rate in expression.tiered_rates]
    paid = [(price, currency) for price, currency in tiers if price] or tiers or [(Decimal(0), "USD")]
    return Sku(
        service=service,
        sku_id=str(sku.sku_id),
        description=" ".join(str(sku.description).split()),
        regions=tuple(sorted(sku.service_regions)),
        unit=str(expression.usage_unit),
        price=paid[0][0],
        currency=paid[0][1],
        tiers=len({price for price, _ in tiers}),
    )


def _money(amount: Any) -> Decimal:
    """Whole units and billionths, both of the same sign, as one amount.

    >>> from types import SimpleNamespace
    >>> _money(SimpleNamespace(units=0, nanos=300)), _money(SimpleNamespace(units=-1, nanos=-750000000))
    (Decimal('3.00E-7'), Decimal('-1.750000000'))
    """
    return Decimal(int(amount.units)) + Decimal(int(amount.nanos)).scaleb(-9)


_READ = {
    **{name: PRICES.schema[name] for name in ("provider", "model", "meter", "service_tier", "context_above", "currency")},
    "rate": RATE,
    "description": pl.String,
    "regions": pl.List(pl.String),
}
_RATE_KEY = ["provider", "model", "meter", "service_tier", "context_above"]


def _with_regions(rates: pl.DataFrame) -> pl.DataFrame:
    """Rates with their region; of a model's preview and general release the general release.

    A rate that is equal everywhere has no region. A SKU named Global is for the global endpoint, the one without that word for all
    other regions.
    """
    general, everywhere = pl.col("description").str.contains(_insensitive(_GENERAL)), pl.col("regions").list.len() == 0
    priced_rates = rates.with_columns(
        __global=pl.col("description").str.contains(_insensitive(_GLOBAL)), __general=general, __preview=~general
    ).filter(pl.col("__general") | ~pl.col("__general").any().over(_RATE_KEY))
    has_global = pl.col("__global").any().over(_RATE_KEY)
    somewhere = pl.when(everywhere | (pl.col("regions") == ["global"])).then(pl.lit([""])).otherwise("regions")
    priced_rates = (
        priced_rates.with_columns(
            region=pl.when("__global").then(pl.lit(["global"])).when(has_global).then(pl.lit(["regional"])).otherwise(somewhere)
        )
        .explode("region")
        .with_columns(__alike=(pl.col("rate").n_unique() == 1).over(_RATE_KEY))
        .with_columns(region=pl.when("__alike").then(pl.lit("")).otherwise("region"))
    )
    columns = [*_RATE_KEY, "region", "currency", "rate"]
    return priced_rates.select(columns).unique(maintain_order=True).sort(columns)


def _insensitive(pattern: re.Pattern[str]) -> str:
    return f"(?i){pattern.pattern}"


def _report(unknown_skus: Sequence[str], tiered_skus: Sequence[str]) -> Iterator[Problem]:
    if unknown_skus:
        reason = f"SKUs whose description names no model and meter were left out, such as {_examples(unknown_skus)}"
        remedy = "nothing to do for storage and machines; for a model, write a rule in attribution.skus, or a rate table"
        yield Problem("prices", WHERE, f"{len(unknown_skus)} SKUs", "description", reason, remedy, len(unknown_skus), "warning")
    if tiered_skus:
        reason = f"rates depend on the month's volume; the first that is not free was imported: {_examples(tiered_skus)}"
        remedy = "import your own rate as a contract, if it differs"
        yield Problem("prices", WHERE, f"{len(tiered_skus)} SKUs", "tieredRates", reason, remedy, len(tiered_skus), "warning")


def _examples(names: Sequence[str]) -> str:
    return "; ".join(repr(name) for name in sorted(set(names))[:_MAX_EXAMPLES])


def _connection() -> dict[str, Any]:
    """The REST client, at Google's endpoint or at gcloud's endpoint override."""
    return {
        "transport": "rest",
        **google_client.options(os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING", "").rstrip("/")),
    }


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1]
