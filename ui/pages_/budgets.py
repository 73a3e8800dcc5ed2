"""Budgets page: limits of teams, agents and others, how they stand, and what is to be decided about them."""

from __future__ import annotations

from decimal import Decimal

import streamlit as st

from api.client import ApiProblem
from api.models import Budget
from ui import budget_decisions, budget_edits, charts, controls, people, widgets
from ui import labels as ui_labels
from ui.api_requests import request, try_request
from ui.budget_form import form
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

TONES: dict[str, Tone] = {"ok": "good", "warning": "warn", "exceeded": "bad", "no rate": "warn"}
COLOURS = {"ok": "#10946f", "warning": "#e39b0b", "exceeded": "#cf5a18"}


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
                "No budgets yet", "Set a limit for a team, an agent or anything else below; crossing it raises an alert."
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
        revisions(chosen)
    if people.may_set_budgets():
        budget_decisions.waiting(budgets)
        if chosen is not None:
            form(chosen)
            budget_decisions.end(chosen)
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
                        sub=f"{about(budget)} · {ui_labels.VIEWS.get(budget.view, budget.view)}"
                        + ("" if budget.period == "month" else f" · {budget.period}"),
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
                    widgets.money_cell(budget.spent, currency, sub=period_text(budget)),
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


def about(budget: Budget) -> str:
    """What it is about, in words."""
    return ", ".join(f"{dimension} {name}" for dimension, name in (budget.scopes or {budget.scope: budget.scope_name}).items())


def period_text(budget: Budget) -> str:
    """The period in words."""
    if budget.period != "month" and budget.period_start is not None:
        return ui_labels.when(budget.period_start)
    return ui_labels.month(budget.month) if budget.month else ""


def outlook(budget: Budget) -> None:
    """What is held, what will be spent, when the money will be gone, and what somebody should know."""
    parts = []
    if budget.encumbered:
        parts.append(f"{widgets.money(budget.encumbered, budget.currency)} is held for calls under way.")
    if budget.forecast is not None:
        between = (
            "" if budget.low is None or budget.high is None
            else f" ({widgets.money(budget.low, budget.currency)} to {widgets.money(budget.high, budget.currency)})"
        )  # fmt: skip
        parts.append(f"By its end the period will cost {widgets.money(budget.forecast, budget.currency)}{between}.")
    if budget.exhausted_at is not None:
        verb = "was reached" if budget.state == "exceeded" else "will be reached"
        parts.append(f"The limit {verb} on {ui_labels.when(budget.exhausted_at)}.")
    if parts:
        st.markdown(widgets.plain(" ".join(parts)))
    for note in budget.notes:
        st.warning(widgets.plain(f"{note[:1].upper()}{note[1:]}."))


def revisions(budget: Budget) -> None:
    """Who changed it, when and why."""
    answer = try_request(lambda api: api.budget_revisions(budget.name))
    if isinstance(answer, ApiProblem):
        return
    rows = [
        Row(
            (
                Cell(str(revision.revision), order=revision.revision),
                Cell(ui_labels.when(revision.recorded_at), order=revision.recorded_at.isoformat()),
                Cell(revision.recorded_by or "–"),
                widgets.money_cell(revision.amount, revision.currency),
                Cell(revision.reason or ("ended" if revision.ended else "")),
            )
        )
        for revision in answer.value.rows
    ]
    columns = (Column("Revision", "right"), Column("When"), Column("Who"), Column("Limit", "right"), Column("Why"))
    with st.expander(f"Revisions of {widgets.plain(budget.name)}", expanded=False):
        draw(Grid(columns, rows, label="Revisions", sortable=False, address=answer.address), key="budget-revisions")


def history(budget: Budget) -> None:
    """What was spent month by month under this budget."""
    st.markdown(f"##### {widgets.plain(budget.name)}: month by month")
    outlook(budget)
    scopes = budget.scopes or {budget.scope: budget.scope_name}
    filters = {
        f"{budget.view}_{dimension}" if dimension in ("team", "agent") else dimension: name
        for dimension, name in scopes.items()
        if dimension != "organisation"
    }
    answer = try_request(
        lambda api: api.costs(
            by=["currency"], granularity="month", filters={**filters, "currency": budget.currency}, calendar="usage"
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


page()
