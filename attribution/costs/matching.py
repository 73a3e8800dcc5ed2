"""Matching: every charge is matched with the usage it pays for. (RA-1, RA-1a, RA-2, RA-3)

Pools are matched on all keys that both sides have, most keys first. What the bill has beyond the logs is kept apart (`uncaptured`), what a
provisioned resource has beyond its use is `idle`; neither is charged to the usage that was logged.

A charge group (`charge_group` is its number) is a sum of like charges (`attribution.costs.charge_groups`), a usage row (`usage_row`) is a row of
`usage_hourly`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from attribution.columns import CALLER, VARIANT, WHO, is_call_usage
from attribution.costs import drivers, hour_ends, implausible
from attribution.costs.charge_groups import RATED_AS, sells_meter, sells_model
from attribution.costs.pools import MATCHED_COLUMNS, OPTIONAL, combine, pool_period
from attribution.costs.running_periods import until_cost_is_met
from attribution.costs.token_matching import TIER_DEFAULTS, TokenMatcher
from ledger.settings import Defaults
from ledger.tables import COST_COLUMNS, COSTS, TOKEN_METERS


@dataclass(slots=True)
class MatchResult:
    """Shares of charge groups on usage rows, the unmatched part of each group, the rates, and the usage rows that a charge pays for.

    `uncaptured` is what the groups and those of other invoices have beyond the logs, `late_usage` what was logged after the charges of running
    periods were met, by usage_row: the bill had not come so far (ES-1a). `implausible_usage` are the numbers of usage
    rows that were set aside (RA-2b), `implausible_shares` what they would have had. `offers` is the usage that may be met in the hour of its
    end, `open_groups` what token charges of all invoices had left for such usage, before anything was set aside. (RA-3)
    `shares` has charge_group, usage_row, quantity and cost columns; `with_dimensions` adds the other columns.
    """

    shares: pl.DataFrame
    unmatched: pl.DataFrame
    rates: pl.DataFrame
    matched_usage: pl.Series
    uncaptured: pl.DataFrame
    late_usage: pl.DataFrame
    implausible_usage: pl.Series
    implausible_shares: pl.DataFrame
    offers: pl.DataFrame
    open_groups: pl.DataFrame


def with_pool_keys(groups: pl.DataFrame) -> pl.DataFrame:
    """Charge groups under the names that pools are matched by, with the hours that their period stands for."""
    return groups.rename(RATED_AS).with_columns(*pool_period("period_start", "period_end"))


def match_usage(
    groups: pl.DataFrame,
    usage: pl.DataFrame,
    tolerance: Decimal,
    defaults: Sequence[Defaults] = (),
    other_groups: pl.DataFrame | None = None,
) -> MatchResult:
    """Matches charges of a meter with logged usage of it, of a model with its calls, and others with the seconds or requests that used their resource.

    `other_groups` are charges of other invoices, with `invoice_order`: what an earlier invoice takes of the usage is not available here, and what is
    left over here goes to later ones (RA-2a). The place that only a caller states is tried first, then replaced by the settings' `defaults`, if
    any. (RA-1d)
    `groups` are as from `with_pool_keys`, `usage` has a row number `usage_row`. Amounts of `groups` that match no usage are in `unmatched`, with a `reason`.
    """
    key_columns = _key_columns(usage)
    token_usage = key_columns.filter(is_call_usage()).collect()
    driver_usage = key_columns.filter(~is_call_usage()).collect()
    invoices = _by_order_of_invoices(groups, other_groups)
    matches, surplus_usage = _match_invoices(invoices, token_usage, tolerance, defaults)
    overlogged_steps = [step for match in matches.values() for step in match.tokens.overlogged]
    offers = _offers(token_usage, surplus_usage, overlogged_steps, matches)
    open_groups = _open_groups(matches)
    implausible_usage = implausible.implausible_rows(token_usage, surplus_usage.filter(~_is_late(matches)), overlogged_steps)
    implausible_shares = pl.DataFrame()
    if implausible_usage.len():
        is_implausible = pl.col("usage_row").is_in(implausible_usage.implode())
        implausible_shares = combine([shares.filter(is_implausible) for shares in matches[0].tokens.shares])
        matches, surplus_usage = _match_invoices(invoices, token_usage.filter(~is_implausible), tolerance, defaults)
    tokens, token_drivers = matches[0].tokens, matches[0].drivers
    is_late = _is_late(matches)
    resource_groups = groups.filter((pl.col("role") == "driver") & ~sells_meter() & ~sells_model())
    resource_drivers = drivers.split_by_resource(resource_groups, driver_usage)
    shares = [*tokens.flagged_shares(surplus_usage.filter(~is_late)), token_drivers.shares, *(r.shares for r in resource_drivers)]
    rates = [*tokens.rates, token_drivers.rates, *(r.rates for r in resource_drivers)]
    unmatched_groups = pl.concat(
        [
            matches[0].uncaptured,
            *(r.unmatched for r in resource_drivers[-1:]),
            *(r.idle for r in resource_drivers),
            groups.filter(pl.col("role") == "other").with_columns(reason=drivers.unmatched_reason()),
        ],
        how="diagonal_relaxed",
    )
    return MatchResult(
        combine(shares),
        unmatched_groups,
        combine(rates),
        pl.concat([match.matched_usage for match in matches.values()]).unique(),
        pl.concat([match.uncaptured for match in matches.values()], how="diagonal_relaxed"),
        surplus_usage.filter(is_late).select("usage_row", "quantity", "list_cost"),
        implausible_usage,
        implausible_shares,
        _with_amounts(usage, offers),
        open_groups,
    )


def _key_columns(usage: pl.DataFrame) -> pl.LazyFrame:
    """The columns of usage by which it is matched, in the hour in which it is met."""
    usage = usage.with_columns(pl.lit(None, dtype=pl.String).alias(c) for c in (*CALLER, *VARIANT) if c not in usage.columns)
    return (
        hour_ends.with_ends(usage)
        .lazy()
        .select(
            "usage_row",
            "usage_key",
            "own_meter",
            hour_ends.matching_hour(),
            "end_hour",
            "provider",
            "model",
            "meter",
            *TIER_DEFAULTS,
            *OPTIONAL,
            "quantity",
            "list_cost",
            *(pl.col(f"executor_{part}").alias(f"owner_{part}") for part in ("agent", "team")),
            "source",
            *CALLER,
        )
    )


def _offers(
    usage: pl.DataFrame,
    surplus_usage: pl.DataFrame,
    overlogged_steps: Sequence[tuple[pl.DataFrame, pl.DataFrame]],
    matches: Mapping[int, _TokenMatch],
) -> pl.DataFrame:
    """What usage offers to the hour of its end: usage_row, quantity, list_cost; later usage and what drives other charges is none of it. (RA-3)"""
    driving_usage = pl.concat([match.drivers.matched_usage for match in matches.values()])
    is_open = ~_is_late(matches) & ~pl.col("usage_row").is_in(driving_usage.implode())
    return hour_ends.offer_surplus(usage, surplus_usage.filter(is_open), overlogged_steps)


def _open_groups(matches: Mapping[int, _TokenMatch]) -> pl.DataFrame:
    """What charges of a meter have left over, with the order of their invoices: the columns by which they are matched. (RA-3)"""
    frames = [
        pl.concat(
            [match.tokens.unmatched.filter(pl.col("billed_quantity") > 0), match.drivers.unmatched.filter(sells_meter())],
            how="diagonal_relaxed",
        )
        .select(MATCHED_COLUMNS)
        .with_columns(invoice_order=pl.lit(order, dtype=pl.Int64))
        for order, match in matches.items()
    ]
    return pl.concat(frames)


def _with_amounts(usage: pl.DataFrame, amounts: pl.DataFrame) -> pl.DataFrame:
    """The usage rows that `amounts` has, with its quantities and list costs."""
    rows = usage.drop("quantity", "list_cost").join(amounts, on="usage_row", maintain_order="left")
    return rows.select(usage.columns)


def match_offers(
    open_groups: pl.DataFrame, offers: pl.DataFrame, tolerance: Decimal, defaults: Sequence[Defaults] = ()
) -> pl.DataFrame:
    """The usage that charges with anything left over take in the hour of its end, with `into_batch`, that of these charges. (RA-3)

    `open_groups` are those of all batches, each with its number in `batch`, `offers` usage of any batch, numbered in `usage_row`. Conditions,
    levels and owners are those of all usage.
    """
    usage = _key_columns(hour_ends.at_its_end(offers)).collect()
    groups = {int(order): frame for (order,), frame in open_groups.partition_by("invoice_order", as_dict=True).items()}
    matches, surplus_usage = _match_invoices({order: groups[order] for order in sorted(groups)}, usage, tolerance, defaults)
    rows_by_batch = pl.concat(
        [
            shares.select("usage_row", "charge_group").join(
                groups[order].select("charge_group", into_batch="batch"), on="charge_group"
            )
            for order, match in matches.items()
            for shares in (*match.tokens.shares, match.drivers.shares)
            if shares.height
        ]
        or [pl.DataFrame(schema={"usage_row": pl.Int64, "charge_group": pl.Int64, "into_batch": pl.Int64})]
    )
    driving_usage = pl.concat([match.drivers.matched_usage for match in matches.values()])
    remainders = surplus_usage.filter(~pl.col("usage_row").is_in(driving_usage.implode()))
    remainders = remainders.select("usage_row", __quantity="quantity", __list_cost="list_cost")
    taken_usage = offers.join(rows_by_batch.group_by("usage_row").agg(pl.col("into_batch").min()), on="usage_row")
    taken_usage = taken_usage.join(remainders, on="usage_row", how="left").with_columns(
        pl.col(c) - pl.col(f"__{c}").fill_null(0) for c in ("quantity", "list_cost")
    )
    return taken_usage.drop("__quantity", "__list_cost").filter(pl.col("quantity") > 0)


def _is_late(matches: Mapping[int, _TokenMatch]) -> pl.Expr:
    """Whether a usage row lies in whole or in part after what running periods bill. (ES-1a)"""
    return pl.col("usage_row").is_in(pl.concat([match.late_usage for match in matches.values()]).implode())


def _match_invoices(
    invoices: dict[int, pl.DataFrame], usage: pl.DataFrame, tolerance: Decimal, defaults: Sequence[Defaults]
) -> tuple[dict[int, _TokenMatch], pl.DataFrame]:
    """Matches the invoices one after the other, each with what those before it left; what none of them took. (RA-2a)"""
    matches: dict[int, _TokenMatch] = {}
    surplus_usage = usage
    for order, groups in invoices.items():
        available_usage = _remaining_usage(usage, surplus_usage) if matches else usage
        matches[order] = _match_tokens(groups, available_usage, tolerance, defaults)
        surplus_usage = matches[order].tokens.usage
    return matches, surplus_usage


def _by_order_of_invoices(groups: pl.DataFrame, other_groups: pl.DataFrame | None) -> dict[int, pl.DataFrame]:
    """Charge groups of each invoice, the earliest first; those of the invoice that is matched stand under 0."""
    frames = {0: groups}
    if other_groups is not None and other_groups.height:
        frames |= {int(order): frame for (order,), frame in other_groups.partition_by("invoice_order", as_dict=True).items()}
    return {order: _with_owner_columns(frames[order]) for order in sorted(frames)}


@dataclass(frozen=True, slots=True)
class _TokenMatch:
    """Token charges of one or several invoices, matched: by quantity, and those without one by what used them."""

    tokens: TokenMatcher
    drivers: drivers.DriverResult

    @property
    def matched_usage(self) -> pl.Series:
        """Usage rows that a charge pays for, in whole or in part."""
        return pl.concat([self.tokens.matched_usage, self.drivers.matched_usage])

    @property
    def late_usage(self) -> pl.Series:
        """Usage rows that lie in whole or in part after what running periods bill, and that drive no other charge. (ES-1a)"""
        late_rows = self.tokens.late_usage
        return late_rows.filter(~late_rows.is_in(self.drivers.matched_usage.implode()))

    @property
    def uncaptured(self) -> pl.DataFrame:
        """What the charges have beyond the logs."""
        unmatched_groups = pl.concat([self.tokens.unmatched, self.drivers.unmatched], how="diagonal_relaxed")
        is_logged = pl.col("is_met").fill_null(value=False) | pl.col("meter").is_in(TOKEN_METERS).fill_null(value=False)
        # Logs that never mention a meter other than tokens may not know it at all.
        reason = pl.when(is_logged).then(pl.lit("uncaptured_usage")).otherwise(drivers.unmatched_reason())
        return unmatched_groups.with_columns(reason=reason).drop("is_met")


def _match_tokens(groups: pl.DataFrame, usage: pl.DataFrame, tolerance: Decimal, defaults: Sequence[Defaults]) -> _TokenMatch:
    tokens = TokenMatcher(groups.filter(pl.col("role") == "tokens"), usage, tolerance)
    tokens.match_all(defaults)
    driver_groups = groups.filter(pl.col("role") == "driver")
    meter_groups, model_groups = driver_groups.filter(sells_meter()), driver_groups.filter(sells_model())
    meter_usage, late_rows = until_cost_is_met(meter_groups, tokens.open_usage(), ["provider", "model", "meter"])
    model_usage, late_model_rows = until_cost_is_met(model_groups, usage, ["provider", "model"])
    late_model_rows = late_model_rows.filter(~late_model_rows.is_in(tokens.matched_usage.implode()))
    tokens.late_usage = pl.concat([tokens.late_usage, late_rows, late_model_rows])
    by_meter = drivers.split_by_quantity(meter_groups, meter_usage, ["provider", "model", "meter"])
    by_model = drivers.split_by_model(model_groups, model_usage, counted_usage=tokens.matched_usage)
    return _TokenMatch(tokens, drivers.DriverResult.combine([by_meter, by_model]))


def _remaining_usage(usage: pl.DataFrame, remainder: pl.DataFrame) -> pl.DataFrame:
    """Usage rows as they are logged, with the quantity and list cost that remain of each."""
    remaining = remainder.select("usage_row", "quantity", "list_cost")
    return usage.drop("quantity", "list_cost").join(remaining, on="usage_row").select(usage.columns)


def _with_owner_columns(groups: pl.DataFrame) -> pl.DataFrame:
    missing = [pl.lit(None, dtype=pl.String).alias(c) for c in ("owner_agent", "owner_team") if c not in groups.columns]
    return groups.with_columns(missing)


_GROUP_DIMENSIONS = {*COSTS.schema, "sku_meter", "resource_id"} - {*COST_COLUMNS, "quantity", "pool_id", "reason"}
"""Columns that a share repeats of its charge group: the dimensions of costs, and what credits are matched by."""


def with_dimensions(shares: pl.DataFrame, groups: pl.DataFrame, usage: pl.DataFrame) -> pl.DataFrame:
    """Shares with the dimensions of their charge group, and owner and dimensions of their usage row (``use_…`` where both sides have them).

    `groups` are all groups of the month in the order of their numbers, `usage` the rows that were matched.
    """
    if not shares.height:
        return shares
    group_columns = groups.select(c for c in groups.columns if c in _GROUP_DIMENSIONS)
    usage_columns = usage.select(
        *(pl.col(c).alias(f"use_{c}") for c in (*OPTIONAL, "reason")),
        "usage_key",
        "own_meter",
        *WHO,
        use_model="own_model",
        usage_hour="hour",
    )
    # Groups and usage are numbered in row order, so their columns are gathered rather than joined.
    return pl.concat([shares, group_columns[shares["charge_group"]], usage_columns[shares["usage_row"]]], how="horizontal")
