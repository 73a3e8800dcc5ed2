"""What README and the pictures show of the demo is what the demo shows: both are compared with one run of it, at full size."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ledger.books import Books
from rootcost.demo.story import run_demo
from rootcost.service.receivers import Parsers
from tests.support import ui_fake_api
from tests.support.api_examples import app_of
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def _script(name: str) -> Any:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The home of a demo, and what it printed."""
    home, page = tmp_path_factory.mktemp("demo") / "home", io.StringIO()
    assert run_demo(home, console=Console(file=page, width=220, highlight=False)) == 0
    return home, page.getvalue()


@pytest.fixture
def api_url(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("ROOTCOST_API_URL", "")  # page_figures sets it; this restores it
    with (
        Books.open(demo[0]) as books,
        ui_fake_api.serving(app_of(books, receivers=Parsers(books.settings.ingest))) as url,
    ):
        yield url


@pytest.mark.slow
def test_the_block_in_readme_is_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    block = _script("generate").demo_block(demo[1])
    assert block in (ROOT / "README.md").read_text(encoding="utf-8"), "run python docs/generate.py --demo"


@pytest.mark.slow
def test_the_pictures_show_the_figures_of_the_demo(api_url: str) -> None:
    page_figures = _script("page_figures")
    stored = json.loads(page_figures.MANIFEST.read_text(encoding="utf-8"))
    assert page_figures.page_figures(api_url) == stored, "run python docs/take_pictures.py"


def test_every_picture_is_listed_in_the_manifest_and_the_other_way_round() -> None:
    page_figures = _script("page_figures")
    pictures = {path.stem.removesuffix("-dark") for path in page_figures.MANIFEST.parent.glob("*.png")}
    assert pictures == set(page_figures.PICTURES) == set(json.loads(page_figures.MANIFEST.read_text(encoding="utf-8")))
