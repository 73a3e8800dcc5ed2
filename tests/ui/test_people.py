"""The dashboard once people are set up, in a real browser: log-in, log-out in another tab, what a role shows, no violation of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import ui_fake_api as fake
from tests.support.ui_browser import browser_at, dashboard_over, settled
from tests.support.ui_fake_people import COOKIE, People, Person
from ui.controls import PAGES

pytestmark = pytest.mark.browser

ADA, BO = Person.of("Ada", "viewer:Care"), Person.of("Bo", "platform")


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def dashboard(people: People, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fake.serving(people) as api, dashboard_over(api, tmp_path_factory.mktemp("dashboard")) as url:  # type: ignore[arg-type]
        yield url


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with browser_at(chromium) as chromium_browser:
        yield chromium_browser


@pytest.fixture
def window(browser: Any, dashboard: str, people: People) -> Iterator[Any]:
    """A window of a browser without a session; `violations` of the policy in its tabs must be none."""
    people.sessions = {"ada": ADA, "bo": BO}
    chromium_browser = browser.new_context(base_url=dashboard, viewport={"width": 1280, "height": 900})
    violations: list[str] = []
    chromium_browser.on("console", lambda m: violations.append(m.text) if "Content Security Policy" in m.text else None)
    yield chromium_browser
    chromium_browser.close()
    assert violations == []


def log_in(window: Any, dashboard: str, session: str) -> Any:
    window.add_cookies([{"name": COOKIE, "value": session, "url": dashboard, "httpOnly": True}])
    return window.new_page()


def test_a_deep_link_leads_through_the_log_in_page(window: Any, dashboard: str) -> None:
    page = window.new_page()
    page.goto("/explorer?by=team&filter=team%3DCare")
    page.get_by_role("heading", name="Log in").wait_for()
    assert parse_qs(urlsplit(page.url).query) == {"return_to": [f"{dashboard}/explorer?by=team&filter=team%3DCare"]}


@pytest.mark.slow
def test_every_page_of_who_sees_the_whole(window: Any, dashboard: str) -> None:
    page = log_in(window, dashboard, "bo")
    for path in PAGES:
        page.goto(f"/{path}")
        settled(page)
        assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0
    page.get_by_text("platform · everything").wait_for()


@pytest.mark.slow
def test_who_sees_a_part_is_told_so(window: Any, dashboard: str) -> None:
    page = log_in(window, dashboard, "ada")
    page.goto("/explorer?by=team")
    settled(page)
    assert page.get_by_text("Your part: Care").is_visible()
    assert page.get_by_role("link", name="Care", exact=True).count() == 1
    assert page.get_by_role("link", name="Dev", exact=True).count() == 0
    assert page.get_by_test_id("stSidebarNavLink").filter(has_text="Balance").count() == 0
    page.goto("/balance")
    page.get_by_text("This page needs a role over the whole ledger").wait_for()
    page.goto("/budgets")
    settled(page)
    assert page.get_by_text("Set up a budget").count() == 0, "a viewer's would be refused"


@pytest.mark.slow
def test_a_session_that_ends_covers_the_tab_and_keeps_what_is_typed(window: Any, dashboard: str, people: People) -> None:
    page = log_in(window, dashboard, "bo")
    page.goto("/budgets")
    settled(page)
    page.get_by_text("Set up a budget").click()
    page.get_by_label("Name").fill("typed-before")
    page.get_by_label("Which one").fill("Dev")
    page.get_by_label("Limit of a period").fill("12.50")
    assert page.get_by_label("Token").count() == 0

    del people.sessions["bo"]
    page.get_by_text("You are logged out").wait_for(timeout=20_000)
    assert not page.get_by_text("care-monthly").first.is_visible()
    assert not page.get_by_label("Name").is_visible()

    people.sessions["bo-again"] = BO
    log_in(window, dashboard, "bo-again").close()
    page.get_by_label("Name").wait_for(timeout=60_000)
    assert page.get_by_label("Name").input_value() == "typed-before"
    page.get_by_role("button", name="Set up", exact=True).click()
    page.get_by_text("Saved: typed-before").wait_for(timeout=60_000)
    assert ("bo-again", "POST", "/v1/budgets") in people.requests


@pytest.mark.slow
def test_log_out_ends_every_tab_and_the_next_person_starts_anew(window: Any, dashboard: str, people: People) -> None:
    first = log_in(window, dashboard, "bo")
    first.goto("/explorer?by=team")
    settled(first)
    second = window.new_page()
    second.goto("/")
    settled(second)
    second.get_by_role("button", name="Log out").click()
    first.get_by_text("You are logged out").wait_for(timeout=20_000)
    assert "bo" not in people.sessions
    log_in(window, dashboard, "ada").close()
    first.get_by_text("Your part: Care").wait_for(timeout=60_000)
    settled(first)
    assert first.get_by_role("link", name="Dev", exact=True).count() == 0
