"""Budgets that are being edited: each tab remembers which version it opened, so that nobody overwrites what he has not seen.

What is typed is a change of the opened version. Fields keep its values as their defaults while others change the budget, since Streamlit would
empty fields whose defaults change. Both are kept as text and number, which survive a log-in in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import streamlit as st

from api.client import ApiProblem
from api.models import Budget, BudgetChange, NewBudget
from ui import labels, widgets
from ui.api_requests import send_change

_TERMS = {
    "amount": "limit",
    "currency": "currency",
    "period": "period",
    "enforcement": "when it is used up",
    "scope": "limits a",
    "scope_name": "which one",
    "view": "counts cost by",
}

_PARTS = (
    "opened", "revision", "name", "scope", "scope-name", "also", "amount", "currency", "period", "view", "enforcement", "thresholds",
    "recipients", "parent", "until", "range_start", "range_end", "reason",
)  # fmt: skip


def prefix(name: str) -> str:
    """What the keys of a budget's fields begin with."""
    return f"change-{name}"


def _opened_key(name: str) -> str:
    return f"{prefix(name)}-opened"


def _revision_key(name: str) -> str:
    return f"{prefix(name)}-revision"


def opened(budget: Budget) -> Budget:
    """The version that this tab has opened. Says so when another is in force meanwhile."""
    key = _opened_key(budget.name)
    if key not in st.session_state:
        st.session_state[key] = budget.model_dump_json()
        st.session_state[_revision_key(budget.name)] = budget.revision
    version = Budget.model_validate_json(st.session_state[key])
    seen_revision = st.session_state[_revision_key(budget.name)]
    if seen_revision and budget.revision > seen_revision:
        st.warning(f"Somebody has changed it since you opened it: {_differences(version.model_dump(), budget.model_dump())}.")
        st.button("Show what is saved", key=f"{prefix(budget.name)}-reopen", on_click=close, args=(budget.name,))
    return version


def ended(name: str) -> Budget | None:
    """The version that this tab has opened of a budget that is no longer in force."""
    text = st.session_state.get(_opened_key(name))
    return None if text is None else Budget.model_validate_json(text)


def close(name: str) -> None:
    """Forgets the opened version and what was typed: the form shows what is in force."""
    for part in _PARTS:
        st.session_state.pop(f"{prefix(name)}-{part}", None)


def send(name: str, change: BudgetChange, *, token: str) -> Budget:
    """Sends a change of the version that was seen last; raises `ApiProblem` (412) if another one is in force."""
    revision = st.session_state[_revision_key(name)]
    if revision == 0:  # it has ended, and whoever saves it again knows
        return send_change(
            lambda api: api.add_budget(NewBudget(name=name, **change.model_dump(exclude={"rename", "raised_until"}))), token=token
        )
    return send_change(lambda api: api.change_budget(name, change, revision=revision), token=token)


def show_collision(name: str, problem: ApiProblem) -> None:
    """Says what somebody else has changed. What was typed stays, and the next time it is saved it is a change of the version shown here."""
    earlier_version, current_version = problem.document.expected or {}, problem.document.current
    if current_version is None:
        st.session_state[_revision_key(name)] = 0
        st.warning(
            "Somebody has ended this budget meanwhile. What you typed is still here: save it again to set the budget up anew."
        )
        return
    st.session_state[_revision_key(name)] = current_version["revision"]
    st.warning(
        f"Not saved: somebody has changed this budget meanwhile: {_differences(earlier_version, current_version)}. "
        "What you typed is still here: save it again to replace that."
    )


def _differences(earlier_version: Mapping[str, Any], current_version: Mapping[str, Any]) -> str:
    """What two versions differ in, as text: "monthly limit 1500 → 1600"."""
    changes = [
        f"{label} {_shown(name, earlier_version.get(name))} → {_shown(name, current_version.get(name))}"
        for name, label in _TERMS.items()
        if _shown(name, earlier_version.get(name)) != _shown(name, current_version.get(name))
    ]
    return widgets.plain("; ".join(changes) or "its terms are the same again")


def _shown(name: str, value: Any) -> str:
    if name == "amount" and value is not None:
        return widgets.exact(Decimal(str(value)), None)
    return labels.VIEWS.get(str(value), str(value)) if name == "view" else str(value)
