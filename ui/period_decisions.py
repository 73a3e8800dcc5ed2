"""What is decided about a month on its page: closing it, asking to open it again, and the second person's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

import streamlit as st

from api.client import ApiProblem, Client
from api.models import PeriodCheck, PeriodClose, PeriodDecision, PeriodReopening, PeriodRow
from ui import labels, people, widgets
from ui.api_requests import send_change
from ui.budget_form import KEPT, token_field

DONE, SEEN = "period-done", "period-seen"
MOST_LETTERS = 500


def decide(period: PeriodRow, checks: Sequence[PeriodCheck]) -> None:
    """The form that the month's state has, if any."""
    if period.state == "closed":
        if period.asked_by is None:
            ask_to_reopen(period)
        else:
            answer_request(period)
    elif all(check.passed or check.waivable for check in checks if check.blocks):
        close(period, [check.item for check in checks if check.blocks and not check.passed])
    else:
        st.caption("It can be closed once every item that cannot be waived has passed.")


def close(period: PeriodRow, blocking: Sequence[str]) -> None:
    """Closes the month; what blocks is waived by name, with a reason."""
    with st.form("close-period", border=True):
        st.markdown(
            f"**Close {labels.month(period.month)}**  \nIt books what each team cost. What changes later is booked as an adjustment."
        )
        waivers = st.multiselect("Do not wait for", blocking, key="close-waive") if blocking else []
        reason = st.text_input("Why", key="close-reason", max_chars=MOST_LETTERS)
        token = _token("close")
        if not _is_pressed(period, st.form_submit_button("Close it", key="close-send", type="primary")):
            return
    if waiting_items := [item for item in blocking if item not in waivers]:
        st.warning(widgets.plain(f"Still to do, or to be waived: {', '.join(waiting_items)}."))
    elif waivers and not reason.strip():
        st.warning("Say why it is not waited for: the reason stands in the audit log.")
    else:
        terms = PeriodClose(reason=reason.strip(), waive=waivers)
        _send(
            period,
            f"Closed: {period.month}.",
            token,
            lambda api, revision: api.close_period(period.month, terms, revision=revision),
        )


def ask_to_reopen(period: PeriodRow) -> None:
    """Asks for a closed month to be opened again."""
    with st.form("reopen-period", border=True):
        st.markdown(f"**Ask to open {labels.month(period.month)} again**  \nIt stays closed until somebody else agrees.")
        reason = st.text_input("Why", key="reopen-reason", max_chars=MOST_LETTERS)
        token = _token("reopen")
        if not _is_pressed(period, st.form_submit_button("Ask", key="reopen-send")):
            return
    if not reason.strip():
        st.warning("Say why: somebody else decides by it.")
        return
    terms = PeriodReopening(reason=reason.strip())
    _send(
        period,
        f"Asked to open {period.month} again.",
        token,
        lambda api, revision: api.reopen_period(period.month, terms, revision=revision),
    )


def answer_request(period: PeriodRow) -> None:
    """Opens the month again that somebody else asks for, or leaves it closed."""
    with st.form("decide-period", border=True):
        question = f"{period.asked_by} asks to open it again: {period.asked_reason or 'without a reason'}"
        st.markdown(f"{widgets.plain(question)}  \nSomebody else decides.")
        reason = st.text_input("Why", key="decide-reason", max_chars=MOST_LETTERS)
        token = _token("decide")
        with st.container(horizontal=True, gap="small"):
            is_approved = st.form_submit_button("Open it again", key="decide-approve", type="primary")
            is_refused = st.form_submit_button("Leave it closed", key="decide-refuse")
    if _is_pressed(period, is_approved or is_refused):
        decision = PeriodDecision(approve=is_approved, reason=reason.strip())
        verb = "Opened again" if is_approved else "Left closed"
        _send(
            period,
            f"{verb}: {period.month}.",
            token,
            lambda api, revision: api.decide_period(period.month, decision, revision=revision),
        )


def _token(at: str) -> str:
    return "" if people.is_logged_in() else token_field(at).strip()


def _is_pressed(period: PeriodRow, is_pressed: bool) -> bool:
    """Whether the form was sent. Until then, notes which version of the month the reader sees: the change is made from that one."""
    if not is_pressed:
        st.session_state[f"{SEEN}-{period.month}"] = period.revision
    return is_pressed


def _send(period: PeriodRow, message: str, token: str, change: Callable[[Client, int], PeriodRow]) -> None:
    if not token and not people.is_logged_in():
        st.error(f"Writing needs the token. {widgets.WRITING_HINT}")
        return
    revision = st.session_state.get(f"{SEEN}-{period.month}", period.revision)
    try:
        send_change(lambda api: change(api, revision), token=token)
    except ApiProblem as problem:
        widgets.show_problem(problem)
        if problem.status == HTTPStatus.PRECONDITION_FAILED:
            st.session_state[f"{SEEN}-{period.month}"] = period.revision
        return
    st.session_state[KEPT] = token
    st.session_state[DONE] = message
    st.rerun()
