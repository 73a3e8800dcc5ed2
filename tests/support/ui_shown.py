"""A page of the dashboard as a reader finds it, drawn without a browser."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from tests.support.paths import ROOT
from ui import widgets
from ui.controls import PAGES

ENTRY = ROOT / "ui" / "app.py"
GAP = widgets.GAP


class Shown:
    """A page as a reader finds it."""

    def __init__(self, at: AppTest) -> None:
        self.at = at
        assert not at.exception, [e.value for e in at.exception]

    @property
    def grids(self) -> dict[str, dict[str, Any]]:
        """Tables by their label."""
        drawn = [json.loads(c.proto.json) for c in self.at.get("bidi_component")]
        return {g["label"]: g for g in drawn if g["label"]}

    @property
    def addresses(self) -> list[str]:
        """GETs that the page names."""
        return [g["address"] for c in self.at.get("bidi_component") if (g := json.loads(c.proto.json))["address"]]

    def rows(self, label: str) -> list[list[str]]:
        """Text of a table's cells, with pills."""
        return [
            [
                " ".join([cell["text"], *(p["text"] for p in cell.get("pills", []))]).strip().replace(GAP, " ")
                for cell in row["cells"]
            ]
            for row in self.grids[label]["rows"]
        ]

    def links(self, label: str) -> list[str]:
        """Where a table's rows lead."""
        return [row["href"] for row in self.grids[label]["rows"]]

    @property
    def words(self) -> str:
        """Everything said outside of tables."""
        kinds = (
            self.at.title,
            self.at.markdown,
            self.at.caption,
            self.at.code,
            self.at.error,
            self.at.warning,
            self.at.success,
            self.at.metric,
        )
        parts = (
            [str(e.value) for kind in kinds for e in kind]
            + [str(m.delta) for m in self.at.metric]
            + [str(m.label) for m in self.at.metric]
        )
        return "\n".join(parts).replace("\\", "").replace(GAP, " ")


def opened(page: str = "", **query: str | list[str]) -> Shown:
    """A page with a selection in its URL."""
    at = AppTest.from_file(str(ENTRY), default_timeout=20)
    if page:
        at.switch_page(PAGES[page])
    for name, value in query.items():
        at.query_params[name] = value
    return Shown(at.run())
