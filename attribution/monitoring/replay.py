"""Replay: a month computed again with some of its inputs as they were, to measure how much each cause changed. (TI-2)

Facts are only added or replaced in versions, so what an earlier run read can be read again. Between two runs the changed inputs are replaced
one group after the other; the change in costs at each step is attributed to that group. The first and the last costs are those that were
published, so the changes sum to the difference to the last digit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from attribution.costs import shared_rules
from attribution.costs.month import compute_in_memory
from attribution.costs.prior_months import PriorMonths
from attribution.pricing import PriceBook
from attribution.usage.build import stored_usage
from attribution.usage.reader import Usage
from ledger import periods, registry
from ledger.books import Books
from ledger.db import Audit, Drawing
from ledger.hashing import fingerprint
from ledger.settings import AttributionSettings
from ledger.store import Store
from ledger.tables import CHARGES, PRICES, Table

GROUPS: tuple[tuple[str, ...], ...] = (
    ("earlier",),
    ("spans", "registry", "prices", "reading"),
    ("charges",),
    ("beside",),
    ("rules",),
)
"""Inputs in the order in which they are replaced. Those of one group take effect in one pass over the spans and stay together.

Other code comes before all of them, together with the settings spans are read by and the earlier months: no version computes as another did.
"""

MAX_VERSIONS = 300
"""How many commits of a table are searched for what a run read."""

Inputs = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunFacts:
    """What a run read of a month."""

    charges: pl.LazyFrame
    other_invoices: pl.LazyFrame
    usage: Usage
    timeline: pl.DataFrame
    book: PriceBook
    settings: AttributionSettings


def changed_groups(old: Inputs, new: Inputs) -> list[tuple[str, ...]]:
    """The inputs that differ, group by group."""
    groups = GROUPS if old.get("code") == new.get("code") else (("code", *GROUPS[0], *GROUPS[1]), *GROUPS[2:])
    groups_of_changes = (tuple(name for name in group if old.get(name) != new.get(name)) for group in groups)
    return [group for group in groups_of_changes if group]


def intermediate_costs(books: Books, month: str, old: Inputs, new: Inputs) -> list[pl.DataFrame] | None:
    """The costs after each changed group but the last was replaced.

    None where something a run read cannot be read any more, or where another version than this one computed the new run.
    """
    groups = changed_groups(old, new)
    if len(groups) < 2:
        return []
    earlier = PriorMonths(books, "")
    if earlier.fingerprint(month, {}) != new.get("earlier") or earlier.code(month, {}) != new.get("code"):
        return None
    old_facts, new_facts = _facts_of_run(books, month, old), _facts_of_run(books, month, new)
    if old_facts is None or new_facts is None:
        return None
    frames, state = [], old_facts
    for group in groups[:-1]:
        if group == ("charges",):
            state = replace(state, charges=new_facts.charges)
        elif group == ("beside",):
            state = replace(state, other_invoices=new_facts.other_invoices)
        elif group == ("rules",):
            state = replace(state, settings=new_facts.settings)
        elif group != ("earlier",):
            state = replace(state, usage=new_facts.usage, timeline=new_facts.timeline, book=new_facts.book)
        month_costs = compute_in_memory(
            state.charges,
            state.usage,
            state.timeline,
            state.book,
            state.settings,
            run_id="",
            month=month,
            other_invoices=state.other_invoices,
            past_rates=earlier.rates(month),
            past_costs=earlier.costs(month),
        )
        frames.append(month_costs)
    return frames


def _facts_of_run(books: Books, month: str, inputs: Inputs) -> _RunFacts | None:
    charges = _as_of(books.store, CHARGES, {"billing_month": [month]}, inputs["charges"])
    neighbouring_charges = _as_of(books.store, CHARGES, {"billing_month": periods.adjacent_months(month)}, inputs["beside"])
    prices = _as_of(books.store, PRICES, None, inputs["prices"])
    owners = registry.rows(books)
    owners = owners.head(int(inputs["registry"].partition(":")[0]))
    settings = _settings(books, inputs.get("rules", ""))
    if (
        charges is None
        or neighbouring_charges is None
        or prices is None
        or settings is None
        or registry.revision(owners) != inputs["registry"]
    ):
        return None
    usage = _usage(books, month, charges, inputs)
    if usage is None:
        return None
    hours = (pl.col("charge_period_start") < periods.month_end(month)) & (
        pl.col("charge_period_end") > periods.month_start(month)
    )
    other_invoices = neighbouring_charges.filter((pl.col("charge_category") == "Usage") & hours)
    return _RunFacts(
        charges=charges,
        other_invoices=other_invoices,
        usage=usage,
        timeline=registry.timeline(owners),
        book=PriceBook(prices.collect()),
        settings=settings,
    )


def _as_of(store: Store, table: Table, partition: dict[str, list[str]] | None, wanted_fingerprint: str) -> pl.LazyFrame | None:
    """A table's partition as it was when its fingerprint was `wanted_fingerprint`."""
    if wanted_fingerprint == "empty":
        return table.empty().lazy()
    newest = store.version(table)
    for version in range(newest if newest is not None else -1, -1, -1)[:MAX_VERSIONS]:
        if store.fingerprint(table, partition, version=version) == wanted_fingerprint:
            return store.scan(table, partition, version=version)
    return None


def _settings(books: Books, digest: str) -> AttributionSettings | None:
    with books.database.session() as session:
        query = sa.select(Audit.after).where(Audit.action == shared_rules.SETTINGS, Audit.subject == digest)
        after = session.scalars(query).first()
    if after is None:
        return None
    return AttributionSettings.model_validate(books.settings.attribution.model_dump() | json.loads(after["deciding"]))


def _usage(books: Books, month: str, charges: pl.LazyFrame, inputs: Inputs) -> Usage | None:
    """The hourly usage a run used, from the rollups it was built from."""
    spans = inputs["spans"].split("|") if inputs["spans"] else []
    usage = charges.filter(pl.col("charge_category") == "Usage")
    first, last = (
        usage.select(pl.col("charge_period_start").min().alias("first"), pl.col("charge_period_end").max().alias("last"))
        .collect()
        .row(0)
    )
    usage_months = {month} | (set(periods.months_between(first, last)) if isinstance(first, datetime) else set())
    with books.database.session() as session:
        drawings = {(d.month, d.fingerprint): list(d.rollup_ids) for d in session.scalars(sa.select(Drawing))}
    standing_inputs = [inputs["registry"], inputs["prices"], inputs["reading"]]
    if "code" in inputs:  # older versions recorded none
        standing_inputs.append(inputs["code"].partition("+")[0])
    months: list[str] = []
    ids: list[list[str]] = []
    for part in spans:
        # Parts come in the order of their months, one for each month that had spans.
        later = (
            m
            for m in sorted(usage_months)
            if m > (months[-1] if months else "") and (m, fingerprint(part, *standing_inputs)) in drawings
        )
        month_of_part = next(later, None)
        if month_of_part is None:
            return None
        months.append(month_of_part)
        ids.append(drawings[month_of_part, fingerprint(part, *standing_inputs)])
    rollup_ids = [rollup_id for rollups_of_month in ids for rollup_id in rollups_of_month]
    return stored_usage(books.store, months, rollup_ids)
