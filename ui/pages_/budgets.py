"""Budgets page: monthly limits of teams and agents, their state, and a form to set them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import streamlit as st
from pydantic import ValidationError

from api.client import ApiProblem
from api.models import Budget, BudgetChange, NewBudget
from ui import budget_edits, charts, controls, people, widgets
from ui import labels as ui_labels
from ui.api_requests import request, send_change, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

TONES: dict[str, Tone] = {"ok": "good", "warning": "warn", "exceeded": "bad"}
COLOURS = {"ok": "#10946f", "warning": "#e39b0b", "exceeded": "#cf5a18"}
KEPT = "kept"


def page() -> None:
    """Renders the page."""
    st.title("Budgets")
    month = pick_month()
    answer = request(lambda api: api.budgets(month=month))
    budgets = sorted(answer.value.rows, key=lambda b: b.used_percent if b.used_percent is not None else Decimal(-1), reverse=True)
    if message := st.session_state.pop("budget-done", None):
        st.success(message)
    if not budgets:
        if people.may_set_budgets():
            widgets.empty_state(
                "No budgets yet", "Set a monthly limit for a team or an agent below; crossing it raises an alert."
            )
            form(None)
        else:
            widgets.empty_state("No budgets yet", "Those of your part stand here once they are set.")
        widgets.address(answer.address, key="budgets")
        return
    heads(budgets)
    controls.go(draw(listing(budgets, answer.address), key="budgets"), page="budgets")
    chosen = next((b for b in budgets if b.name == controls.read("budget")), None)
    if chosen is not None:
        history(chosen)
    if people.may_set_budgets():
        if chosen is not None:
            form(chosen)
        elif (ended_budget := budget_edits.ended(controls.read("budget") or "")) is not None:
            form(ended_budget)
        form(None)


def pick_month() -> str | None:
    """The month to stand in; None: the newest, each budget's own."""
    months = request(lambda api: api.overview(top=0)).value.months
    if not months:
        return None
    month_column, _ = st.columns([1.3, 5])
    with month_column:
        month = controls.choose_month(months)
    return None if month == months[-1] else month


def heads(budgets: list[Budget]) -> None:
    """How many are in which state."""
    with st.container(horizontal=True, gap="small"):
        for state, label in (("exceeded", "exceeded"), ("warning", "near the limit"), ("ok", "within the limit")):
            number = sum(b.state == state for b in budgets)
            if number:
                widgets.state_badge(f"{number} {label}", TONES[state])
        if waiting := sum(b.state is None for b in budgets):
            widgets.state_badge(f"{waiting} not evaluated yet", "")


def listing(budgets: list[Budget], address: str) -> Grid:
    """All budgets, nearest to the limit first."""
    rows = []
    for budget in budgets:
        limit, currency = budget.amount, budget.currency
        rows.append(
            Row(
                (
                    Cell(
                        budget.name,
                        order=budget.name,
                        sub=f"{budget.scope} {budget.scope_name} · {ui_labels.VIEWS.get(budget.view, budget.view)}",
                    ),
                    Cell(
                        pills=[Pill(budget.state or "not evaluated", TONES.get(budget.state or "", ""))], order=budget.state or ""
                    ),
                    Cell(
                        bar_approx=widgets.share_approx(budget.spent, limit),
                        firm_approx=widgets.share_approx(budget.billed, limit),
                        colour=COLOURS.get(budget.state or "", "#97a1ab"),
                        order=budget.used_percent,
                        title="full colour: billed; pale: estimated",
                    ),
                    Cell(widgets.percent(budget.used_percent), order=budget.used_percent),
                    widgets.money_cell(budget.spent, currency, sub=ui_labels.month(budget.month) if budget.month else ""),
                    widgets.money_cell(limit, currency),
                    widgets.money_cell(budget.left, currency, tone="bad" if budget.left is not None and budget.left < 0 else ""),
                ),
                href=widgets.link("budgets", budget=budget.name, month=controls.read("month")),
                strong=budget.name == controls.read("budget"),
            )
        )
    columns = (
        Column("Budget", link=True),
        Column("State"),
        Column(""),
        Column("Used", "right"),
        Column("Spent", "right"),
        Column("Limit", "right"),
        Column("Left", "right"),
    )
    return Grid(columns, rows, label="Budgets", address=address, caption="Choose a budget to see its months and change it.")


def history(budget: Budget) -> None:
    """What was spent month by month under this budget."""
    st.markdown(f"##### {widgets.plain(budget.name)}: month by month")
    dimension = f"{budget.view}_{budget.scope}"
    answer = try_request(
        lambda api: api.costs(
            by=[dimension],
            granularity="month",
            filters={dimension: budget.scope_name, "currency": budget.currency},
            calendar="usage",
        )
    )
    if isinstance(answer, ApiProblem):
        widgets.show_problem(answer)
        return
    months: dict[str, Decimal] = {}
    for row in answer.value.rows:
        if row.cost is not None and row.period_start:
            months[row.period_start[:7]] = months.get(row.period_start[:7], Decimal(0)) + row.cost
    if not months:
        st.caption("Nothing was spent under it so far.")
    else:
        points = [charts.Point(ui_labels.month(m), budget.scope_name, amount) for m, amount in sorted(months.items())[-12:]]
        chart_column, right = st.columns([2, 1], gap="medium")
        with chart_column:
            charts.against_limit(points, budget.amount, currency=budget.currency, key="budget-months")
        with right:
            rows = [Row((Cell(p.period), widgets.money_cell(p.amount, budget.currency))) for p in reversed(points)]
            draw(Grid((Column("Month"), Column("Spent", "right")), rows, label="Months", sortable=False), key="budget-table")
    st.caption(f"Revision {budget.revision}, made {ui_labels.when(budget.recorded_at)}. Earlier revisions are kept.")
    widgets.address(answer.address, key="budget")


def form(budget: Budget | None) -> None:
    """Sets up a budget, or changes the chosen one."""
    at = budget_edits.prefix(budget.name) if budget else "budget"  # a budget chosen next must not find this one's fields
    title = "Set up a budget" if budget is None else f"Change {widgets.plain(budget.name)}"
    with st.expander(title, expanded=False):
        if budget is not None:
            budget = budget_edits.opened(budget)
        _fields(budget, at)


def _fields(budget: Budget | None, at: str) -> None:
    with st.form(at, border=False):
        name_column, middle, right = st.columns(3)
        with name_column:
            name = budget.name if budget else st.text_input("Name", key=f"{at}-name", placeholder="care-monthly")
            scope = st.selectbox(
                "Limits a", ["team", "agent"], index=["team", "agent"].index(budget.scope) if budget else 0, key=f"{at}-scope"
            )
            scope_name = st.text_input(
                "Which one", budget.scope_name if budget else "", key=f"{at}-scope-name", placeholder="Care"
            )
        with middle:
            amount = st.text_input(
                "Monthly limit",
                widgets.exact(budget.amount, None).replace(",", "") if budget else "",
                key=f"{at}-amount",
                placeholder="1500.00",
            )
            currency = st.text_input("Currency", budget.currency if budget else "USD", key=f"{at}-currency", max_chars=3)
            view = st.selectbox(
                "Counts cost by",
                list(ui_labels.VIEWS),
                index=list(ui_labels.VIEWS).index(budget.view) if budget else 0,
                format_func=lambda v: ui_labels.VIEWS[v],
                key=f"{at}-view",
            )
        with right:
            token = "" if people.is_logged_in() else token_field(at)
        if st.form_submit_button("Save" if budget else "Set up", type="primary", key=f"save-{at}"):
            save(
                budget,
                token,
                {
                    "name": name,
                    "scope": scope,
                    "scope_name": scope_name.strip(),
                    "amount": amount,
                    "currency": currency.upper(),
                    "view": view,
                },
            )


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


def save(budget: Budget | None, token: str, fields: dict[str, Any]) -> None:
    """Sends what was filled in; says what is wrong with it, if anything is."""
    error = missing(fields, token)
    if error:
        st.error(error)
        return
    try:
        fields["amount"] = Decimal(fields["amount"].strip())
        if budget is None:
            new_budget = NewBudget(**fields)
            saved_budget = send_change(lambda api: api.add_budget(new_budget), token=token.strip())
        else:
            name = fields.pop("name")
            change = BudgetChange(**fields)
            saved_budget = budget_edits.send(name, change, token=token.strip())
    except InvalidOperation:
        st.error(widgets.plain(f"{fields['amount']!r} is no amount: write it like 1500.00."))
        return
    except ValidationError as faults:
        st.error("\n\n".join(widgets.plain(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}.") for e in faults.errors()))
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
    st.session_state["budget-done"] = widgets.plain(
        f"Saved: {saved_budget.name}, {widgets.money(saved_budget.amount, saved_budget.currency)} a month."
    )
    controls.write("budget", saved_budget.name)
    st.rerun()


def missing(fields: dict[str, Any], token: str) -> str:
    """The first thing that was not filled in, as a sentence."""
    labels = {
        "name": "a name",
        "scope_name": "which team or agent it limits",
        "amount": "a monthly limit",
        "currency": "a currency",
    }
    for key, label in labels.items():
        if not str(fields[key]).strip():
            return f"Say {label}."
    return "" if token.strip() or people.is_logged_in() else f"Writing needs the token. {widgets.WRITING_HINT}"


page()
