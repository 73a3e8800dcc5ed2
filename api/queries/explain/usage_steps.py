"""Steps about usage: hourly rows, calls, executor, initiator, and the owning teams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Part, Remainder, Step
from api.queries.calls import CALL, with_ids
from api.queries.explain import text
from api.queries.explain.text import UNKNOWN_NAMES, Figure, amount, amounts, count, meter, owner_name
from api.queries.gate import WHOLE, published, scan_rollups
from api.queries.shares import split_over_calls, usage_of_calls, usage_totals
from ledger import registry
from ledger.plurals import counted
from ledger.tables import CALLS

_METHODS: Mapping[str, str] = {
    "path": "the topmost agent on the path from the call to the root",
    "claim": "named as the root agent by a trusted source; no agent on the path contradicts it",
    "conversation": "the owner of the conversation of the call",
    "credential": "the owner of the API key in the registry",
    "principal": "the owner of the cloud identity in the registry",
    "service": "the owner of the calling service in the registry",
    "unknown": "no span on the path and no key, identity or service identifies an agent",
    "owner": "owner of the principal, resource or tag on the bill",
    "proportional": "shared in proportion to metered cost",
    "even": "shared evenly",
    "fixed": "shared by the fixed weights of the rule",
    "usage": "shared by usage",
}


def usage_step(figure: Figure) -> Step | None:
    """The hourly usage rows the cost is allocated to. (CA-2)"""
    bears = figure.rows.filter(pl.col("usage_key").is_not_null())
    window = bears.select(pl.col("period_start").min(), last=pl.col("period_end").max())
    first, last = window.collect().row(0)
    if first is None:
        return None
    groups = text.top_groups(bears, ["usage_key", "meter"], figure.most, *(pl.col(c).first() for c in _USAGE_FACTS))
    keys = pl.Series([row["usage_key"] for row in groups.top], dtype=pl.Int64).unique()
    usage_rows = {(r["usage_key"], r["meter"]): r for r in usage_totals(figure.books, keys, first, last).iter_rows(named=True)}
    other = text.nonzero(text.minus(figure.cost, groups.sum))
    sentence = f"{text.of_it(groups.sum)} is allocated to {counted(groups.count, 'hourly usage row')}"
    if other:
        sentence += f"; {amounts(other)} has no logged call"
    return Step(
        step="usage",
        rule="CA-2",
        sentence=f"{sentence}.",
        facts=text.json_values({"on_no_usage": other} if other else {}),
        parts=[_usage_part(row, usage_rows.get((row["usage_key"], row["meter"]))) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )


_USAGE_FACTS = ("model", "resource", "executor_agent", "executor_team", "initiator_agent", "initiator_team")


def _usage_part(row: dict[str, Any], usage_row: dict[str, Any] | None) -> Part:
    values = usage_row or {}
    subject = row["model"] or row["resource"] or "an unknown model"
    times = f"{text.when(values['hour'])}, " if usage_row else ""
    many_calls = f" of {counted(values['calls'], 'call')}" if usage_row else ""
    quantity = count(values.get("quantity"))
    agents = f"{row['executor_agent'] or 'an unknown agent'} for {row['initiator_agent'] or row['initiator_team'] or 'an unknown agent'}"
    sentence = f"{times}{subject}, {agents}: {quantity} {meter(row['meter'])}{many_calls}, {amount(row['cost'], row['currency'])}"
    facts = {name: values.get(name) for name in ("hour", "quantity", "calls", "list_cost")}
    return text.part(sentence, row, usage_key=row["usage_key"], meter=row["meter"], **{n: row[n] for n in _USAGE_FACTS}, **facts)


def call_steps(figure: Figure) -> list[Step]:
    """The calls by cost, highest first, and their chains. (CA-1, CH-1)"""
    if figure.calls is not None:
        whole, calls, top_calls = figure.calls.height, figure.calls, figure.calls
        call_total = figure.cost
        held_time: text.Costs = {}
    else:
        top_calls, whole, call_total, held_time = _dearest(figure)
        calls = top_calls
    if not whole and not held_time:
        return []
    call_costs = _priced(figure, calls)
    rows = sorted(
        ({**row, **cost} for row in top_calls.iter_rows(named=True) for cost in call_costs.get((row["trace_key"], row["span_key"]), [_NO_PRICE])),
        key=lambda row: (row["cost"] is None, -abs(row["cost"] or Decimal(0)), row["start_time"], text.call_ref(row)),
    )  # fmt: skip
    top_rows = rows[: figure.most]
    remainder = text.minus(call_total, text.total(top_rows))
    unlisted_calls = whole - len({(row["trace_key"], row["span_key"]) for row in top_rows})
    sentence = f"{text.of_it(call_total)} is {counted(whole, 'call')}"
    if figure.calls is None and unlisted_calls:
        sentence += "; those listed have the highest list cost, each with its exact share of its hourly usage row"
    if held_time:
        sentence += f"; {amounts(held_time)} is resource time measured on spans"
    step = Step(
        step="call",
        rule="CA-1",
        sentence=f"{sentence}.",
        facts=text.json_values({"calls": whole} | ({"held_time": held_time} if held_time else {})),
        parts=[_call_part(row) for row in top_rows],
        rest=Remainder(count=unlisted_calls, cost=remainder) if unlisted_calls or text.nonzero(remainder) else None,
        sum=call_total,
    )
    chains = list(dict.fromkeys(row["chain_id"] for row in top_rows))
    step.links = [text.link("chain", chain) for chain in chains]
    return [step]


_NO_PRICE: dict[str, Any] = {"cost": None, "currency": None, "used": ""}


def _dearest(figure: Figure) -> tuple[pl.DataFrame, int, text.Costs, text.Costs]:
    """The calls with the highest list cost, their number, their total, and the cost of resource time, which has no call."""
    bears = figure.rows.filter(pl.col("usage_key").is_not_null())
    first, last = bears.select(pl.col("period_start").min(), last=pl.col("period_end").max()).collect().row(0)
    if first is None:
        return CALLS.empty(), 0, {}, {}
    months = published(figure.books, first, last)
    calls = scan_rollups(figure.books, CALLS, months, WHOLE)
    keys = bears.select("usage_key").unique()
    # The usage of a call with several chains (fan-in) is in several usage rows. (CH-1)
    split_calls = calls.filter(pl.col("shares").is_not_null()).with_columns(
        pl.col("shares").list.eval(pl.element().struct.field("usage_key")).alias("__keys")
    )
    matching_shares = split_calls.explode("__keys").join(keys, left_on="__keys", right_on="usage_key", how="semi").drop("__keys")
    figure_calls = pl.concat([calls.join(keys, on="usage_key", how="semi"), matching_shares]).unique([*CALL])
    usage_keys = pl.concat([calls.select("usage_key").drop_nulls(), split_calls.select(usage_key="__keys").explode("usage_key")])
    order = [pl.col("list_cost"), pl.col("start_time"), *map(pl.col, CALL)]
    top, total, borne, whole = pl.collect_all(
        [
            figure_calls.sort(order, descending=[True, False, False, False], nulls_last=True).head(figure.most),
            figure_calls.select(pl.len()),
            _by_currency(bears.join(usage_keys.unique(), on="usage_key", how="semi")),
            _by_currency(bears),
        ]
    )
    by_calls: text.Costs = dict(borne.iter_rows())
    return with_ids(figure.books, top), int(total.item()), by_calls, text.nonzero(text.minus(dict(whole.iter_rows()), by_calls))


def _by_currency(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("cost").is_not_null()).group_by("currency").agg(pl.col("cost").sum()).sort("currency")


def _priced(figure: Figure, calls: pl.DataFrame) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Each call's part of the figure, by currency, with what it used. Rows of a figure about calls name them already."""
    quantities = usage_of_calls(calls)
    if figure.calls is not None:
        parts = figure.rows.select(*CALL, "meter", "currency", "cost").collect()
    else:
        keys = quantities["usage_key"].drop_nulls().unique()
        usage_costs = figure.rows.filter(pl.col("usage_key").is_in(keys.implode())).collect()
        rows = usage_costs.sort(
            "month", "usage_key", "meter", "currency", "pool_id", "lot_id", "charge_category", nulls_last=True
        )
        rows = rows.with_row_index("row")
        parts = split_over_calls(figure.books, rows, quantities).join(rows.select("row", "meter", "currency"), on="row")
    cost = pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum())
    meters = parts.select(*CALL, "meter").unique()
    descriptions: dict[tuple[int, int], list[str]] = defaultdict(list)
    whole = quantities.group_by([*CALL, "meter"], maintain_order=True).agg(pl.col("quantity").sum())
    for row in whole.join(meters, on=[*CALL, "meter"], how="semi", maintain_order="left").iter_rows(named=True):
        descriptions[row["trace_key"], row["span_key"]].append(f"{count(row['quantity'])} {meter(row['meter'])}")
    out: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in parts.group_by([*CALL, "currency"]).agg(cost).sort("currency").iter_rows(named=True):
        key = (row["trace_key"], row["span_key"])
        out[key].append({"cost": row["cost"], "currency": row["currency"], "used": ", ".join(descriptions[key])})
    return out


def _call_part(row: dict[str, Any]) -> Part:
    used_up = f", {row['used']}" if row["used"] else ""
    sentence = (
        f"{text.when(row['start_time'])}, {row['model'] or 'an unknown model'}{used_up}, by {row['executor_agent'] or 'an unknown agent'} "
        f"for {row['initiator_agent'] or 'an unknown agent'}, reported by {row['channels'].replace('+', ' and ')}: {amount(row['cost'], row['currency'])}"
    )
    names = (
        "trace_id",
        "span_id",
        "gateway_call_id",
        "provider_request_id",
        "chain_id",
        "channels",
        "start_time",
        "usage_key",
        "reason",
    )
    return text.part(sentence, row, link=text.link("call", text.call_ref(row)), **{name: row[name] for name in names})


def executor_step(figure: Figure) -> Step:
    """The executors. (CH-5)"""
    groups = text.top_groups(figure.rows, ["executor_agent", "executor_team"], figure.most)
    return Step(
        step="executor",
        rule="CH-5",
        sentence="The executor is the nearest agent at or above the call; for cost without a call, its owner.",
        parts=[_executor_part(row) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _executor_part(row: dict[str, Any]) -> Part:
    agent, team = row["executor_agent"], row["executor_team"]
    verb = "ran" if agent not in UNKNOWN_NAMES else "bears" if team else "ran"
    return text.part(f"{owner_name(agent, team)} {verb} {text.dollars(row)}", row, agent=agent, team=team)


def initiator_step(figure: Figure) -> Step:
    """The initiators, and how each was determined. (CH-4)"""
    groups = text.top_groups(figure.rows, ["initiator_agent", "initiator_team", "method"], figure.most, pl.col("reason").first())
    return Step(
        step="initiator",
        rule="CH-4",
        sentence="The initiator is the agent that started the chain the call is in.",
        parts=[_initiator_part(row) for row in groups.top],
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _initiator_part(row: dict[str, Any]) -> Part:
    agent, team = row["initiator_agent"], row["initiator_team"]
    if agent in UNKNOWN_NAMES and not team:
        explanation = _METHODS["unknown"] if row["method"] == "unknown" else text.reason(row["reason"])
        sentence = f"unknown initiator of {text.dollars(row)}"
    else:
        explanation = _METHODS.get(row["method"] or "", f"found by {row['method']}" if row["method"] else "")
        sentence = f"{owner_name(agent, team)} {'bears' if agent in UNKNOWN_NAMES else 'started'} {text.dollars(row)}"
    sentence += f": {explanation}" if explanation else ""
    return text.part(sentence, row, agent=agent, team=team, method=row["method"])


def owner_step(figure: Figure) -> Step | None:
    """The registry rows that assign the agents to their teams. (ID-1, ID-2)"""
    names = pl.concat(
        figure.rows.select(agent=f"{side}_agent", team=f"{side}_team", at="period_start", until="period_end")
        for side in ("initiator", "executor")
    ).filter(pl.col("agent").is_not_null() & ~pl.col("agent").is_in(["", "unknown"]))
    agents = names.group_by("agent").agg(
        pl.col("at").min(), pl.col("until").max(), teams=pl.col("team").drop_nulls().unique().sort()
    )
    rows = agents.sort("agent").collect()
    if not rows.height:
        return None
    timeline = registry.timeline(registry.rows(figure.books.whole))
    exact = None if figure.calls is None or not figure.calls.height else _instants(figure.calls)
    parts = [part for row in rows.head(figure.most).iter_rows(named=True) for part in _owner_parts(row, timeline, exact)]
    missing = [part for part in parts if "valid_from" not in part.facts]
    return Step(
        step="owner",
        rule="ID-1, ID-2" if missing else "ID-1",
        sentence="A call belongs to the team that owned the agent when the call started, according to the current registry.",
        parts=parts,
        rest=Remainder(count=rows.height - figure.most) if rows.height > figure.most else None,
    )


def _instants(calls: pl.DataFrame) -> tuple[datetime, datetime]:
    first, last = calls.select(pl.col("start_time").min(), last=pl.col("start_time").max()).row(0)
    return first, last + timedelta(microseconds=1)


def _owner_parts(row: Mapping[str, Any], timeline: pl.DataFrame, exact: tuple[datetime, datetime] | None) -> Iterable[Part]:
    start, end = exact or (row["at"], row["until"])
    owners = timeline.filter(
        pl.col("kind").is_in(["agent", "alias"]),
        pl.col("name") == row["agent"],
        pl.col("valid_from") < end,
        pl.col("valid_to").is_null() | (pl.col("valid_to") > start),
    ).sort("valid_from")
    if not owners.height:
        team = row["teams"][0] if row["teams"] else None
        by = f"; its team {team} is known from its key or a trusted source" if team else ""
        yield Part(
            sentence=f"{row['agent']} is not in the registry; its cost is shown under its own name{by}",
            facts={"agent": row["agent"]},
        )
    for owner in owners.iter_rows(named=True):
        until = f"to {owner['valid_to']:%Y-%m-%d}" if owner["valid_to"] else "until further notice"
        since = "from the beginning" if owner["valid_from"].year <= 1970 else f"from {owner['valid_from']:%Y-%m-%d}"
        yield Part(
            sentence=f"{row['agent']} belongs to {owner['team'] or 'no team'} {since} {until}, recorded {owner['recorded_at']:%Y-%m-%d %H:%M} UTC",
            facts=text.json_values(
                {k: owner[k] for k in ("kind", "name", "agent", "team", "valid_from", "valid_to", "recorded_at")}
            ),
        )
