"""The rows of an Azure cost export, in FOCUS terms.

An export has one view of cost. *Actual* cost is what is invoiced: a reservation is one purchase, and what it covers costs nothing.
*Amortised* cost spreads the purchase over what it covers, and over what was left unused. Together they are FOCUS' billed and effective
cost; a row is never both. `View` says which of the two a file is, and whether the other one is read beside it.

| view | billed | effective | list, contracted, quantities |
|---|---|---|---|
| actual, alone | cost | cost | as exported |
| amortised, alone | cost | cost | as exported |
| actual, beside amortised | cost | 0 | with the amortised row |
| amortised, beside actual | 0 | cost | as exported |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import polars as pl

from ingest.bills import charges, reader
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import RawObject, Reading
from ingest.sources.azure import columns
from ingest.sources.azure.columns import Layout
from ledger.errors import FormatError
from ledger.money import MONEY, RATE
from ledger.plurals import counted


class View(StrEnum):
    """The view of cost in a file's cost column."""

    ACTUAL = "actual"
    AMORTISED = "amortised"
    BILLED = "billed"
    """Actual cost, with an amortised export of the same month."""
    EFFECTIVE = "effective"
    """Amortised cost, with an actual export of the same month."""


_CATEGORIES = {
    "usage": "Usage",
    "purchase": "Purchase",
    "unusedreservation": "Usage",
    "unusedsavingsplan": "Usage",
    "refund": "Credit",
    "credit": "Credit",
    "adjustment": "Adjustment",
    "roundingadjustment": "Adjustment",
    "tax": "Tax",
}
_UNUSED = ("unusedreservation", "unusedsavingsplan")
_COMMITTED = ("reservation", "savingsplan")
_FREQUENCIES = {"usagebased": "Usage-Based", "onetime": "One-Time", "recurring": "Recurring"}
_PRICING = {"ondemand": "Standard", "spot": "Dynamic", "reservation": "Committed", "savingsplan": "Committed"}
_ACCOUNT = re.compile(r"(.*?/providers/microsoft\.cognitiveservices/accounts/[^/]+)")
"""Models are billed by account: the parts of a resource id below it (project, deployment) are dropped."""


def read(source: str, item: RawObject) -> Iterator[Reading]:
    """The rows of one file in Azure's own columns, in bounded batches; rows that cannot be booked are problems."""
    view = View(item.view or View.ACTUAL)
    counter = ProblemCounter(source, item.uri)
    layouts: list[Layout] = []
    row_count = committed_rows = 0

    def choose(header: list[str]) -> ColumnSelection:
        layouts.append(columns.layout(header, location=item.uri))
        return layouts[0].selection

    for part in reader.batches(item, choose, counter):
        row_count += part.rows.height
        renamed = _rename_columns(part, layouts[0])
        _refuse_mixture(renamed, view, item)
        committed_rows += int(renamed.expand(pl.col("pricing_model").is_in(_COMMITTED)).sum())
        charge_batch = charges.to_charges(_book(renamed, layouts[0], view, counter))
        yield Reading(charge_batch.rows, counter.drain(), charge_batch.dimensions)
    check_row_count(item, row_count)
    _report_view(view, committed_rows, row_count, counter)
    yield charges.last_reading(counter)


def check_row_count(item: RawObject, row_count: int) -> None:
    """Raises `FormatError` where the number of rows differs from the manifest."""
    if item.rows is not None and item.rows != row_count:
        raise FormatError(
            f"the file holds {counted(row_count, 'row')}, and its manifest says {item.rows}",
            where=item.uri,
            remedy="wait for the next run, or run the export again; the month was left as it was",
        )


def _refuse_mixture(batch: BillBatch, view: View, item: RawObject) -> None:
    """Raises `FormatError` where a file read as actual cost has unused commitments, which only amortised exports contain."""
    if view in (View.ACTUAL, View.BILLED) and batch.dimensions["charge_type"].is_in(_UNUSED).any():
        raise FormatError(
            "this is an export of amortised cost (it holds unused commitments), read as actual cost",
            where=item.uri,
            remedy="name the export's folder with its manifests, or keep 'amortized' in the name of the file",
        )


def _report_view(view: View, committed_rows: int, rows: int, counter: ProblemCounter) -> None:
    if view == View.ACTUAL and committed_rows:
        counter.add_summed(
            "PricingModel",
            "actual cost leaves reservations and savings plans on their purchase; effective cost is as billed",
            "export amortised cost beside it, or FOCUS instead of both",
            committed_rows,
        )
    if view == View.AMORTISED and rows:
        counter.add_summed(
            "Cost",
            "amortised cost is not what is invoiced; billed cost is taken as amortised",
            "export actual cost beside it, or FOCUS instead of both",
            rows,
        )


def _rename_columns(part: BillBatch, layout: Layout) -> BillBatch:
    """The export's columns under canonical names, as text except for times; absent columns are null."""
    measures = [_text(part.rows, layout, name).alias(name) for name in columns.MEASURES]
    dimensions = part.dimensions.select(_text(part.dimensions, layout, name).alias(name) for name in columns.DIMENSIONS)
    enums = [_letters(pl.col(name)).alias(name) for name in ("frequency", "pricing_model", "publisher_type")]
    dimensions = dimensions.with_columns(*enums, charge_type=_letters(pl.col("charge_type")).fill_null("usage"))
    return BillBatch(part.rows.select(DIMENSIONS_ROW, "__row", "__line", *measures), dimensions)


def _text(frame: pl.DataFrame, layout: Layout, name: str) -> pl.Expr:
    spelt = layout.headers.get(name)
    if spelt is None:
        return pl.lit(None, dtype=pl.String)
    if frame.schema[spelt].is_temporal():
        return pl.col(spelt).dt.strftime("%Y-%m-%d")
    text = pl.col(spelt).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def _letters(column: pl.Expr) -> pl.Expr:
    """Normalises spellings: ``Usage-Based`` and ``UsageBased`` are equal."""
    return column.str.to_lowercase().str.replace_all(r"[^a-z]", "")


def _book(batch: BillBatch, layout: Layout, view: View, counter: ProblemCounter) -> BillBatch:
    batch = _with_dimensions(batch, counter)
    batch = _with_measures(batch, view)
    names = {
        "billed_cost": layout.headers["cost"],
        "effective_cost": layout.headers["cost"],
        "contracted_cost": layout.headers["cost"],
        "billing_currency": layout.headers["billing_currency"],
        "charge_period_start": layout.headers["date"],
        "charge_period_end": layout.headers["date"],
        "billing_period_start": layout.headers.get("billing_start", layout.headers["date"]),
    }
    batch = charges.parse_types(batch)
    batch = _with_products(batch, view)
    batch = charges.check_required(batch, names, counter)
    end = pl.col("charge_period_start").dt.offset_by("1d")
    return BillBatch(batch.rows.with_columns(charge_period_end=end), batch.dimensions)


def _with_dimensions(batch: BillBatch, counter: ProblemCounter) -> BillBatch:
    """Dimensions in FOCUS terms."""
    dimensions = batch.dimensions
    unknown = ~pl.col("charge_type").is_in(sorted(_CATEGORIES))
    if dimensions.select(unknown.any()).item():
        strange = batch.filter(batch.expand(unknown))
        reason = "is an unknown charge type; booked as an Adjustment"
        remedy = "report it, so that it gets its own category"
        kinds = strange.expand(pl.col("charge_type"))
        counter.add_rows(strange.rows["__line"], kinds, "ChargeType", reason, remedy, severity="warning")
    commitment = pl.coalesce("benefit_id", "reservation_id")
    is_unused = pl.col("charge_type").is_in(_UNUSED)
    same_currency = pl.col("pricing_currency").is_null() | (pl.col("pricing_currency") == pl.col("billing_currency"))
    tags, wrong = charges.canonical_tags(dimensions.select(_as_json_object(pl.col("tags")))["tags"])
    dimensions = dimensions.with_columns(
        provider_name=pl.lit("Microsoft"),
        publisher_name=pl.coalesce("publisher_name", pl.lit("Microsoft")),
        invoice_issuer_name=pl.lit("Microsoft"),
        billing_currency=pl.col("billing_currency").str.to_uppercase(),
        charge_category=pl.col("charge_type").replace_strict(_CATEGORIES, default="Adjustment", return_dtype=pl.String),
        charge_class=pl.when(pl.col("charge_type") == "refund").then(pl.lit("Correction")),
        charge_frequency=_mapped("frequency", _FREQUENCIES),
        pricing_category=_mapped("pricing_model", _PRICING),
        line_item_type=pl.col("charge_type"),
        commitment_discount_id=commitment,
        commitment_discount_status=pl.when(is_unused)
        .then(pl.lit("Unused"))
        .when(commitment.is_not_null() & (pl.col("charge_type") == "usage"))
        .then(pl.lit("Used")),
        sku_meter=pl.coalesce("sku_meter", "meter_subcategory", "service_name"),
        charge_description=pl.coalesce("charge_description", "meter_subcategory"),
        resource_id=_map_distinct("resource_id", _account),
        sub_account_id=pl.col("sub_account_id").str.to_lowercase(),
        region_id=_map_distinct("region_id", columns.region),
        list_unit_price=pl.when(same_currency).then("list_unit_price"),
        contracted_unit_price=pl.when(same_currency).then("paid_unit_price"),
        final=pl.lit(True),
        __rate=pl.when(same_currency).then(pl.lit("1")).otherwise("exchange_rate").cast(RATE, strict=False),
        __payg=pl.col("list_unit_price").cast(RATE, strict=False),
        tags=tags,
        __written_tags=pl.col("tags"),
    )
    charges.report_bad_tags(
        BillBatch(batch.rows, dimensions),
        wrong,
        "__written_tags",
        "Tags",
        "the row was kept without tags",
        "export it again",
        counter,
    )
    return BillBatch(batch.rows, _with_blocks(dimensions))


def _mapped(name: str, spellings: dict[str, str]) -> pl.Expr:
    return pl.col(name).replace_strict(spellings, default=None, return_dtype=pl.String)


def _map_distinct(name: str, rule: object) -> pl.Expr:
    """A function of text, evaluated once per distinct value."""
    assert callable(rule)

    def spell(column: pl.Series) -> pl.Series:
        distinct = column.unique().drop_nulls()
        results = pl.Series([rule(value) for value in distinct], dtype=pl.String)
        return column.replace_strict(distinct, results, default=None, return_dtype=pl.String)

    return pl.col(name).map_batches(spell, return_dtype=pl.String)


def _account(resource_id: str) -> str:
    """A resource id in lower case (Azure varies the case); parts of an account are replaced by the account.

    >>> _account("/subscriptions/A/resourceGroups/Rg/providers/Microsoft.CognitiveServices/accounts/Care/projects/p1")
    '/subscriptions/a/resourcegroups/rg/providers/microsoft.cognitiveservices/accounts/care'
    """
    lower = resource_id.lower()
    account = _ACCOUNT.match(lower)
    return account[1] if account else lower


def _as_json_object(column: pl.Expr) -> pl.Expr:
    """Parses tags, which are a JSON object with or without its braces."""
    return pl.when(column.str.starts_with("{")).then(column).otherwise(pl.lit("{") + column + pl.lit("}")).alias("tags")


def _with_blocks(dimensions: pl.DataFrame) -> pl.DataFrame:
    """Pricing units are blocks (``1K``, ``100 Hours``); consumed quantities are counted in the units they contain."""
    blocks = [
        columns.block(unit, meter) if unit else None for unit, meter in dimensions.select("pricing_unit", "sku_meter").iter_rows()
    ]
    return dimensions.with_columns(
        __block=pl.Series([block[0] if block else None for block in blocks], dtype=pl.Int64),
        consumed_unit=pl.Series([block[1] if block else None for block in blocks], dtype=pl.String),
    )


def _with_measures(batch: BillBatch, view: View) -> BillBatch:
    """Measures as text: costs by the view, and days."""
    zero = pl.lit("0")
    cost, nothing = pl.col("cost"), pl.when(pl.col("cost").is_not_null()).then(zero)
    days = {name: _days(batch.rows[name]) for name in ("date", "billing_start")}
    own = pl.DataFrame(days).select(
        day="date",
        # A billing period that begins within a month is that of a card's statement: its charges are of the month of their day.
        month=pl.when(pl.col("billing_start").str.ends_with("-01")).then("billing_start").otherwise("date"),
    )
    rows = batch.rows.with_columns(
        billed_cost=nothing if view == View.EFFECTIVE else cost,
        effective_cost=nothing if view == View.BILLED else cost,
        contracted_cost=None if view == View.BILLED else cost,
        pricing_quantity=zero if view == View.BILLED else pl.col("quantity"),
        charge_period_start=own["day"],
        charge_period_end=own["day"],
        billing_period_start=own["month"],
    )
    return BillBatch(rows.with_columns(pl.col("contracted_cost").cast(pl.String)), batch.dimensions)


def _days(column: pl.Series) -> pl.Series:
    distinct = column.unique().drop_nulls()
    iso_days = pl.Series([columns.iso_day(value) for value in distinct], dtype=pl.String)
    return column.replace_strict(distinct, iso_days, default=None, return_dtype=pl.String)


def _with_products(batch: BillBatch, view: View) -> BillBatch:
    """List cost at the pay-as-you-go price, and consumed quantities; both exact to twelve places.

    With an amortised export of the same month, actual rows have no quantity: the amortised row of the same usage has it.
    """
    quantity = pl.col("pricing_quantity")
    dimension_columns = batch.dimensions.select("__payg", "__rate", "__block")[batch.rows[DIMENSIONS_ROW]]
    rows = pl.concat([batch.rows, dimension_columns], how="horizontal")
    paygo_cost = pl.when(pl.col("__payg") > 0).then((quantity * pl.col("__payg") * pl.col("__rate")).cast(MONEY, strict=False))
    list_cost = pl.coalesce(pl.col("payg_cost").cast(MONEY, strict=False), paygo_cost)
    rows = rows.with_columns(
        list_cost=pl.lit(None, dtype=MONEY) if view == View.BILLED else list_cost,
        list_cost__text=pl.lit(None, dtype=pl.String),
        list_cost__written=pl.lit(None, dtype=pl.String),
        consumed_quantity=(quantity * pl.col("__block").cast(pl.Decimal(38, 0))).cast(MONEY, strict=False),
    )
    return BillBatch(
        rows.drop("__payg", "__rate", "__block"), batch.dimensions.drop("__payg", "__rate", "__block", "__written_tags")
    )
