"""What is decided about budgets on their page: raises that await a second person, and their end."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from api.client import ApiProblem
from api.models import Budget, BudgetRequestRow, Decision
from ui import budget_edits, controls, people, widgets
from ui import labels as ui_labels
from ui.api_requests import send_change
from ui.budget_form import token_field


def waiting(budgets: Sequence[Budget]) -> None:
    """Raises that await a second person, each with the buttons to decide."""
    for request in (budget.pending for budget in budgets if budget.pending is not None):
        with st.container(border=True):
            st.markdown(widgets.plain(_told(request)))
            reason = st.text_input("Why", "", key=f"decide-{request.request_id}-reason")
            approve, refuse = st.columns([1, 8])
            with approve:
                is_approved = st.button("Approve", key=f"approve-{request.request_id}", type="primary")
            with refuse:
                is_refused = st.button("Refuse", key=f"refuse-{request.request_id}")
        if is_approved or is_refused:
            _decide(request, Decision(approve=is_approved, reason=reason))


def _told(request: BudgetRequestRow) -> str:
    until = f" until {ui_labels.when(request.raised_until)}" if request.raised_until is not None else ""
    reason_text = f": {request.reason}" if request.reason else ""
    return (
        f"{request.asked_by} asks to raise {request.budget} from {widgets.money(request.current_amount, request.currency)} to "
        f"{widgets.money(request.amount, request.currency)}{until}{reason_text}. The request ends {ui_labels.when(request.expires_at)}."
    )


def _decide(request: BudgetRequestRow, decision: Decision) -> None:
    try:
        budget = send_change(lambda api: api.decide_budget_request(request.request_id, decision))
    except ApiProblem as problem:
        widgets.show_problem(problem)
        return
    verb = "Approved" if decision.approve else "Refused"
    st.session_state["budget-done"] = widgets.plain(f"{verb}: {budget.name} has {widgets.money(budget.amount, budget.currency)}.")
    st.rerun()


def end(budget: Budget) -> None:
    """Ends the chosen budget, of the version that is shown."""
    at = f"end-{budget.name}"
    with st.expander(f"End {widgets.plain(budget.name)}", expanded=False), st.form(at, border=False):
        st.markdown("Its revisions are kept, and its name is free again.")
        token = "" if people.is_logged_in() else token_field(at)
        if not st.form_submit_button("End it", key=f"save-{at}"):
            return
        try:
            send_change(lambda api: api.drop_budget(budget.name, revision=budget.revision), token=token.strip())
        except ApiProblem as problem:
            widgets.show_problem(problem)
            return
    budget_edits.close(budget.name)
    st.session_state["budget-done"] = widgets.plain(f"Ended: {budget.name}.")
    controls.write("budget", "")
    st.rerun()
