"""Fixtures of the pages' tests: an API with canned answers, and a page over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastapi import FastAPI


@pytest.fixture(scope="module")
def full() -> FastAPI:
    from tests.support import ui_fake_api as fake

    return fake.make_app()


@pytest.fixture(scope="module")
def full_url(full: FastAPI) -> Iterator[str]:
    from tests.support import ui_fake_api as fake

    with fake.serving(full) as url:
        yield url


@pytest.fixture(scope="module")
def empty_url() -> Iterator[str]:
    from tests.support import ui_fake_api as fake

    with fake.serving(fake.make_app(empty=True)) as url:
        yield url


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a page of the dashboard with a selection in its URL."""
    from tests.support.ui_shown import Shown, opened

    def open_page(url: str, page: str = "", **query: str | list[str]) -> Shown:
        monkeypatch.setenv("ROOTCOST_API_URL", url)
        return opened(page, **query)

    return open_page
