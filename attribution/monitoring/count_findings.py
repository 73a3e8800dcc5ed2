"""Findings about how emitters count: contradictions with the emitter table, differing costs, usage set aside. (CA-2b, CA-5, CA-6, RA-2b)"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from decimal import Decimal

import polars as pl

from ledger.money import MONEY
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import COUNT_EVIDENCE

_SOURCE = "attribution"
TOLERANCE = Decimal("0.01")
"""Reported and list cost may differ by this share, and by this much money."""


def problems(
    store: Store, month: str, rollup_ids: Sequence[str], implausible_usage: pl.DataFrame, *, currency: str, uri: str
) -> list[Problem]:
    """The findings of a month's rollups, each with its emitter, version, calls and money; `implausible_usage` is what was set aside. (RA-2b)"""
    if not rollup_ids:
        return []
    rows = store.scan(COUNT_EVIDENCE, {"month": [month], "rollup_id": list(rollup_ids)}).collect()
    return [
        *contradictions(rows, currency, uri),
        *differing_costs(rows, currency, uri),
        *absent_usage(rows, currency, uri),
        *set_aside(rows, currency, uri),
        *implausible_quantities(implausible_usage, rows, uri),
    ]


_SET_ASIDE = (
    (
        "echo",
        "calls repeat the call below them; the inner ones are counted",
        "nothing, if two instrumentations report one request; else let the sender state the id of each request (gen_ai.response.id)",
    ),
    (
        "wrapper",
        "spans of agents, workflows or counters repeat the usage of the calls below them; those are counted",
        "nothing; `rootcost explain TRACE:SPAN` says it of each span",
    ),
    (
        "wrapper_excess",
        "spans of agents, workflows or counters report more than the calls below them, all of which report; the excess is counted nowhere",
        "look for calls that are not exported, or have the emitter count only its own calls",
    ),
)
"""Reasons why usage of a span is set aside: reason, description, remedy. (CA-2b)"""


def set_aside(rows: pl.DataFrame, currency: str, uri: str) -> list[Problem]:
    """One finding for each emitter, version and reason why usage of its spans is set aside, with their number and list cost. (CA-2b)"""
    problem_list: list[Problem] = []
    keys = ["emitter", "emitter_version"]
    sums = [s for reason, *_ in _SET_ASIDE for s in (pl.col(f"{reason}_spans").sum(), _sum(f"{reason}_cost"))]
    for row in rows.group_by(keys).agg(sums).sort(keys, nulls_last=False).iter_rows(named=True):
        for reason, description, remedy in _SET_ASIDE:
            spans, cost = row[f"{reason}_spans"], row[f"{reason}_cost"]
            if spans:
                text = f"{reason}: {spans} {description}; {_money(cost, currency)} at list prices"
                place = _name(row["emitter"], row["emitter_version"])
                problem_list.append(
                    Problem(
                        *(_SOURCE, uri, place, "usage_scope", text, remedy),
                        rows=spans,
                        severity="warning",
                        cost=cost,
                        currency=currency,
                    )
                )
    return problem_list


def implausible_quantities(implausible_usage: pl.DataFrame, evidence: pl.DataFrame, uri: str) -> list[Problem]:
    """One finding for each agent, model and meter whose quantity was set aside, with the emitters that its source read. (RA-2b)"""
    emitters = evidence.group_by("source", "provider").agg(pl.col("emitter").drop_nulls().unique().sort())
    rows = implausible_usage.group_by("source", "provider", "model", "meter", "executor_agent", "executor_team", "currency").agg(
        pl.col("rows").sum(), pl.col("quantity").sum(), _sum("effective_cost")
    )
    rows = rows.sort(pl.all()).join(emitters, on=["source", "provider"], how="left", nulls_equal=True, maintain_order="left")
    return [
        Problem(
            _SOURCE,
            uri,
            f"{', '.join(row['emitter'] or [row['source'] or '?'])}: {row['executor_agent'] or 'unknown agent'}",
            row["meter"],
            f"implausible_usage: {row['quantity'].normalize():f} {row['meter']} of {row['model']} are more than 20 times what was billed; they "
            f"were set aside and scale nobody down. At stake: {_at_stake(row['effective_cost'], row['currency'])}",
            "fix the unit or the counter of the sender, send its usage again, or ingest the bill that has it",
            rows=row["rows"],
            severity="warning",
        )
        for row in rows.iter_rows(named=True)
    ]


def contradictions(rows: pl.DataFrame, currency: str, uri: str) -> list[Problem]:
    """One finding for each emitter and version whose records contradict the emitter table. (CA-5)"""
    sums = (
        rows.filter(pl.col("contradicted_calls") > 0)
        .group_by("emitter", "emitter_version")
        .agg(pl.col("contradicted_calls").sum(), _sum("contradicted_cost"), pl.col("model").drop_nulls().unique().sort())
        .sort("emitter", "emitter_version", nulls_last=False)
    )
    return [
        Problem(
            _SOURCE,
            uri,
            _name(emitter, version),
            "input_includes_cache, output_includes_reasoning",
            f"count_contradiction: {calls} calls of {_list(models)} count otherwise than the emitter table says; the records were believed, "
            f"{_money(cost, currency)} at list prices",
            "correct the emitter in emitters.csv, or from this version on in emitter_versions.csv",
            rows=calls,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for emitter, version, calls, cost, models in sums.iter_rows()
    ]


def differing_costs(rows: pl.DataFrame, currency: str, uri: str) -> list[Problem]:
    """One finding for each emitter and model whose reported costs are not what the price book gives. (CA-6)

    A deviation counts above 1 % of the list cost and 0.01 of money.
    """
    sums = (
        rows.filter(pl.col("compared_calls") > 0)
        .group_by("emitter", "model")
        .agg(pl.col("compared_calls").sum(), pl.col("compared_cost").sum(), pl.col("reported_cost").sum().cast(MONEY))
        .with_columns(difference=(pl.col("reported_cost") - pl.col("compared_cost")).abs())
        .filter(
            pl.col("difference") > pl.lit(TOLERANCE).cast(MONEY),
            pl.col("difference") > pl.col("compared_cost") * pl.lit(TOLERANCE).cast(MONEY),
        )
        .sort("emitter", "model", nulls_last=False)
    )
    return [
        Problem(
            _SOURCE,
            uri,
            f"{emitter or '?'} {model or '?'}",
            "reported_cost",
            f"reported_cost_differs: {calls} calls are reported at {_money(reported_cost, currency)} and cost {_money(cost, currency)} at list "
            "prices; the reported cost is not booked",
            f"compare the rates of the emitter with `rootcost prices history {shlex.quote(model or 'MODEL')}`; import your contract prices, or "
            "update the emitter",
            rows=calls,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for emitter, model, calls, cost, reported_cost, _ in sums.iter_rows()
    ]


def absent_usage(rows: pl.DataFrame, currency: str, uri: str) -> list[Problem]:
    """One finding for each emitter and model whose calls report no usage, with the cost that the emitter reports for them. (CA-4, CA-6)"""
    sums = (
        rows.filter(pl.col("absent_calls") > 0)
        .group_by("emitter", "model")
        .agg(pl.col("absent_calls").sum(), _sum("absent_reported_cost").cast(MONEY))
        .sort("emitter", "model", nulls_last=False)
    )
    return [
        Problem(
            _SOURCE,
            uri,
            f"{emitter or '?'} {model or '?'}",
            "usage",
            f"usage_absent: {calls} {'call reports' if calls == 1 else 'calls report'} no usage, and nothing is booked for it; the emitter's own "
            + ("cost is not known either" if cost is None else f"cost is {_money(cost, currency)}"),
            "turn usage on in the sender (for streams: include_usage); the bill has it as uncaptured usage",
            rows=calls,
            severity="warning",
            cost=cost,
            currency=currency,
        )
        for emitter, model, calls, cost in sums.iter_rows()
    ]


def _at_stake(amount: Decimal | None, currency: str | None) -> str:
    return "nothing of this bill" if amount is None else f"{_money(amount, currency or '?')} of the bill, which it would have had"


def _sum(column: str) -> pl.Expr:
    return pl.when(pl.col(column).is_not_null().any()).then(pl.col(column).sum())


def _name(emitter: str | None, version: str | None) -> str:
    return " ".join(filter(None, (emitter or "?", version)))


def _list(models: Sequence[str]) -> str:
    """The first three names.

    >>> _list(["a", "b", "c", "d", "e"]), _list([])
    ('a, b, c and 2 more', 'an unnamed model')
    """
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return ", ".join(models[:3]) + more if models else "an unnamed model"


def _money(amount: Decimal | None, currency: str) -> str:
    return "unpriced" if amount is None else f"{amount.quantize(Decimal('0.000001')):f} {currency}"
