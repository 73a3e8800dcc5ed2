"""Evidence on the page of sources: what a month's money stands on, how emitters count, and what was noticed, with its money."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import streamlit as st

from api.models import EmitterRow, Evidence, EvidencePart, EvidenceRow, EvidenceSection, FindingRow
from ui import charts, controls, labels, theme, widgets
from ui.api_requests import Answer, file_address, request
from ui.grid import Cell, Column, Grid, Pill, Row, draw

_SECTIONS: dict[EvidenceSection, str] = {"figure": "Figure", "emitters": "Emitters", "findings": "Findings"}


def evidence(months: Sequence[str]) -> None:
    """Draws the section for a month chosen from `months`; says what to do where none is published."""
    st.markdown("##### What the money stands on")
    if not months:
        st.caption("No month is published yet: `rootcost attribute` traces the bills, and this says how much of it is proven.")
        return
    month_column, _ = st.columns([1.3, 5])
    with month_column:
        month = controls.choose_month(months, everything=True, label="Invoice month")
    answer = request(lambda api: api.evidence(month=month))
    report = answer.value
    for currency in sorted(report.totals, key=lambda c: -report.totals[c]):
        parts = [part for part in report.parts if part.currency == currency]
        st.markdown(_sentence(parts, report.totals[currency], currency))
        charts.split_by_evidence({part.evidence: part.cost for part in parts}, currency=currency, key=f"evidence-{currency}")
    _figure(answer)
    _deciders(report)
    _files(month)
    _emitters(report.emitters)
    _findings(report.findings)


def _sentence(parts: Sequence[EvidencePart], total: Decimal, currency: str) -> str:
    """The figure in a sentence."""
    names = {part.evidence: labels.EVIDENCE[part.evidence].lower() for part in parts}
    share, *next_shares = (f"{widgets.percent(part.percent)} {{}}on {names[part.evidence]}" for part in parts)
    text = ", ".join((share.format(f"of {widgets.money(total, currency)} stands "), *(text.format("") for text in next_shares)))
    if not total:
        text = f"The costs of this month come to {widgets.money(total, currency)}"
    unknown_calls = sum(part.calls_without_cost for part in parts)
    if unknown_calls:
        text += f"; the money of {widgets.count(unknown_calls)} calls is not known"
    return widgets.plain(f"{text}.")


def _estimated(parts: Sequence[EvidencePart], currency: str) -> Decimal:
    """How much of a currency's total no bill covers yet."""
    return sum((part.cost_estimated for part in parts if part.currency == currency), Decimal(0))


def _figure(answer: Answer[Evidence]) -> None:
    """The four parts of each currency, and their total."""
    report = answer.value
    is_mixed = len(report.totals) > 1
    rows = [
        Row(
            (
                Cell(
                    labels.EVIDENCE[part.evidence],
                    order=theme.EVIDENCE_PLACES[part.evidence],
                    sub=labels.EVIDENCE_HELP[part.evidence],
                ),
                widgets.money_cell(part.cost, part.currency, to_places=2),
                Cell(
                    widgets.percent(part.percent),
                    order=part.percent,
                    bar_approx=widgets.share_approx(part.cost, report.totals[part.currency]),
                    colour=theme.EVIDENCE_COLOURS[part.evidence],
                ),
                widgets.money_cell(part.cost_estimated, part.currency, tone="" if part.cost_estimated else "muted"),
                Cell(
                    widgets.count(part.calls_without_cost) if part.calls_without_cost else "",
                    order=part.calls_without_cost,
                    tone="warn",
                ),
            )
        )
        for part in report.parts
    ]
    footer = [
        Row(
            (
                Cell(f"Total {currency}" if is_mixed else "Total"),
                widgets.money_cell(total, currency, to_places=2),
                Cell(),
                widgets.money_cell(_estimated(report.parts, currency), currency, tone="muted"),
                Cell(),
            )
        )
        for currency, total in sorted(report.totals.items())
    ]
    columns = (
        Column("Stands on"),
        Column("Cost", "right", help="Effective cost of the invoice month; the parts sum to the total of the cost explorer"),
        Column("Share"),
        Column("Of it estimated", "right", help="What no bill covers yet"),
        Column("Calls of unknown money", "right", help="No price, or covered by a bill that does not name them"),
    )
    draw(Grid(columns, rows, footer=footer, label="Evidence", address=answer.address, sortable=False), key="evidence")


def _deciders(report: Evidence) -> None:
    """What decides each part, and what would make it stronger."""
    rows = [
        Row(
            (
                Cell(
                    row.meaning,
                    pills=[Pill(labels.EVIDENCE[row.evidence], theme.EVIDENCE_TONES[row.evidence])],
                    order=theme.EVIDENCE_PLACES[row.evidence],
                    sub=_name(row),
                ),
                widgets.money_cell(row.cost, row.currency, to_places=2, sub=_calls_without_cost(row)),
                Cell(row.remedy, order=row.remedy, prose=True),
            )
        )
        for row in report.rows
    ]
    columns = (
        Column("Stands on, because", shape="wide"),
        Column("Cost", "right"),
        Column("What makes it stronger", shape="wide"),
    )
    draw(Grid(columns, rows, label="What decides", caption=f"{len(rows):,} kinds of money"), key="evidence-deciders")


def _name(row: EvidenceRow) -> str:
    """What decides: a reason, a method, or the emitter whose counts are read by the table.

    >>> base = dict(evidence="table", currency="USD", cost="1", cost_billed="1", cost_estimated="0", rows=1, rows_without_cost=0,
    ...             calls_without_cost=0, meaning="…", remedy="")
    >>> _name(EvidenceRow(**base, column="reading", value="table", emitter="acme", emitter_version="1.2"))
    'Counts of acme 1.2'
    >>> _name(EvidenceRow(**base, column="reason", value="fan_in", emitter=None, emitter_version=None))
    'Reason: fan_in'
    """
    if row.column == "reading":
        return " ".join(part for part in ("Counts of", row.emitter or "several emitters", row.emitter_version) if part)
    return f"{labels.dimension(row.column)}: {row.value}"


def _calls_without_cost(row: EvidenceRow) -> str:
    """How many calls of a row have no known money, in words."""
    return f"{row.calls_without_cost:,} calls" if row.calls_without_cost else ""


def _files(month: str) -> None:
    """The sections as files, which the browser fetches from the API."""
    with st.container(horizontal=True, gap="small"):
        for section, label in _SECTIONS.items():
            address = file_address(lambda api, section=section: api.evidence_file(section, month=month))  # type: ignore[misc]
            st.link_button(f"Download {label.lower()}", address)


def _emitters(emitters: Sequence[EmitterRow]) -> None:
    """How each emitter counts, and whether its totals and costs agree with our reading."""
    st.markdown("##### How emitters count")
    columns = (
        Column("Emitter", help="Of which version, as the calls say"),
        Column("Model"),
        Column("Calls", "right"),
        Column("Tokens", "right"),
        Column("List cost", "right", help="At the price book's prices"),
        Column("Counts", help="Whether the record proves how cached and reasoning tokens are counted"),
        Column("Totals", help="Calls whose own total is the sum of their tokens as they are read"),
        Column("Own cost", help="What the emitter reports, compared with the price book; never booked"),
    )
    draw(
        Grid(
            columns,
            [_emitter(row) for row in emitters],
            label="Emitters",
            caption="calls that started in the month (UTC)" if emitters else "",
            empty="No call was logged in this month.",
        ),
        key="evidence-emitters",
    )


def _emitter(row: EmitterRow) -> Row:
    name = " ".join(part for part in (row.emitter, row.emitter_version) if part) or labels.UNKNOWN
    pills = [
        pill
        for number, pill in (
            (
                row.contradicted_calls,
                Pill(
                    f"{row.contradicted_calls:,} contradict the table",
                    "warn",
                    "Their record proves otherwise than the table says; it was believed",
                ),
            ),
            (
                row.assumed_calls,
                Pill(f"{row.assumed_calls:,} assumed", "bad", "Nothing says whether the input includes cached tokens"),
            ),
            (
                row.table_calls,
                Pill(f"{row.table_calls or 0:,} by the table", "cool", "The record does not prove it; the emitter table decides"),
            ),
            (
                (row.echo_spans or 0) + (row.wrapper_spans or 0),
                Pill(
                    f"{(row.echo_spans or 0) + (row.wrapper_spans or 0):,} set aside",
                    "muted",
                    "Spans that repeat the calls below them; they are counted there",
                ),
            ),
        )
        if number
    ]
    return Row(
        (
            Cell(name, order=name, sub=(row.source or "") if row.source != row.emitter else ""),
            Cell(row.model or labels.UNKNOWN, order=row.model, sub=row.provider or "no provider"),
            widgets.count_cell(row.calls),
            widgets.count_cell(row.tokens),
            _list_cost(row),
            Cell(pills=pills or ([Pill("proven", "good")] if row.tokens != 0 else [])),
            _agreement(row),
            _own_cost(row),
        )
    )


def _list_cost(row: EmitterRow) -> Cell:
    if row.list_cost is None and row.tokens == 0:
        return Cell("no usage", tone="muted", title="the calls reported no tokens")
    return Cell("no price", tone="warn") if row.list_cost is None else widgets.money_cell(row.list_cost, None, to_places=2)


def _agreement(row: EmitterRow) -> Cell:
    if not row.total_calls or row.agreeing_total_calls is None:
        return Cell("none sent", tone="muted")
    is_whole = row.agreeing_total_calls == row.total_calls
    text = f"{row.agreeing_total_calls:,} of {row.total_calls:,} agree"
    return Cell(text, order=row.agreeing_total_calls - row.total_calls, tone="" if is_whole else "warn")


def _own_cost(row: EmitterRow) -> Cell:
    if row.compared_cost is None or row.reported_cost is None:
        return Cell("none sent", tone="muted")
    difference = row.reported_cost - row.compared_cost
    title = f"reported {widgets.exact(row.reported_cost, None)}, at list prices {widgets.exact(row.compared_cost, None)}"
    if abs(difference) <= max(Decimal("0.01"), row.compared_cost / 100):
        return Cell("agrees", order=abs(difference), title=title)
    return Cell(widgets.change(difference, None), order=abs(difference), title=title, tone="warn")


def _findings(findings: Sequence[FindingRow]) -> None:
    """What runs and imports noticed, dearest first."""
    st.markdown("##### Noticed")
    rows = [
        Row(
            (
                Cell(row.finding.replace("_", " "), order=row.finding, sub=row.place),
                Cell(
                    "" if row.cost is None else widgets.money(row.cost, row.currency),
                    order=row.cost,
                    title=widgets.exact(row.cost, row.currency),
                ),
                Cell(row.description, order=row.description),
                Cell(row.remedy, order=row.remedy, prose=True),
            )
        )
        for row in findings
    ]
    columns = (
        Column("Finding", shape="wide"),
        Column("Money", "right"),
        Column("What it is", shape="wide"),
        Column("What to do", shape="wide"),
    )
    draw(Grid(columns, rows, label="Findings", empty="Nothing was noticed."), key="evidence-findings")
