"""The form that sets up a budget, or changes one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import streamlit as st
from pydantic import ValidationError

from api.client import ApiProblem
from api.models import BUDGET_DIMENSIONS, BUDGET_PERIODS, Budget, BudgetChange, NewBudget
from ui import budget_edits, controls, people, widgets
from ui import labels as ui_labels
from ui.api_requests import send_change, try_request

KEPT = "kept"
ENFORCEMENTS = {"none": "nobody is stopped", "advisory": "senders are warned", "hard": "calls are refused"}


def form(budget: Budget | None) -> None:
    """Sets up a budget, or changes the chosen one."""
    at = budget_edits.prefix(budget.name) if budget else "budget"  # a budget chosen next must not find this one's fields
    title = "Set up a budget" if budget is None else f"Change {widgets.plain(budget.name)}"
    with st.expander(title, expanded=False):
        if budget is not None:
            budget = budget_edits.opened(budget)
        _known_names(at)
        with st.form(at, border=False):
            fields, token = _fields(budget, at)
            if st.form_submit_button("Save" if budget else "Set up", type="primary", key=f"save-{at}"):
                save(budget, token, fields)


def _known_names(at: str) -> None:
    """A list of what is registered or has spent, to choose from; others can be typed."""
    answer = try_request(lambda api: api.budget_names())
    if isinstance(answer, ApiProblem):
        return
    choices = [(dimension, name) for dimension, names in answer.value.names.items() for name in names]

    def take() -> None:
        chosen = st.session_state[f"{at}-known"]
        if chosen is not None:
            st.session_state[f"{at}-scope"], st.session_state[f"{at}-scope-name"] = chosen

    if choices:
        st.selectbox(
            "Choose one that is known", choices, index=None, format_func=lambda c: f"{c[0]} {c[1]}", key=f"{at}-known", on_change=take,
            placeholder="a team, an agent, a model, …",
        )  # fmt: skip


def _fields(budget: Budget | None, at: str) -> tuple[dict[str, Any], str]:
    """What is filled in, and the token."""
    name_column, middle, right = st.columns(3)
    with name_column:
        name = st.text_input("Name", budget.name if budget else "", key=f"{at}-name", placeholder="care-monthly")
        scope = st.selectbox(
            "Limits a", BUDGET_DIMENSIONS, index=BUDGET_DIMENSIONS.index(budget.scope if budget else "team"), key=f"{at}-scope"
        )
        scope_name = st.text_input("Which one", budget.scope_name if budget else "", key=f"{at}-scope-name", placeholder="Care")
        other_scopes = {} if budget is None else {d: n for d, n in budget.scopes.items() if d != budget.scope}
        also = st.text_input(
            "And only", _joined(other_scopes), key=f"{at}-also", placeholder="model=gpt-4o, environment=production"
        )
    with middle:
        amount = st.text_input(
            "Limit of a period",
            widgets.exact(budget.amount, None).replace(",", "") if budget else "",
            key=f"{at}-amount",
            placeholder="1500.00",
        )
        currency = st.text_input("Currency", budget.currency if budget else "USD", key=f"{at}-currency", max_chars=3)
        period = st.selectbox(
            "Period", BUDGET_PERIODS, index=BUDGET_PERIODS.index(budget.period if budget else "month"), key=f"{at}-period"
        )
        view = st.selectbox(
            "Counts cost by",
            list(ui_labels.VIEWS),
            index=list(ui_labels.VIEWS).index(budget.view) if budget else 0,
            format_func=lambda v: ui_labels.VIEWS[v],
            key=f"{at}-view",
        )
    with right:
        more = _further_fields(budget, at)
        token = "" if people.is_logged_in() else token_field(at)
    fields = {"name": name.strip(), "scope": scope, "scope_name": scope_name.strip(), "also": also, "amount": amount}
    return fields | {"currency": currency.upper(), "period": period, "view": view} | more, token


def _further_fields(budget: Budget | None, at: str) -> dict[str, Any]:
    """What most budgets leave as it is."""
    names = list(ENFORCEMENTS)
    return {
        "enforcement": st.selectbox(
            "When it is used up", names, index=names.index(budget.enforcement if budget else "none"),
            format_func=lambda name: ENFORCEMENTS[name], key=f"{at}-enforcement",
        ),
        "thresholds": st.text_input(
            "Alerts at", ", ".join(f"{share.normalize():f}" for share in budget.thresholds) if budget else "", key=f"{at}-thresholds",
            placeholder="0.5, 0.8, 1", help="Shares of the limit. Empty: those of alerts.thresholds.",
        ),
        "recipients": st.text_input("Tells also", ", ".join(budget.recipients) if budget else "", key=f"{at}-recipients"),
        "parent": st.text_input("Part of", (budget.parent or "") if budget else "", key=f"{at}-parent", placeholder="another budget"),
        "raised_until": "" if budget is None else st.text_input(
            "Only until", "", key=f"{at}-until", placeholder="2026-12-31", help="The limit is a raise that ends then.",
        ),
        "range_start": _bound(budget, at, "range_start", "Range begins"),
        "range_end": _bound(budget, at, "range_end", "Range ends before"),
        "reason": st.text_input("Why", "", key=f"{at}-reason"),
    }  # fmt: skip


def _bound(budget: Budget | None, at: str, name: str, label: str) -> str:
    """A bound of a range, as text; other periods have none."""
    instant = None
    if budget is not None and budget.period == "range":
        instant = budget.period_start if name == "range_start" else budget.period_end
    instant_text = "" if instant is None else f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    text: str = st.text_input(
        label, instant_text, key=f"{at}-{name}", placeholder="2026-10-01T00:00:00Z", help="Of the period range only."
    )
    return text


def _joined(scopes: Mapping[str, str]) -> str:
    return ", ".join(f"{dimension}={name}" for dimension, name in scopes.items())


def token_field(at: str) -> str:
    """Where the token is typed while no people are set up."""
    token: str = st.text_input(
        "Token",
        st.session_state.get(KEPT, ""),
        type="password",
        key=f"{at}-token",
        help=f"{widgets.WRITING_HINT} Remembered until this tab is closed.",
        autocomplete="off",
    )
    return token


def terms(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in, as the API takes it. Raises `ValueError` with a sentence.

    >>> terms({"scope": "team", "scope_name": "Care", "also": "model=gpt-4o", "amount": "5", "thresholds": "0.5, 1", "recipients": "",
    ...     "raised_until": "", "parent": ""})["scopes"]
    {'team': 'Care', 'model': 'gpt-4o'}
    """
    scopes = {fields["scope"]: fields["scope_name"]}
    for part in filter(None, (part.strip() for part in fields["also"].split(","))):
        dimension, equals, name = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{part!r} is no scope: write it like model=gpt-4o.")
        scopes[dimension.strip()] = name.strip()
    values = {name: value for name, value in fields.items() if name not in ("scope", "scope_name", "also", "name")}
    instants = {name: _instant(fields.get(name, "")) for name in ("raised_until", "range_start", "range_end")}
    return values | {
        "scopes": scopes,
        "amount": _decimal(fields["amount"]),
        "thresholds": [_decimal(share) for share in fields["thresholds"].split(",") if share.strip()],
        "recipients": [one.strip() for one in fields["recipients"].split(",") if one.strip()],
        **instants,
    }


def _instant(text: str) -> datetime | None:
    """An instant; a day begins with its first instant in UTC."""
    try:
        instant = datetime.fromisoformat(text.strip()) if text.strip() else None
    except ValueError as error:
        raise ValueError(f"{text.strip()!r} is no day: write it like 2026-12-31.") from error
    return instant.replace(tzinfo=UTC) if instant is not None and instant.tzinfo is None else instant


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except InvalidOperation as error:
        raise ValueError(f"{text.strip()!r} is no amount: write it like 1500.00.") from error


def save(budget: Budget | None, token: str, fields: dict[str, Any]) -> None:
    """Sends what was filled in; says what is wrong with it, if anything is."""
    error = missing(fields, token)
    if error:
        st.error(error)
        return
    try:
        values = terms(fields)
        if budget is None:
            new_budget = NewBudget(name=fields["name"], **values)
            saved_budget = send_change(lambda api: api.add_budget(new_budget), token=token.strip())
        else:
            rename = {"rename": fields["name"]} if fields["name"] != budget.name else {}
            saved_budget = budget_edits.send(budget.name, BudgetChange(**values, **rename), token=token.strip())
    except ValidationError as faults:
        st.error("\n\n".join(widgets.plain(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}.") for e in faults.errors()))
        return
    except ValueError as fault:
        st.error(widgets.plain(str(fault)))
        return
    except ApiProblem as problem:
        if budget is None or problem.status != 412:
            widgets.show_problem(problem)
        else:
            budget_edits.show_collision(budget.name, problem)
        return
    if budget is not None:
        budget_edits.close(budget.name)
    st.session_state[KEPT] = token.strip()
    st.session_state["budget-done"] = widgets.plain(_sentence(saved_budget))
    controls.write("budget", saved_budget.name)
    st.rerun()


def _sentence(budget: Budget) -> str:
    limit = widgets.money(budget.amount, budget.currency)
    if budget.pending is not None:
        wanted_amount = widgets.money(budget.pending.amount, budget.currency)
        return f"{budget.name} stays at {limit} until somebody else approves {wanted_amount}."
    return f"Saved: {budget.name}, {limit} a {budget.period}."


def missing(fields: dict[str, Any], token: str) -> str:
    """The first thing that was not filled in, as a sentence."""
    labels = {"name": "a name", "scope_name": "which team or agent it limits", "amount": "a limit", "currency": "a currency"}
    for key, label in labels.items():
        if not str(fields[key]).strip():
            return f"Say {label}."
    return "" if token.strip() or people.is_logged_in() else f"Writing needs the token. {widgets.WRITING_HINT}"
