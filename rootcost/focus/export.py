"""Allocated costs as FOCUS Cost and Usage: a row for each charge and recipient, in place of the charge. (docs/focus.md)"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from api.formats import as_text
from ledger.closing.documents import documents_of
from ledger.errors import UsageError
from ledger.locations import fixed, location
from ledger.money import text
from ledger.period_tables import AccountingPeriod
from ledger.periods import month_end, month_start
from ledger.published import published_months
from ledger.version import product_version
from rootcost.focus.columns import Version, columns
from rootcost.focus.parts import PartsQuery, month_parts
from rootcost.focus.validator import Report, validate

if TYPE_CHECKING:
    from ledger.books import Books

FileFormat = Literal["parquet", "csv"]
_METHODS: Final = {name: f"rootcost-{name}-1" for name in ("metered", "owner", "shared", "idle", "unallocated")}
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_NOT_KEPT: Final = (
    "AvailabilityZone", "BillingAccountType", "SubAccountType", "RegionName", "ServiceSubcategory", "SkuPriceDetails", "CapacityReservationId",
    "CapacityReservationStatus", "CommitmentDiscountCategory", "CommitmentDiscountName", "CommitmentDiscountType", "CommitmentDiscountQuantity",
    "CommitmentDiscountUnit", "PricingCurrency", "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
    "ContractApplied", "InvoiceDetailId", "CommitmentProgramEligibilityDetails",
)  # fmt: skip
"""Columns of a bill that the ledger does not keep: they are in no export."""
_COPIES: Final = {
    "BillingAccountId": "billing_account_id", "BillingAccountName": "billing_account_name", "BillingCurrency": "billing_currency",
    "ChargeCategory": "charge_category", "ChargeClass": "charge_class", "ChargeDescription": "charge_description",
    "CommitmentDiscountId": "commitment_discount_id", "ContractedUnitPrice": "contracted_unit_price", "InvoiceId": "invoice_id",
    "ListUnitPrice": "list_unit_price", "RegionId": "region_id", "ResourceId": "resource_id", "ResourceName": "resource_name", "ResourceType": "resource_type",
    "SkuId": "sku_id", "SkuMeter": "sku_meter", "SkuPriceId": "sku_price_id", "SubAccountId": "sub_account_id", "SubAccountName": "sub_account_name",
    "Tags": "tags",
}  # fmt: skip
_FOLLOWERS: Final = (("SubAccountName", "SubAccountId"), ("ResourceName", "ResourceId"), ("ResourceType", "ResourceId"))


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """What is exported: a month in a version of FOCUS, in which format and by whom."""

    month: str
    version: Version
    parts: PartsQuery = field(default_factory=PartsQuery)
    file_format: FileFormat = "parquet"


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: the manifest, and what our own check says of the file."""

    manifest: dict[str, Any]
    report: Report


def export(books: Books, query: ExportQuery, target: str) -> Export:
    """Writes the data, Billing Period, schema and manifest to a folder or ``s3://bucket/prefix``.

    A closed month is exported from the run of its newest document, any other one from its published run. The same ledger and version give the same
    bytes. Raises `UsageError` for a month without a run.
    """
    run_id, made_at, is_closed = _run(books, query.month)
    parts = month_parts(books, query.month, run_id, query.parts)
    frame = focus_frame(parts, query)
    name = f"costs-{query.month}.{query.file_format}"
    content = _content(frame, query.file_format)
    report = _checked(content, name, query.version)
    files = {
        name: content,
        f"billing-periods-{query.month}.csv": _billing_periods(frame, query.month, made_at, is_closed=is_closed),
        "metadata/schema.json": _as_json(_schema(frame, query.version, made_at)),
    }
    manifest = {
        "generator": f"RootCost {product_version()}",
        "query": asdict(query),
        "run": run_id,
        "state": "closed" if is_closed else "open",
        "made_at": made_at.strftime(_TIME),
        "rows": frame.height,
        "charges": frame["x_ChargeId"].n_unique(),
        "totals": _totals(frame),
        "valid": report.is_valid,
        "not_kept": [column for column in _NOT_KEPT if column in columns(query.version)],
        "files": {path: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for path, data in sorted(files.items())},
    }
    files["manifest.json"] = _as_json(manifest)
    place = location(target, books.settings.store.options)
    for path, data in files.items():
        place.write(fixed(path), [data])
    place.sync()
    return Export(manifest, report)


def focus_frame(parts: pl.DataFrame, query: ExportQuery) -> pl.DataFrame:
    """Parts of charges in the columns of the version, in alphabetical order, then our own."""
    month_edges = {"BillingPeriodStart": month_start(query.month), "BillingPeriodEnd": month_end(query.month)}
    provider = pl.col("provider_name")
    has_quantity = {unit: pl.col(unit).is_not_null() & pl.col(quantity).is_not_null() for unit, quantity in
                    (("pricing_unit", "pricing_quantity"), ("consumed_unit", "consumed_quantity"))}  # fmt: skip
    cost = pl.coalesce("billed_cost", "effective_cost")
    values = {
        **{name: pl.col(column) for name, column in _COPIES.items()},
        "ChargeFrequency": pl.col("charge_frequency").fill_null(
            pl.when(pl.col("charge_category") == "Usage").then(pl.lit("Usage-Based")).otherwise(pl.lit("One-Time"))
        ),
        **{name: pl.lit(edge).dt.strftime(_TIME) for name, edge in month_edges.items()},
        "ChargePeriodStart": pl.col("charge_period_start").dt.strftime(_TIME),
        "ChargePeriodEnd": pl.col("charge_period_end").dt.strftime(_TIME),
        "BilledCost": pl.col("billed_cost"),
        "EffectiveCost": pl.coalesce("effective_cost", "billed_cost"),
        "ListCost": pl.coalesce("list_cost", "contracted_cost", cost),
        "ContractedCost": pl.coalesce("contracted_cost", cost),
        "PricingQuantity": pl.when(has_quantity["pricing_unit"]).then("pricing_quantity"),
        "PricingUnit": pl.when(has_quantity["pricing_unit"]).then("pricing_unit"),
        "ConsumedQuantity": pl.when(has_quantity["consumed_unit"]).then("consumed_quantity"),
        "ConsumedUnit": pl.when(has_quantity["consumed_unit"]).then("consumed_unit"),
        "PricingCategory": pl.when(pl.col("charge_category") != "Tax").then("pricing_category"),
        "CommitmentDiscountStatus": pl.when(pl.col("commitment_discount_id").is_not_null()).then("commitment_discount_status"),
        "ServiceCategory": pl.col("service_category").fill_null("Other"),
        "ServiceName": pl.coalesce("service_name", "product_code", "provider_name"),
        **dict.fromkeys(("ProviderName", "ServiceProviderName", "HostProviderName"), provider),
        "PublisherName": pl.coalesce("publisher_name", provider),
        "InvoiceIssuerName": pl.coalesce("invoice_issuer_name", provider),
    }
    beneficiary = pl.when(pl.col("cost_class") != "unallocated").then(pl.coalesce("agent", "team"))
    split = {
        "AllocatedMethodId": pl.col("cost_class").replace_strict(_METHODS),
        "AllocatedMethodDetails": pl.struct("ratio", "rule").map_elements(_details, return_dtype=pl.String),
        "AllocatedResourceId": beneficiary,
        "AllocatedResourceName": beneficiary,
        "AllocatedTags": pl.struct("agent", "team").map_elements(_tags, return_dtype=pl.String),
    }
    spec = columns(query.version)
    own = {} if "AllocatedMethodId" in spec else {f"x_{name}": value for name, value in split.items()}
    standard = {name: value for name, value in (values | split).items() if name in spec}
    frame = parts.select(*(standard[name].alias(name) for name in sorted(standard)), *(value.alias(name) for name, value in own.items()),
                         pl.col("charge_id").alias("x_ChargeId"))  # fmt: skip
    followers = [pl.when(pl.col(leader).is_not_null()).then(name).alias(name) for name, leader in _FOLLOWERS]
    is_empty = [
        name
        for name in frame.columns
        if name in spec and not spec[name].is_mandatory and frame[name].null_count() == frame.height
    ]
    return frame.with_columns(followers).drop([name for name in is_empty if not name.startswith("Allocated")])


def _details(row: dict[str, Any]) -> str:
    """AllocatedMethodDetails, with the ratio in all its digits: a float would not sum to 1."""
    rule = f', "x_Rule": {json.dumps(row["rule"], ensure_ascii=False)}' if row["rule"] else ""
    return f'{{"Elements": [{{"AllocatedRatio": {text(row["ratio"])}{rule}}}]}}'


def _tags(row: dict[str, Any]) -> str:
    return json.dumps({f"rootcost/{name}": value for name, value in sorted(row.items()) if value}, ensure_ascii=False)


def _run(books: Books, month: str) -> tuple[str, datetime, bool]:
    month_start(month)
    with books.database.session() as session:
        period = session.get(AccountingPeriod, month)
        documents = documents_of(session, month)
    if period is not None and period.closed_at is not None and documents:
        return documents[-1].run_id, documents[-1].made_at, True
    in_force = next((one for one in published_months(books.database) if one.month == month), None)
    if in_force is None:
        raise UsageError(
            f"{month} is not published", where="--month", remedy="rootcost periods list has the months; rootcost attribute"
        )
    return in_force.run_id, in_force.published_at, False


def _content(frame: pl.DataFrame, file_format: FileFormat) -> bytes:
    sink = io.BytesIO()
    if file_format == "csv":
        as_text(frame).write_csv(sink)
    else:
        frame.write_parquet(sink, compression="zstd")
    return sink.getvalue()


def _checked(content: bytes, name: str, version: Version) -> Report:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        report = validate(path, version)
    report.file = name
    return report


def _billing_periods(frame: pl.DataFrame, month: str, made_at: datetime, *, is_closed: bool) -> bytes:
    """The dataset Billing Period: whether the month is open or closed, for each issuer."""
    issuers = sorted(frame["InvoiceIssuerName"].unique().to_list())
    edges = {"BillingPeriodStart": month_start(month).strftime(_TIME), "BillingPeriodEnd": month_end(month).strftime(_TIME)}
    times = {"BillingPeriodCreated": edges["BillingPeriodStart"], "BillingPeriodLastUpdated": made_at.strftime(_TIME)}
    status = {"BillingPeriodStatus": "Closed" if is_closed else "Open"}
    rows = [dict(sorted({**edges, **times, **status, "InvoiceIssuerName": issuer}.items())) for issuer in issuers]
    return pl.DataFrame(rows).write_csv().encode()


def _schema(frame: pl.DataFrame, version: Version, made_at: datetime) -> dict[str, Any]:
    spec = columns(version)
    definitions = [
        {"ColumnName": name, "DataType": spec[name].type if name in spec else "String"}
        | ({"NumericPrecision": dtype.precision, "NumberScale": dtype.scale} if isinstance(dtype, pl.Decimal) else {})
        for name, dtype in frame.schema.items()
    ]
    identity = hashlib.sha256(json.dumps([version, definitions]).encode()).hexdigest()[:16]
    return {
        "SchemaId": identity,
        "FocusVersion": version,
        "CreationDate": made_at.strftime(_TIME),
        "DataGenerator": "RootCost",
        "DataGeneratorVersion": product_version(),
        "ColumnDefinition": definitions,
    }


def _totals(frame: pl.DataFrame) -> dict[str, dict[str, str | None]]:
    names: Sequence[str] = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
    sums = frame.group_by("BillingCurrency").agg(pl.col(names).sum()).sort("BillingCurrency")
    return {row["BillingCurrency"]: {name: text(Decimal(row[name])) for name in names} for row in sums.iter_rows(named=True)}


def _as_json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
