"""The figures on the dashboard's pages as text, so that a picture whose figures have changed is noticed.

The pages are rendered without a browser, by Streamlit's own test runner, against an API that serves the demo. Kept are the cards and the
amounts, shares and counts of tables; ages, run ids and times differ from day to day and are left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from streamlit.testing.v1 import AppTest

from ui.controls import PAGES

MANIFEST = Path(__file__).parent / "images" / "figures.json"
PICTURES: Mapping[str, str] = {
    "overview": "",
    "explorer": "explorer?by=team&granularity=day",
    "chains": "chains",
    "chain": "chains?agent=support-bot",
    "balance": "balance",
    "budgets": "budgets",
    "sources": "sources",
}
"""Name of a picture to the page it shows. `chain` follows the first link of its page."""
FIRST_ROWS = 12
"""Rows of a table that are compared; a picture is cut below them."""
_UNSTABLE_TABLES = ("Runs", "Attribution runs")
_FIGURE = re.compile(r"US\$|%|^[\d,]+$")
_UNSTABLE_TEXT = re.compile(r"\bago\b|\bahead\b|UTC|/")


def page_figures(api: str) -> dict[str, Any]:
    """For each picture: its page's cards, and the figures of its tables."""
    os.environ["ROOTCOST_API_URL"] = api
    figures = {}
    for name, path in PICTURES.items():
        page = _rendered(path)
        if name == "chain":
            (runs,) = [grid for grid in _grids(page) if any("chain=" in row["href"] for row in grid["rows"])]
            page = _rendered(next(row["href"] for row in runs["rows"] if "chain=" in row["href"]))
        figures[name] = {
            "cards": {card.label: _plain(card.value) for card in page.metric},
            "tables": {grid["label"]: _rows(grid) for grid in _grids(page) if grid["label"] not in _UNSTABLE_TABLES},
        }
    return figures


def manifest_text(figures: Mapping[str, Any]) -> str:
    """The manifest as it is stored."""
    return json.dumps(figures, indent=1, ensure_ascii=False) + "\n"


def _rendered(path: str) -> AppTest:
    file, _, query = path.partition("?")
    app = AppTest.from_file(str(Path(__file__).parents[1] / "ui" / "app.py"), default_timeout=60)
    if file:
        app.switch_page(PAGES[file])
    for name, values in parse_qs(query, keep_blank_values=True).items():
        app.query_params[name] = values if len(values) > 1 else values[0]
    app.run()
    if app.exception:
        raise RuntimeError(f"{path}: {[error.value for error in app.exception]}")
    return app


def _grids(app: AppTest) -> list[dict[str, Any]]:
    grids = [json.loads(component.proto.json) for component in app.get("bidi_component")]
    return [grid for grid in grids if grid["label"]]


def _rows(grid: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for row in [*grid["rows"][:FIRST_ROWS], *grid["footer"]]:
        head, *texts = [_plain(text) for cell in row["cells"] for text in _texts(cell)]
        figures = [text for text in texts if _FIGURE.search(text) and not _UNSTABLE_TEXT.search(text)]
        rows.append([*([] if _UNSTABLE_TEXT.search(head) else [head]), *figures])
    return rows


def _texts(cell: Mapping[str, Any]) -> list[str]:
    return [" ".join([cell["text"], *(pill["text"] for pill in cell.get("pills", ()))]), cell.get("sub", "")]


def _plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\\", "").strip()
