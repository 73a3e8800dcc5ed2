"""The page that compares two periods."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from fastapi import FastAPI

from tests.support import ui_fake_api as fake
from tests.support import ui_fake_comparisons as comparisons
from tests.support.ui_shown import Shown
from ui import charts, widgets


def sent(app: FastAPI) -> dict[str, list[str]]:
    """The parameters of the newest comparison that was asked for."""
    return parse_qs([query for _, path, query in app.state.requests if path == "/v1/compare"][-1])


def amounts(cells: list[dict[str, Any]]) -> list[Decimal]:
    """Exact amounts of a row's cells, which stand behind what is shown."""
    return [Decimal(c["title"].replace("US$\xa0", "").replace(widgets.MINUS, "-")) for c in cells if c.get("title")]


def test_effects_stand_by_group_and_sum_to_the_change(visit: Any, full_url: str) -> None:
    page = visit(full_url, "compare")
    grid = page.grids["Effects"]
    assert [c["label"] for c in grid["columns"]] == ["Team", "Agent", "Volume", "Tokens per call", "Price", "New", "Change"]
    assert page.rows("Effects") == [
        ["Dev", "coder", "+US$ 40.00", "−US$ 2.50", "", "", "+US$ 37.50"],
        ["Care", "support-bot", "", "", "−US$ 10.00", "", "−US$ 10.00"],
        ["(no team)", "(no agent)", "", "", "", "+US$ 4.00", "+US$ 4.00"],
    ]
    *effects, change = amounts(grid["footer"][-1]["cells"])
    assert sum(effects) == change == comparisons.AFTER - comparisons.BEFORE
    assert sum(amounts([row["cells"][-1]])[0] for row in grid["rows"]) == change
    tiles = {m.label: m.value.replace("\\", "").replace(widgets.GAP, " ") for m in page.at.metric}
    assert tiles == {"September 2026": "US$ 100.00", "October 2026": "US$ 131.50", "Change": "US$ 31.50"}
    assert page.links("Effects")[0] == "explorer?by=model&filter=team%3DDev&filter=agent%3Dcoder&month=2026-10"


def test_the_chart_leads_from_the_earlier_total_to_the_later_one(
    visit: Any, full_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = json.loads(visit(full_url, "compare").at.get("vega_lite_chart")[0].proto.spec)
    assert spec["encoding"]["y"]["sort"] == ["September 2026", "Volume", "Tokens per call", "Price", "New", "October 2026"]
    pictures: list[Any] = []
    monkeypatch.setattr("ui.charts.st.altair_chart", lambda chart, **_: pictures.append(chart))
    effects = {"Volume": Decimal(40), "Price": Decimal("-8.5")}
    charts.steps(Decimal(100), effects, Decimal("131.5"), names=("before", "after"), currency="USD", key="steps")
    bars = pictures[0].data.to_dict()["values"]
    assert [(bar["name"], bar["kind"], bar["start_approx"], bar["end_approx"]) for bar in bars] == [
        ("before", "total", 0, 100), ("Volume", "more", 100, 140), ("Price", "less", 140, 131.5), ("after", "total", 0, 131.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ({}, ("2026-09", "2026-10")),
        ({"from": "2026-08", "to": "2026-09"}, ("2026-08", "2026-09")),
        ({"period": "week", "to": "2026-W43"}, ("2026-W43", "2026-W43")),
        (
            {"period": "range", "from": "2026-10-01/2026-10-08", "to": "2026-10-08/2026-10-15"},
            ("2026-10-01/2026-10-08", "2026-10-08/2026-10-15"),
        ),
        ({"period": "range", "from": "soon", "to": "2026-10-08/2026-10-01"}, ("2026-09-01/2026-10-01", "2026-10-01/2026-11-01")),
    ],
)
def test_periods_are_those_of_the_url(
    visit: Any, full_url: str, full: FastAPI, query: dict[str, str], parameters: tuple[str, str]
) -> None:
    visit(full_url, "compare", by="model", view="executor", basis="billed", filter=["team=Dev"], **query)
    request = sent(full)
    assert (request["from"], request["to"]) == ([parameters[0]], [parameters[1]])
    assert (request["by"], request["view"], request["basis"], request["filter"]) == (
        ["model"],
        ["executor"],
        ["billed"],
        ["team=Dev"],
    )


def test_files_and_the_address_are_of_the_same_question(visit: Any, full_url: str) -> None:
    page = visit(full_url, "compare", filter=["team=Dev"])
    files = {b.proto.label: b.proto.url for b in page.at.get("link_button")}
    address = page.grids["Effects"]["address"]
    of_address, of_file = (parse_qs(url.partition("?")[2]) for url in (address, files["Download CSV"]))
    assert of_file == {**of_address, "format": ["csv"]}


def test_what_is_beyond_the_most_groups_is_one_row(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [{"team": f"team-{n:03}", "effect": "volume", "cost": Decimal(1)} for n in range(203)]
    monkeypatch.setattr(comparisons, "ROWS", groups)
    with fake.serving(fake.make_app()) as url:
        grid = visit(url, "compare", by="team").grids["Effects"]
    assert len(grid["rows"]) == 200
    assert [row["cells"][-1]["text"].replace(widgets.GAP, " ") for row in grid["footer"]] == ["+US$ 3.00", "+US$ 203.00"]
    assert grid["footer"][0]["cells"][0]["text"] == "3 other groups"


def test_nothing_to_compare_says_what_to_do(visit: Any, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rootcost demo" in visit(empty_url, "compare").words
    app = FastAPI()
    comparisons.register(app, empty=True)
    full = fake.make_app()
    full.router.routes[:] = [route for route in full.router.routes if getattr(route, "path", "") != "/v1/compare"]
    full.mount("/", app)
    with fake.serving(full) as url:
        assert "Choose other periods above" in visit(url, "compare").words


def test_overview_and_explorer_lead_to_it(visit: Any, full_url: str) -> None:
    def query(page: Shown) -> dict[str, list[str]]:
        return next(parse_qs(one.proto.query_string) for one in page.at.get("page_link") if one.proto.page == "compare")

    assert query(visit(full_url)) == {"from": ["2026-09"], "to": ["2026-10"], "by": ["team,agent"]}
    of_explorer = query(visit(full_url, "explorer", by="model", filter=["team=Dev"]))
    assert of_explorer == {"from": ["2026-09"], "to": ["2026-10"], "by": ["model"], "filter": ["team=Dev"]}
    days = visit(full_url, "explorer", month="range", **{"from": "2026-10-08", "until": "2026-10-14"})
    assert (query(days)["from"], query(days)["to"]) == (["2026-10-01/2026-10-08"], ["2026-10-08/2026-10-15"])
