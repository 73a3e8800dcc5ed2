"""Selections kept in the URL's query, so that a link shows the same page to anyone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

import streamlit as st

from ui import labels

PAGES: Mapping[str, str] = {
    "": "pages_/overview.py",
    "explorer": "pages_/explorer.py",
    "chains": "pages_/chains.py",
    "explain": "pages_/explain.py",
    "compare": "pages_/compare.py",
    "anomalies": "pages_/anomalies.py",
    "balance": "pages_/balance.py",
    "periods": "pages_/periods.py",
    "budgets": "pages_/budgets.py",
    "alerts": "pages_/alerts.py",
    "sources": "pages_/sources.py",
}
"""Path of a page in the URL to its file, in the order of the menu."""


def read(name: str) -> str:
    """A selection; "" where there is none."""
    return str(st.query_params.get(name, ""))


def read_all(name: str) -> list[str]:
    """A selection of several."""
    return [str(value) for value in st.query_params.get_all(name)]


def write(name: str, chosen: str | Iterable[str]) -> None:
    """Puts a selection into the URL; an empty one leaves it."""
    values = chosen if isinstance(chosen, str) else list(chosen)
    if values:
        st.query_params[name] = values
    else:
        st.query_params.pop(name, None)


def go(href: str | None, *, page: str) -> None:
    """Follows a link of a table: the same page with another selection, or another page. Does nothing without one."""
    if not href:
        return
    target = urlsplit(href)
    path = target.path.strip("./")
    parameters = parse_qs(target.query, keep_blank_values=True)
    if path == page:
        st.query_params.from_dict(parameters)
        st.rerun()
    st.switch_page(PAGES[path], query_params=parameters)


def choose(
    label: str,
    name: str,
    options: Sequence[str],
    *,
    default: str,
    label_of: Callable[[str], str] = str,
    help_text: str | None = None,
    buttons: bool = False,
) -> str:
    """One of some, kept in the URL under `name`. An unknown one in the URL counts as the default."""
    key = f"pick-{name}"
    current = read(name)
    current = current if current in options else default

    def changed() -> None:
        _begin()
        choice = st.session_state.get(key)
        write(name, "" if choice in (None, default) else str(choice))

    st.session_state[key] = current
    if buttons:
        choice = st.segmented_control(
            label,
            options,
            selection_mode="single",
            required=True,
            format_func=label_of,
            key=key,
            on_change=changed,
            help=help_text,
        )
    else:
        choice = st.selectbox(label, options, format_func=label_of, key=key, on_change=changed, help=help_text)
    return str(choice) if choice is not None else current


def choose_several(
    label: str, name: str, options: Sequence[str], *, default: Sequence[str], label_of: Callable[[str], str], most: int
) -> list[str]:
    """Some of many in order, kept in the URL as ``a,b``."""
    key = f"pick-{name}"
    current = [v for v in read(name).split(",") if v in options][:most] or list(default)

    def changed() -> None:
        _begin()
        choices = list(st.session_state.get(key) or [])
        write(name, "" if choices == list(default) else ",".join(choices))

    st.session_state[key] = current
    choices = st.multiselect(label, options, format_func=label_of, key=key, on_change=changed, max_selections=most)
    return list(choices) or list(default)


def _begin() -> None:
    # Another selection has another list: it starts at page 1.
    write("page", "")


def write_in(label: str, name: str, *, placeholder: str = "") -> str:
    """A word, kept in the URL."""
    key = f"pick-{name}"

    def changed() -> None:
        _begin()
        write(name, str(st.session_state.get(key) or "").strip())

    st.session_state[key] = read(name)
    return str(st.text_input(label, key=key, on_change=changed, placeholder=placeholder) or "")


def choose_month(months: Sequence[str], *, everything: bool = False, label: str = "Month") -> str:
    """A published month, the newest unless chosen; "all" where that is offered."""
    newest_first = [*reversed(months), *(["all"] if everything else [])]
    return choose(
        label, "month", newest_first, default=newest_first[0], label_of=lambda m: "All months" if m == "all" else labels.month(m)
    )


def choose_view(label: str = "Cost goes to") -> str:
    """Whose cost is shown."""
    return choose(
        label,
        "view",
        list(labels.VIEWS),
        default="initiator",
        label_of=lambda v: labels.VIEWS[v],
        help_text="Who started it: the agent at the head of the chain. Who ran it: the agent that made the call. "
        "Both add up to the same bill.",
        buttons=True,
    )


def filters_of(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Filters as the URL has them: ``team=Care``; an empty value stands for unknown.

    >>> filters_of(["team=Care", "team=Dev", "model="])
    {'team': ['Care', 'Dev'], 'model': ['']}
    """
    filters: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals and value not in filters.setdefault(name, []):
            filters[name].append(value)
    return filters


def previous_month(month: str) -> str:
    """The month before.

    >>> previous_month("2026-10"), previous_month("2026-01")
    ('2026-09', '2025-12')
    """
    year, number = (int(part) for part in month.split("-"))
    return f"{year - (number == 1):04d}-{(number - 2) % 12 + 1:02d}"


def next_month(month: str) -> str:
    """The month after, which is where a half-open range ends.

    >>> next_month("2026-10"), next_month("2026-12")
    ('2026-11', '2027-01')
    """
    year, number = (int(part) for part in month.split("-"))
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"
