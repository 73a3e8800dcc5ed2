"""Sources page: freshness, input problems, unregistered agents, attribution runs."""

from __future__ import annotations

import streamlit as st

from api.models import Freshness
from ui import controls, labels, widgets
from ui.addresses import api_url
from ui.api_requests import Answer, request
from ui.evidence_tables import evidence
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw
from ui.source_tables import configured

KINDS = {"charges": "Bill", "calls": "Token log"}
RUN_TONES: dict[str, Tone] = {"published": "good", "running": "cool", "failed": "bad", "refused": "bad", "cut off": "warn"}
ALL = "all"


def page() -> None:
    """Renders the page."""
    st.title("Sources and problems")
    fresh = request(lambda api: api.freshness())
    if not fresh.value.sources:
        widgets.empty_state(
            "Nothing read yet",
            "Read a bill and the logs of your gateway or traces, by hand or on schedule; sending OpenTelemetry to the API works too.",
            "rootcost ingest aws-cur s3://bucket/prefix",
            "rootcost sources add aws-prod aws-cur s3://bucket/prefix",
            "rootcost ingest litellm payloads.jsonl",
            f"export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={api_url()}/v1/traces\n"
            'export OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=Bearer%20<token>"',
        )
    else:
        sources(fresh)
    configured()
    evidence(fresh.value.published_months)
    problems()
    unregistered()
    runs()


def sources(answer: Answer[Freshness]) -> None:
    """How recent each source is."""
    st.markdown("##### Sources")
    fresh = answer.value
    rows = [
        Row(
            (
                Cell(source.source, order=source.source),
                Cell(KINDS[source.kind], order=source.kind),
                Cell(labels.when(source.newest), order=source.newest),
                Cell(labels.age(source.age_seconds), order=source.age_seconds),
            )
        )
        for source in fresh.sources
    ]
    waiting = f"{fresh.spool_files:,} deliveries wait to be read" if fresh.spool_files else "No delivery waits to be read"
    columns = (
        Column("Source"),
        Column("Kind"),
        Column("Newest fact", help="End of the latest charge period, or start of the latest call"),
        Column("Age", "right"),
    )
    draw(Grid(columns, rows, label="Sources", caption=waiting, address=answer.address), key="sources")


def problems() -> None:
    """What was wrong with the input, and what to do about it."""
    st.markdown("##### Problems")
    everything = request(lambda api: api.problems(limit=500))
    names = sorted({row.source for row in everything.value.rows})
    severity, source = "", ""
    if names:
        severity_column, middle, _ = st.columns([1.4, 1.4, 4])
        with severity_column:
            severity = controls.choose(
                "Severity",
                "severity",
                [ALL, "error", "warning"],
                default=ALL,
                label_of=lambda s: {ALL: "All", "error": "Left out", "warning": "Kept"}[s],
            )
        with middle:
            source = controls.choose(
                "From", "source", [ALL, *names], default=ALL, label_of=lambda s: "All sources" if s == ALL else s
            )
    answer = request(
        lambda api: api.problems(
            limit=500, severity=None if severity in ("", ALL) else severity, source=None if source in ("", ALL) else source
        )
    )
    rows = [
        Row(
            (
                Cell(
                    pills=[
                        Pill(
                            "left out" if p.severity == "error" else "kept",
                            "bad" if p.severity == "error" else "warn",
                            p.severity,
                        )
                    ],
                    order=p.severity,
                ),
                Cell(p.file, order=p.file, sub=" · ".join(t for t in (p.line, p.field) if t)),
                Cell(p.reason, order=p.reason),
                Cell(p.remedy, order=p.remedy, prose=True),
                Cell(widgets.count(p.rows), order=p.rows),
                Cell(labels.when(p.seen_at), order=p.seen_at, sub=p.source),
            )
        )
        for p in answer.value.rows
    ]
    columns = (
        Column("Severity"),
        Column("Where"),
        Column("What is wrong"),
        Column("What to do"),
        Column("Rows", "right", help="Input rows with this problem"),
        Column("Seen", shape="word"),
    )
    caption = f"{len(rows):,} of {answer.value.total:,}" if rows else ""
    draw(
        Grid(columns, rows, label="Problems", caption=caption, address=answer.address, empty="Nothing was wrong with the input."),
        key="problems",
    )


def unregistered() -> None:
    """Agents that spend without a row in the registry."""
    answer = request(lambda api: api.agents())
    st.markdown("##### Agents that are not in the registry")
    rows = [
        Row(
            (
                Cell(agent.agent, order=agent.agent),
                Cell(labels.when(agent.first_seen), order=agent.first_seen),
                Cell(labels.when(agent.last_seen), order=agent.last_seen),
                Cell(widgets.several(agent.caused), title=widgets.several_exact(agent.caused)),
                Cell(widgets.several(agent.burned), title=widgets.several_exact(agent.burned)),
            ),
            href=widgets.link("explorer", by="model", month=ALL, filter=[f"agent={agent.agent}"]),
        )
        for agent in answer.value.unregistered
    ]
    columns = (
        Column("Agent", link=True),
        Column("First seen", shape="word"),
        Column("Last seen", shape="word"),
        Column("Caused", "right", help="Cost of chains it started"),
        Column("Burned", "right", help="Cost of calls it made itself"),
    )
    registered_count = len(answer.value.registered)
    grid = Grid(
        columns,
        rows,
        label="Unregistered agents",
        caption=f"{registered_count:,} names are registered",
        address=answer.address,
        empty="Every agent that spends is registered.",
    )
    controls.go(draw(grid, key="unregistered"), page="sources")
    if rows:
        st.caption("Give them an owner:")
        st.code("rootcost agents import agents.csv", language=None)


def runs() -> None:
    """Attribution runs."""
    st.markdown("##### Attribution runs")
    answer = request(lambda api: api.runs(limit=20))
    rows = [
        Row(
            (
                Cell(run.run_id, order=run.run_id, sub=run.cause),
                Cell(pills=[Pill(run.status, RUN_TONES.get(run.status, ""))], order=run.status),
                Cell(
                    labels.when(run.started_at),
                    order=run.started_at,
                    sub=took(run.started_at.timestamp(), run.finished_at.timestamp() if run.finished_at else None),
                ),
                Cell(", ".join(labels.month(month) for month in run.months)),
                Cell(
                    run.error
                    or (
                        f"in force for {', '.join(labels.month(month) for month in run.published_months)}"
                        if run.published_months
                        else ""
                    )
                ),
            )
        )
        for run in answer.value.rows
    ]
    columns = (Column("Run"), Column("Status"), Column("Started", shape="word"), Column("Months"), Column("Outcome"))
    draw(Grid(columns, rows, label="Runs", address=answer.address, empty="No run yet: rootcost attribute"), key="runs")


def took(start_seconds: float, end_seconds: float | None) -> str:
    """How long a run took."""
    return "not finished" if end_seconds is None else f"{end_seconds - start_seconds:.1f} s"


page()
