"""The rules of a FOCUS file, as conditions over its rows: each is true where a row breaks it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final

import polars as pl

from rootcost.focus.columns import CURRENCIES, FocusColumn

DECIMAL: Final = r"^-?(\d+(\.\d+)?|\.\d+)(E-?\d+)?$"
_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
_CUSTOM: Final = r"^x_[A-Z0-9][A-Za-z0-9]*$"
_MAX_CUSTOM: Final = 50
_PAIRS: Final = (
    ("ConsumedUnit", "ConsumedQuantity"), ("PricingUnit", "PricingQuantity"), ("CommitmentDiscountUnit", "CommitmentDiscountQuantity"),
)  # fmt: skip
"""A unit and the quantity that it is of: both are there, or none."""
_FOLLOWING: Final = (
    ("SubAccountName", "SubAccountId"), ("SubAccountType", "SubAccountId"), ("ResourceName", "ResourceId"), ("ResourceType", "ResourceId"),
    ("CommitmentDiscountCategory", "CommitmentDiscountId"), ("CommitmentDiscountName", "CommitmentDiscountId"),
    ("CommitmentDiscountType", "CommitmentDiscountId"), ("CommitmentDiscountStatus", "CommitmentDiscountId"),
    ("CapacityReservationStatus", "CapacityReservationId"), ("AllocatedMethodDetails", "AllocatedMethodId"),
    ("AllocatedResourceId", "AllocatedMethodId"), ("AllocatedResourceName", "AllocatedResourceId"), ("AllocatedTags", "AllocatedMethodId"),
)  # fmt: skip
"""Columns that are null where another one is."""
_PERIODS: Final = (("BillingPeriodStart", "BillingPeriodEnd"), ("ChargePeriodStart", "ChargePeriodEnd"))


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its name, the column that a fault is told of, where a row breaks it, and what to do."""

    name: str
    column: str
    is_broken: pl.Expr
    remedy: str


def rules_of(spec: Mapping[str, FocusColumn], names: Collection[str]) -> list[Rule]:
    """The rules about the columns that a file has, all of which are text."""
    rules = [rule for name in names if name in spec for rule in _of_column(spec[name])]
    return [*rules, *_of_rows(set(names) & set(spec))]


def name_faults(spec: Mapping[str, FocusColumn], names: Collection[str], *, is_excerpt: bool) -> Iterator[tuple[str, str, str]]:
    """Rule, column and remedy of faults of the header."""
    lower_names = {name.lower(): name for name in spec}
    for name in names:
        if name in spec:
            continue
        if name.startswith("x_"):
            if len(name) > _MAX_CUSTOM or pl.Series([name]).str.contains(_CUSTOM).not_().item():
                yield "custom-name", name, "name it x_ and PascalCase, of at most 50 letters and digits"
        elif not is_excerpt:
            right_name = lower_names.get(name.lower().replace(" ", ""))
            yield (
                "column-unknown",
                name,
                f"write it as {right_name}" if right_name else "columns of your own begin with x_; or it is of another version",
            )
    if not is_excerpt:
        for name, column in spec.items():
            if column.is_mandatory and name not in names:
                yield (
                    "column-missing",
                    name,
                    "every file has it" + (", null where there is no value" if column.is_nullable else ""),
                )


def _of_column(column: FocusColumn) -> Iterator[Rule]:
    value = pl.col(column.name)
    if not column.is_nullable:
        yield Rule("not-null", column.name, value.is_null(), "it may not be null")
    if column.format == "decimal":
        remedy = "write a plain number: digits, one point, a minus; E notation without a plus"
        yield Rule("decimal", column.name, ~value.str.contains(DECIMAL), remedy)
    elif column.format == "time":
        is_time = value.str.contains(_TIME) & value.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False).is_not_null()
        yield Rule("date-time", column.name, value.is_not_null() & ~is_time, "write it in UTC as 2026-10-05T06:00:00Z")
    elif column.format == "currency":
        codes = CURRENCIES if column.name == "BillingCurrency" else None
        is_code = value.is_in(pl.Series(sorted(codes)).implode()) if codes else value.str.contains(r"^[A-Z]{3}$|^\S.{2,}$")
        yield Rule("currency", column.name, ~is_code, "write the code of ISO 4217, such as USD")
    elif column.format in ("tags", "object"):
        check = partial(_is_json_object, is_flat=column.format == "tags")
        remedy = "write a JSON object" + (" whose values are text, numbers or true" if column.format == "tags" else "")
        yield Rule("json", column.name, ~value.map_batches(partial(_by_distinct, check), return_dtype=pl.Boolean), remedy)
    elif column.type == "String":
        yield Rule("text", column.name, value.str.contains(r"^\s*$"), "write null where there is no value, not blank text")
    if column.allowed_values and column.name != "ServiceSubcategory":
        is_allowed = value.is_in(pl.Series(column.allowed_values).implode())
        yield Rule("allowed-value", column.name, ~is_allowed, f"one of: {', '.join(column.allowed_values)}")
    if column.name == "ServiceSubcategory":
        subcategories = sorted({pair.partition(">")[2] for pair in column.allowed_values})
        remedy = "a subcategory of the specification"
        yield Rule("allowed-value", column.name, ~value.is_in(pl.Series(subcategories).implode()), remedy)


def _of_rows(names: Collection[str]) -> Iterator[Rule]:
    """Rules between columns."""
    for unit, quantity in _PAIRS:
        if {unit, quantity} <= set(names):
            yield Rule(
                "unit",
                unit,
                pl.col(unit).is_null() != pl.col(quantity).is_null(),
                f"{unit} and {quantity} are both there, or none is",
            )
    for name, leader in _FOLLOWING:
        if {name, leader} <= set(names):
            yield Rule(
                "follows", name, pl.col(name).is_not_null() & pl.col(leader).is_null(), f"it is null where {leader} is null"
            )
    for start, end in _PERIODS:
        if {start, end} <= set(names):
            is_ordered = (pl.col(start) < pl.col(end)) | ~pl.col(start).str.contains(_TIME) | ~pl.col(end).str.contains(_TIME)
            yield Rule("period", end, ~is_ordered, f"it is not counted in, so it is later than {start}")
    category = pl.col("ChargeCategory")
    if {"PricingCategory", "ChargeCategory"} <= set(names):
        yield Rule(
            "tax",
            "PricingCategory",
            pl.col("PricingCategory").is_not_null() & (category == "Tax"),
            "it is null where ChargeCategory is Tax",
        )
    if {"CommitmentDiscountStatus", "CommitmentDiscountId", "ChargeCategory"} <= set(names):
        is_of_usage = pl.col("CommitmentDiscountId").is_not_null() & (category == "Usage")
        remedy = "say Used or Unused where usage has a CommitmentDiscountId"
        yield Rule("commitment", "CommitmentDiscountStatus", pl.col("CommitmentDiscountStatus").is_null() & is_of_usage, remedy)
    if "AllocatedMethodId" in names:
        yield from _of_splits(names)


def _of_splits(names: Collection[str]) -> Iterator[Rule]:
    """Rules of rows that are parts of a charge."""
    is_part = pl.col("AllocatedMethodId").is_not_null()
    if "AllocatedMethodDetails" in names:
        details = pl.col("AllocatedMethodDetails")
        yield Rule(
            "split-details",
            "AllocatedMethodDetails",
            is_part & details.is_null(),
            'say the share: {"Elements": [{"AllocatedRatio": 0.25}]}',
        )
        is_whole = details.map_batches(partial(_by_distinct, lambda text: ratio(text) is not None), return_dtype=pl.Boolean)
        remedy = (
            "Elements is a list of at least one object with AllocatedRatio from 0 to 1, and UsageUnit where UsageQuantity is; "
            "other keys are x_ and PascalCase"
        )
        yield Rule("split-details", "AllocatedMethodDetails", details.is_not_null() & ~is_whole, remedy)
    if {"AllocatedTags", "Tags"} <= set(names):
        tag_columns = pl.struct("Tags", "AllocatedTags")
        repeats = tag_columns.map_batches(_repeats_tags, return_dtype=pl.Boolean)
        yield Rule("split-tags", "AllocatedTags", repeats, "it holds only what is not in Tags")


def ratio(details: str) -> Decimal | None:
    """The sum of the ratios of AllocatedMethodDetails; None if it is none.

    >>> ratio('{"Elements": [{"AllocatedRatio": 0.25, "UsageQuantity": 5, "UsageUnit": "Tokens"}, {"AllocatedRatio": 0.5}]}')
    Decimal('0.75')
    >>> ratio('{"Elements": [{"AllocatedRatio": 1.5}]}'), ratio('{"Elements": []}'), ratio("x")
    (None, None, None)
    """
    try:
        content = json.loads(details, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError):
        return None
    elements = content.get("Elements") if isinstance(content, dict) else None
    if not isinstance(elements, list) or not elements or not _are_known(content, {"Elements"}):
        return None
    total = Decimal(0)
    for element in elements:
        if not isinstance(element, dict) or not _are_known(element, {"AllocatedRatio", "UsageQuantity", "UsageUnit"}):
            return None
        share, quantity, unit = element.get("AllocatedRatio"), element.get("UsageQuantity"), element.get("UsageUnit")
        is_usage = quantity is None or (isinstance(quantity, Decimal) and isinstance(unit, str) and bool(unit))
        if not isinstance(share, Decimal) or not 0 <= share <= 1 or not is_usage or not (unit is None or isinstance(unit, str)):
            return None
        total += share
    return total


def _are_known(content: Mapping[str, Any], names: Collection[str]) -> bool:
    own_keys = [name for name in content if name not in names]
    return not own_keys or bool(pl.Series(own_keys).str.contains(_CUSTOM).all())


def _is_json_object(text: str, *, is_flat: bool) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and not (is_flat and any(isinstance(value, dict | list) for value in content.values()))


def _by_distinct(check: Any, values: pl.Series) -> pl.Series:
    """A check of each distinct text once; null where there is none."""
    distinct_texts = values.drop_nulls().unique()
    results = {text: check(text) for text in distinct_texts.to_list()}
    return (
        values.replace_strict(results, default=None, return_dtype=pl.Boolean)
        if results
        else pl.Series(values.name, [None] * len(values), pl.Boolean)
    )


def _repeats_tags(rows: pl.Series) -> pl.Series:
    frame = rows.struct.unnest()
    return pl.Series("repeats", [_share_a_key(tags, split_tags) for tags, split_tags in frame.iter_rows()], pl.Boolean)


def _share_a_key(tags: str | None, split_tags: str | None) -> bool:
    if not tags or not split_tags:
        return False
    try:
        one, other = json.loads(tags), json.loads(split_tags)
    except (ValueError, RecursionError):
        return False
    return isinstance(one, dict) and isinstance(other, dict) and not one.keys().isdisjoint(other)
