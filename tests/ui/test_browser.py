"""The dashboard in a real browser: pages open, a drill-down is a link, nothing leaves this machine, hostile names stay text."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import ui_fake_api as fake
from tests.support.paths import ROOT
from ui.controls import PAGES

pytestmark = pytest.mark.browser

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard over canned answers."""
    log = tmp_path_factory.mktemp("dashboard") / "log"
    port = fake.take_port()
    with fake.serving(fake.make_app()) as api, log.open("wb") as output:
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment = {**kept, "ROOTCOST_API_URL": api, "PYTHONPATH": str(ROOT), "HOME": str(log.parent)}
        child = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(ROOT / "ui" / "app.py"), "--server.port", str(port)],
            cwd=log.parent, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 30
            while True:
                try:
                    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    assert child.poll() is None, log.read_text()
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.1)
            yield url
        finally:
            child.terminate()
            child.wait(10)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, dashboard: str) -> Iterator[Any]:
    """A fresh tab that notes what it asks other machines for."""
    context = browser.new_context(base_url=dashboard, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.strangers = []
    tab.on("request", lambda r: tab.strangers.append(r.url) if urlsplit(r.url).hostname not in (None, "127.0.0.1") else None)
    yield tab
    context.close()


def settled(page: Any) -> None:
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'", timeout=20_000
    )
    page.wait_for_selector(".rc table", timeout=20_000)


@pytest.mark.parametrize("path", list(PAGES))
def test_every_page_opens(page: Any, path: str) -> None:
    page.goto(f"/{path}")
    settled(page)
    assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0
    assert page.locator(".rc table").count() >= 1
    assert page.strangers == []
    assert page.evaluate("window.hacked") is None
    assert page.title() != "Streamlit"


def test_drilling_down_writes_the_url_and_the_url_brings_it_back(page: Any) -> None:
    page.goto("/explorer?by=team")
    settled(page)
    page.get_by_role("link", name="Dev", exact=True).click()
    page.wait_for_function("location.search.includes('Dev')")
    settled(page)
    query = parse_qs(urlsplit(page.url).query)
    assert query == {"by": ["agent"], "filter": ["team=Dev"]}
    page.get_by_role("link", name="coder", exact=True).wait_for()

    again = page.context.new_page()
    again.goto(page.url)
    settled(again)
    again.get_by_role("link", name="coder", exact=True).wait_for()
    assert again.get_by_role("link", name="support-bot", exact=True).count() == 0


def test_back_leads_back(page: Any) -> None:
    page.goto("/explorer?by=team")
    settled(page)
    page.get_by_role("link", name="Dev", exact=True).click()
    page.get_by_role("link", name="coder", exact=True).wait_for()
    page.go_back()
    page.get_by_role("link", name="Care", exact=True).first.wait_for(timeout=10_000)
    assert parse_qs(urlsplit(page.url).query) == {"by": ["team"]}


def test_a_team_on_the_overview_leads_to_its_agents(page: Any) -> None:
    page.goto("/")
    settled(page)
    page.get_by_role("table", name="Top teams").get_by_text("Dev", exact=True).click()
    page.wait_for_url("**/explorer?**")
    page.get_by_role("link", name="coder", exact=True).wait_for()
    assert parse_qs(urlsplit(page.url).query) == {"by": ["agent"], "month": ["2026-10"], "filter": ["team=Dev"]}


def test_a_chain_opens_from_the_list_and_by_its_link(page: Any) -> None:
    page.goto("/chains")
    settled(page)
    page.get_by_role("link", name="answer ticket").click()
    page.wait_for_function("location.search.includes('chain=')")
    tree = page.get_by_role("table", name="Chain", exact=True)
    tree.wait_for()
    assert tree.get_by_text(fake.HOSTILE).count() == 1
    page.reload()
    tree.wait_for()
    assert tree.get_by_text("US$\u00a00.0871").count() == 3


def test_columns_sort_by_amount(page: Any) -> None:
    page.goto("/explorer?by=agent")
    settled(page)
    table = page.get_by_role("table", name="Costs")
    table.get_by_role("button", name="Effective cost").click()
    first = table.locator("tbody tr").first.inner_text()
    assert first.startswith("coder")
    table.get_by_role("button", name="Effective cost").click()
    assert "−US$" in table.locator("tbody tr").first.inner_text() or "0.47" in table.locator("tbody tr").first.inner_text()
