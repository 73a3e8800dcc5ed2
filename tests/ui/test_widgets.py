"""Amounts on a page: exact digits, readable, never through a float; and links that say what is chosen."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.client import ApiProblem
from api.models import FieldError, ProblemDocument
from tests.support.paths import ROOT
from ui import grid, widgets

UI = ROOT / "ui"
MODULES = ["ui.widgets", "ui.labels", "ui.grid", "ui.theme", "ui.charts", "ui.controls"]
amounts = st.decimals(min_value=-(10**15), max_value=10**15, places=12, allow_nan=False)


@pytest.mark.parametrize("name", MODULES)
def test_worked_examples_hold(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (tried.failed, tried.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1234.56", "US$ 1,234.56"),
        ("1234567890123.456789012345", "US$ 1,234,567,890,123.46"),
        ("0.018", "US$ 0.018"),
        ("0.000000000001", "US$ 0.000000000001"),
        ("-0.08", "−US$ 0.08"),
        ("0", "US$ 0.00"),
        ("-0.0", "US$ 0.00"),
        ("0.999999", "US$ 1.00"),
        ("2.345", "US$ 2.34"),  # half to even, as everywhere
        ("2.355", "US$ 2.36"),
    ],
)
def test_money_reads_well(written: str, shown: str) -> None:
    assert widgets.money(Decimal(written), "USD").replace(widgets.GAP, " ") == shown


def test_nothing_needs_no_digits() -> None:
    assert widgets.money(Decimal(0), "USD", to_places=6).replace(widgets.GAP, " ") == "US$ 0.00"


def test_no_amount_is_not_zero() -> None:
    assert widgets.money(None, "USD") == widgets.NOTHING != widgets.money(Decimal(0), "USD")


@given(amounts)
def test_every_digit_is_to_be_had(amount: Decimal) -> None:
    told = widgets.exact(amount, "EUR").replace("€" + widgets.GAP, "").replace(",", "").replace(widgets.MINUS, "-")
    assert Decimal(told) == amount


@given(amounts.filter(bool))
def test_an_amount_is_never_shown_as_nothing(amount: Decimal) -> None:
    for to in (None, 2):
        assert re.search("[1-9]", widgets.money(amount, "USD", to_places=to))


@given(st.lists(amounts, min_size=2, max_size=20))
def test_a_column_sorts_by_exact_amount(column: list[Decimal]) -> None:
    table = grid.Grid((grid.Column("Cost", "right"),), [grid.Row((widgets.money_cell(a, "USD"),)) for a in column])
    ranks = [row["cells"][0]["order"] for row in table.drawn()["rows"]]
    assert [a for _, a in sorted(zip(ranks, column, strict=True))] == sorted(column)


def test_amounts_beyond_a_floats_digits_stay_apart() -> None:
    near = [Decimal("9007199254740993.000000000002"), Decimal("9007199254740993.000000000001")]
    table = grid.Grid((grid.Column("Cost"),), [grid.Row((widgets.money_cell(a, "USD"),)) for a in near])
    assert [row["cells"][0]["order"] for row in table.drawn()["rows"]] == [1, 0]
    assert "9,007,199,254,740,993.000000000002" in json.dumps(table.drawn())


@given(st.text(min_size=1))
def test_a_link_carries_any_name_whole(name: str) -> None:
    query = parse_qs(
        urlsplit(widgets.link("explorer", filter=[f"agent={name}"])).query, keep_blank_values=True, strict_parsing=True
    )
    assert query == {"filter": [f"agent={name}"]}


def test_what_names_hold_is_not_markdown() -> None:
    assert widgets.plain("<b> $x$ [a](b) :red[c] *d* _e_ `f` # g") == (
        "\\<b\\> \\$x\\$ \\[a\\]\\(b\\) \\:red\\[c\\] \\*d\\* \\_e\\_ \\`f\\` \\# g"
    )


def test_a_problem_document_becomes_a_sentence() -> None:
    document = ProblemDocument(
        title="Not found",
        status=404,
        detail="no chain 'x'",
        remedy="look in the list",
        errors=[FieldError(field="id", reason="is too short")],
    )
    told = ApiProblem(document)
    assert widgets.sentence(told.title, told.detail) == "Not found: no chain 'x'."
    assert [widgets.sentence(f.field, f.reason) for f in told.errors] == ["id: is too short."]


def test_money_passes_through_no_float_but_for_lengths_on_a_screen() -> None:
    """`float(` may stand only where the result is named `*_approx`: chart points and bars."""
    for path in sorted(UI.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
        ]
        allowed = {"charts.py", "widgets.py"}
        assert not calls or path.name in allowed, path
    assert (UI / "widgets.py").read_text(encoding="utf-8").count("float(") == 2  # share_approx, and nothing else
    assert not re.findall(r'"(?!\w+_approx)\w+": float\(', (UI / "charts.py").read_text(encoding="utf-8"))


def test_no_module_of_the_dashboard_hides_another() -> None:
    """Streamlit puts ui/ first on the path: a module there named like a package would be imported instead of it."""
    import sys

    taken = {"ledger", "ingest", "attribution", "api", "ui", "rootcost", *sys.stdlib_module_names}
    assert not taken & {path.stem for path in UI.iterdir() if path.suffix == ".py" or path.is_dir()}


def test_pages_ask_for_nothing_from_other_machines() -> None:
    for path in [*UI.rglob("*.py"), *UI.rglob("*.js"), *UI.rglob("*.css"), *UI.rglob("*.svg"), *UI.rglob("*.toml")]:
        addresses = [
            a
            for a in re.findall(r"https?://[^\s\"'/:]+", path.read_text(encoding="utf-8"))
            if a not in ("http://127.0.0.1", "http://localhost", "http://www.w3.org")
        ]
        assert not addresses, (path, addresses)
        assert ":material/" not in path.read_text(encoding="utf-8"), path
