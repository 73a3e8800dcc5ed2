"""Compare page: why cost changed from one period to another, in effects that sum to the change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast
from zoneinfo import ZoneInfo

import streamlit as st

from api.models import Basis, ComparisonTable, View
from ui import charts, controls, downloads, labels, period_choices, widgets
from ui.api_requests import Answer, request
from ui.grid import Cell, Column, Grid, Row, draw

KINDS = {"month": "Months", "week": "Weeks", "range": "Days from … to …"}
MAX_DIMENSIONS = 4
MAX_GROUPS = 200

Effects = dict[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The comparison that the URL describes."""

    before: str
    after: str
    by: list[str]
    view: View
    basis: Basis
    filters: dict[str, list[str]]

    def parameters(self) -> dict[str, Any]:
        """The question as the API takes it in an address."""
        pairs = [f"{name}={value}" for name, values in self.filters.items() for value in values]
        shape = {"by": ",".join(self.by), "view": self.view, "basis": self.basis}
        return {**shape, "filter": pairs, "from": self.before, "to": self.after}


def page() -> None:
    """Renders the page."""
    st.title("Compare")
    months = request(lambda api: api.overview(top=0)).value.months
    if not months:
        widgets.nothing_published()
        return
    question = choices(months)
    filters_in_force(question)
    answer = request(
        lambda api: api.compare(
            question.before,
            question.after,
            by=question.by,
            view=question.view,
            basis=question.basis,
            filters=question.filters,
        )
    )
    show(question, answer)


# --- what is compared ----------------------------------------------------------------------------------------------------


def choices(months: Sequence[str]) -> Question:
    """Everything that can be chosen."""
    with st.container(border=True):
        first, second, third = st.columns([1.2, 2, 2], vertical_alignment="bottom")
        with first:
            kind = controls.choose("Compare", "period", list(KINDS), default="month", label_of=lambda k: KINDS[k])
        if kind == "range":
            with second:
                before = period_choices.range_of("Earlier", "from", controls.previous_month(months[-1]))
            with third:
                after = period_choices.range_of("Later", "to", months[-1])
        else:
            options = [controls.previous_month(months[0]), *months] if kind == "month" else period_choices.weeks(months)
            label_of = labels.month if kind == "month" else period_choices.week_label
            with second:
                before = controls.choose("Earlier", "from", options[::-1], default=options[-2], label_of=label_of)
            with third:
                after = controls.choose("Later", "to", options[::-1], default=options[-1], label_of=label_of)
        first, second, third = st.columns([3, 1.3, 2.4], vertical_alignment="bottom")
        with first:
            by = controls.choose_several(
                "Group by",
                "by",
                list(labels.DIMENSIONS),
                default=("team", "agent"),
                label_of=labels.dimension,
                most=MAX_DIMENSIONS,
            )
        with second:
            view = controls.choose_view()
        with third:
            basis = controls.choose(
                "Cost column", "basis", list(labels.BASES), default="effective", label_of=lambda b: labels.BASES[b],
                help_text=labels.BASIS_HELP, buttons=True,
            )  # fmt: skip
    filters = controls.filters_of(controls.read_all("filter"))
    return Question(before=before, after=after, by=by, view=cast("View", view), basis=cast("Basis", basis), filters=filters)


def filters_in_force(question: Question) -> None:
    """What is kept; all of it can be taken off."""
    if not question.filters:
        return
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for name, values in question.filters.items():
            text = " or ".join(labels.value(name, value) for value in values)
            widgets.state_badge(f"{labels.dimension(name)}: {text}", "cool")
        if st.button("Clear all", key="drop-all", type="tertiary"):
            controls.write("filter", [])
            st.rerun()


# --- the answer ----------------------------------------------------------------------------------------------------------


def show(question: Question, answer: Answer[ComparisonTable]) -> None:
    """Totals, chart, table and files."""
    table = answer.value
    currencies = sorted(
        {*table.totals_before, *table.totals_after}, key=lambda c: (-sum(row.currency == c for row in table.rows), c)
    )
    if not currencies:
        widgets.empty_state(
            "Nothing to compare", "Nothing was spent in either period with these filters. Choose other periods above."
        )
        widgets.address(answer.address, key="compare")
        return
    currency = (
        controls.choose("Currency", "currency", currencies, default=currencies[0], buttons=True)
        if len(currencies) > 1
        else currencies[0]
    )
    totals = [sums.get(currency, Decimal(0)) for sums in (table.totals_before, table.totals_after, table.totals_change)]
    before_tile, after_tile, change_tile, _ = st.columns(4)
    names = period_choices.period_name(question.before), period_choices.period_name(question.after)
    for tile, label, amount in zip((before_tile, after_tile), names, totals[:2], strict=True):
        with tile:
            widgets.amount_tile(label, amount, currency, help_text=labels.CALENDARS[table.calendar])
    with change_tile:
        widgets.amount_tile("Change", totals[2], currency, delta=change_percent(totals[0], totals[2]))
    sums = effect_sums([(row.effect, row.cost) for row in table.rows if row.currency == currency])
    charts.steps(
        totals[0],
        {labels.EFFECTS[name]: amount for name, amount in sums.items()},
        totals[1],
        names=names,
        currency=currency,
        key="steps",
    )
    controls.go(draw(effect_grid(question, table, currency, sums, answer.address), key="effects"), page="compare")
    downloads.offer("/v1/compare", **question.parameters())


def change_percent(before: Decimal, change: Decimal) -> str | None:
    """A change in percent of what was before, where there was something."""
    if before <= 0:
        return None
    return f"{'+' if change > 0 else ''}{widgets.percent(100 * change / before)}"


def effect_sums(amounts: Sequence[tuple[str, Decimal]]) -> Effects:
    """Sum of each effect that occurs, in the order of `labels.EFFECTS`.

    >>> effect_sums([("price", Decimal(2)), ("volume", Decimal(1)), ("price", Decimal(3))])
    {'volume': Decimal('1'), 'price': Decimal('5')}
    """
    sums: Effects = {}
    for name in labels.EFFECTS:
        parts = [amount for effect, amount in amounts if effect == name]
        if parts:
            sums[name] = sum(parts, Decimal(0))
    return sums


def effect_grid(question: Question, table: ComparisonTable, currency: str, sums: Effects, address: str) -> Grid:
    """Effects of each group, those that changed most first; what is beyond `MAX_GROUPS` is one row."""
    groups: dict[tuple[str, ...], list[tuple[str, Decimal]]] = {}
    for row in table.rows:
        if row.currency == currency:
            groups.setdefault(tuple(row.get(name) or "" for name in question.by), []).append((row.effect, row.cost))
    rows = [
        group_row(question, table, group, effect_sums(amounts), sums, currency)
        for group, amounts in [*groups.items()][:MAX_GROUPS]
    ]
    footer = []
    if hidden_amounts := [amount for amounts in [*groups.values()][MAX_GROUPS:] for amount in amounts]:
        label = f"{len(groups) - MAX_GROUPS:,} other groups"
        footer.append(sum_row(label, len(question.by), effect_sums(hidden_amounts), sums, currency))
    footer.append(sum_row(f"Total {currency}", len(question.by), sums, sums, currency))
    columns = [Column(labels.dimension(name), link=at == 0) for at, name in enumerate(question.by)]
    columns += [Column(labels.EFFECTS[name], "right", help=labels.EFFECTS_HELP[name]) for name in sums]
    columns.append(Column("Change", "right", help="The sum of the effects"))
    return Grid(columns, rows, footer=footer, label="Effects", address=address, empty="No group's cost has changed.")


def group_row(
    question: Question, table: ComparisonTable, group: tuple[str, ...], effects: Effects, sums: Effects, currency: str
) -> Row:
    """A group with its effects; it leads to its cost in the later period."""
    cells = [
        Cell(labels.value(name, value), order=value, tone="" if value else "muted")
        for name, value in zip(question.by, group, strict=True)
    ]
    pairs = dict(zip(question.by, group, strict=True))
    filters = [f"{name}={value}" for name, values in question.filters.items() if name not in pairs for value in values]
    period = {"month": question.after}
    if len(question.after) != 7:
        zone = ZoneInfo(table.timezone)
        first_day, end_day = (instant.astimezone(zone).date() for instant in (table.after_start, table.after_end))
        period = {"month": "range", "from": f"{first_day}", "until": f"{end_day - timedelta(days=1)}"}
    href = widgets.link(
        "explorer",
        by="model" if "model" not in pairs else "meter",
        view=question.view if question.view != "initiator" else "",
        basis=question.basis if question.basis != "effective" else "",
        filter=[*filters, *(f"{name}={value}" for name, value in pairs.items())],
        **period,
    )
    return Row([*cells, *amount_cells(effects, sums, currency)], href=href)


def sum_row(label: str, width: int, effects: Effects, sums: Effects, currency: str) -> Row:
    """Sums of several groups."""
    return Row([Cell(label), *[Cell()] * (width - 1), *amount_cells(effects, sums, currency)], strong=True)


def amount_cells(effects: Effects, sums: Effects, currency: str) -> list[Cell]:
    """An amount for each effect that any group has, and the change, which is their sum."""
    cells = [widgets.change_cell(effects[name], currency) if name in effects else Cell() for name in sums]
    return [*cells, widgets.change_cell(sum(effects.values(), Decimal(0)), currency)]


page()
