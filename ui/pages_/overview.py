"""Overview page: a month's spend by team and agent, unexplained cost, budgets, alerts, and whether the balance holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

import streamlit as st

from api.client import ApiProblem
from api.models import AlertRow, Basis, Budget, CostTable, Overview, Spender, View
from ui import charts, controls, labels, widgets
from ui.api_requests import Answer, request, try_request
from ui.grid import Cell, Column, Grid, Pill, Row, Tone, draw

MAX_REASONS = 10
MAX_ALERTS, MAX_ANOMALIES = 5, 8
STATE_COLOURS = {"ok": "#10946f", "warning": "#e39b0b", "exceeded": "#cf5a18"}


def page() -> None:
    """Renders the page."""
    first = request(lambda api: api.overview())
    if first.value.month is None:
        st.title("Overview")
        widgets.nothing_published()
        return
    heading, pick_month, pick_view = st.columns([5, 2, 2.2], vertical_alignment="bottom")
    with pick_month:
        month = controls.choose_month(first.value.months)
    with pick_view:
        view: View = "executor" if controls.choose_view() == "executor" else "initiator"
    answer = request(lambda api: api.overview(month=month, view=view))
    with heading:
        st.title(labels.month(month))
        badges(answer.value, month)
        widgets.show_removed(request(lambda api: api.freshness()).value.settled_months, [month])
    over = is_over(month, answer.value.timezone)
    has_previous = over and answer.value.months.index(month) > 0
    for total in answer.value.totals:
        tiles(answer.value, total.currency, month, over=over)
    why_changed(month, has_previous=has_previous)
    currency = (
        controls.choose(
            "Currency",
            "currency",
            [t.currency for t in answer.value.totals],
            default=answer.value.totals[0].currency,
            buttons=True,
        )
        if len(answer.value.totals) > 1
        else answer.value.totals[0].currency
        if answer.value.totals
        else "USD"
    )

    left_column, right = st.columns([2, 1], gap="medium")
    with left_column:
        st.markdown("##### Spend per day of use, by team :small[:gray[paler: estimated]]")
        addresses = [spend_over_time(month, view, answer.value.basis, currency)]
    with right:
        st.markdown("##### Budgets")
        budgets(month)
    left_column, right = st.columns(2, gap="medium")
    with left_column:
        st.markdown("##### Top teams")
        spenders(answer.value.teams, "team", currency, month, view, with_change=has_previous, key="top-teams")
    with right:
        st.markdown("##### Top agents")
        spenders(answer.value.agents, "agent", currency, month, view, with_change=has_previous, key="top-agents")
    left_column, right = st.columns(2, gap="medium")
    with left_column:
        st.markdown("##### What needs explaining, and why")
        addresses.append(unexplained(month, view, currency))
    with right:
        st.markdown("##### Alerts")
        alerts()
        st.markdown("##### Unusual days")
        addresses.append(anomalies(month, currency))
    st.space("small")
    widgets.address(answer.address, *addresses, key="overview")


def why_changed(month: str, *, has_previous: bool) -> None:
    """A link to the month held against the one before it."""
    if not has_previous:
        return
    selection = {"from": controls.previous_month(month), "to": month, "by": "team,agent", "view": controls.read("view")}
    st.page_link(
        controls.PAGES["compare"],
        label=f"Why it changed since {labels.month(selection['from'])}",
        query_params={name: value for name, value in selection.items() if value},
    )


def badges(overview: Overview, month: str) -> None:
    """Badges: balance, input problems, estimates, cost basis."""
    with st.container(horizontal=True, gap="small"):
        balance = try_request(lambda api: api.balance([month]))
        if not isinstance(balance, ApiProblem) and balance.value.rows:
            off = [row for row in balance.value.rows if row.difference]
            tied = "Ties out: difference 0" + (" of what is billed" if any(t.estimated for t in overview.totals) else "")
            widgets.state_badge("Does not tie out" if off else tied, "bad" if off else "good")
        if overview.problems:
            widgets.state_badge(f"{widgets.count(overview.problems)} input problem{'s' if overview.problems > 1 else ''}", "warn")
        if any(total.estimated for total in overview.totals):
            widgets.state_badge("Partly estimated", "cool")
        widgets.state_badge(f"{labels.BASES[overview.basis]} cost, {labels.CALENDARS['invoice']}", "")


def is_over(month: str, timezone: str) -> bool:
    """Whether a month has ended: only whole months are compared."""
    return month < request(lambda api: api.freshness()).value.now.astimezone(ZoneInfo(timezone)).strftime("%Y-%m")


def tiles(overview: Overview, currency: str, month: str, *, over: bool) -> None:
    """The month's headline amounts in one currency."""
    total = next(t for t in overview.totals if t.currency == currency)
    earlier = overview.months[overview.months.index(month) - 1] if overview.months.index(month) else None
    spend, billed_tile, estimated_tile, unallocated_tile = st.columns(4)
    with spend:
        against = f"{widgets.change(total.change, currency)} vs {labels.month(earlier).split()[0]}" if earlier else "first month"
        against = against if over else "so far: the month is not over"
        widgets.amount_tile("Spend", total.cost, currency, delta=against, help_text="Everything, allocated or not.")
    with billed_tile:
        widgets.amount_tile("Billed", total.billed, currency, delta="covered by bills", help_text="What bills cover.")
    with estimated_tile:
        widgets.amount_tile(
            "Estimated",
            total.estimated,
            currency,
            delta="no bill yet",
            help_text="Priced from the price book until the bill comes.",
        )
    with unallocated_tile:
        widgets.amount_tile(
            "Unallocated",
            total.unallocated,
            currency,
            delta=f"{widgets.percent(total.unallocated_percent)} of spend",
            help_text=f"Cost without a team. {classes_without_team(overview, currency)}",
        )


def classes_without_team(overview: Overview, currency: str) -> str:
    """Cost without a team by class, largest first, as text."""
    sums: dict[str, Decimal] = {}
    for row in overview.unallocated:
        if row.currency == currency:
            sums[row.cost_class] = sums.get(row.cost_class, Decimal(0)) + row.cost
    largest_first = sorted(sums.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{labels.CLASSES.get(name, name)}: {widgets.plain(widgets.money(cost, currency))}" for name, cost in largest_first
    )


def spend_over_time(month: str, view: View, basis: Basis, currency: str) -> str:
    """The month's days, stacked by team. Returns the address of the figures."""
    days = request(
        lambda api: api.costs(
            by=["team", "basis"],
            view=view,
            basis=basis,
            start=month,
            end=controls.next_month(month),
            granularity="day",
            filters={"currency": currency},
        )
    )
    points = [
        charts.Point(row.period_start, labels.value("team", row.get("team")), row.cost, row.get("basis") != "estimated")
        for row in days.value.rows
        if row.cost is not None and row.period_start and row.currency == currency
    ]
    if points:
        charts.over_time(points, currency=currency, unit="day", measure="Spend", key="overview-days")
    else:
        st.caption("Nothing was spent in this month.")
    return days.address


def budgets(month: str) -> None:
    """Budgets nearest to their limit."""
    answer = try_request(lambda api: api.budgets(month=month))
    if isinstance(answer, ApiProblem):
        widgets.show_problem(answer)
        return
    if not answer.value.rows:
        widgets.empty_state("No budgets yet", "Set a monthly limit for a team or an agent on the page Budgets.")
        return
    by_usage = sorted(
        answer.value.rows, key=lambda b: b.used_percent if b.used_percent is not None else Decimal(-1), reverse=True
    )
    at_risk = sum(b.state in ("warning", "exceeded") for b in by_usage)
    rows = [budget_row(b, month) for b in by_usage[:6]]
    evaluated_budgets = [b for b in by_usage if b.state]
    fine = f"All {len(evaluated_budgets)} within their limit" if evaluated_budgets else f"Not evaluated for {labels.month(month)}"
    caption = f"{at_risk} of {len(by_usage)} at risk" if at_risk else fine
    grid = Grid((Column("Budget", link=True), Column("Used")), rows, caption=caption, sortable=False, label="Budgets")
    controls.go(draw(grid, key="overview-budgets"), page="")


def budget_row(budget: Budget, month: str) -> Row:
    """A budget with its bar."""
    colour = STATE_COLOURS.get(budget.state or "", "#97a1ab")
    spent = f"{widgets.money(budget.spent, budget.currency)} of {widgets.money(budget.amount, budget.currency)}"
    return Row(
        (
            Cell(budget.scope_name, sub=spent),
            Cell(
                bar_approx=widgets.share_approx(budget.spent, budget.amount),
                firm_approx=widgets.share_approx(budget.billed, budget.amount),
                colour=colour,
                sub=f"{widgets.percent(budget.used_percent)} {budget.state}" if budget.state else "not evaluated yet",
            ),
        ),
        href=widgets.link("budgets", budget=budget.name, month=month),
    )


def spenders(
    rows: Sequence[Spender], dimension: str, currency: str, month: str, view: View, *, with_change: bool, key: str
) -> None:
    """Who spent most; next to the month before, where there is one."""
    currency_rows = sorted(
        (row for row in rows if row.currency == currency), key=lambda row: not row.name
    )  # nameless cost ranks last
    most = max((row.cost for row in currency_rows if row.name), default=None)
    to = widgets.column_places(row.cost for row in currency_rows)
    follow_up = "agent" if dimension == "team" else "model"
    table_rows = [
        Row(
            (
                Cell(
                    labels.value(dimension, row.name),
                    order=row.name or "",
                    tone="" if row.name else "muted",
                    title="" if row.name else labels.NAMELESS_HELP,
                ),
                Cell(
                    bar_approx=widgets.share_approx(row.cost, most) if row.name else None,
                    order=row.cost,
                    title=f"{widgets.percent(row.share_percent)} of spend",
                ),
                widgets.money_cell(row.cost, currency, to_places=to, tone="" if row.name else "muted"),
                *([widgets.change_cell(row.change, currency)] if with_change else []),
            ),
            href=widgets.link(
                "explorer",
                by=follow_up,
                view=view if view != "initiator" else "",
                month=month,
                filter=[f"{dimension}={row.name or ''}"],
            ),
        )
        for row in currency_rows
    ]
    columns = (
        Column(labels.dimension(dimension), link=True),
        Column(""),
        Column("Cost", "right"),
        *([Column("Change", "right", help="Against the month before")] if with_change else []),
    )
    controls.go(draw(Grid(columns, table_rows, label=f"Top {dimension}s", empty="Nobody spent in this month."), key=key), page="")


def unexplained(month: str, view: View, currency: str) -> str:
    """Cost that is not plainly metered, with its class and reason. Returns the URL of the figures."""
    answer: Answer[CostTable] = request(
        lambda api: api.costs(
            by=["cost_class", "reason"], view=view, start=month, end=controls.next_month(month), filters={"currency": currency}
        )
    )
    rows = [row for row in answer.value.rows if row.get("cost_class") != "metered" or row.get("reason") or row.cost is None]
    rows.sort(key=lambda row: (row.get("cost_class") == "metered", row.cost is not None, -(row.cost or Decimal(0))))
    to = widgets.column_places(row.cost for row in rows)
    table_rows = [
        Row(
            (
                Cell(pills=[class_pill(row.get("cost_class") or "")], order=row.get("cost_class") or ""),
                Cell(
                    labels.reason(row.get("reason")) or "No reason given",
                    order=row.get("reason") or "",
                    title=row.get("reason") or "",
                ),
                widgets.cost_cell(row.cost, currency, to_places=to),
            ),
            href=widgets.link(
                "explorer",
                by="team,model" if row.get("cost_class") == "metered" else "provider,service",
                month=month,
                filter=[f"{name}={row.get(name) or ''}" for name in ("cost_class", "reason")],
            ),
        )
        for row in rows[:MAX_REASONS]
    ]
    columns = (Column("Class"), Column("Reason", link=True), Column("Cost", "right"))
    more = f"{len(rows) - MAX_REASONS} more in the cost explorer" if len(rows) > MAX_REASONS else ""
    grid = Grid(
        columns, table_rows, label="Reasons", caption=more, empty="Every dollar of this month is plainly explained by a call."
    )
    controls.go(draw(grid, key="reasons"), page="")
    return answer.address


def class_pill(cost_class: str) -> Pill:
    """A cost class in a word."""
    return Pill(
        labels.CLASSES.get(cost_class, cost_class), "warn" if cost_class == "unallocated" else "", widgets.class_help(cost_class)
    )


def alerts() -> None:
    """The newest alert of each budget and month; earlier ones are folded."""
    answer = try_request(lambda api: api.alerts(limit=200))
    if isinstance(answer, ApiProblem):
        widgets.show_problem(answer)
        return
    newest, earlier = split_superseded(answer.value.rows)
    columns = (Column("Kind"), Column("Alert"))
    newest_rows, earlier_rows = (
        [alert_row(row) for row in newest[:MAX_ALERTS]],
        [alert_row(row) for row in [*newest[MAX_ALERTS:], *earlier]],
    )
    draw(Grid(columns, newest_rows, label="Alerts", empty="No alerts.", sortable=False), key="alerts")
    if earlier_rows:
        with st.expander(f"{len(earlier_rows):,} earlier alerts"):
            draw(Grid(columns, earlier_rows, label="Earlier alerts", sortable=False), key="alerts-earlier")


def split_superseded(rows: Iterable[AlertRow]) -> tuple[list[AlertRow], list[AlertRow]]:
    """Current alerts, and those superseded by a newer one on the same subject and month; newest month first."""

    def month(row: AlertRow) -> str:
        return str(row.payload.get("month") or f"{row.created_at:%Y-%m}")

    # One evaluation may raise alerts for two thresholds of a budget: the more severe one is kept.
    newest_first = sorted(rows, key=lambda r: (month(r), r.created_at, r.severity == "critical"), reverse=True)
    newest: dict[tuple[str, str, str], AlertRow] = {}
    for row in newest_first:
        newest.setdefault((row.kind, row.subject, month(row) if row.kind == "budget" else row.alert_id), row)
    newest_alerts = list(newest.values())
    heads = {row.alert_id for row in newest_alerts}
    return newest_alerts, [row for row in newest_first if row.alert_id not in heads]


def alert_row(row: AlertRow) -> Row:
    """An alert as a row."""
    tones: dict[str, Tone] = {"critical": "bad", "warning": "warn"}
    details = f"{labels.when(row.created_at)}{' · not delivered' if row.last_error and not row.delivered_at else ''}"
    return Row((Cell(pills=[Pill(row.kind, tones.get(row.severity, "cool"), row.severity)]), Cell(row.text, sub=details)))


def anomalies(month: str, currency: str) -> str:
    """Days of the month unlike their own past. Returns the address of the figures."""
    answer = request(lambda api: api.anomalies(month=month, limit=200))
    rows = [
        Row(
            (
                Cell(f"{row.day}", order=row.day),
                Cell(row.scope_name, order=row.scope_name, sub=row.scope),
                widgets.money_cell(row.actual, row.currency),
                widgets.money_cell(row.expected, row.currency),
            ),
            href=widgets.link("anomalies", anomaly=row.anomaly_id)
            if row.anomaly_id
            else widgets.link(
                "explorer",
                by="model" if row.scope == "agent" else "agent",
                month="range",
                filter=[f"{row.scope}={row.scope_name}"],
                **{"from": f"{row.day}", "until": f"{row.day}"},
            ),
        )
        for row in answer.value.rows
        if row.currency == currency and row.part_of is None
    ]
    columns = (
        Column("Day", link=True, shape="word"),
        Column("Who"),
        Column("Actual", "right"),
        Column("Expected", "right", help="What its past leads to expect"),
    )
    grid = Grid(columns, rows[:MAX_ANOMALIES], label="Unusual days", empty="No day of this month is unlike those before it.")
    controls.go(draw(grid, key="anomalies"), page="")
    return answer.address


page()
