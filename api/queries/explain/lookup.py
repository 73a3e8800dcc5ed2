"""Resolves a reference to a chain, a call or a charge, and suggests similar ids where there is none."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import polars as pl

from api.models import ChainSummary
from api.queries.calls import CALL, with_ids
from api.queries.chains import find_summary
from api.queries.costs import CostQuery, matching_costs
from api.queries.explain.set_aside import spans_set_aside
from api.queries.gate import WHOLE, ScopedBooks, published, scan_rollups, scan_runs
from api.queries.removals import removed_facts
from ledger.charge_groups import CHARGE_GROUP_KEY, with_group_key
from ledger.errors import ObjectMissingError
from ledger.tables import CALLS, CHAINS, CHARGES, COSTS, LOTS, SPANS

_MIN_PREFIX = 6
"""Number of leading characters a suggestion shares with the reference."""
_MAX_MATCHES = 3
_CALL_IDS = ("gateway_call_id", "provider_request_id")


@dataclass(frozen=True, slots=True)
class Reference:
    """A resolved reference; exactly one field is set."""

    chain: ChainSummary | None = None
    calls: pl.DataFrame | None = None
    charges: pl.DataFrame | None = None
    spans: pl.DataFrame | None = None


def find(books: ScopedBooks, ref: str) -> Reference:
    """The chain, else the calls, the charges or the spans set aside with that id. Raises `ObjectMissingError` with similar ids."""
    if (summary := find_summary(books, ref)) is not None:
        return Reference(chain=summary)
    calls = calls_named(books, ref)
    if calls.height:
        return Reference(calls=calls)
    charges = _charges_named(books, ref)
    if charges.height:
        return Reference(charges=charges)
    spans = spans_set_aside(books, ref)
    if spans.height:
        return Reference(spans=spans)
    raise not_found_error(books, ref)


def calls_named(books: ScopedBooks, ref: str) -> pl.DataFrame:
    """Calls by gateway call id, provider request id, span id, or ``trace id:span id``."""
    trace, colon, span = ref.rpartition(":")
    is_span = pl.col("span_id") == ref
    if colon:
        is_span = is_span | ((pl.col("trace_id") == trace) & (pl.col("span_id") == span))
    spans = books.whole.store.scan(SPANS).filter(is_span).select(CALL).unique()
    is_match = pl.any_horizontal(pl.col(name) == ref for name in _CALL_IDS).fill_null(value=False)
    calls = scan_rollups(books, CALLS, published(books), "either")
    calls_of_spans = calls.filter(~is_match).join(spans, on=CALL, how="semi")
    return with_ids(books, pl.concat([calls.filter(is_match), calls_of_spans]).sort("start_time", *CALL).collect())


def _charges_named(books: ScopedBooks, ref: str) -> pl.DataFrame:
    """Charges with that id of which the principal sees a part. Where he sees a part of the bill, one of others takes the work of one that is not there."""
    charges = books.whole.store.scan(CHARGES).filter(pl.col("charge_id") == ref).sort("billing_month", "scope").collect()
    if books.sees_all:
        return charges
    own_costs = scan_runs(books, COSTS, published(books), "either")
    lot_ids = pl.concat_list(pl.concat_list("lot_id"), pl.col("lot_ids").fill_null([]))
    own_lots = own_costs.select("run_id", lot_id=lot_ids).explode("lot_id").unique()
    own_groups = scan_runs(books, LOTS, published(books), WHOLE).join(own_lots, on=["run_id", "lot_id"], how="semi").collect()
    keyed_charges = with_group_key(charges.lazy()).with_row_index("row").collect()
    own_groups = own_groups.rename({"month": "billing_month"})
    own_rows = keyed_charges.join(own_groups, on=["billing_month", *CHARGE_GROUP_KEY], nulls_equal=True, how="semi")["row"]
    return charges.with_row_index("row").filter(pl.col("row").is_in(own_rows.implode())).drop("row")


def not_found_error(books: ScopedBooks, ref: str) -> ObjectMissingError:
    """The error of an id that names nothing the principal sees, with similar ids."""
    in_force = published(books)
    front = ref[: max(_MIN_PREFIX, len(ref) // 2)]
    matches: list[str] = []
    if len(ref) >= _MIN_PREFIX:
        chains = scan_rollups(books, CHAINS, in_force, "initiator").select(name="chain_id")
        calls = scan_rollups(books, CALLS, in_force, "either")
        spans = books.whole.store.scan(SPANS).filter(pl.col("span_id").str.starts_with(front)).join(calls, on=CALL, how="semi")
        ids = [chains, *(calls.select(name=column) for column in _CALL_IDS), spans.select(name="span_id")]
        if books.sees_all:
            ids.append(books.whole.store.scan(CHARGES).select(name="charge_id"))
        ids_near = pl.concat(ids).filter(pl.col("name").str.starts_with(front)).unique().sort("name").head(1000).collect()
        matches = difflib.get_close_matches(ref, ids_near["name"].to_list(), n=_MAX_MATCHES, cutoff=0.3)
    remedy = f"similar: {', '.join(matches)}" if matches else _suggestion(books, ref)
    searched_text = (
        "searched for a chain, a call (trace:span, gateway call id, provider request id, span id) and a charge in "
        f"{_published_months_text(len(in_force))}"
    )
    searched_text += "".join(f"; calls of {month}: {removal}" for month, removal in removed_facts(books, CALLS).items())
    return ObjectMissingError(f"no chain, call or charge has that id; {searched_text}", where=ref, remedy=remedy)


def _published_months_text(months: int) -> str:
    return "1 published month" if months == 1 else f"{months} published months"


def _suggestion(books: ScopedBooks, ref: str) -> str:
    """The remedy where the reference is the name of a team, an agent or a model."""
    rows = scan_runs(books, COSTS, published(books), "either")
    for column, dimension in (("initiator_team", "team"), ("initiator_agent", "agent"), ("model", "model")):
        if rows.filter(pl.col(column) == ref).head(1).collect().height:
            return f"that is a {dimension}: explain the cell {dimension}={ref}"
    return "ids must match exactly; /v1/chains lists chains, and the explanation of a cell lists calls and charges"


def no_cost_error(books: ScopedBooks, query: CostQuery) -> ObjectMissingError:
    """The error of an empty cell: a value that does not occur, with similar ones, or a time range without costs."""
    everywhere = scan_runs(books, COSTS, published(books), query.view)
    for name, values in query.filters.items():
        column = query.column(name)
        values_present = everywhere.select(pl.col(column)).drop_nulls().unique().sort(column).collect()[column].to_list()
        for value in values:
            if value and value not in values_present:
                matches = difflib.get_close_matches(value, values_present, n=_MAX_MATCHES, cutoff=0.4)
                remedy = (
                    f"similar: {', '.join(matches)}" if matches else f"known values: {', '.join(values_present[:10]) or 'none'}"
                )
                return ObjectMissingError(f"no cost has {name} {value!r}", where=f"{name}={value}", remedy=remedy)
    anywhere = matching_costs(books, query).head(1).collect().height
    months = ", ".join(m.month for m in published(books)) or "none yet"
    reason = "no cost matches all filters" if not anywhere else "all usage in it is unpriced"
    return ObjectMissingError(
        reason, where="cell", remedy=f"months with figures: {months}; use fewer filters or a longer time range"
    )
