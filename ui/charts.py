"""Charts. Amounts become floats here, in fields `*_approx`, for lengths on a screen only; tooltips carry exact text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import altair as alt
import streamlit as st

from ui import labels, theme
from ui.widgets import exact

OTHERS = "all others"
AXIS = (
    "datum.value == 0 ? '0'"
    " : abs(datum.value) >= 1e9 ? format(datum.value / 1e9, ',.3~f') + 'B'"
    " : abs(datum.value) >= 1e6 ? format(datum.value / 1e6, ',.3~f') + 'M'"
    " : abs(datum.value) >= 1e3 ? format(datum.value / 1e3, ',.3~f') + 'k'"
    " : format(datum.value, ',.12~f')"
)
"""How amounts are written along an axis (a Vega expression): 0.05, 20, 1.5k, 2M."""


def _rows(values: list[dict[str, Any]]) -> Any:
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Point:
    """An amount of one name in one period."""

    period: str
    name: str
    amount: Decimal
    firm: bool = True
    """False while no bill covers it."""


def leading(points: Sequence[Point], most: int) -> list[str]:
    """Names by their sum, dearest first, cut after `most`; then `OTHERS` if any were cut, and what has no name.

    >>> points = [Point("day", name, Decimal(spent)) for name, spent in (("a", 1), ("b", 3), ("c", 2), ("(no team)", 9))]
    >>> leading(points, 2)
    ['b', 'c', 'all others', '(no team)']
    """
    sums: dict[str, Decimal] = {}
    for point in points:
        sums[point.name] = sums.get(point.name, Decimal(0)) + point.amount
    named_by_spend = sorted((n for n in sums if n not in labels.NAMELESS), key=lambda n: (-sums[n], n))
    return [*named_by_spend[:most], *([OTHERS] if len(named_by_spend) > most else []), *sorted(sums.keys() & labels.NAMELESS)]


def over_time(
    points: Sequence[Point], *, currency: str, unit: str, measure: str, most: int = 6, height: int = 300, key: str
) -> None:
    """Spend over time, stacked by name; the part no bill covers yet is drawn paler."""
    names = leading(points, most)
    sums: dict[tuple[str, str, bool], Decimal] = {}
    for point in points:
        place = (point.period, point.name if point.name in names else OTHERS, point.firm)
        sums[place] = sums.get(place, Decimal(0)) + point.amount
    values = [
        {
            "period": f"{period[:19]}Z",  # days follow the reporting timezone: its wall clock is drawn, not the reader's
            "name": name,
            "place": names.index(name),
            "state": "billed" if firm else "estimated",
            "amount_approx": float(amount),
            "amount": exact(amount, currency),
        }
        for (period, name, firm), amount in sorted(sums.items())
    ]
    time_unit: Any = {"day": "utcyearmonthdate", "month": "utcyearmonth", "hour": "utcyearmonthdatehours"}[unit]
    format_shown = {"day": "%e %b", "month": "%b %Y", "hour": "%e %b %H:%M"}[unit]
    chart = (
        alt.Chart(_rows(values))
        .mark_bar(cornerRadius=1)
        .encode(
            x=alt.X(
                "period:T",
                timeUnit=time_unit,
                title=None,
                axis=alt.Axis(format=format_shown, labelOverlap=True, grid=False, values=ticks(sums)),
            ),
            y=alt.Y(
                "sum(amount_approx):Q",
                title=f"{measure} per {unit}, {currency}",
                axis=alt.Axis(labelExpr=AXIS, tickCount=5),
                scale=alt.Scale(nice=False),
            ),
            color=alt.Color(
                "name:N",
                sort=names,
                scale=alt.Scale(domain=names, range=theme.colours(names, nameless=labels.NAMELESS, others=OTHERS)),
                legend=alt.Legend(
                    title=None, orient="top", direction="horizontal", columns=4, symbolType="square", labelLimit=160, offset=8
                ),
            ),
            opacity=alt.Opacity("state:N", scale=alt.Scale(domain=["billed", "estimated"], range=[1.0, 0.5]), legend=None),
            order=alt.Order("place:Q", sort="ascending"),
            tooltip=[
                alt.Tooltip("period:T", timeUnit=time_unit, format=format_shown, title=unit.capitalize()),
                alt.Tooltip("name:N", title="Who"),
                alt.Tooltip("amount:N", title=measure),
                alt.Tooltip("state:N", title="Basis"),
            ],
        )
        .properties(height=height)
    )
    st.altair_chart(chart, width="stretch", key=key)


def ticks(sums: Mapping[tuple[str, str, bool], Decimal], most: int = 10) -> list[alt.DateTime]:
    """Periods to be named below a chart, evenly spread."""
    starts = sorted({period[:19] for period, _, _ in sums})
    labelled_starts = [datetime.fromisoformat(start) for start in starts[:: len(starts) // most + 1]]
    return [alt.DateTime(year=t.year, month=t.month, date=t.day, hours=t.hour, utc=True) for t in labelled_starts]


def bars(amounts: Mapping[str, Decimal], *, currency: str, measure: str, most: int = 12, key: str) -> None:
    """Names with the largest amounts, largest first; negative ones (credits) point left."""
    first = sorted(amounts.items(), key=lambda item: (-abs(item[1]), item[0]))[:most]
    values = [
        {"name": n, "amount_approx": float(a), "amount": exact(a, currency), "known": n not in labels.NAMELESS} for n, a in first
    ]
    chart = (
        alt.Chart(_rows(values))
        .mark_bar(cornerRadius=2, size=16)
        .encode(
            x=alt.X("amount_approx:Q", title=f"{measure}, {currency}", axis=alt.Axis(labelExpr=AXIS, tickCount=6)),
            y=alt.Y("name:N", sort=[n for n, _ in first], title=None, axis=alt.Axis(labelLimit=260, grid=False)),
            color=alt.condition("datum.known", alt.value(theme.PALETTE[0]), alt.value(theme.NOBODY)),
            tooltip=[alt.Tooltip("name:N", title="Who"), alt.Tooltip("amount:N", title=measure)],
        )
        .properties(height=28 * len(first) + 60)
    )
    st.altair_chart(chart, width="stretch", key=key)


def steps(
    before: Decimal, effects: Mapping[str, Decimal], after: Decimal, *, names: tuple[str, str], currency: str, key: str
) -> None:
    """From an earlier total to a later one: a bar for each, and between them one for each effect, where the one before it ends."""
    level, bars_drawn = before, [(names[0], Decimal(0), before, "total")]
    for name, amount in effects.items():
        bars_drawn.append((name, level, level + amount, "more" if amount > 0 else "less"))
        level += amount
    bars_drawn.append((names[1], Decimal(0), after, "total"))
    values = [
        {
            "name": name,
            "start_approx": float(start),
            "end_approx": float(end),
            "amount": exact(end - start, currency),
            "kind": kind,
        }
        for name, start, end, kind in bars_drawn
    ]
    colour = {"total": theme.PALETTE[0], "more": theme.PALETTE[5], "less": theme.PALETTE[2]}
    chart = (
        alt.Chart(_rows(values))
        .mark_bar(cornerRadius=2, size=16)
        .encode(
            x=alt.X("start_approx:Q", title=f"Cost, {currency}", axis=alt.Axis(labelExpr=AXIS, tickCount=6)),
            x2="end_approx:Q",
            y=alt.Y("name:N", sort=[name for name, *_ in bars_drawn], title=None, axis=alt.Axis(labelLimit=260, grid=False)),
            color=alt.Color("kind:N", scale=alt.Scale(domain=list(colour), range=list(colour.values())), legend=None),
            tooltip=[alt.Tooltip("name:N", title="What"), alt.Tooltip("amount:N", title="Amount")],
        )
        .properties(height=28 * len(bars_drawn) + 60)
    )
    st.altair_chart(chart, width="stretch", key=key)


def against_limit(points: Sequence[Point], limit: Decimal, *, currency: str, key: str) -> None:
    """Spend of each month against a budget's limit."""
    values = [{"period": p.period, "amount_approx": float(p.amount), "amount": exact(p.amount, currency)} for p in points]
    base = alt.Chart(_rows(values))
    columns = base.mark_bar(cornerRadius=2, size=26, color=theme.PALETTE[0]).encode(
        x=alt.X("period:O", sort=[p.period for p in points], title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("amount_approx:Q", title=f"Spent per month, {currency}", axis=alt.Axis(labelExpr=AXIS, tickCount=4)),
        tooltip=[alt.Tooltip("period:O", title="Month"), alt.Tooltip("amount:N", title="Spent")],
    )
    line = (
        alt.Chart(_rows([{"limit_approx": float(limit), "limit": exact(limit, currency)}]))
        .mark_rule(strokeDash=[5, 4], strokeWidth=2, color=theme.PALETTE[5])
        .encode(y="limit_approx:Q", tooltip=[alt.Tooltip("limit:N", title="Limit in force")])
    )
    st.altair_chart((columns + line).properties(height=190), width="stretch", key=key)


def split_by_class(rows: Mapping[str, Mapping[str, Decimal]], *, currency: str, key: str) -> None:
    """Each provider's bill, cut into cost classes."""
    classes = list(theme.CLASS_COLOURS)
    values = [
        {
            "provider": provider,
            "class": name,
            "place": classes.index(name),
            "amount_approx": float(amount),
            "amount": exact(amount, currency),
        }
        for provider, parts in rows.items()
        for name, amount in parts.items()
        if amount
    ]
    chart = (
        alt.Chart(_rows(values))
        .mark_bar(cornerRadius=1, size=22)
        .encode(
            x=alt.X("sum(amount_approx):Q", title=f"Charges, {currency}", axis=alt.Axis(labelExpr=AXIS, tickCount=6)),
            y=alt.Y("provider:N", sort=list(rows), title=None, axis=alt.Axis(labelLimit=220, grid=False)),
            color=alt.Color(
                "class:N",
                scale=alt.Scale(domain=classes, range=list(theme.CLASS_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top", direction="horizontal", columns=0, symbolType="square", offset=8),
            ),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("provider:N", title="Provider"),
                alt.Tooltip("class:N", title="Class"),
                alt.Tooltip("amount:N", title="Charges"),
            ],
        )
        .properties(height=44 * len(rows) + 100)
    )
    st.altair_chart(chart, width="stretch", key=key)


def split_by_evidence(parts: Mapping[str, Decimal], *, currency: str, key: str) -> None:
    """A month's money as one bar, cut by what it stands on; credits point left."""
    names = [labels.EVIDENCE[name] for name in theme.EVIDENCE_COLOURS]
    values = [
        {
            "evidence": labels.EVIDENCE[name],
            "place": theme.EVIDENCE_PLACES[name],
            "amount_approx": float(amount),
            "amount": exact(amount, currency),
        }
        for name, amount in parts.items()
        if amount
    ]
    chart = (
        alt.Chart(_rows(values))
        .mark_bar(cornerRadius=1, size=26)
        .encode(
            x=alt.X("sum(amount_approx):Q", title=f"Cost, {currency}", axis=alt.Axis(labelExpr=AXIS, tickCount=6)),
            color=alt.Color(
                "evidence:N",
                scale=alt.Scale(domain=names, range=list(theme.EVIDENCE_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top", direction="horizontal", columns=0, symbolType="square", offset=8),
            ),
            order=alt.Order("place:Q"),
            tooltip=[alt.Tooltip("evidence:N", title="Stands on"), alt.Tooltip("amount:N", title="Cost")],
        )
        .properties(height=130)
    )
    st.altair_chart(chart, width="stretch", key=key)
