"""The dashboard in a real browser: pages open, a drill-down is a link, nothing leaves this machine, hostile names stay text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import ui_fake_api as fake
from tests.support.ui_browser import browser_at, dashboard_over, settled
from ui.controls import PAGES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard over canned answers."""
    with fake.serving(fake.make_app()) as api, dashboard_over(api, tmp_path_factory.mktemp("dashboard")) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser without a window."""
    with browser_at(chromium) as chromium_browser:
        yield chromium_browser


@pytest.fixture
def page(browser: Any, dashboard: str) -> Iterator[Any]:
    """A fresh tab that notes what it asks other machines for."""
    context = browser.new_context(base_url=dashboard, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.strangers = []
    tab.on("request", lambda r: tab.strangers.append(r.url) if urlsplit(r.url).hostname not in (None, "127.0.0.1") else None)
    yield tab
    context.close()


@pytest.mark.parametrize(
    "path", [path if path in ("", "periods") else pytest.param(path, marks=pytest.mark.slow) for path in PAGES]
)
def test_every_page_opens(page: Any, path: str) -> None:
    page.goto(f"/{path}")
    settled(page)
    assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0
    assert page.locator(".rc table").count() >= 1
    assert page.strangers == []
    assert page.evaluate("window.hacked") is None
    assert page.title() != "Streamlit"
    page.set_viewport_size({"width": 390, "height": 844})
    overhangs = page.locator(".rc .scroll").evaluate_all(
        "tables => tables.map(one => [one.innerText, one.scrollWidth - one.clientWidth])"
    )
    assert [text for text, pixels in overhangs if pixels > 1] == [], "on a telephone, too, every column is on the page"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_drilling_down_writes_the_url_and_the_url_brings_it_back(page: Any) -> None:
    page.goto("/explorer?by=team")
    settled(page)
    page.get_by_role("link", name="Dev", exact=True).click()
    page.wait_for_url(lambda url: "Dev" in url)
    settled(page)
    query = parse_qs(urlsplit(page.url).query)
    assert query == {"by": ["agent"], "filter": ["team=Dev"]}
    page.get_by_role("link", name="coder", exact=True).wait_for()

    again = page.context.new_page()
    again.goto(page.url)
    settled(again)
    again.get_by_role("link", name="coder", exact=True).wait_for()
    assert again.get_by_role("link", name="support-bot", exact=True).count() == 0


@pytest.mark.slow
def test_back_leads_back(page: Any) -> None:
    page.goto("/explorer?by=team")
    settled(page)
    page.get_by_role("link", name="Dev", exact=True).click()
    page.get_by_role("link", name="coder", exact=True).wait_for()
    page.go_back()
    page.get_by_role("link", name="Care", exact=True).first.wait_for(timeout=10_000)
    assert parse_qs(urlsplit(page.url).query) == {"by": ["team"]}


@pytest.mark.slow
def test_a_team_on_the_overview_leads_to_its_agents(page: Any) -> None:
    page.goto("/")
    settled(page)
    page.get_by_role("table", name="Top teams").get_by_text("Dev", exact=True).click()
    page.wait_for_url("**/explorer?**")
    page.get_by_role("link", name="coder", exact=True).wait_for()
    assert parse_qs(urlsplit(page.url).query) == {"by": ["agent"], "month": ["2026-10"], "filter": ["team=Dev"]}


@pytest.mark.slow
def test_a_chain_opens_from_the_list_and_by_its_link(page: Any) -> None:
    page.goto("/chains")
    settled(page)
    page.get_by_role("link", name="answer ticket").click()
    page.wait_for_url(lambda url: "chain=" in url)
    tree = page.get_by_role("table", name="Chain", exact=True)
    tree.wait_for()
    assert tree.get_by_text(fake.HOSTILE).count() == 1
    page.reload()
    tree.wait_for()
    assert tree.get_by_text("US$\u00a00.0871").count() == 3


@pytest.mark.slow
def test_columns_sort_by_amount(page: Any) -> None:
    page.goto("/explorer?by=agent")
    settled(page)
    table = page.get_by_role("table", name="Costs")
    table.get_by_role("button", name="Effective cost").click()
    first = table.locator("tbody tr").first.inner_text()
    assert first.startswith("coder")
    table.get_by_role("button", name="Effective cost").click()
    assert "−US$" in table.locator("tbody tr").first.inner_text() or "0.47" in table.locator("tbody tr").first.inner_text()
