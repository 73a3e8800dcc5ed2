"""Queries of chains: the list, and the tree of one chain with every call priced from the published run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from api.models import ChainSummary, ChainTree
from api.queries import redaction
from api.queries.calls import CALL, with_ids
from api.queries.chain_limits import chain_limits
from api.queries.gate import WHOLE, Rows, ScopedBooks, published, scan_rollups, slice_rollups
from api.queries.listing import FrameListing, Listing, Order
from api.queries.pricing import price_calls
from api.queries.publication import one_publication
from api.queries.removals import removed_facts
from api.queries.tree import build_tree
from ledger.errors import ObjectMissingError, UsageError
from ledger.ids import trace_key
from ledger.periods import month_of
from ledger.tables import CALLS, CHAINS, SPANS

MAX_PAGE = 1000
_SUMMARY = [c.name for c in CHAINS.columns if c.name != "rollup_id"]


@dataclass(frozen=True, slots=True)
class ChainQuery:
    """Filters of the list of chains. Texts must match exactly, "" matches unknown values; `search` is any part of the root's name."""

    start: datetime | None = None
    end: datetime | None = None
    agent: str | None = None
    team: str | None = None
    method: str | None = None
    reason: str | None = None
    search: str | None = None


@one_publication
def chains(books: ScopedBooks, query: ChainQuery) -> Listing[ChainSummary]:
    """Chains that started in the range, by list cost, highest first; unpriced ones last."""
    if query.start is not None and query.end is not None and query.end <= query.start:
        raise UsageError("the range is empty", where="end", remedy="the range is [start, end): end must be later than start")
    months, condition = published(books, query.start, query.end), _condition(query)

    def batches(size: int) -> Iterator[pl.DataFrame]:
        for rows in slice_rollups(books, CHAINS, months, "initiator", size):
            yield rows.filter(condition).select(_SUMMARY)

    frame = scan_rollups(books, CHAINS, months, "initiator").filter(condition).select(_SUMMARY)
    order = (Order("list_cost", descending=True), Order("start_time", descending=True), Order("chain_id"))
    # Price books are in US dollars.
    return FrameListing(ChainSummary, frame, order, sums=("list_cost",), currency=pl.lit("USD"), is_of_runs=True, batches=batches)


def _condition(query: ChainQuery) -> pl.Expr:
    """Whether a row of `chains` fits the query."""
    conditions = [pl.lit(value=True)]
    if query.start is not None:
        conditions.append(pl.col("start_time") >= query.start)
    if query.end is not None:
        conditions.append(pl.col("start_time") < query.end)
    for column, value in (
        ("initiator_agent", query.agent),
        ("initiator_team", query.team),
        ("method", query.method),
        ("reason", query.reason),
    ):
        if value is not None:
            unknown = pl.col(column).is_null() | (pl.col(column) == "")
            conditions.append(pl.col(column) == value if value else unknown)
    if query.search:
        conditions.append(pl.col("root_name").str.contains(query.search, literal=True))
    return pl.all_horizontal(conditions)


@one_publication
def chain(books: ScopedBooks, chain_id: str) -> ChainTree:
    """One chain: its spans as a tree, its calls priced. Raises `ObjectMissingError` if no published rollup has the id."""
    tree = find_chain(books, chain_id)
    if tree is None:
        removals = "".join(f"; chains of {month}: {removal}" for month, removal in removed_facts(books, CHAINS).items())
        raise ObjectMissingError(
            f"no such chain{removals}", where=chain_id, remedy="GET /v1/chains lists them; has the month been attributed?"
        )
    return tree


def find_chain(books: ScopedBooks, chain_id: str) -> ChainTree | None:
    """One chain as a tree, or None."""
    summary = find_summary(books, chain_id)
    if summary is None:
        return None
    calls = calls_of(books, summary, WHOLE)
    tree = build_tree(summary, spans_of(books, summary), calls, price_calls(books, calls))
    tree = tree if books.sees_all else redaction.own_parts(tree, books)
    own_calls = calls if books.sees_all else calls_of(books, summary)
    return tree.model_copy(update={"limits": chain_limits(books, summary.start_time, own_calls)})


def find_summary(books: ScopedBooks, chain_id: str) -> ChainSummary | None:
    """The row of a chain in the list, or None; of a chain that another team started, what says nothing about that team.

    The id of a trace leads to its dearest chain: that is all there is to name a chain whose root has not ended yet.

    One in which the principal has no part takes the reads of one that is not there: the time tells nobody that it exists.
    """
    in_force = published(books)
    is_chain = pl.col("chain_id") == (chain_id if ":" in chain_id else _chain_of_trace(books, chain_id))
    rows = scan_rollups(books, CHAINS, in_force, "initiator").filter(is_chain)
    is_of_others = False
    if not books.sees_all and not rows.limit(1).collect().height:
        is_of_others = True
        if not scan_rollups(books, CALLS, in_force, "either").filter(is_chain).limit(1).collect().height:
            return None
        rows = scan_rollups(books, CHAINS, in_force, WHOLE).filter(is_chain)
    found_rows = rows.select(_SUMMARY).collect()
    if not found_rows.height:
        return None
    summary = ChainSummary.model_validate(found_rows.sort("start_time").row(0, named=True))
    return redaction.chain_of_others(summary) if is_of_others else summary


def _chain_of_trace(books: ScopedBooks, trace_id: str) -> str:
    is_of_trace = pl.col("trace_ids").list.contains(trace_id)
    chains_of_trace = scan_rollups(books, CHAINS, published(books), WHOLE).filter(is_of_trace).select("chain_id", "list_cost")
    dearest = (
        chains_of_trace.sort("list_cost", "chain_id", descending=True, nulls_last=True).head(1).collect()["chain_id"].to_list()
    )
    return dearest[0] if dearest else trace_id


def calls_of(books: ScopedBooks, summary: ChainSummary, rows: Rows = "either") -> pl.DataFrame:
    """Rows of `calls` of a chain with their ids, by start time; by default those that the principal's teams started or made."""
    first = month_of(summary.start_time)
    last = month_of(summary.end_time or summary.start_time)
    months = [m for m in published(books) if first <= m.month <= last]
    calls = scan_rollups(books, CALLS, months, rows).filter(pl.col("chain_id") == summary.chain_id)
    return with_ids(books, calls.sort("start_time", *CALL).collect())


def spans_of(books: ScopedBooks, summary: ChainSummary) -> pl.DataFrame:
    """Spans of a chain's traces; some may belong to other chains of the same traces."""
    keys = pl.Series([trace_key(t) for t in summary.trace_ids], dtype=pl.Int64)
    first, last = summary.start_time.date(), (summary.end_time or summary.start_time).date()
    days = pl.date_range(first, last, eager=True) if last >= first else pl.Series([first])
    # The dates are partitions: only their files are opened.
    return (
        books.whole.store.scan(SPANS, {"date": [str(d) for d in days]})
        .filter(pl.col("trace_key").is_in(keys.implode()))
        .sort("start_time", "trace_key", "span_key", "channel")
        .collect()
    )
