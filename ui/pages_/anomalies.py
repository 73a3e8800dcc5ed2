"""Anomalies page: spend that is unlike its own past, and for each what it cost, what was expected, and why."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import streamlit as st

from api.client import ApiProblem
from api.models import AnomalyRow
from ui import charts, controls, downloads, labels, widgets
from ui.api_requests import request, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, draw

MAX_ROWS = 1000
SHOWN_OF_ID = 16
SCOPES = ("agent", "workflow", "tool", "team", "model", "provider")
STATES = {"": "Open and over", "yes": "Only open"}
PARTS = {"": "One for each cause", "yes": "Also parts of others"}


def page() -> None:
    """Draws the list, or the anomaly that the URL names."""
    anomaly_id = controls.read("anomaly")
    if anomaly_id:
        one_anomaly(anomaly_id)
        return
    st.title("Anomalies")
    months = request(lambda api: api.overview(top=0)).value.months
    if not months:
        widgets.nothing_published()
        return
    listing(choices(months))


def choices(months: Sequence[str]) -> dict[str, Any]:
    """What is kept, as the API takes it."""
    with st.container(border=True):
        columns = st.columns(5, vertical_alignment="bottom")
        with columns[0]:
            month = controls.choose(
                "Began in", "month", ["", *reversed(months)], default="", label_of=lambda m: labels.month(m) if m else "Any month"
            )
        with columns[1]:
            scope = controls.choose(
                "Of", "scope", ["", *SCOPES], default="", label_of=lambda s: s.capitalize() if s else "Anything"
            )
        with columns[2]:
            kind = controls.choose(
                "Kind", "kind", ["", *labels.ANOMALIES], default="", label_of=lambda k: labels.anomaly(k) if k else "Any kind"
            )
        with columns[3]:
            is_open = controls.choose("State", "open", list(STATES), default="", label_of=lambda s: STATES[s])
        with columns[4]:
            controls.choose("Told", "parts", list(PARTS), default="", label_of=lambda p: PARTS[p])
    return {"month": month or None, "scope": scope or None, "kind": kind or None, "is_open": True if is_open else None}


def listing(conditions: dict[str, Any]) -> None:
    """Anomalies, newest first."""
    answer = request(lambda api: api.anomalies(**conditions, limit=MAX_ROWS))
    anomalies = [one for one in answer.value.rows if controls.read("parts") or one.part_of is None]
    if not anomalies:
        if any(conditions.values()):
            widgets.empty_state("No anomalies", "None is of this month, scope, kind and state. Choose others above.")
        else:
            widgets.empty_state(
                "No anomalies",
                "Nothing was spent that is unlike its own past. They are looked for after each attribution, in series of usage by day: "
                "bring in at least two weeks of it, better five, then attribute.",
                "rootcost attribute",
            )
        widgets.address(answer.address, key="anomalies")
        return
    columns = (
        Column("What", link=True),
        Column("Kind"),
        Column("Began", shape="word"),
        Column("Owner"),
        Column("Actual", "right"),
        Column("Expected", "right"),
        Column("Impact", "right", help="Actual minus expected"),
    )
    parts = answer.value.total - len(anomalies)
    caption = f"{len(anomalies):,} of {answer.value.total:,}" + ("; others are parts of these" if parts else "")
    grid = Grid(columns, [_row(one) for one in anomalies], label="Anomalies", caption=caption, address=answer.address)
    controls.go(draw(grid, key="anomalies"), page="anomalies")
    sent_conditions = {"open" if name == "is_open" else name: value for name, value in conditions.items()}
    downloads.offer("/v1/anomalies", **sent_conditions)


def _row(anomaly: AnomalyRow) -> Row:
    kind = labels.anomaly(anomaly.kind)
    state = [Pill("open", "warn")] if anomaly.is_open else []
    selection = {name: controls.read(name) for name in ("month", "scope", "kind", "open", "parts")}
    return Row(
        (
            Cell(anomaly.scope_name, sub=anomaly.scope, order=anomaly.scope_name, pills=state),
            Cell(kind, order=kind, title=labels.ANOMALIES_HELP.get(anomaly.kind or "spike", "")),
            Cell(f"{anomaly.day}", order=anomaly.day),
            Cell(anomaly.team or labels.NO_TEAM, order=anomaly.team or "", tone="" if anomaly.team else "muted"),
            widgets.money_cell(anomaly.actual, anomaly.currency),
            widgets.money_cell(anomaly.expected, anomaly.currency),
            widgets.change_cell(anomaly.excess, anomaly.currency),
        ),
        href=widgets.link("anomalies", anomaly=anomaly.anomaly_id, **selection) if anomaly.anomaly_id else "",
    )


# --- one of them ---------------------------------------------------------------------------------------------------------


def one_anomaly(anomaly_id: str) -> None:
    """An anomaly: what, since when, whose, and why."""
    if st.button("← All anomalies", key="to-list", type="tertiary"):
        controls.write("anomaly", "")
        st.rerun()
    answer = request(lambda api: api.anomalies(anomaly_id=anomaly_id))
    if not answer.value.rows:
        st.title("Anomalies")
        widgets.empty_state(
            "No such anomaly",
            "Figures were published since in which it is none any more, or it is not of your part. Choose another from the list.",
        )
        widgets.address(answer.address, key="anomaly")
        return
    anomaly = answer.value.rows[0]
    st.title(widgets.plain(anomaly.scope_name))
    st.markdown(widgets.plain(told(anomaly)))
    st.caption(widgets.plain(labels.ANOMALIES_HELP.get(anomaly.kind or "spike", "")))
    leads(anomaly)
    drivers(anomaly)
    chains(anomaly)
    widgets.address(answer.address, key="anomaly")


def told(anomaly: AnomalyRow) -> str:
    """An anomaly in sentences: what, since when, until when, whose."""
    currency = anomaly.currency
    cost = f"cost {widgets.money(anomaly.actual, currency)}, where {widgets.money(anomaly.expected, currency)} was expected"
    sentences = [
        f"{labels.anomaly(anomaly.kind)}: {anomaly.scope} {anomaly.scope_name} {cost}: {widgets.change(anomaly.excess, currency)}."
    ]
    began = f"It began on {anomaly.day}" if anomaly.grain != "hour" or not anomaly.start_time else (
        f"It began at {labels.when(anomaly.start_time)}"
    )  # fmt: skip
    if anomaly.is_open:
        end = f", and is over by {labels.when(anomaly.expected_end)} at the latest" if anomaly.expected_end else ""
        sentences.append(f"{began}, goes on{end}.")
    else:
        sentences.append(f"{began}" + (f" and was over at {labels.when(anomaly.end_time)}." if anomaly.end_time else "."))
    sentences.append(f"Its owner is {anomaly.team}." if anomaly.team else "It has no team as its owner.")
    if anomaly.chain_note:
        sentences.append(f"{anomaly.chain_note[:1].upper()}{anomaly.chain_note[1:]}.")
    return " ".join(sentences)


def leads(anomaly: AnomalyRow) -> None:
    """Where to look next: its days in the explorer, its alert, and the anomaly that it is a part of."""
    with st.container(horizontal=True, gap="small"):
        by = "model" if anomaly.scope == "agent" else "agent"
        if anomaly.scope in labels.DIMENSIONS:
            days = {"from": f"{anomaly.day}", "until": f"{anomaly.day}", "month": "range"}
            keep = f"{anomaly.scope}={anomaly.scope_name}"
            st.page_link(
                controls.PAGES["explorer"], label="Its first day by " + by, query_params={**days, "by": by, "filter": keep}
            )
        anomaly_id = anomaly.anomaly_id
        if anomaly_id and not isinstance(try_request(lambda api: api.alert(anomaly_id)), ApiProblem):
            st.page_link(controls.PAGES["alerts"], label="Its alert", query_params={"alert": anomaly_id})
        if anomaly.part_of:
            st.page_link(
                controls.PAGES["anomalies"], label="The anomaly with the same cause", query_params={"anomaly": anomaly.part_of}
            )


def drivers(anomaly: AnomalyRow) -> None:
    """Why, as amounts that sum to the impact."""
    st.markdown("##### Why")
    if not anomaly.drivers:
        widgets.empty_state(
            "No drivers", "It was found before drivers were computed. Attribute its month again.", "rootcost attribute"
        )
        return
    amounts = dict(sorted(anomaly.drivers.items(), key=lambda item: -abs(item[1])))
    if residual := anomaly.excess - sum(amounts.values(), Decimal(0)):
        amounts["not explained"] = residual
    currency = anomaly.currency
    chart_column, table_column = st.columns([3, 2], gap="medium")
    with chart_column:
        charts.bars(amounts, currency=currency, measure="Change of cost", most=len(amounts), key="drivers-chart")
    with table_column:
        rows = [
            Row((Cell(name, sub=labels.DRIVERS_HELP.get(name.partition(":")[0], "")), widgets.change_cell(amount, currency)))
            for name, amount in amounts.items()
        ]
        footer = [Row((Cell("Impact"), widgets.change_cell(anomaly.excess, currency)), strong=True)]
        draw(
            Grid((Column("Driver"), Column("Change", "right")), rows, footer=footer, label="Drivers", sortable=False),
            key="drivers",
        )


def chains(anomaly: AnomalyRow) -> None:
    """Its dearest chains."""
    rows = [
        Row((Cell(f"{chain_id[:SHOWN_OF_ID]}…", title=chain_id),), href=widgets.link("chains", chain=chain_id))
        for chain_id in anomaly.chains
    ]
    if rows:
        st.markdown("##### Dearest chains")
        grid = Grid((Column("Chain, dearest first", link=True),), rows, label="Dearest chains", sortable=False)
        controls.go(draw(grid, key="anomaly-chains"), page="anomalies")


page()
