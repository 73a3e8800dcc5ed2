"""Runaway chains: a tool called with the same arguments again and again, a step that keeps failing, depth, fan-out, and cost beyond the agent's own p99.

Found in the spans of the last `runaway.window_minutes`, trace by trace, without waiting for the root span, which a chain that does not end never sends.
Nothing is remembered but what agents' chains usually cost: alerts are named by chain and cause, so that a restart raises none twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import polars as pl

from attribution.as_of import owner_at
from ledger import registry
from ledger.alerts import add_new, alert_id
from ledger.books import Books
from ledger.db import Alert
from ledger.money import readable_amounts, text
from ledger.periods import month_of, now
from ledger.published import published_months
from ledger.settings import RunawaySettings
from ledger.tables import CALLS, CHAINS, SPANS, Table

KIND: Final = "runaway"
HISTORY_DAYS: Final = 30
"""Days before whose chains say what an agent's chains cost."""
_USUAL_COST_SECONDS: Final = 3600
_MAX_TRACES, _MAX_SPANS = 1_000, 1_000_000
"""Most traces and spans that are looked at in a round, the largest first: it bounds the memory."""
_MAX_DEPTH: Final = 1_000
_COLUMNS: Final = (
    "trace_key", "span_key", "parent_key", "trace_id", "start_time", "operation", "name", "tool_name", "agent_name", "service_name", "status",
    "attempt", "attributes",
)  # fmt: skip
_CURRENCY: Final = "USD"
_NO_FAN_OUT: Final = ("embeddings", "rerank", "retrieval")
"""What is rightly called for each of many documents."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a trace has passed: by what, and in words. The cause `cost` has the agent and team that usage was attributed to."""

    trace_key: int
    cause: str
    figure: str
    limit: str
    text: str
    agent: str | None = None
    team: str | None = None
    actual: str | None = None


class RunawayWatch:
    """Looks for runaway chains where anything has arrived since it looked last, for at most a third of the time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._seen: object = None
        self._due_at = float("-inf")
        self._usual: dict[str, Decimal] = {}
        self._usual_until = float("-inf")

    def look(self) -> list[Alert]:
        """Raises the alerts of chains that have run away since, and returns them."""
        start_seconds = time.monotonic()
        state = (self._books.store.version(SPANS), published_months(self._books.database))
        if state == self._seen or start_seconds < self._due_at:
            return []
        if start_seconds >= self._usual_until:
            self._usual = usual_costs(self._books, now())
            self._usual_until = start_seconds + _USUAL_COST_SECONDS
        new_alerts = raise_alerts(self._books, now(), self._usual)
        self._seen = state
        self._due_at = time.monotonic() + 2 * (time.monotonic() - start_seconds)
        return new_alerts


def raise_alerts(books: Books, at: datetime, usual: dict[str, Decimal]) -> list[Alert]:
    """Raises an alert for each chain and cause that is new; `usual` is what agents' dearest chains cost, one in a hundred left out."""
    since = at - timedelta(minutes=books.settings.runaway.window_minutes)
    spans = _candidates(books, since, at)
    excesses = [*find(spans, books.settings.runaway), *_costly(books, since, usual)]
    if not excesses:
        return []
    traces = _described(books, since, at, {excess.trace_key for excess in excesses})
    alerts = [_alert(books, excess, traces[excess.trace_key], at) for excess in excesses if excess.trace_key in traces]
    with books.database.session() as session:
        return add_new(session, alerts)


def _window(books: Books, since: datetime, until: datetime) -> pl.LazyFrame:
    days = pl.date_range(since.date(), until.date() + timedelta(days=1), eager=True)
    rows = books.store.scan(SPANS, {"date": [str(day) for day in days]})
    return rows.filter(pl.col("start_time") >= since).select(_COLUMNS)


def _candidates(books: Books, since: datetime, until: datetime) -> pl.DataFrame:
    """Spans of the traces that have enough of them to pass any limit, each once."""
    limits = books.settings.runaway
    fewest = min(limits.same_tool_calls, limits.failures, limits.depth, limits.fan_out)
    window = _window(books, since, until)
    counts = window.group_by("trace_key").len("spans").filter(pl.col("spans") > fewest)
    traces = counts.sort("spans", descending=True).head(_MAX_TRACES).collect(engine="streaming")["trace_key"]
    spans = window.filter(pl.col("trace_key").is_in(traces.implode())).head(_MAX_SPANS).collect(engine="streaming")
    # Several channels may tell of one span: the one that names the most.
    spans = spans.with_columns(told=pl.sum_horizontal(pl.col(c).is_not_null() for c in ("tool_name", "attributes", "operation")))
    return spans.sort("told", descending=True).unique(["trace_key", "span_key"], keep="first")


def find(spans: pl.DataFrame, limits: RunawaySettings) -> list[Excess]:
    """The limits that traces have passed, one for each trace and cause. A pure function of their spans."""
    window_text = f"within {limits.window_minutes} minutes"
    digest = pl.col("attributes").str.json_path_match("$.arguments_digest")
    calls = spans.with_columns(arguments=digest).filter(pl.col("tool_name").is_not_null(), pl.col("arguments").is_not_null())
    failures = spans.filter((pl.col("status") == "error") | (pl.col("attempt") > 0))
    steps = spans.filter(
        pl.col("operation").is_not_null(), ~pl.col("operation").is_in(_NO_FAN_OUT), pl.col("parent_key").is_not_null()
    )
    return [
        *_excesses(
            calls.group_by("trace_key", "tool_name", "arguments").len("number"), "same_tool_calls", limits.same_tool_calls,
            lambda n, row: (f"{n:,} calls", f"tool {row['tool_name']} was called {n:,} times with the same arguments {window_text}"),
        ),
        *_excesses(
            failures.group_by("trace_key", name=pl.coalesce("tool_name", "name")).len("number"), "failures", limits.failures,
            lambda n, row: (f"{n:,} failures", f"{row['name'] or 'a step'} failed or was tried again {n:,} times {window_text}"),
        ),
        *_excesses(_depths(spans), "depth", limits.depth, lambda n, _: (f"{n:,} levels", f"its steps are nested {n:,} levels deep")),
        *_excesses(
            steps.group_by("trace_key", "parent_key").len("number"), "fan_out", limits.fan_out,
            lambda n, _: (f"{n:,} steps", f"one step started {n:,} others {window_text}"),
        ),
    ]  # fmt: skip


def _excesses(
    counts: pl.DataFrame, cause: str, limit: int, tell: Callable[[int, dict[str, str | None]], tuple[str, str]]
) -> Iterator[Excess]:
    """Of each trace the highest count above the limit."""
    most = counts.filter(pl.col("number") > limit).sort("number", *counts.columns[:-1], descending=True, nulls_last=True)
    for row in most.unique("trace_key", keep="first", maintain_order=True).sort("trace_key").iter_rows(named=True):
        figure, sentence = tell(row["number"], row)
        yield Excess(row["trace_key"], cause, figure, f"{limit:,} {figure.split()[-1]}", sentence, actual=str(row["number"]))


def _depths(spans: pl.DataFrame) -> pl.DataFrame:
    """How deep the spans of each trace are nested, as far as they have arrived. A cycle has no first level, and is not entered."""
    nodes = spans.select("trace_key", "span_key", "parent_key")
    level = nodes.join(nodes, left_on=["trace_key", "parent_key"], right_on=["trace_key", "span_key"], how="anti")
    depths = level.select("trace_key").unique().with_columns(number=pl.lit(1, pl.UInt32))
    for depth in range(2, _MAX_DEPTH):
        parents = level.select("trace_key", parent_key="span_key")
        level = nodes.join(parents, on=["trace_key", "parent_key"], how="inner")
        if not level.height:
            break
        at_depth = level.select("trace_key").unique().with_columns(number=pl.lit(depth, pl.UInt32))
        depths = pl.concat([at_depth, depths]).unique("trace_key", keep="first")
    return depths


# ── cost ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def usual_costs(books: Books, at: datetime) -> dict[str, Decimal]:
    """Agent → the list cost that 99 of 100 of its chains of the last month stay within; of agents with enough chains for that."""
    limits = books.settings.runaway
    until = at - timedelta(minutes=limits.window_minutes)
    since = until - timedelta(days=HISTORY_DAYS)
    chains = _published(books, CHAINS, since, until)
    if chains is None:
        return {}
    costs_by_agent = (
        chains.filter(pl.col("start_time") >= since, pl.col("start_time") < until, pl.col("list_cost").is_not_null())
        .group_by(agent="initiator_agent")
        .agg(pl.len().alias("chains"), p99=pl.col("list_cost").sort().get(pl.len() * 99 // 100))
        .filter(pl.col("chains") >= limits.least_chains, pl.col("agent").is_not_null())
        .collect()
    )
    return dict(costs_by_agent.select("agent", "p99").iter_rows())


def _costly(books: Books, since: datetime, usual: dict[str, Decimal]) -> Iterator[Excess]:
    limits = books.settings.runaway
    calls = _published(books, CALLS, since, since + timedelta(minutes=limits.window_minutes)) if usual else None
    if calls is None:
        return
    spent = (
        calls.filter(pl.col("start_time") >= since)
        .group_by("trace_key")
        .agg(
            pl.col("list_cost").sum(),
            pl.col("initiator_agent", "initiator_team").sort_by(pl.col("list_cost").fill_null(0), "span_key").last(),
        )
        .filter(pl.col("list_cost") > limits.least_cost)
        .sort("list_cost", "trace_key", descending=True)
        .head(_MAX_TRACES)
        .collect()
    )
    for row in spent.iter_rows(named=True):
        agent, cost = row["initiator_agent"], row["list_cost"]
        if agent not in usual or cost <= (limit := max(usual[agent] * limits.cost_factor, limits.least_cost)):
            continue
        figure, limit_text, p99 = readable_amounts(cost, limit, usual[agent])
        sentence = f"its calls cost {_CURRENCY} {figure} at list price within {limits.window_minutes} minutes; 99 of 100 chains of {agent} cost up to {p99}"
        yield Excess(
            row["trace_key"], "cost", f"{_CURRENCY} {figure}", f"{_CURRENCY} {limit_text}", sentence, agent, row["initiator_team"], text(cost)
        )  # fmt: skip


def _published(books: Books, table: Table, since: datetime, until: datetime) -> pl.LazyFrame | None:
    """Rows of calls or chains that the published months show, of the months around a time."""
    bounds = (month_of(since), month_of(until))
    months = [m for m in published_months(books.database) if bounds[0] <= m.month <= bounds[1]]
    rollup_ids = [rollup for m in months for rollup in m.rollup_ids]
    if not rollup_ids:
        return None
    return books.store.scan(table, {"month": [m.month for m in months], "rollup_id": rollup_ids})


# ── alerts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _described(books: Books, since: datetime, until: datetime, trace_keys: set[int]) -> dict[int, dict[str, str | None]]:
    """Trace → its id, the agent that its first span names, else its service, and the team that owns the agent then."""
    first = (
        _window(books, since, until)
        .filter(pl.col("trace_key").is_in(sorted(trace_keys)))
        .select("trace_key", "trace_id", "start_time", "span_key", "agent_name", "service_name")
        .collect()
        .sort("start_time", "span_key")
        .group_by("trace_key", maintain_order=True)
        .agg(pl.col("trace_id", "agent_name", "service_name").drop_nulls().first(), pl.col("start_time").first())
        .with_columns(agent=pl.coalesce("agent_name", "service_name"))
    )
    owners = owner_at(first, registry.timeline(registry.rows(books)), name="agent", at="start_time", kinds=("agent", "alias"))
    traces = first.select("trace_key", "trace_id", named="agent").hstack(owners.select("agent", "team"))
    return {row["trace_key"]: row | {"agent": row["agent"] or row["named"]} for row in traces.iter_rows(named=True)}


def _alert(books: Books, excess: Excess, trace: dict[str, str | None], at: datetime) -> Alert:
    trace_id = trace["trace_id"] or f"{excess.trace_key:x}"
    agent, team = excess.agent or trace["agent"] or "unknown", excess.team or trace["team"]
    return Alert(
        alert_id=alert_id(f"{KIND}|{excess.trace_key}|{excess.cause}"),
        kind=KIND,
        severity="critical",
        subject=agent,
        text=f"A chain of {agent} is running away: {excess.text} (limit: {excess.limit}).",
        address="",
        payload={
            "cause": excess.cause, "trace_id": trace_id, "scope": "agent", "scope_name": agent, "actual": excess.actual,
            "window_minutes": books.settings.runaway.window_minutes,
        },
        team=team,
        figure=excess.figure,
        limit_text=excess.limit,
        next_step="Open the chain and stop the run; a hard budget with the period chain limits what one run may cost.",
        chain_id=trace_id,
        created_at=at,
        attempts=0,
    )  # fmt: skip
