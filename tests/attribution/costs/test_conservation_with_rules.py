"""Charges in = costs out, whatever periods, earlier months, shared-cost rules and commitments come together; and the order of rows is nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.costs import prior_months
from attribution.costs.corrections import INHERITED, MATCHED_BY
from attribution.costs.month import compute_month_costs
from attribution.costs.sink import MemorySink
from attribution.pricing import PriceBook
from attribution.usage.reader import Usage
from ledger import registry
from ledger.settings import AttributionSettings, SharedRule
from ledger.tables import COST_COLUMNS, PRICES, USAGE_HOURLY
from tests.attribution.costs.test_conservation import bill_row, use_row
from tests.support.books_by_hand import at, charges

BOOK = PriceBook(PRICES.empty())
NOBODY = registry.timeline(pl.DataFrame(schema=registry.SCHEMA))
CURRENCIES = ("USD", "EUR")
KEYS = ["cost_class", "initiator_team", "initiator_agent", "model", "currency", "period_start", "rule", "reason"]


@st.composite
def any_row(draw: st.DrawFn) -> dict[str, Any]:
    """A bill row of any period: minutes, hours that begin at any minute, days; sometimes a correction of September, sometimes unused."""
    row = draw(bill_row())
    start = at(draw(st.integers(0, 23)), draw(st.sampled_from([0, 0, 15, 30, 59])), day=draw(st.sampled_from([5, 5, 6])))
    if draw(st.booleans()):
        start -= timedelta(days=30)
        row |= draw(st.sampled_from([{}, {"charge_class": "Correction"}, {"charge_category": "Credit"}]))
    minutes = draw(st.sampled_from([0, 1, 15, 30, 60, 60, 90, 24 * 60, 31 * 24 * 60]))
    status = draw(st.sampled_from([None, None, None, "Unused"]))
    return row | {
        "charge_period_start": start,
        "charge_period_end": start + timedelta(minutes=minutes),
        "commitment_discount_status": status,
        "final": draw(st.booleans()),
        "tags": draw(st.sampled_from([None, '{"team":"Growth"}', '{"team":"Care","env":"prod"}'])),
    }


@st.composite
def rule(draw: st.DrawFn) -> SharedRule:
    method = draw(st.sampled_from(["proportional", "even", "fixed", "usage"]))
    start = draw(st.sampled_from([date(1970, 1, 1), date(2026, 10, 6)]))
    return SharedRule(
        name=draw(st.sampled_from(["a", "b"])),
        priority=draw(st.integers(-1, 1)),
        method=method,
        usage=draw(st.sampled_from(["tokens", "calls", "seconds", "requests"])),
        shares={"Care": Decimal(1), "Growth": Decimal("0.3")} if method == "fixed" else {},
        teams=draw(st.sampled_from([[], ["Care"], ["Care", "Dev", "Growth"]])) if method != "fixed" else [],
        source_team=draw(st.sampled_from(["", "", "Growth"])),
        reason=draw(st.sampled_from(["", "", "idle_capacity", "unused_commitment", "uncaptured_usage"])),
        charge_category=draw(st.sampled_from(["", "", "Usage", "Purchase"])),
        tags=draw(st.sampled_from([{}, {}, {"env": "prod"}])),
        valid_from=start,
    )


def used(rows: list[dict[str, Any]], month: str, shift: timedelta = timedelta(0)) -> pl.DataFrame:
    money = {"quantity": USAGE_HOURLY.schema["quantity"], "list_cost": USAGE_HOURLY.schema["list_cost"]}
    moved = [row | {"hour": row["hour"] + shift, "month": month} for row in rows]
    frame = (
        USAGE_HOURLY.conform(pl.DataFrame(moved, schema_overrides=money, infer_schema_length=None))
        if rows
        else USAGE_HOURLY.empty()
    )
    return frame.sort("hour", "usage_key", "meter")


@dataclass
class Drawn:
    """A month's costs, and the lots they name."""

    costs: pl.DataFrame
    lots: pl.DataFrame


def drawn_from(bill: list[dict[str, Any]], uses: pl.DataFrame, chosen: AttributionSettings, **said: Any) -> Drawn:
    held = MemorySink()
    found = compute_month_costs(charges(*bill).lazy(), Usage.from_frame(uses), NOBODY, BOOK, chosen, sink=held, **said)
    return Drawn(held.costs, found.groups)


def published(drawn: Drawn) -> pl.DataFrame:
    """Costs of an earlier month as `attribution.costs.prior_months` reads them."""
    words = drawn.lots.select(lot_id="charge_group", sku_meter="sku_meter", resource_id="resource_id")
    costs = drawn.costs.filter(pl.col("basis") == "billed", pl.col("rule") != "RA-5")
    costs = costs.with_columns(lot_id=pl.coalesce("lot_id", pl.col("lot_ids").list.first()))
    frame = costs.join(words, on="lot_id", how="left", maintain_order="left")
    return frame.select(*MATCHED_BY, *(c for c in INHERITED if c not in MATCHED_BY), *COST_COLUMNS)


def unlike(uses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Uses whose keys tell them apart, as those of a rollup do."""
    return [use | {"usage_key": n} for n, use in enumerate(uses)]


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.lists(any_row(), min_size=1, max_size=12),
    st.lists(any_row(), max_size=6),
    st.lists(use_row(), max_size=10).map(unlike),
    st.lists(rule(), max_size=4),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_or_made_and_order_is_nothing(
    bill: list[dict[str, Any]], past: list[dict[str, Any]], uses: list[dict[str, Any]], rules: list[SharedRule], random: Any
) -> None:
    chosen = AttributionSettings(shared=rules)

    def draw(bill: list[dict[str, Any]], past: list[dict[str, Any]], uses: list[dict[str, Any]]) -> Drawn:
        before = pl.DataFrame()
        if past:
            rows = [row | {"billing_month": "2026-09"} for row in past]
            month_before = used(uses, "2026-09", timedelta(days=-30))
            before = published(drawn_from(rows, month_before, chosen, run_id="p", month="2026-09"))
        return drawn_from(bill, used(uses, "2026-10"), chosen, run_id="r", month="2026-10", past_costs=before)

    drawn = draw(bill, past, uses)
    billed = drawn.costs.filter(pl.col("basis") == "billed")
    for currency in CURRENCIES:
        for column in COST_COLUMNS:
            charged = sum((row[column] for row in bill if row["billing_currency"] == currency), Decimal(0))
            assert billed.filter(pl.col("currency") == currency)[column].sum() == charged, (currency, column)
    labels = {r.label for r in rules}
    assert set(billed["rule"]) <= {"RA-1a", "RA-2", "RA-3", "RA-4", "RA-5", *labels}
    sources = {r.label: r.source_team for r in rules if r.source_team}
    for label, source in sources.items():
        assert source not in set(billed.filter(pl.col("rule") == label)["initiator_team"])
    assert not billed.filter((pl.col("cost_class") == "shared") & pl.col("initiator_team").is_null()).height
    # What a correction of September goes to is September's, or the ladder's; never a call of October.
    early = billed.filter(pl.col("period_end") <= at(0, day=1), pl.col("rule") == "RA-5", pl.col("cost_class") == "metered")
    late_charges = any(row["charge_period_end"] <= at(0, day=1) and row.get("charge_class") is None for row in bill)
    assert past or late_charges or not early.height

    mixed = [list(part) for part in (bill, past, uses)]
    for part in mixed:
        random.shuffle(part)
    again = draw(*mixed)

    def summed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.group_by(KEYS).agg(pl.col(c).sum() for c in COST_COLUMNS).sort(KEYS)

    left, right = summed(drawn.costs), summed(again.costs)
    assert left.equals(right)


def test_what_corrections_ask_of_earlier_months_is_little_and_exact() -> None:
    bill = charges(
        {**_row(at(10)), "charge_category": "Credit"},
        {**_row(at(10) - timedelta(days=30)), "charge_category": "Credit"},
        {**_row(at(10) - timedelta(days=30))},
        {**_row(at(10) - timedelta(days=95)), "charge_class": "Correction"},
    )
    asked = prior_months.corrections(bill.lazy(), "2026-10")
    assert sorted(asked["charge_period_start"]) == [at(10) - timedelta(days=95), at(10) - timedelta(days=30)]
    known = ["2026-05", "2026-07", "2026-08", "2026-09", "2026-10", "2026-11"]
    assert prior_months.corrected_months(asked, "2026-10", known) == ["2026-07", "2026-08", "2026-09"]
    assert prior_months.corrected_months(asked.clear(), "2026-10", known) == []
    many = [f"{year}-{month:02d}" for year in range(1990, 2027) for month in range(1, 13)]
    old = asked.with_columns(charge_period_start=pl.lit(at(0) - timedelta(days=20_000)))
    assert len(prior_months.corrected_months(old, "2026-10", many)) == prior_months.MAX_MONTHS


def test_a_tax_does_not_shorten_how_far_back_a_credit_is_followed() -> None:
    """An 18 months old credit beside a tax of last month: the months of both are read."""
    corrections = pl.DataFrame(
        {
            "charge_category": ["Credit", "Tax"],
            "charge_period_start": [at(0) - timedelta(days=546), at(0) - timedelta(days=30)],
        }
    )
    in_force = [f"{year}-{month:02d}" for year in (2025, 2026) for month in range(1, 13)]
    assert prior_months.corrected_months(corrections, "2026-10", in_force)[0] == "2025-04"
    only_tax = corrections.filter(pl.col("charge_category") == "Tax")
    assert prior_months.corrected_months(only_tax, "2026-10", in_force)[0] == "2025-09"


def _row(start: Any) -> dict[str, Any]:
    from tests.support.books_by_hand import charge

    return charge("1", charge_period_start=start, charge_period_end=start + timedelta(hours=1))
