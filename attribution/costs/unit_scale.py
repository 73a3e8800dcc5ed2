"""How many tokens one billed unit is, checked SKU by SKU: price times quantity must come near the charge. (RA-2)

A bill counts tokens by one, by thousand or by million, and says so in `unit`; Marketplace writes "Units" for any of them, and some bills
state the wrong one. The price book has the price of a token: only one of the three scales makes price × quantity come near the charge,
since the scales lie a thousand apart and discounts do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from attribution.pricing.book import PriceBook
from attribution.pricing.rates import Sale
from ledger.money import MONEY
from ledger.problems import Problem
from ledger.tables import COST_COLUMNS, TOKEN_METERS

SCALES = {Decimal(1): "single tokens", Decimal(1000): "thousands of tokens", Decimal(1_000_000): "millions of tokens"}
_UNSPECIFIC_UNITS = ("", "units", "unit", "count", "counts", "quantity", "each", "1")
"""Units that do not say what they count."""
_NEAR, _FAR, _DOUBTED = (Decimal("0.4"), Decimal("2.5")), (Decimal("0.1"), Decimal(10)), (Decimal("0.03"), Decimal(30))
"""Bounds of price × quantity over the charge: for a scale that overrules the bill's own unit, for one where the bill names none, and outside
of which the bill's own unit is doubted.
"""

_KEYS = ("provider", "sku_meter", "charge_description", "unit", "model", "meter", "service_tier", "context_above", "factor")
_OWN_RULE_PREFIX = "attribution.skus"


class _PricedSku(NamedTuple):
    factor: Decimal | None
    unit: str | None
    quantity: Decimal
    cost: Decimal
    rate: Decimal


def check_units(groups: pl.DataFrame, book: PriceBook) -> pl.DataFrame:
    """Charge groups with the `factor` that fits, and in `unit_means` what a unit counts where the bill states otherwise."""
    result = groups.with_columns(unit_means=pl.lit(None, dtype=pl.String))
    candidates = result.filter(
        pl.col("meter").is_in(TOKEN_METERS),
        pl.col("model").is_not_null(),
        pl.col("charge_category") == "Usage",
        ~pl.col("negative"),
        (pl.col("quantity") > 0) & (pl.col("quantity") < 10**15),
        pl.col("billing_currency") == book.currency,
        ~pl.col("sku_rule").str.starts_with(_OWN_RULE_PREFIX).fill_null(value=False),
    )
    if not candidates.height:
        return result
    skus = candidates.group_by(_KEYS).agg(
        *(pl.col(c).sum() for c in (*COST_COLUMNS, "quantity")),
        region=pl.col("region_id").drop_nulls().min(),
        at=pl.col("charge_period_start").max(),
    )
    corrections = []
    for row in skus.iter_rows(named=True):
        rate = _rate(book, row)
        cost = next((row[c] for c in ("list_cost", "contracted_cost", "billed_cost", "effective_cost") if row[c]), None)
        if rate and cost and cost > 0:
            unit_factor = fitting_factor(_PricedSku(row["factor"], row["unit"], row["quantity"], cost, rate))
            if unit_factor is not None and unit_factor != row["factor"]:
                unit_name = None if row["factor"] is None else SCALES[unit_factor]
                corrections.append({key: row[key] for key in _KEYS} | {"__factor": unit_factor, "__said": unit_name})
    if not corrections:
        return result
    schema = {key: groups.schema[key] for key in _KEYS} | {"__factor": MONEY, "__said": pl.String()}
    right = pl.DataFrame(corrections, schema=schema)
    corrected_groups = result.join(right, on=_KEYS, how="left", nulls_equal=True, maintain_order="left")
    is_corrected = corrected_groups["__factor"].is_not_null()
    return corrected_groups.with_columns(
        factor=pl.coalesce("__factor", "factor"),
        kind=pl.when(is_corrected).then(pl.lit("tokens")).otherwise("kind"),
        unit_means=pl.col("__said"),
    ).drop("__factor", "__said")


def _rate(book: PriceBook, row: dict[str, object]) -> Decimal | None:
    """The book's price of one unit of the meter."""
    provider, region, model, at = row["provider"], row["region"], row["model"], row["at"]
    assert isinstance(at, datetime)
    tariffs = book.tariffs(str(provider), None if region is None else str(region), str(model))
    regions = ("",) if region is None else (str(region), "")
    return tariffs.rate(str(row["meter"]), Sale(str(row["service_tier"]), regions, int(str(row["context_above"])), at))


def fitting_factor(sku: _PricedSku) -> Decimal | None:
    """How many tokens one unit is according to prices; None: they do not tell.

    10 units of input cost 0.03 and a token costs 0.000003: a unit is a thousand tokens. 10 000 units "of 1K" at that cost are single tokens.

    >>> fitting_factor(_PricedSku(None, "Units", Decimal(10), Decimal("0.03"), Decimal("0.000003")))
    Decimal('1000')
    >>> fitting_factor(_PricedSku(Decimal(1000), "1K tokens", Decimal(10_000), Decimal("0.03"), Decimal("0.000003")))
    Decimal('1')
    >>> fitting_factor(_PricedSku(None, "GB", Decimal(10), Decimal("0.03"), Decimal("0.000003")))
    """
    if sku.factor is None:
        if " ".join((sku.unit or "").lower().split()) not in _UNSPECIFIC_UNITS:
            return None
        return _first_fitting(sku, SCALES, _FAR)
    return sku.factor if _fits(sku, sku.factor, _DOUBTED) else _first_fitting(sku, SCALES, _NEAR)


def _first_fitting(sku: _PricedSku, scales: Iterable[Decimal], bounds: tuple[Decimal, Decimal]) -> Decimal | None:
    return next((scale for scale in scales if _fits(sku, scale, bounds)), None)


def _fits(sku: _PricedSku, scale: Decimal, bounds: tuple[Decimal, Decimal]) -> bool:
    expected_cost = sku.rate * sku.quantity * scale
    return sku.cost * bounds[0] <= expected_cost <= sku.cost * bounds[1]


def problems(groups: pl.DataFrame, *, uri: str) -> list[Problem]:
    """SKUs whose unit is not the one that the bill states, as problems."""
    if "unit_means" not in groups.columns:
        return []
    keys = ("provider", "sku_meter", "unit", "unit_means")
    wrong_units = groups.filter(pl.col("unit_means").is_not_null()).group_by(keys).agg(pl.col("charges").sum())
    return [
        Problem(
            "attribution",
            uri,
            f"{provider} {sku or '?'}",
            "unit",
            f"wrong_unit: billed by {billed_unit!r}, but price × quantity fits {actual_unit}, which is used",
            "check the export's unit; a rule under [[attribution.skus]] with `unit` overrides it",
            rows=rows,
            severity="warning",
        )
        for provider, sku, billed_unit, actual_unit, rows in wrong_units.sort(keys, nulls_last=True).iter_rows()
    ]
