"""Whether two sets of charges are one bill: the same payer, account, SKU and period, whatever format each was written in. (RA-1e)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

_PROVIDERS: Final = {
    "amazon web services": "aws",
    "amazon": "aws",
    "google": "google cloud",
    "gcp": "google cloud",
    "azure": "microsoft",
    "microsoft azure": "microsoft",
}
"""Names that formats of one bill give one provider."""
_DAILY: Final = timedelta(hours=25)
_KEY: Final = ("provider", "payer", "account", "sku")
_COLUMNS: Final = (
    *("provider_name", "billing_account_id", "sub_account_id", "sku_meter", "sku_id", "service_name", "charge_category"),
    *("charge_period_start", "charge_period_end"),
)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of what the stored rows bill the delivered rows bill too: distinct account, SKU and period."""

    covered: int
    total: int
    reaches: bool
    """Whether the delivered rows go on as long as the stored ones."""
    is_part: bool
    """Whether every delivered row is among the stored ones, to the last column."""

    @property
    def is_restatement(self) -> bool:
        """Whether the delivered rows repeat or correct all of the stored ones."""
        return self.covered == self.total and self.reaches


def compare(stored_rows: pl.LazyFrame, new_rows: pl.LazyFrame) -> Overlap | None:
    """How far `new_rows` bill what `stored_rows` bill, both rows of `charges` of one month; None where no row of it is billed twice.

    Rows without a billing account are never the same bill: their payer is unknown. SKUs agree by meter or by id, and where neither is
    written by service and category. Periods agree by day; a longer one agrees with every day that it holds. What other payers and
    providers are billed in `stored_rows` counts as not covered: a file of one cloud is no restatement of a file of three.
    """
    old_bills, new_bills = _bills(stored_rows).with_row_index("row"), _bills(new_rows)
    known_bills = old_bills.filter(pl.col("payer").is_not_null())
    if not _covered_rows(_by_sku(known_bills), _by_sku(new_bills)):
        return None
    covered_bills = _covered_rows(_by_sku(old_bills), _by_sku(new_bills))
    ids = new_rows.select("charge_id").collect()
    is_part = not ids.join(stored_rows.select("charge_id").collect(), on="charge_id", how="anti").height
    return Overlap(covered_bills, old_bills.height, _reaches(old_bills, new_bills), is_part)


def payers(rows: pl.LazyFrame) -> set[tuple[str, str | None]]:
    """Provider and billing account of all rows."""
    return set(rows.select(_provider(), payer=pl.col("billing_account_id")).unique().collect().iter_rows())


def _provider() -> pl.Expr:
    spelt = pl.col("provider_name").str.strip_chars().str.to_lowercase()
    return spelt.replace(_PROVIDERS).alias("provider")


def _bills(rows: pl.LazyFrame) -> pl.DataFrame:
    """The distinct bill keys and periods of the rows."""
    distinct_rows = rows.select(_COLUMNS).unique()
    return distinct_rows.select(
        _provider(),
        payer="billing_account_id",
        account="sub_account_id",
        meter="m:" + pl.col("sku_meter").str.strip_chars().str.to_lowercase(),
        id="i:" + pl.col("sku_id").str.strip_chars().str.to_lowercase(),
        other=pl.when(pl.col("sku_meter").is_null() & pl.col("sku_id").is_null()).then(
            "s:" + pl.col("service_name").fill_null("").str.to_lowercase() + "|" + pl.col("charge_category").str.to_lowercase()
        ),
        start="charge_period_start",
        end="charge_period_end",
    ).collect(engine="streaming")


def _by_sku(bills: pl.DataFrame) -> pl.DataFrame:
    """One row for each name of the SKU, with the day of its period and whether it is longer than a day."""
    columns = [name for name in bills.columns if name not in ("meter", "id", "other")]
    sku_rows = pl.concat([bills.select(*columns, sku=name) for name in ("meter", "id", "other")]).drop_nulls("sku")
    return sku_rows.with_columns(day=pl.col("start").dt.date(), long=pl.col("end") - pl.col("start") > _DAILY)


def _covered_rows(old_bills: pl.DataFrame, new_bills: pl.DataFrame) -> int:
    """How many stored bills have a delivered one of the same SKU on the same day, or in a period that holds it."""
    short, long = old_bills.filter(~pl.col("long")), old_bills.filter("long")
    short_new, long_new = new_bills.filter(~pl.col("long")), new_bills.filter("long")
    on_day = short.join(short_new, on=[*_KEY, "day"], how="semi", nulls_equal=True)
    in_period = _meeting(short, long_new)
    meeting = _meeting(long, new_bills)
    return pl.concat([part.select("row") for part in (on_day, in_period, meeting)]).n_unique("row") if old_bills.height else 0


def _meeting(rows: pl.DataFrame, other_bills: pl.DataFrame) -> pl.DataFrame:
    """The rows whose period meets the range of the others' periods of the same SKU."""
    ranges = other_bills.group_by(_KEY).agg(first=pl.col("start").min(), last=pl.col("end").max())
    pairs = rows.join(ranges, on=list(_KEY), how="inner", nulls_equal=True)
    return pairs.filter((pl.col("start") < pl.col("last")) & (pl.col("end") > pl.col("first"))).select(rows.columns)


def _reaches(old_bills: pl.DataFrame, new_bills: pl.DataFrame) -> bool:
    """Whether the delivered rows end no earlier than the stored ones: to the hour where both are hourly, else to the day."""
    length, is_short = pl.col("end") - pl.col("start"), pl.col("end") - pl.col("start") <= _DAILY
    last_ends = []
    for bills in (old_bills, new_bills):
        short = bills.filter(is_short)
        if not short.height:
            return True
        last_ends.append(short.select(end=pl.col("end").max(), length=length.max()).row(0))
    (old_end, old_length), (new_end, new_length) = last_ends
    if old_length == new_length:
        return bool(new_end >= old_end)
    tick = timedelta(microseconds=1)
    return bool((new_end - tick).date() >= (old_end - tick).date())
