"""Alerts page: what was raised, who was told, and where it is answered; receivers and messages that were given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import streamlit as st

from api.client import ApiProblem
from api.models import AlertAction, AlertDeliveryRow, AlertDetail, AlertResponse, AlertRow
from ui import controls, labels, people, widgets
from ui.api_requests import request, send_change, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

ALL = "all"
STATES = {ALL: "All", "open": "Open", "acknowledged": "Acknowledged", "resolved": "Resolved", "withdrawn": "Withdrawn"}
SEVERITY_TONES: dict[str, Tone] = {"critical": "bad", "warning": "warn"}
STATE_TONES: dict[str, Tone] = {"open": "warn", "acknowledged": "cool", "resolved": "good"}
DELIVERY_TONES: dict[str, Tone] = {"sent": "good", "dead": "bad", "pending": "warn", "sending": "cool"}
RECEIVER_TONES: dict[str, Tone] = {"ok": "good", "failing": "warn", "gone": "bad"}
SNOOZES = {"1 hour": 1, "4 hours": 4, "1 day": 24, "1 week": 168}
TOKEN = "token"  # noqa: S105 - the name it is remembered by
MAX_ROWS = 500


def page() -> None:
    """Draws the list, or the alert that the URL names."""
    alert_id = controls.read("alert")
    if alert_id:
        one_alert(alert_id)
    else:
        st.title("Alerts")
        listing()
        receivers()
        dead_letters()


def listing() -> None:
    """Alerts, newest first."""
    state = controls.choose("State", "state", list(STATES), default=ALL, label_of=lambda name: STATES[name])
    answer = request(lambda api: api.alerts(state=None if state in ("", ALL) else state, limit=MAX_ROWS))
    columns = (Column("Alert", link=True), Column("State"), Column("Raised", shape="word"), Column("Figure"), Column("Told"))
    rows = [_row(row) for row in answer.value.rows]
    caption = f"{len(rows):,} of {answer.value.total:,}" if rows else ""
    grid = Grid(columns, rows, label="Alerts", caption=caption, address=answer.address, empty="No alerts.")
    controls.go(draw(grid, key="alerts"), page="alerts")


def _row(row: AlertRow) -> Row:
    delivery = "yes" if row.delivered_at else f"not yet: {row.last_error}" if row.last_error else "not yet"
    return Row(
        (
            Cell(
                row.text, sub=f"{row.kind} · {row.subject}", pills=[Pill(row.severity, SEVERITY_TONES.get(row.severity, "cool"))]
            ),
            Cell(pills=[Pill(row.state, STATE_TONES.get(row.state, ""))], order=row.state),
            Cell(labels.when(row.created_at), order=row.created_at),
            Cell(row.figure, sub=row.limit_text),
            Cell(delivery, order=delivery),
        ),
        href=widgets.link("alerts", alert=row.alert_id),
    )


def one_alert(alert_id: str) -> None:
    """An alert with its history, and the forms that answer it."""
    if st.button("← All alerts", key="to-list", type="tertiary"):
        controls.write("alert", "")
        st.rerun()
    answer = request(lambda api: api.alert(alert_id))
    alert = answer.value
    st.title(widgets.plain(alert.subject))
    st.markdown(widgets.plain(alert.text))
    lines = [f"{alert.kind}, {alert.severity}, {alert.state}"]
    lines += [
        f"{name}: {value}"
        for name, value in (("Figure", alert.figure), ("Limit", alert.limit_text), ("Team", alert.team))
        if value
    ]
    lines += [f"Next step: {alert.next_step}"] if alert.next_step else []
    if alert.snoozed_until is not None and alert.snoozed_until > datetime.now(UTC):
        lines.append(f"Snoozed until {labels.when(alert.snoozed_until)}")
    st.caption("  \n".join(widgets.plain(line) for line in lines))
    if alert.chain_id:
        st.page_link(controls.PAGES["chains"], label="The chain", query_params={"chain": alert.chain_id})
    if alert.kind == "anomaly":
        st.page_link(controls.PAGES["anomalies"], label="The anomaly", query_params={"anomaly": alert.alert_id})
    if people.may_set_budgets():
        answers(alert)
    history(alert)
    widgets.address(answer.address, key="alert")


def answers(alert: AlertDetail) -> None:
    """Acknowledge, snooze, comment, resolve."""
    with st.form("answer", border=False):
        text = st.text_input("What others should know", key="answer-text")
        duration = st.selectbox("Snooze for", list(SNOOZES), key="answer-duration")
        token = "" if people.is_logged_in() else _token()
        with st.container(horizontal=True, gap="small"):
            buttons: dict[AlertAction, str] = {
                "acknowledge": "Acknowledge",
                "snooze": "Snooze",
                "comment": "Comment",
                "resolve": "Resolve",
            }
            if any(delivery.state == "dead" for delivery in alert.deliveries):
                buttons["retry"] = "Send again"
            pressed_actions = [
                action for action, label in buttons.items() if st.form_submit_button(label, key=f"answer-{action}")
            ]
    for action in pressed_actions:
        until = datetime.now(UTC) + timedelta(hours=SNOOZES[duration]) if action == "snooze" else None
        _send(alert, action, text, until, token.strip())


def _token() -> str:
    token: str = st.text_input(
        "Token",
        st.session_state.get(TOKEN, ""),
        type="password",
        key="answer-token",
        help=widgets.WRITING_HINT,
        autocomplete="off",
    )
    return token


def _send(alert: AlertDetail, action: AlertAction, text: str, until: datetime | None, token: str) -> None:
    if not token and not people.is_logged_in():
        st.error(f"Writing needs the token. {widgets.WRITING_HINT}")
        return
    response = AlertResponse(action=action, text=text, until=until)
    try:
        send_change(lambda api: api.respond_to_alert(alert.alert_id, response), token=token)
    except ApiProblem as problem:
        widgets.show_problem(problem)
        return
    st.session_state[TOKEN] = token
    st.rerun()


def history(alert: AlertDetail) -> None:
    """What happened to it, and who was told."""
    rows = [
        Row((Cell(labels.when(event.at), order=event.at), Cell(event.step), Cell(event.actor), Cell(event.text, prose=True)))
        for event in alert.events
    ]
    columns = (Column("When", shape="word"), Column("What"), Column("Who"), Column("Said"))
    draw(Grid(columns, rows, label="History", sortable=False), key="alert-history")
    draw(_messages(alert.deliveries, "Messages", empty="Nobody was told: no receiver gets it."), key="alert-messages")


def _messages(deliveries: list[AlertDeliveryRow], label: str, *, empty: str, address: str = "") -> Grid:
    rows = [
        Row(
            (
                Cell(row.channel, order=row.channel),
                Cell(row.step, order=row.step),
                Cell(pills=[Pill(row.state, DELIVERY_TONES.get(row.state, ""))], order=row.state),
                Cell(widgets.count(row.attempts), order=row.attempts),
                Cell(labels.when(row.sent_at or row.due_at), order=row.sent_at or row.due_at),
                Cell(row.error or ""),
            ),
            href=widgets.link("alerts", alert=row.alert_id),
        )
        for row in deliveries
    ]
    columns = (
        Column("Receiver"), Column("Tells"), Column("State"), Column("Attempts", "right"),
        Column("Sent, or next", shape="word"), Column("Error"),
    )  # fmt: skip
    return Grid(columns, rows, label=label, address=address, empty=empty)


def receivers() -> None:
    """The receivers that the settings name; only for who sees the whole."""
    answer = try_request(lambda api: api.alert_channels())
    if isinstance(answer, ApiProblem):
        return
    st.markdown("##### Receivers")
    rows = [
        Row(
            (
                Cell(row.name, sub=row.kind, order=row.name),
                Cell(", ".join(row.teams) or "all teams"),
                Cell(pills=[Pill(row.state, RECEIVER_TONES.get(row.state, ""))], order=row.state),
                Cell(widgets.count(row.waiting), order=row.waiting),
                Cell(widgets.count(row.dead), order=row.dead),
                Cell(row.error or ""),
            )
        )
        for row in answer.value.rows
    ]
    columns = (
        Column("Receiver"),
        Column("Sees"),
        Column("State"),
        Column("Waiting", "right"),
        Column("Given up", "right"),
        Column("Error"),
    )
    empty = "None is set up: alerts are shown here only."
    draw(Grid(columns, rows, label="Receivers", address=answer.address, empty=empty), key="receivers")


def dead_letters() -> None:
    """Messages that were given up."""
    answer = try_request(lambda api: api.alert_deliveries(state="dead", limit=MAX_ROWS))
    if isinstance(answer, ApiProblem) or not answer.value.rows:
        return
    st.markdown("##### Messages that were given up")
    grid = _messages(answer.value.rows, "Dead letters", empty="None.", address=answer.address)
    controls.go(draw(grid, key="dead"), page="alerts")


page()
