"""Explains how a figure was computed, in steps; each has a sentence, its rows and the id of its rule.

charge → pool → rate (or price book) → hourly usage → call → span → executor → initiator → owner → class and rule → run → balance

A chain, a call, a charge and a cell of a report are each a set of rows of `costs`, with a part of every row. So the same steps explain
all of them, and the sums of the steps equal the figure exactly.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

import polars as pl

from api.models import Basis, CallCost, ChainSummary, Explanation, Part, Step
from api.queries import redaction
from api.queries.calls import CALL
from api.queries.chains import calls_of, spans_of
from api.queries.costs import CostQuery, cells, matching_costs
from api.queries.explain import bill_steps, rule_steps, text, usage_steps
from api.queries.explain.estimate_steps import estimate_step
from api.queries.explain.lookup import calls_named, find, no_cost_error, not_found_error
from api.queries.explain.set_aside import set_aside_step, spans_set_aside
from api.queries.explain.text import Figure, amount, amounts
from api.queries.gate import WHOLE, ScopedBooks, published, scan_runs
from api.queries.pricing import costs_of, price
from api.queries.publication import one_publication
from api.queries.removals import removal_step
from api.queries.shares import split_over_calls, usage_of_calls
from api.queries.tree import build_tree
from ledger.errors import ObjectMissingError
from ledger.money import MONEY
from ledger.plurals import counted
from ledger.tables import COST_COLUMNS, COSTS

DEFAULT_LINES = 20
"""Default number of lines a step lists."""


@one_publication
def explain(books: ScopedBooks, ref: str, *, basis: Basis = "effective", most: int = DEFAULT_LINES) -> Explanation:
    """Explains a chain (its id), a call (trace:span, gateway call id, provider request id or span id) or a charge (its id).

    Raises `ObjectMissingError` with similar ids if nothing has that id.
    """
    target = find(books, ref)
    if target.chain is not None:
        calls = calls_of(books, target.chain)
        figure, _ = _of_calls(books, calls, basis, most)
        root = spans_set_aside(books, target.chain.chain_id)
        steps = [_chain_step(target.chain, figure), *([set_aside_step(root, most)] if root.height else [])]
        return _explanation(figure, ref, "chain", steps)
    if target.calls is not None:
        figure, call_costs = _of_calls(books, target.calls, basis, most)
        steps = [_signal_step(books, row, call_costs) for row in target.calls.head(most).iter_rows(named=True)]
        return _explanation(figure, ref, "call", [_meter_step(call_costs), *steps])
    if target.spans is not None:
        figure = Figure(books, COSTS.empty().with_columns(cost=pl.lit(None, dtype=MONEY)).lazy(), basis, "initiator", most)
        return _explanation(figure, ref, "call", [set_aside_step(target.spans, most)])
    assert target.charges is not None
    figure, steps = _of_charges(books, target.charges, basis, most)
    return _explanation(figure, ref, "charge", steps)


@one_publication
def explain_cell(books: ScopedBooks, query: CostQuery, *, most: int = DEFAULT_LINES) -> Explanation:
    """Explains all the cost a query sums: a cell of a report, or the report; `by` only selects the breakdown.

    Raises `ObjectMissingError` with similar values if the cell has no cost.
    """
    rows = matching_costs(books, query).with_columns(cost=pl.col(f"{query.basis}_cost")).drop(COST_COLUMNS)
    if not rows.head(1).collect().height:
        raise no_cost_error(books, query)
    figure = Figure(books, rows, query.basis, query.view, most)
    return _explanation(figure, text.cell_link(query.parameters()).ref, "cell", [_cell_step(books, query, most)])


def _explanation(
    figure: Figure, ref: str, kind: Literal["chain", "call", "charge", "cell"], own_steps: list[Step]
) -> Explanation:
    """An explanation: the figure's own steps, then the steps common to all figures; steps that do not apply are left out."""
    cost, billed_cost, estimated_cost = map(text.cost_by_currency, (figure.rows, figure.billed_rows, figure.estimated_rows))
    figure = replace(figure, cost=cost, estimated=estimated_cost)
    empty = figure.rows.head(1).collect().is_empty()
    steps = [] if empty else [
        bill_steps.charge_step(figure),
        estimate_step(figure),
        *bill_steps.pool_steps(figure),
        usage_steps.usage_step(figure),
        *usage_steps.call_steps(figure),
        usage_steps.executor_step(figure),
        usage_steps.initiator_step(figure),
        usage_steps.owner_step(figure),
        rule_steps.class_step(figure),
        rule_steps.run_step(figure),
        rule_steps.balance_step(figure),
        removal_step(figure.books, figure.rows),
    ]  # fmt: skip
    if kind == "charge":  # its own step describes the charge already
        steps = [step for step in steps if step is None or step.step != "charge"]
    common_steps = [step for step in steps if step is not None]
    if kind == "call":  # its span steps follow the call step
        spans, own_steps = [s for s in own_steps if s.step == "span"], [s for s in own_steps if s.step != "span"]
        at = next((n + 1 for n, step in enumerate(common_steps) if step.step == "call"), 0)
        common_steps = [*common_steps[:at], *spans, *common_steps[at:]]
    return Explanation(
        ref=ref,
        kind=kind,
        view=figure.view,
        basis=figure.basis,
        cost=cost,
        billed=billed_cost,
        estimated=estimated_cost,
        steps=[*own_steps, *common_steps],
    )


def _of_calls(books: ScopedBooks, calls: pl.DataFrame, basis: Basis, most: int) -> tuple[Figure, dict[tuple[int, int], CallCost]]:
    """The figure of calls: their shares of the cost rows of their usage. (MO-1)"""
    quantities = usage_of_calls(calls)
    rows = costs_of(books, quantities).with_columns(cost=pl.col(f"{basis}_cost"))
    parts = split_over_calls(books, rows, quantities)
    call_rows = rows.rename({"quantity": "__whole"}).drop("cost", *COST_COLUMNS).join(parts, on="row")
    call_rows = call_rows.with_columns(quantity=pl.when(pl.col("__whole").is_not_null()).then("quantity")).drop("__whole")
    call_rows = call_rows.filter(books.is_row_of("either"))  # a call of several chains (fan-in) is paid by several teams
    return Figure(books, call_rows.lazy(), basis, "initiator", most, calls=calls), price(calls, quantities, rows, parts)


def _of_charges(books: ScopedBooks, charges: pl.DataFrame, basis: Basis, most: int) -> tuple[Figure, list[Step]]:
    """The figure of charges with one id: each charge split over the cost rows of its charge group, by their shares of it. (MO-1)"""
    column = f"{basis}_cost"
    frames: list[pl.DataFrame] = []
    parts: list[Part] = []
    costs_of_others: dict[str, Decimal] = defaultdict(Decimal)
    for row in bill_steps.with_files(books, charges.with_columns(original_description="charge_description")).iter_rows(
        named=True
    ):
        groups = bill_steps.charge_group_of(books, {name: row[name] for name in charges.columns})
        sentence = (
            f"{bill_steps.charge_line(row)}, invoice month {row['billing_month']}: {amount(row[column], row['billing_currency'])}"
        )
        facts = {name: row[name] for name in (*charges.columns, "uri")}
        if not groups.height:
            sentence += ". It has no published cost yet: its month is not attributed, or was restated since"
        else:
            group = groups.row(0, named=True)
            sentence += f". {_reading_of(group)}"
            facts |= {f"lot_{name}": group[name] for name in ("id", "role", "model", "meter") if name in group}
            facts |= {
                "lot_id": group["lot_id"],
                "lot_charges": group["charges"],
                "lot_cost": group[column],
                "lot_role": group["role"],
            }
            cost_rows = _over_costs(books, row[column] or Decimal(0), group, basis)
            frames.append(cost_rows.filter(books.is_row_of("either")))
            costs_of_others[row["billing_currency"]] += sum(
                cost_rows.filter(~books.is_row_of("either"))["cost"].drop_nulls(), Decimal(0)
            )
        parts.append(text.part(sentence, {"cost": row[column], "currency": row["billing_currency"]}, **facts))
    rows = pl.concat(frames) if frames else COSTS.empty().with_columns(cost=pl.lit(None, dtype=MONEY)).drop(COST_COLUMNS)
    if not books.sees_all:
        if not rows.height:
            raise not_found_error(books, charges["charge_id"][0])
        parts += [
            text.part(f"{amount(cost, currency)} of it is others'", {"cost": -cost, "currency": currency})
            for currency, cost in costs_of_others.items()
            if cost
        ]
    step = Step(
        step="charge",
        rule="RA-1",
        sentence="Every charge is allocated exactly once, together with the charges that have the same keys, in proportion to their amounts.",
        parts=parts,
        sum=text.total([{"cost": part.cost, "currency": part.currency} for part in parts]),
    )
    return Figure(books, rows.lazy(), basis, "initiator", most, charges=charges), [step]


def _reading_of(group: dict[str, Any]) -> str:
    reading = {
        "tokens": f"It was classified as {text.count(group['billed_quantity'])} {text.meter(group['meter'])} of {group['model']}",
        "driver": "Its billed quantity is not in the logs, so it was split by the use of its resource or model",
        "follow": "It corrects other charges and is allocated like them",
        "tax": "It is a tax and is allocated like the taxed charges",
    }.get(group["role"] or "", "No logged usage matches it")
    suffix = (
        " alone"
        if group["charges"] == 1
        else f", together with {counted(group['charges'] - 1, 'other charge')} with the same keys"
    )
    return reading + suffix if group["role"] == "tokens" else f"{reading}{'' if group['charges'] == 1 else suffix}"


def _over_costs(books: ScopedBooks, charge: Decimal, group: dict[str, Any], basis: Basis) -> pl.DataFrame:
    """Splits a charge over the cost rows of its charge group; the parts sum to the charge."""
    column = f"{basis}_cost"
    months = [m for m in published(books) if (m.month, m.run_id) == (group["month"], group["run_id"])]
    in_group = (pl.col("lot_id") == group["lot_id"]) | pl.col("lot_ids").list.contains(group["lot_id"])
    rows = scan_runs(books, COSTS, months, WHOLE).filter(in_group.fill_null(value=False)).collect()
    rows = rows.sort("usage_key", "cost_class", "initiator_team", "initiator_agent", nulls_last=True, maintain_order=True)
    at = (group["month"], group["run_id"], group["lot_id"])
    unassigned_cost = bill_steps.unassigned_costs(Figure(books, rows.lazy(), basis), [at])[at]
    own = [row[column] or Decimal(0) for row in rows.iter_rows(named=True)]
    pooled_rows = [n for n, row in enumerate(rows.iter_rows(named=True)) if row["lot_id"] is None]
    shares = bill_steps.by_weights(unassigned_cost, [own[n] for n in pooled_rows]) if pooled_rows else []
    for n, share in zip(pooled_rows, shares, strict=True):
        own[n] = share
    parts = bill_steps.by_weights(charge, own)
    whole = group["charges"] == 1
    return rows.with_columns(
        cost=pl.Series(parts, dtype=MONEY), quantity=pl.col("quantity") if whole else pl.lit(None, dtype=MONEY)
    ).drop(COST_COLUMNS)


def _cell_step(books: ScopedBooks, query: CostQuery, most: int) -> Step:
    """The figure, and the cells it sums."""
    groups = text.top_groups(cells(books, query), query.dimensions_in_time, most)
    chosen = ", ".join(f"{name} {' or '.join(value or 'unknown' for value in values)}" for name, values in query.filters.items())
    zone = books.settings.report.timezone
    time = "in all published months"
    if query.start or query.end:
        first = [f"from {text.local(query.start, zone)}"] if query.start else []
        last = [f"to {text.local(query.end, zone)} (exclusive)"] if query.end else []
        time = f"{' '.join([*first, *last])} ({zone})"
    view = "by initiator" if query.view == "initiator" else "by executor"
    cost = amounts(groups.sum) if groups.sum else "no priced amount"
    parts = []
    for row in groups.top:
        label = ", ".join(f"{name} {row[name] or 'unknown'}" for name in query.dimensions_in_time)
        narrower = {**query.filters, **{name: (row[name] or "",) for name in query.dimensions}}
        link = text.cell_link(replace(query, filters=narrower).parameters())
        parts.append(
            text.part(
                f"{label}: {amount(row['cost'], row['currency'])}",
                row,
                link=link,
                **{n: row[n] for n in query.dimensions_in_time},
            )
        )
    return Step(
        step="cell",
        rule="MO-3",
        sentence=f"{chosen or 'Everything'}, {time}, {view}: {cost} of {query.basis} cost. Only own costs are summed, so nothing counts twice.",
        facts={
            "query": {**dict(query.parameters()), "filter": [value for name, value in query.parameters() if name == "filter"]}
        },
        parts=parts,
        rest=groups.remainder(),
        sum=groups.sum,
    )


def _chain_step(chain: ChainSummary, figure: Figure) -> Step:
    cost = text.cost_by_currency(figure.rows)
    doubt = f" Its tree is incomplete or was repaired: {text.reason(chain.reason)}." if chain.reason else ""
    return Step(
        step="chain",
        rule="CH-1" if not chain.reason else "CH-1, CH-2" if "missing_parent" in chain.reason else "CH-1, CH-3",
        sentence=(
            f"The chain {chain.root_name or chain.chain_id} started at {text.when(chain.start_time)}, has {counted(chain.spans, 'span')} and "
            f"{counted(chain.calls, 'call')} in {counted(len(chain.trace_ids), 'trace')}, and costs {amounts(cost)}.{doubt}"
        ),
        facts=text.json_values(chain.model_dump()),
        sum=cost,
    )


def _meter_step(call_costs: dict[tuple[int, int], CallCost]) -> Step:
    """Quantity and cost of each meter of calls, including free and unpriced meters."""
    own: dict[str, Decimal] = defaultdict(Decimal)
    parts = []
    for call in call_costs.values():
        for meter in call.meters:
            used_up = f"{text.count(meter.quantity)} {text.meter(meter.meter)}"
            if meter.own_cost is None:
                parts.append(Part(sentence=f"{used_up}: unpriced, {text.reason(meter.reason)}", facts={"meter": meter.meter}))
            elif meter.currency is None:
                parts.append(Part(sentence=f"{used_up}: free, {text.reason(meter.reason)}", facts={"meter": meter.meter}))
            else:
                own[meter.currency] += meter.own_cost
                sentence = f"{used_up}: {amount(meter.own_cost, meter.currency)}, {meter.basis}"
                row = {"cost": meter.own_cost, "currency": meter.currency}
                parts.append(text.part(sentence, row, meter=meter.meter, quantity=meter.quantity, basis=meter.basis))
    first = next(iter(call_costs.values()))
    model_name = f"{first.provider or 'an unknown provider'}, {first.model or 'an unknown model'}"
    subject = (
        f"The call at {text.when(first.start_time)} to {model_name}"
        if len(call_costs) == 1
        else f"{counted(len(call_costs), 'call')} have that id, the first at {text.when(first.start_time)} to {model_name}"
    )
    return Step(
        step="meter",
        rule="CA-4, MO-1",
        sentence=f"{subject}: {amounts(dict(own)) if own else 'no cost'}. The cost of each hourly usage row is split over its calls; the parts sum to the row.",
        facts={"calls": [text.json_values(call.model_dump(exclude={"meters"})) for call in call_costs.values()]},
        parts=parts,
        sum=dict(own),
    )


def _signal_step(books: ScopedBooks, row: dict[str, Any], call_costs: dict[tuple[int, int], CallCost]) -> Step:
    """The signals that reported a call, and the path from it to the root. (CA-1, CH-1)"""
    from api.queries.chains import find_summary

    call = call_costs[row["trace_key"], row["span_key"]]
    ref = text.call_ref(row)
    channels = row["channels"].replace("+", " and ")
    summary = find_summary(books, row["chain_id"])
    if summary is None:
        return Step(
            step="span",
            rule="CA-1",
            sentence=f"{ref} was reported by {channels}; its chain starts in a month that is not published.",
        )
    spans = spans_of(books, summary)
    call_frame = calls_frame(row)
    tree = build_tree(summary, spans, call_frame, {(row["trace_key"], row["span_key"]): call})
    nodes = (tree if books.sees_all else redaction.own_parts(tree, books)).nodes
    by_id = {node.node_id: node for node in nodes}
    at = next((node for node in tree.nodes if node.calls), None)
    at = at and by_id[at.node_id]
    path = []
    while at is not None:
        path.append(at)
        at = by_id.get(at.parent_id or "")
    edges = {"root": "the root", "parent": "its parent", "link": "the span it is linked from", "cut": "where a cycle was broken"}
    parts = [
        Part(
            sentence=f"{edges['root'] if n == len(path) - 1 else 'the call itself' if not n else 'above it'}: {node.name or node.span_id}"
            + (f", agent {node.agent_name}" if node.agent_name else "")
            + (f", service {node.service_name}" if node.service_name else "")
            + (", over a link" if node.edge == "link" else ", where a cycle was broken" if node.edge == "cut" else ""),
            facts=text.json_values(
                node.model_dump(include={"trace_id", "span_id", "name", "agent_name", "service_name", "channels", "edge"})
            ),
        )
        for n, node in enumerate(path)
    ]
    merge_note = f", merged into one call by {_merged_by(row)}" if "+" in row["channels"] else ""
    return Step(
        step="span",
        rule="CA-1, CH-1" if not summary.reason else f"CA-1, CH-1 ({text.reason(summary.reason)})",
        sentence=f"{ref} was reported by {channels}{merge_note}; the path to the root of its chain has {counted(len(path), 'span')}.",
        facts=text.json_values({"raw_ids": _raw_ids(books, spans, row), "chain_id": row["chain_id"], "reason": row["reason"]}),
        parts=parts,
        links=[text.link("chain", row["chain_id"])],
    )


def _merged_by(row: dict[str, Any]) -> str:
    if row["gateway_call_id"]:
        return "the gateway's call id"
    return "an id of the request, with equal model and prompt" if row["provider_request_id"] else "trace and span id"


def calls_frame(row: dict[str, Any]) -> pl.DataFrame:
    """One row of `calls` as a frame."""
    from ledger.tables import CALLS

    return pl.DataFrame([row], schema={name: dtype for name, dtype in CALLS.schema.items() if name in row})


def _raw_ids(books: ScopedBooks, spans: pl.DataFrame, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Channel, source and file of each signal of the call; signals of another attempt under its gateway id are left out. (CA-1a)"""
    is_same_call = (pl.col("trace_key") == row["trace_key"]) & (pl.col("span_key") == row["span_key"])
    for name in ("gateway_call_id", "provider_request_id"):
        if row[name]:
            is_same_call = is_same_call | (pl.col(name) == row[name])
    signals = spans.filter(is_same_call.fill_null(value=False))
    attempts = calls_named(books, row["gateway_call_id"]) if row["gateway_call_id"] else pl.DataFrame()
    if attempts.height > 1:
        at = (row["trace_key"], row["span_key"])
        numbers = [n for n, signal in enumerate(signals.iter_rows(named=True)) if _attempt_of(signal, attempts) == at]
        signals = signals[numbers]
    return signals.select("channel", "source", "raw_id", "span_id", "rank").to_dicts()


def _attempt_of(signal: dict[str, Any], attempts: pl.DataFrame) -> tuple[int, int]:
    """The attempt that a signal reports: the one at its own place, else the one of its status and model that started nearest to it."""
    rows = list(attempts.iter_rows(named=True))
    own_rows = [a for a in rows if (a["trace_key"], a["span_key"]) == (signal["trace_key"], signal["span_key"])]
    model_name = signal["response_model"] or signal["request_model"] or ""
    nearest = min(
        own_rows or rows,
        key=lambda a: (
            (a["status"] == "error") != (signal["status"] == "error"),
            bool(a["model"]) and a["model"] not in model_name,
            abs(a["start_time"] - signal["start_time"]),
            a["trace_key"],
            a["span_key"],
        ),
    )
    return nearest["trace_key"], nearest["span_key"]


__all__ = ["CALL", "DEFAULT_LINES", "ObjectMissingError", "explain", "explain_cell"]
