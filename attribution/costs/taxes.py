"""Taxes follow the taxed charges of their invoice, by what those cost and with the tax's sign. (RA-5)

A tax is matched in the first of these scopes that has a charge of its payer:

1. its own invoice, for a tax of this month;
2. its own invoice where the periods overlap, for a tax on an earlier month;
3. an earlier invoice that the tax names, in the costs published for it;
4. for a tax on an earlier month, the costs published for its time;
5. for a tax on an earlier month, this bill's charges of its time;
6. for a tax of this month, all charges of its provider and payer.

Within a scope the most specific keys come first: account and service, account, none. A key that the tax lacks is any. A key that no charge of the
scope has is passed over: Google's tax rows name a service of their own, "Invoice", and AWS's may name the account of the payer.

A tax row of 1.20 without account, of service "Tax", on an invoice of three charges:

| charge          | account | cost  | tax  |
| tokens of X     | 1111    |  3.00 | 0.09 |
| tokens of Y     | 1111    |  9.00 | 0.27 |
| support fee     |         | 28.00 | 0.84 |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from attribution.costs.corrections import Time, candidate_costs, following_rows, split_over_costs

_LEVELS: tuple[tuple[str, ...], ...] = (("account", "service"), ("account",), ())
"""Keys that a tax and the charges it taxes have in common beside those of its scope, most specific first."""

_OWN_KEYS = ("account", "service", "principal")
"""Keys of a tax that are passed over where no charge of the scope has them. A tax on a principal stays with that principal."""

_PREFIX = "tax_"
"""Keys are matched under names of their own, so that a tax keeps its service in costs whatever it is matched by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """Which costs a tax may follow: keys they share, how the periods lie, on this bill or on earlier ones, and for which taxes."""

    keys: tuple[str, ...]
    time: Time
    is_earlier: bool
    applies: pl.Expr


def follow_taxed_charges(
    groups: pl.DataFrame, current_costs: pl.DataFrame, earlier_costs: pl.DataFrame, *, month_begin: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits taxes over the costs of the charges they tax; returns shares, and taxes of which no taxed charge is known.

    `current_costs` are the costs allocated so far (without taxes: no tax is taxed), `earlier_costs` those published for earlier invoices. A tax whose
    period ends before `month_begin` is never charged to this month's users.
    """
    shares: list[pl.DataFrame] = []
    unmatched_groups = groups
    sides = {
        is_earlier: _with_match_keys(candidate_costs(costs, groups))
        for is_earlier, costs in ((False, current_costs), (True, earlier_costs))
    }
    for scope in _scopes(is_past=pl.col("period_end") <= month_begin):
        candidates = sides[scope.is_earlier]
        if not candidates.height or not unmatched_groups.height:
            continue
        for share in _follow_in_scope(unmatched_groups.filter(scope.applies), candidates, scope):
            shares.append(share)
            unmatched_groups = unmatched_groups.filter(~pl.col("charge_group").is_in(share["charge_group"].implode()))
    return following_rows(shares, groups), unmatched_groups


def _scopes(is_past: pl.Expr) -> tuple[_Scope, ...]:
    """The six scopes of the module's docstring, in their order."""
    payer, invoice = ("billing_account",), ("billing_account", "invoice_id")
    has_invoice = pl.col("invoice_id").is_not_null()
    return (
        _Scope(keys=invoice, time="any", is_earlier=False, applies=has_invoice & ~is_past),
        _Scope(keys=invoice, time="overlap", is_earlier=False, applies=has_invoice & is_past),
        _Scope(keys=invoice, time="any", is_earlier=True, applies=has_invoice),
        _Scope(keys=payer, time="overlap", is_earlier=True, applies=is_past),
        _Scope(keys=payer, time="overlap", is_earlier=False, applies=is_past),
        _Scope(keys=payer, time="any", is_earlier=False, applies=~is_past),
    )


def _follow_in_scope(groups: pl.DataFrame, candidates: pl.DataFrame, scope: _Scope) -> Iterator[pl.DataFrame]:
    """Shares of the taxes that some charge of the scope matches, level by level."""
    for scope_keys, scope_groups in _by_stated_keys(_with_match_keys(groups), scope.keys):
        open_groups = _without_absent_keys(scope_groups, candidates, scope_keys)
        for level in _LEVELS:
            for keys, level_groups in _by_stated_keys(open_groups, ("principal", *level)):
                match = ["currency", "provider", *(_PREFIX + key for key in (*scope_keys, *keys))]
                share = split_over_costs(level_groups, candidates, match, scope.time)
                if share.height:
                    open_groups = open_groups.filter(~pl.col("charge_group").is_in(share["charge_group"].implode()))
                    yield share.drop(c for c in share.columns if c.startswith(_PREFIX))


def _with_match_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its keys under the names they are matched by."""
    keys = ("billing_account", "invoice_id", *_OWN_KEYS)
    return frame.with_columns(pl.col(key).alias(_PREFIX + key) for key in keys if key in frame.columns)


def _by_stated_keys(groups: pl.DataFrame, keys: Sequence[str]) -> Iterator[tuple[list[str], pl.DataFrame]]:
    """Taxes by which of `keys` they state: those that lack one are matched without it."""
    has_key = [pl.col(_PREFIX + key).is_not_null().alias(key) for key in keys]
    for pattern in groups.select(has_key).unique().sort(keys, descending=True).iter_rows(named=True):
        is_alike = pl.all_horizontal(pl.lit(value=True), *(flag == pattern[key] for key, flag in zip(keys, has_key, strict=True)))
        yield [key for key in keys if pattern[key]], groups.filter(is_alike)


def _without_absent_keys(groups: pl.DataFrame, candidates: pl.DataFrame, scope_keys: Sequence[str]) -> pl.DataFrame:
    """Taxes with those of their own keys as null that no charge of their scope has."""
    scope = ["currency", "provider", *(_PREFIX + key for key in scope_keys)]
    for key in (_PREFIX + key for key in _OWN_KEYS):
        charge_keys = candidates.select(*scope, key).unique().with_columns(__present=pl.lit(value=True))
        groups = groups.join(charge_keys, on=[*scope, key], how="left", maintain_order="left")
        groups = groups.with_columns(pl.when("__present").then(key).alias(key)).drop("__present")
    return groups
