"""Tables of scheduled sources: their state, next run, and past runs."""

from __future__ import annotations

import streamlit as st

from api.models import Page, SourceRunRow, SourceStatus
from ui import labels, widgets
from ui.api_requests import Answer, request
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

STATE_TONES: dict[str, Tone] = {
    "ok": "good",
    "problems": "warn",
    "failing": "bad",
    "stale": "warn",
    "paused": "muted",
    "waiting": "cool",
}
RUN_TONES: dict[str, Tone] = {"done": "good", "problems": "warn", "failed": "bad", "running": "cool", "cut off": "warn"}


def configured() -> None:
    """Draws the sources that are read on schedule, and their runs; nothing where there are none."""
    answer = request(lambda api: api.sources())
    if not answer.value.rows:
        return
    st.markdown("##### On schedule")
    _sources(answer)
    runs = request(lambda api: api.source_runs(limit=50))
    if runs.value.rows:
        st.markdown("##### Runs of sources")
        _runs(runs)


def _sources(answer: Answer[Page[SourceStatus]]) -> None:
    columns = (
        Column("Name"),
        Column("State"),
        Column("Newest row", help="End of the latest charge period that is over, or start of the latest call"),
        Column("Stale after", "right", help="How its sender delivers, and the longest pause between two reads"),
        Column("Last run", help="When it began, and how it ended"),
        Column("Next run"),
        Column("Address", shape="wide"),
    )
    draw(
        Grid(columns, [_source(row) for row in answer.value.rows], label="On schedule", address=answer.address), key="configured"
    )


def _source(row: SourceStatus) -> Row:
    last = row.last_run
    error_text = last.error if last is not None and last.error else ""
    return Row(
        (
            Cell(row.name, order=row.name, sub=row.source),
            Cell(pills=[Pill(row.state, STATE_TONES[row.state], error_text)], order=row.state),
            Cell(
                labels.when(row.newest) if row.newest else "none yet",
                order=row.newest,
                sub="" if row.age_seconds is None else labels.age(row.age_seconds),
            ),
            Cell(labels.age(row.stale_after_seconds).removesuffix(" ago"), order=row.stale_after_seconds),
            Cell(
                labels.when(last.started_at) if last is not None else "",
                order=last.started_at if last is not None else None,
                sub="" if last is None else f"{last.status}, {_took(last)}",
                title=error_text,
            ),
            Cell(labels.when(row.due_at) if row.due_at else "", order=row.due_at, sub=row.cron),
            Cell(", ".join(row.addresses) or "what the receivers take", order=", ".join(row.addresses), sub=row.scope or ""),
        )
    )


def _runs(answer: Answer[Page[SourceRunRow]]) -> None:
    columns = (
        Column("Source"),
        Column("Began", shape="word"),
        Column("Status"),
        Column("Rows", "right", help="Rows read and kept"),
        Column("Changed", "right", help="Rows of the ledger that were added or changed"),
        Column("Money in", "right", help="Billed cost that was read"),
        Column("Lag", "right", help="Age of the newest row when the run ended"),
        Column("Outcome", shape="wide"),
    )
    caption = f"{len(answer.value.rows):,} of {answer.value.total:,}"
    draw(
        Grid(columns, [_run(row) for row in answer.value.rows], label="Runs of sources", caption=caption, address=answer.address),
        key="source-runs",
    )


def _run(row: SourceRunRow) -> Row:
    asked_for = f" {row.since} – {row.until or 'now'}" if row.since else ""
    return Row(
        (
            Cell(row.name, order=row.name, sub=row.source),
            Cell(labels.when(row.started_at), order=row.started_at, sub=f"{row.cause}{asked_for}", title=row.runner),
            Cell(pills=[Pill(row.status, RUN_TONES.get(row.status, ""))], order=row.status, sub=_took(row)),
            Cell(widgets.count(row.rows), order=row.rows, sub=f"{row.errors:,} left out" if row.errors else ""),
            Cell(widgets.count(row.rows_changed), order=row.rows_changed),
            Cell(widgets.several(row.money_in), title=widgets.several_exact(row.money_in) if row.money_in else ""),
            Cell("" if row.lag_seconds is None else labels.age(row.lag_seconds).removesuffix(" ago"), order=row.lag_seconds),
            Cell(row.error or "", order=row.error),
        )
    )


def _took(row: SourceRunRow) -> str:
    return "not finished" if row.seconds is None else f"{row.seconds:.1f} s"
