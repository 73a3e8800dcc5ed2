"""Periods that are chosen to be compared: weeks and ranges of days, as the URL and the API have them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import streamlit as st

from ui import controls, labels


def weeks(months: Sequence[str]) -> list[str]:
    """ISO weeks that months have days of, oldest first.

    >>> weeks(["2026-10"])
    ['2026-W40', '2026-W41', '2026-W42', '2026-W43', '2026-W44']
    """
    day, end = date.fromisoformat(f"{months[0]}-01"), date.fromisoformat(f"{controls.next_month(months[-1])}-01")
    monday = day - timedelta(days=day.weekday())
    return [f"{monday + timedelta(days=7 * n):%G-W%V}" for n in range(-(-(end - monday).days // 7))]


def week_label(week: str) -> str:
    """A week with its first day.

    >>> week_label("2026-W41")
    '2026-W41, from 5 October'
    """
    year, _, number = week.partition("-W")
    monday = date.fromisocalendar(int(year), int(number), 1)
    return f"{week}, from {monday.day} {labels.month(f'{monday:%Y-%m}').split()[0]}"


def days_of(text: str, month: str) -> tuple[date, date]:
    """First day of a range and the day after its last; those of the month where the text is no range.

    >>> days_of("2026-10-01/2026-10-15", "2026-11"), days_of("soon", "2026-11")
    ((datetime.date(2026, 10, 1), datetime.date(2026, 10, 15)), (datetime.date(2026, 11, 1), datetime.date(2026, 12, 1)))
    """
    first, _, end = text.partition("/")
    try:
        days = date.fromisoformat(first), date.fromisoformat(end)
    except ValueError:
        days = date.min, date.min
    if days[0] < days[1]:
        return days
    return date.fromisoformat(f"{month}-01"), date.fromisoformat(f"{controls.next_month(month)}-01")


def range_of(label: str, name: str, month: str) -> str:
    """A range of days, both included on the page, half-open in the URL and for the API."""
    start, end = days_of(controls.read(name), month)
    keys = [f"days-{name}-first", f"days-{name}-last"]
    for key, day in zip(keys, (start, end - timedelta(days=1)), strict=True):
        st.session_state[key] = day

    def changed() -> None:
        first, last = sorted(st.session_state[key] for key in keys)
        controls.write(name, f"{first}/{last + timedelta(days=1)}")

    first_column, last_column = st.columns(2)
    with first_column:
        st.date_input(f"{label}, from", key=keys[0], on_change=changed, format="YYYY-MM-DD")
    with last_column:
        st.date_input("to and including", key=keys[1], on_change=changed, format="YYYY-MM-DD")
    return f"{start}/{end}"


def period_name(period: str) -> str:
    """A period in words; the last day of a range is told, not the one after it.

    >>> period_name("2026-10"), period_name("2026-W41"), period_name("2026-10-01/2026-10-15")
    ('October 2026', '2026-W41, from 5 October', '2026-10-01 to 2026-10-14')
    """
    if "/" in period:
        first, _, end = period.partition("/")
        return f"{first} to {date.fromisoformat(end) - timedelta(days=1)}"
    return week_label(period) if "-W" in period else labels.month(period)
