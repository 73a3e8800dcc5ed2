"""Tables with exact amounts, links, trees and bars. Rendered by `assets/grid.js`, which gets text, not markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import streamlit as st

from ui.theme import ASSETS

Tone = Literal["", "good", "warn", "bad", "cool", "muted"]
Order = Decimal | int | str | datetime | date | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and on which side its values stand."""

    label: str
    align: Literal["left", "right"] = "left"
    _: KW_ONLY
    help: str = ""
    link: bool = False
    """Whether the text of its cells is the row's link."""
    shape: Literal["", "wide", "word"] = ""


@dataclass(frozen=True, slots=True)
class Pill:
    """A word in a coloured pill; `title` is said when pointed at."""

    text: str
    tone: Tone = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. `order`: what the column sorts by; `bar_approx`: a bar filled from 0 to 1, `firm_approx` of it in full colour."""

    text: str = ""
    _: KW_ONLY
    order: Order = None
    title: str = ""
    sub: str = ""
    tone: Tone = ""
    href: str = ""
    depth: int = 0
    rails: str = ""
    """For each level of `depth`, "1" where the line goes on to a later sibling; see `rails`."""
    pills: Sequence[Pill] = ()
    bar_approx: float | None = None
    firm_approx: float | None = None
    colour: str = ""
    prose: bool = False
    """Whether what stands between backticks is code."""

    def drawn(self, rank: int | None) -> dict[str, Any]:
        """The cell as the browser gets it, with its place in the column's order."""
        payload: dict[str, Any] = {"text": self.text, "order": rank}
        optional = {
            "title": self.title,
            "sub": self.sub,
            "tone": self.tone,
            "href": self.href,
            "depth": self.depth,
            "rails": self.rails,
            "pills": [{"text": p.text, "tone": p.tone, "title": p.title} for p in self.pills],
            "colour": self.colour,
            "prose": self.prose,
        }
        payload |= {key: value for key, value in optional.items() if value}
        if self.bar_approx is not None:
            payload |= {"bar": self.bar_approx, "firm": self.bar_approx if self.firm_approx is None else self.firm_approx}
        return payload


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `href` is where it leads, such as ``chains?chain=…``."""

    cells: Sequence[Cell]
    href: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with a caption and the address of its figures."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    _: KW_ONLY
    footer: Sequence[Row] = ()
    label: str = ""
    caption: str = ""
    address: str = ""
    empty: str = "Nothing to show."
    sortable: bool = True
    ranks: list[dict[Order, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        # The browser sorts by rank, not by amount: amounts would have to become floats there.
        for at in range(len(self.columns)):
            orders = {row.cells[at].order for row in self.rows} - {None}
            self.ranks.append({value: rank for rank, value in enumerate(sorted(orders))})  # type: ignore[type-var]

    def drawn(self) -> dict[str, Any]:
        """The table as the browser gets it."""
        return {
            "columns": [
                {"label": c.label, "align": c.align, "help": c.help, "link": c.link, "shape": c.shape} for c in self.columns
            ],
            "rows": [self._row(row) for row in self.rows],
            "footer": [self._row(row) for row in self.footer],
            "label": self.label,
            "caption": self.caption,
            "address": self.address,
            "address_shown": shortened(self.address),
            "empty": self.empty,
            "sortable": self.sortable and len(self.rows) > 1,
        }

    def _row(self, row: Row) -> dict[str, Any]:
        cells = [cell.drawn(self.ranks[at].get(cell.order)) for at, cell in enumerate(row.cells)]
        return {"cells": cells, "href": row.href, "strong": row.strong}


def rails(depths: Sequence[int]) -> list[str]:
    """For each row of a tree drawn depth first: on which levels a line goes on to a later row, "1" or "0" from level 1 on.

    A root with two children, the first of which has one:

    >>> rails([0, 1, 2, 1])
    ['', '1', '10', '0']
    """
    lines: list[str] = []
    later: set[int] = set()
    for depth in reversed(depths):
        lines.append("".join("1" if level in later else "0" for level in range(1, depth + 1)))
        later = {level for level in later if level < depth} | {depth}
    return lines[::-1]


def shortened(address: str) -> str:
    """An address without the host.

    >>> shortened("http://127.0.0.1:8787/v1/costs?by=team")
    '/v1/costs?by=team'
    """
    _, separator, path = address.partition("://")
    return "/" + path.partition("/")[2] if separator else address


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def draw(grid: Grid, *, key: str) -> str | None:
    """Renders the table. Returns the target of a clicked row or link, once."""
    component = st.components.v2.component(
        "rootcost.grid", html='<div class="rc"></div>', css=_asset("grid.css"), js=_asset("grid.js")
    )
    target = component(key=key, data=grid.drawn(), on_go_change=lambda: None).go
    return str(target) if target else None
