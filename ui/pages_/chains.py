"""Chains page: a list by cost, and one chain as a tree with the cost of each span."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import streamlit as st

from api.client import ApiProblem
from api.models import CallCost, ChainSummary, ChainTree, Page, SpanNode
from ui import controls, explanations, identity, labels, widgets
from ui.api_requests import Answer, request, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, draw, rails

PER_PAGE = 50
EDGES = {
    "link": Pill("link", "cool", "Started through a span link, from another trace"),
    "cut": Pill("cut", "bad", "A circle was opened here"),
}


def page() -> None:
    """Draws the list, or the chain that the URL names."""
    chain_id = controls.read("chain")
    if chain_id:
        one_chain(chain_id)
    else:
        chain_list()


# --- the list ------------------------------------------------------------------------------------------------------------


def chain_list() -> None:
    """Lists chains, dearest first."""
    st.title("Chains")
    months = request(lambda api: api.overview(top=1)).value.months
    if not months:
        widgets.nothing_published()
        return
    with st.container(border=True):
        parts = st.columns(4, vertical_alignment="bottom")
        with parts[0]:
            month = controls.choose_month(months, everything=True, label="Started in")
        start, end = (None, None) if month == "all" else (month, controls.next_month(month))
        agents, teams = starters(start, end)
        with parts[1]:
            agent = controls.choose("Started by agent", "agent", ["", *agents], default="", label_of=lambda a: a or "Any agent")
        with parts[2]:
            team = controls.choose("Started by team", "team", ["", *teams], default="", label_of=lambda t: t or "Any team")
        with parts[3]:
            search = controls.write_in("Root span contains", "search", placeholder="part of its name")
    page_text = controls.read("page")
    at = max(1, int(page_text)) if page_text.isdigit() else 1
    answer = request(
        lambda api: api.chains(
            start=start,
            end=end,
            agent=agent or None,
            team=team or None,
            search=search or None,
            limit=PER_PAGE,
            offset=(at - 1) * PER_PAGE,
        )
    )
    widgets.show_removed(request(lambda api: api.freshness()).value.settled_months, months if month == "all" else [month])
    listing(answer, at)


def starters(start: str | None, end: str | None) -> tuple[list[str], list[str]]:
    """Agents and teams that spent in the period, by name; those that the URL names are among them."""
    answer = try_request(lambda api: api.costs(by=["initiator_agent", "initiator_team"], start=start, end=end))
    rows = [] if isinstance(answer, ApiProblem) else answer.value.rows
    agents, teams = ({row.get(f"initiator_{name}") or "" for row in rows} | {controls.read(name)} for name in ("agent", "team"))
    return sorted(agents - {""}), sorted(teams - {""})


def listing(answer: Answer[Page[ChainSummary]], at: int) -> None:
    """One page of the list."""
    result_page = answer.value
    to = widgets.column_places(row.list_cost for row in result_page.rows)
    rows = [
        Row(
            (
                Cell(row.root_name or "unnamed", order=row.root_name or "", sub=labels.reason(row.reason)),
                Cell(
                    row.initiator_agent or labels.UNKNOWN,
                    order=row.initiator_agent or "",
                    sub=row.initiator_team or labels.NO_TEAM,
                ),
                Cell(labels.when(row.start_time), order=row.start_time, sub=lasting(row.start_time, row.end_time)),
                widgets.count_cell(row.spans),
                widgets.count_cell(row.calls),
                widgets.count_cell(row.tokens),
                widgets.money_cell(row.list_cost, "USD", to_places=to),
            ),
            href=widgets.link("chains", chain=row.chain_id),
        )
        for row in result_page.rows
    ]
    columns = (
        Column("Chain", link=True, help="Name of its root span"),
        Column("Started by"),
        Column("When", shape="word"),
        Column("Spans", "right"),
        Column("Calls", "right"),
        Column("Tokens", "right"),
        Column("List cost", "right", help="At the price book as of its start; open the chain for its cost by the bill"),
    )
    first = (at - 1) * PER_PAGE
    caption = f"{first + 1:,}–{first + len(rows):,} of {result_page.total:,}" if rows else ""
    empty = "No chain fits."
    if identity.sees_whole():
        empty += " Chains come from token logs: rootcost ingest otlp traces.jsonl, then rootcost attribute."
    controls.go(
        draw(Grid(columns, rows, label="Chains", caption=caption, address=answer.address, empty=empty), key="chains"),
        page="chains",
    )
    pager(at, last=max(1, -(-result_page.total // PER_PAGE)))


def pager(at: int, *, last: int) -> None:
    """Leads to the pages before and after."""
    if last == 1 and at == 1:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if st.button("Previous", key="page-back", disabled=at <= 1):
            controls.write("page", "" if at <= 2 else str(at - 1))
            st.rerun()
        st.caption(f"Page {at} of {last}")
        if st.button("Next", key="page-on", disabled=at >= last):
            controls.write("page", str(at + 1))
            st.rerun()


def lasting(start: datetime, end: datetime | None) -> str:
    """How long a chain took."""
    if end is None:
        return "not ended"
    seconds = (end - start).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# --- one chain -----------------------------------------------------------------------------------------------------------


def one_chain(chain_id: str) -> None:
    """Draws a chain as a tree."""
    if st.button("← All chains", key="to-list", type="tertiary"):
        st.query_params.clear()
        st.rerun()
    answer = request(lambda api: api.chain(chain_id))
    tree, chain = answer.value, answer.value.chain
    st.title(widgets.plain(chain.root_name or "Unnamed chain"))
    with st.container(horizontal=True, gap="small"):
        widgets.state_badge(f"Started by {chain.initiator_agent or labels.UNKNOWN}, {chain.initiator_team or 'no team'}", "cool")
        if tree.basis:
            widgets.state_badge(tree.basis.capitalize(), "good" if tree.basis == "billed" else "")
        if tree.unpriced_calls:
            widgets.state_badge(f"{tree.unpriced_calls} call{'s' if tree.unpriced_calls > 1 else ''} not fully priced", "warn")
        if chain.reason:
            widgets.state_badge(labels.reason(chain.reason), "warn")
        for limit in tree.limits:
            amount_left, amount_in_all = (widgets.several({limit.currency: amount}) for amount in (limit.remaining, limit.limit))
            widgets.state_badge(
                f"{limit.name}: {amount_left} of {amount_in_all} was left when it started", "bad" if limit.remaining <= 0 else ""
            )
    tiles(tree)
    controls.go(draw(chain_grid(tree, answer.address), key="tree"), page="chains")
    st.caption(
        "Own cost is what a span itself spent, and only own costs add up. Subtree cost is the span with everything below it."
    )
    why_tab, meters, ids = st.tabs(["Why these figures", "Calls, meter by meter", "Ids"])
    with why_tab:
        story(chain_id)
    with meters:
        draw(meter_grid(tree), key="meters")
    with ids:
        st.code("\n".join([f"chain {chain.chain_id}", *(f"trace {trace}" for trace in chain.trace_ids)]), language=None)
        st.code(f"rootcost explain {chain.chain_id}", language=None)


def tiles(tree: ChainTree) -> None:
    """The chain's headline figures."""
    chain = tree.chain
    parts = st.columns(4)
    with parts[0]:
        st.metric(
            "Cost of the chain",
            widgets.plain(widgets.several(tree.cost)),
            help=widgets.plain(widgets.several_exact(tree.cost)),
            border=True,
        )
    with parts[1]:
        st.metric(
            "Calls",
            widgets.count(chain.calls),
            help=f"{widgets.count(chain.spans)} spans in {len(chain.trace_ids)} traces",
            border=True,
        )
    with parts[2]:
        st.metric("Tokens", widgets.count(chain.tokens), border=True)
    with parts[3]:
        st.metric("Took", lasting(chain.start_time, chain.end_time), help=labels.when(chain.start_time), border=True)


def chain_grid(tree: ChainTree, address: str) -> Grid:
    """The tree as a table: one row a span, the calls of a span with several below it."""
    amounts = [a for node in tree.nodes for a in (*node.own_cost.values(), *node.subtree_cost.values())]
    to = widgets.column_places(amounts)
    lines: list[tuple[int, SpanNode | CallCost]] = []
    for node in tree.nodes:
        lines.append((node.depth, node))
        if len(node.calls) > 1:
            lines.extend((node.depth + 1, call) for call in node.calls)
    rows = [
        span_row(line, on, to) if isinstance(line, SpanNode) else call_row(line, depth, on, to)
        for (depth, line), on in zip(lines, rails([depth for depth, _ in lines]), strict=True)
    ]
    columns = (
        Column("Span", shape="wide"),
        Column("Run by", help="The nearest agent at or above it"),
        Column("Model"),
        Column("Tokens", "right"),
        Column("Own cost", "right", help="What this span itself spent"),
        Column("Subtree cost", "right", help="This span and everything below it; not to be summed"),
    )
    return Grid(columns, rows, label="Chain", address=address, sortable=False, empty="No span of this chain is known.")


def span_row(node: SpanNode, on: str, to: int) -> Row:
    """A span; with its call, if it made just one."""
    call = node.calls[0] if len(node.calls) == 1 else None
    pills = [EDGES[node.edge]] if node.edge in EDGES else []
    if node.status == "error":
        pills.append(Pill("error", "bad"))
    if call and call.reason:
        pills.append(Pill(labels.reason(call.reason), "warn", call.reason))
    details = [node.operation, node.service_name, node.channels]
    agent = node.agent_name or (call.executor_agent if call else None)
    team = call.executor_team if call else None
    return Row(
        (
            Cell(
                node.name or node.operation or "unnamed",
                depth=node.depth,
                rails=on,
                pills=pills,
                sub=" · ".join(t for t in details if t),
            ),
            Cell(agent or "", sub=team or ""),
            Cell(
                (call.model or labels.UNKNOWN) if call else f"{len(node.calls)} calls" if node.calls else "",
                sub=(call.provider or "") if call else "",
            ),
            tokens_cell([call] if call else node.calls),
            own_cell(node.own_cost, to, has_unpriced=bool(node.calls)),
            Cell(
                _several(node.subtree_cost, to) if node.subtree_cost else widgets.NOTHING,
                title=widgets.several_exact(node.subtree_cost),
                tone="" if node.subtree_cost else "muted",
            ),
        ),
        strong=node.depth == 0,
    )


def call_row(call: CallCost, depth: int, on: str, to: int) -> Row:
    """One of several calls of a span."""
    pills = [Pill(labels.reason(call.reason), "warn", call.reason)] if call.reason else []
    return Row(
        (
            Cell(
                "call",
                depth=depth,
                rails=on,
                pills=pills,
                sub=call.gateway_call_id or call.provider_request_id or "",
                tone="muted",
            ),
            Cell(call.executor_agent or "", sub=call.executor_team or ""),
            Cell(call.model or labels.UNKNOWN, sub=call.provider or ""),
            tokens_cell([call]),
            own_cell(call.own_cost, to, has_unpriced=True),
            Cell(),
        )
    )


def own_cell(cost: dict[str, Decimal], to: int, *, has_unpriced: bool) -> Cell:
    """Own cost; "no price" where calls have none, which is not 0."""
    if cost:
        return Cell(_several(cost, to), title=widgets.several_exact(cost))
    return (
        Cell("no price", tone="warn", title="no published cost matches this call")
        if has_unpriced
        else Cell(widgets.NOTHING, tone="muted")
    )


def _several(cost: dict[str, Decimal], to: int) -> str:
    return " + ".join(widgets.money(amount, currency, to_places=to) for currency, amount in sorted(cost.items()))


def tokens_cell(calls: list[CallCost]) -> Cell:
    """Tokens of calls; their meters when pointed at."""
    used = [meter for call in calls for meter in call.meters if meter.meter.endswith("_tokens")]
    if not used:
        return Cell()
    title = ", ".join(
        f"{meter.meter.removesuffix('_tokens').replace('_', ' ')} {widgets.count(meter.quantity)}" for meter in used
    )
    return Cell(widgets.count(sum((meter.quantity for meter in used), Decimal(0))), title=title)


def meter_grid(tree: ChainTree) -> Grid:
    """Every call with its meters."""
    calls = [call for node in tree.nodes for call in node.calls]
    to = widgets.column_places(meter.own_cost for call in calls for meter in call.meters)
    rows = [
        Row(
            (
                Cell(
                    call.model or labels.UNKNOWN,
                    order=call.model or "",
                    sub=call.gateway_call_id or call.provider_request_id or call.span_id or "",
                ),
                Cell(call.executor_agent or labels.UNKNOWN, order=call.executor_agent or ""),
                Cell(meter.meter.replace("_", " "), order=meter.meter),
                widgets.count_cell(meter.quantity),
                widgets.money_cell(
                    meter.own_cost, meter.currency, to_places=to, sub=labels.reason(meter.reason) or (meter.basis or "")
                ),
            )
        )
        for call in calls
        for meter in call.meters
    ]
    columns = (Column("Call"), Column("Run by"), Column("Meter"), Column("Quantity", "right"), Column("Cost", "right"))
    return Grid(columns, rows, label="Meters", empty="No call of this chain is known.")


def story(chain_id: str) -> None:
    """Why the figures are what they are."""
    answer = try_request(lambda api: api.explain(chain_id))
    if isinstance(answer, ApiProblem):
        widgets.show_problem(answer)
        return
    rules = st.toggle("Show rule ids", key="rules")
    controls.go(draw(explanations.explanation_grid(answer.value, answer.address, rules=rules), key="why"), page="chains")


page()
