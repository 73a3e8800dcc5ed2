"""Charge groups: like charges summed, each classified by what it sells. (RA-1)

A charge group is the sum of all charges that no rule can tell apart: same account, service, SKU, resource, principal, tags, period and
category. Summing before matching is what lets ten million charges be matched in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache

import polars as pl

from attribution.classification import names
from attribution.classification.names import ModelNames, map_distinct
from attribution.classification.skus import Classifier, SkuClass, SkuText
from attribution.columns import RESOURCE_METERS, VARIANT
from attribution.costs import settling, unit_scale
from attribution.pricing import PriceBook
from ledger.charge_groups import CHARGE_GROUP_KEY, with_group_key
from ledger.money import MONEY, known_sum
from ledger.settings import SkuRule
from ledger.tables import COST_COLUMNS, LOTS, TIME, TOKEN_METERS

RATED_AS = {
    "sub_account_id": "account",
    "region_id": "region",
    "billing_currency": "currency",
    "charge_period_start": "period_start",
    "charge_period_end": "period_end",
    "billing_account_id": "billing_account",
    "service_name": "service",
}
"""Keys of a charge group, and their names in costs and pools."""

FOLLOWING = ("Credit", "Adjustment")
"""Categories that correct other charges. (RA-5)"""

ABSURD, NEGATIVE = "absurd_quantity", "negative_quantity"
"""Names of quantities that no bill can mean."""


def build_charge_groups(
    charges: pl.LazyFrame,
    display: ModelNames,
    *,
    own_rules: Sequence[SkuRule] = (),
    book: PriceBook | None = None,
    profiles: Callable[[], Mapping[str, str]] | None = None,
) -> pl.DataFrame:
    """Charges summed to charge groups, in a fixed order, with `charge_group` (row number), `role` and what they sell.

    `role` says which rule applies: ``tokens`` (quantity comparable with logs: tokens, pictures, searches), ``driver`` (split by what used it),
    ``follow`` (credit, refund, correction), ``tax``, ``other``. `odd` names a quantity that no bill can mean; it then counts as absent or is not
    compared. `final` means that the provider does not restate any of the charges any more. `ai` means that the group sells models or what runs
    them, `unclassified` that it does and no rule knows which model or meter. `complete_until` is how far its usage has arrived (`attribution.costs.settling`).

    `own_rules` are the settings' rules about SKUs. With a `book` the unit of a SKU is checked against prices (`attribution.costs.unit_scale`).
    `profiles` returns the one model behind each resource; it is called if a charge names only a resource.
    """
    if "read_at" not in charges.collect_schema():
        charges = charges.with_columns(read_at=pl.lit(None, dtype=TIME))
    charge_sums = (
        with_group_key(charges)
        .group_by(CHARGE_GROUP_KEY)
        .agg(
            *(known_sum(c) for c in COST_COLUMNS),
            pl.col("quantity").sum(),
            pl.len().alias("charges"),
            final=pl.col("final").fill_null(value=False).all(),
            source=pl.col("source").min(),
            read_at=pl.col("read_at").min(),
        )
        .collect()
        .sort(CHARGE_GROUP_KEY)
    )
    frame = classify(charge_sums, display, own_rules, profiles)
    if book is not None:
        frame = unit_scale.check_units(frame, book)
    return settling.with_complete_until(_with_roles(frame)).with_columns(charge_group=pl.int_range(pl.len(), dtype=pl.Int64))


_CLASSIFIED_BY = ("provider_name", "service_name", "product_code", "sku_meter", "charge_description", "unit", "model_arn")
_CLASSIFICATION_SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "model": pl.String,
    **dict.fromkeys(VARIANT, pl.String),
    "meter": pl.String,
    "service_tier": pl.String,
    "context_above": pl.Int64,
    "kind": pl.String,
    "factor": MONEY,
    "provisioned": pl.Boolean,
    "sku_region": pl.String,
    "sku_rule": pl.String,
}
assert set(_CLASSIFICATION_SCHEMA) == {f.name for f in fields(SkuClass)}


def classify(
    groups: pl.DataFrame,
    display: ModelNames,
    own_rules: Sequence[SkuRule] = (),
    profiles: Callable[[], Mapping[str, str]] | None = None,
) -> pl.DataFrame:
    """Charge groups with what they sell, each distinct wording classified once; adds `provider`, `resource`, `ai` and `unclassified`."""
    groups = groups.with_columns(model_arn=pl.col("resource_id").str.extract(_MODEL_ARN))
    distinct = groups.select(_CLASSIFIED_BY).unique()
    classifier = Classifier(own_rules)
    classes = [classifier.sold(SkuText(names.provider(provider), *texts)) for provider, *texts in distinct.iter_rows()]
    class_columns = pl.DataFrame([asdict(s) for s in classes], schema=_CLASSIFICATION_SCHEMA)
    frame = groups.join(
        pl.concat([distinct, class_columns], how="horizontal"),
        on=_CLASSIFIED_BY,
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    frame = frame.with_columns(
        provider=map_distinct(frame["provider_name"], names.provider),
        resource=pl.when(pl.col("model_arn").is_null()).then(pl.col("resource_id").str.replace(_ENDPOINT, "")),
    ).drop("model_arn")
    bare = pl.col("meter").is_in(TOKEN_METERS) & pl.col("model").is_null()
    if profiles is not None and frame.select((bare & pl.col("resource").is_not_null()).any()).item():
        profile_model = pl.col("resource").replace_strict(dict(profiles()), default=None, return_dtype=pl.String)
        frame = frame.with_columns(
            model=pl.when(bare).then(profile_model).otherwise("model"),
            sku_rule=pl.when(bare & profile_model.is_not_null()).then(pl.lit("inference-profile")).otherwise("sku_rule"),
        )
    # A unit of tokens sells a model as well, whatever its provider, service and SKU are called.
    counts_tokens = (frame["meter"].is_in(list(TOKEN_METERS)) | (frame["kind"] == "tokens")).fill_null(value=False)
    # Tokens without a model are not matched with logs: they are split over what used the resource, or stay unclassified.
    frame = frame.with_columns(pl.when(~(bare & pl.col("model").is_null())).then(pl.col(c)).alias(c) for c in ("meter", "factor"))
    ai = _sells_models(frame) | counts_tokens | frame["sku_rule"].is_not_null()
    is_usage = (pl.col("charge_category") == "Usage") & pl.col("charge_class").is_null() & ~pl.col("negative")
    return frame.with_columns(model=map_distinct(frame["model"], display.display), ai=ai).with_columns(
        unclassified=pl.col("ai") & is_usage & pl.col("sku_rule").is_null()
    )


def single_model_resources(usage: pl.LazyFrame) -> dict[str, str]:
    """The model of each resource that only ever served one model, such as an inference profile, according to logs."""
    resource_models = (
        usage.filter(pl.col("resource").is_not_null() & pl.col("model").is_not_null()).select("resource", "model").unique()
    )
    single_models = (
        resource_models.group_by("resource").agg(pl.col("model").first(), models=pl.len()).filter(pl.col("models") == 1)
    )
    return dict(single_models.select("resource", "model").collect(engine="streaming").iter_rows())


_MODEL_ARN = r"^arn:[^:]*:bedrock:.*:(?:foundation-model|inference-profile)/(.+)$"
"""ARNs that name a model or a route to it, not a resource that somebody owns."""
_ENDPOINT = r"/runtime-endpoint/.*$"
"""An endpoint of a runtime is the same resource as the runtime."""


_UNCOUNTED = (*TOKEN_METERS, *RESOURCE_METERS, "gb_seconds", "vcpu_seconds", "bytes")
"""Meters that are matched with calls only if the charge names a model."""


def sells_meter() -> pl.Expr:
    """Whether a charge sells a meter that calls count: of a model, or of whatever model, as searches of the web are sold. (RA-2)

    >>> rows = [("m", "input_tokens", None), (None, "web_searches", None), (None, "requests", None), (None, "queries", "arn:memory")]
    >>> pl.DataFrame(rows, schema=["model", "meter", "resource_id"], orient="row").select(sells_meter()).to_series().to_list()
    [True, True, False, False]
    """
    of_any_model = pl.col("resource_id").is_null() & ~pl.col("meter").is_in(_UNCOUNTED)
    return pl.col("meter").is_not_null() & (pl.col("model").is_not_null() | of_any_model)


def sells_model() -> pl.Expr:
    """Whether a charge is for a model, whatever its calls used of it: credits, requests of a plan, generations. (RA-3)"""
    return pl.col("model").is_not_null() & pl.col("meter").is_null() & pl.col("resource_id").is_null()


def _with_roles(frame: pl.DataFrame) -> pl.DataFrame:
    usage = (pl.col("charge_category") == "Usage") & pl.col("charge_class").is_null() & ~pl.col("negative")
    # No bill counts 10^15 of anything: such a quantity is an error, and a product of it would overflow.
    absurd = pl.col("quantity").abs() >= 10**15
    frame = frame.with_columns(
        odd=pl.when(absurd).then(pl.lit(ABSURD)).when(usage & (pl.col("quantity") < 0)).then(pl.lit(NEGATIVE)),
        quantity=pl.when(~absurd).then("quantity"),
    )
    # The unused part of a commitment is kept apart, whatever resource it names.
    is_unused = pl.col("commitment_discount_status").eq_missing(pl.lit("Unused"))
    return frame.with_columns(
        billed_quantity=pl.when(pl.col("factor").is_not_null()).then(pl.col("quantity") * pl.col("factor")),
        # The billed region is kept, so that a group is found by the keys of its charges; `table_rows` restores it.
        region_billed=pl.col("region_id"),
        region_id=pl.coalesce("region_id", "sku_region"),
        role=pl.when(pl.col("charge_category") == "Tax")
        .then(pl.lit("tax"))
        .when(pl.col("charge_category").is_in(FOLLOWING) | pl.col("charge_class").is_not_null() | pl.col("negative"))
        .then(pl.lit("follow"))
        .when(usage & is_unused)
        .then(pl.lit("other"))
        .when(usage & sells_meter() & (pl.col("quantity") * pl.col("factor") > 0))
        .then(pl.lit("tokens"))
        .when(usage & (sells_meter() | sells_model() | pl.col("resource_id").is_not_null()))
        .then(pl.lit("driver"))
        .otherwise(pl.lit("other")),
    )


def table_rows(groups: pl.DataFrame, *, run_id: str, month: str) -> pl.DataFrame:
    """Charge groups as rows of the table `lots`, under the table's column names."""
    original_names = {pool_name: key for key, pool_name in RATED_AS.items() if pool_name in groups.columns}
    frame = groups.rename(original_names).with_columns(run_id=pl.lit(run_id), month=pl.lit(month), lot_id=pl.col("charge_group"))
    if "region_billed" in frame.columns:
        frame = frame.with_columns(region_id="region_billed")
    return LOTS.conform(frame.select(c for c in LOTS.schema if c in frame.columns))


@cache
def _ai() -> re.Pattern[str]:
    return re.compile("|".join(row["pattern"] for row in names.table("ai_services")), re.IGNORECASE)


def _sells_models(frame: pl.DataFrame) -> pl.Series:
    """Whether a service sells models: such a charge is listed as unclassified where no rule knows its SKU; storage is not."""
    words = frame.select(
        pl.concat_str([pl.col(c).fill_null("") for c in ("provider_name", "service_name", "product_code")], separator=" ")
    ).to_series()
    distinct = words.unique()
    lookup = pl.DataFrame({"w": distinct, "ai": pl.Series([bool(_ai().search(w)) for w in distinct], dtype=pl.Boolean)})
    return pl.DataFrame({"w": words}).join(lookup, on="w", how="left", maintain_order="left")["ai"]
