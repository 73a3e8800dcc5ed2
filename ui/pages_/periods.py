"""Periods page: months in the books, what is left to do before each is closed, what was booked, and the statements of teams."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from api.client import ApiProblem
from api.models import PeriodCheck, PeriodRow, StatementControl, StatementRow
from ui import controls, downloads, labels, people, period_decisions, widgets
from ui.api_requests import file_address, request, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

STATE_TONES: dict[str, Tone] = {"closed": "good", "final": "cool", "provisional": "warn", "open": ""}
STATES_HELP = {
    "open": "It is running, or not attributed yet.",
    "provisional": "It is over, and something of the checklist still blocks.",
    "final": "Nothing blocks: it can be closed.",
    "closed": "It is booked. What changes later becomes an adjustment.",
}
STATEMENT_FORMATS = {"PDF": "pdf", "XLSX": "xlsx", "CSV": "csv", "JSON": "json"}


def page() -> None:
    """Renders the page."""
    st.title("Periods")
    answer = request(lambda api: api.periods())
    if message := st.session_state.pop(period_decisions.DONE, None):
        st.success(widgets.plain(message))
    periods = answer.value.rows
    if not periods:
        widgets.nothing_published()
        widgets.address(answer.address, key="periods")
        return
    controls.go(draw(listing(periods, answer.address), key="periods"), page="periods")
    selected_period = next((period for period in periods if period.month == controls.read("month")), None)
    if selected_period is not None:
        one_period(selected_period)


def listing(periods: Sequence[PeriodRow], address: str) -> Grid:
    """Months, newest first."""
    rows = [
        Row(
            (
                Cell(labels.month(period.month), order=period.month),
                Cell(
                    pills=[Pill(period.state, STATE_TONES[period.state], STATES_HELP[period.state])],
                    order=period.state,
                    sub=f"{period.asked_by} asks to open it again" if period.asked_by else "",
                ),
                Cell(", ".join(period.blocking) or widgets.NOTHING, order=len(period.blocking)),
                Cell(
                    labels.when(period.closed_at) if period.closed_at else widgets.NOTHING,
                    sub=period.closed_by or "",
                    order=period.closed_at,
                ),
                widgets.count_cell(len(period.documents)),
            ),
            href=widgets.link("periods", month=period.month),
            strong=period.month == controls.read("month"),
        )
        for period in periods
    ]
    columns = (
        Column("Month", link=True), Column("State"), Column("Blocks"), Column("Closed", shape="word"), Column("Documents", "right"),
    )  # fmt: skip
    caption = "Choose a month to see what is left to do, what was booked, and its statements."
    return Grid(columns, rows, label="Periods", caption=caption, address=address)


# --- one of them ---------------------------------------------------------------------------------------------------------


def one_period(period: PeriodRow) -> None:
    """A month: its checklist, what can be decided, what was booked."""
    st.markdown(f"##### {labels.month(period.month)}")
    st.caption(STATES_HELP[period.state])
    answer = request(lambda api: api.period_checklist(period.month))
    draw(checklist(answer.value.rows, answer.address), key="checklist")
    if people.may_close_months():
        period_decisions.decide(period, answer.value.rows)
    documents(period)
    statements(period.month)


def checklist(checks: Sequence[PeriodCheck], address: str) -> Grid:
    """What is left to do."""
    rows = [
        Row(
            (
                Cell(check.item.replace("_", " "), order=check.item, pills=[_verdict(check)]),
                Cell(check.figure),
                Cell(check.remedy, prose=True),
            )
        )
        for check in checks
    ]
    columns = (Column("Item"), Column("Figure"), Column("What to do"))
    return Grid(columns, rows, label="Checklist", sortable=False, address=address)


def _verdict(check: PeriodCheck) -> Pill:
    if check.passed:
        return Pill("passed", "good")
    if not check.blocks:
        return Pill("to know", "warn", "It does not block the close")
    return Pill("blocks", "bad", "It can be waived, with a reason" if check.waivable else "It cannot be waived")


def documents(period: PeriodRow) -> None:
    """What was booked of the month."""
    if not period.documents:
        return
    st.markdown("##### Documents")
    rows = [
        Row(
            (
                Cell(document.number, order=document.made_at),
                Cell(document.kind),
                Cell(document.adjusts or widgets.NOTHING),
                Cell(document.made_by),
                Cell(labels.when(document.made_at), order=document.made_at),
            )
        )
        for document in period.documents
    ]
    columns = (Column("Number"), Column("Kind"), Column("Adjusts"), Column("Made by"), Column("Booked", shape="word"))
    draw(Grid(columns, rows, label="Documents"), key="documents")
    st.caption("Their lines, by team, invoice, class and cause:")
    downloads.offer(f"/v1/periods/{period.month}/lines")


def statements(month: str) -> None:
    """What the month books to each team, with the files to send."""
    st.markdown("##### Statements")
    answer = try_request(lambda api: api.statements(month))
    if isinstance(answer, ApiProblem):
        st.caption(widgets.plain(widgets.sentence("No statements yet", answer.detail)))
        return
    controls.go(draw(statement_grid(month, answer.value.rows, answer.address), key="statements"), page="periods")
    if not answer.value.rows:
        return
    control = try_request(lambda api: api.statement_control(month))
    if not isinstance(control, ApiProblem):
        draw(control_grid(control.value.rows, control.address), key="statement-control")
    team_by_number = {row.number: row.team for row in answer.value.rows}
    numbers = list(team_by_number)
    team_column, _ = st.columns([1.3, 3])
    with team_column:
        number = controls.choose(
            "Statement of", "statement", numbers, default=numbers[0], label_of=lambda n: team_by_number[n] or labels.NO_TEAM
        )
    with st.container(horizontal=True, gap="small"):
        for label, ending in STATEMENT_FORMATS.items():
            address = file_address(
                lambda api, ending=ending: b"".join(api.rows("/v1/statement", ending, team=team_by_number[number], month=month))  # type: ignore[misc]
            )
            st.link_button(f"Download {label}", address)


def statement_grid(month: str, rows: Sequence[StatementRow], address: str) -> Grid:
    """The statements of a month, by team."""
    table_rows = [
        Row(
            (
                Cell(row.team or labels.NO_TEAM, order=row.team, tone="" if row.team else "muted"),
                Cell(row.number),
                Cell(pills=[Pill(row.state, "good" if row.state == "closed" else "warn")], order=row.state),
                widgets.money_cell(row.booked, row.currency),
                widgets.money_cell(row.exact, row.currency),
            ),
            href=widgets.link("periods", month=month, statement=row.number),
        )
        for row in rows
    ]
    columns = (
        Column("Team", link=True), Column("Number"), Column("State"), Column("Booked", "right", help="In the smallest unit of the currency"),
        Column("Exact", "right", help="Every digit when pointed at"),
    )  # fmt: skip
    return Grid(columns, table_rows, label="Statements", address=address, empty="This month books nothing yet.")


def control_grid(rows: Sequence[StatementControl], address: str) -> Grid:
    """Whether all statements come to the bill and the invoices."""
    table_rows = [
        Row(
            (
                Cell(f"{row.provider}, {row.currency}", order=row.provider),
                widgets.money_cell(row.exact, row.currency),
                widgets.money_cell(row.charges_in, row.currency),
                widgets.money_cell(row.difference, row.currency, tone="bad" if row.difference else "good"),
                widgets.money_cell(row.booked, row.currency),
                widgets.money_cell(row.invoices, row.currency, tone="bad" if row.invoices != row.booked else ""),
            )
        )
        for row in rows
    ]
    columns = (
        Column("All statements"), Column("Exact", "right"), Column("Charges", "right"), Column("Difference", "right"),
        Column("Booked", "right"), Column("Invoices", "right"),
    )  # fmt: skip
    return Grid(columns, table_rows, label="Control totals", address=address)


page()
