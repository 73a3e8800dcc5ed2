"""The real service in a real browser, as people use it: `rootcost serve`, the one-time link, log-in, each role's pages, the end of a session.

`make browser-access` runs them. The first goes the main path; quicker tests look at its parts against canned answers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ledger import registry
from ledger.access import users
from ledger.access.roles import ROLES
from ledger.books import Books
from tests.support.api_examples import write_worked_example
from tests.support.people import PASSWORD, add_person
from tests.support.served import Served
from tests.support.ui_browser import browser_at, settled
from tests.support.ui_fake_api import take_port
from ui.controls import PAGES
from ui.people import WHOLE_PAGES

NOTE_COVER = """
    new MutationObserver(() => {
      if (document.body && document.body.dataset.session === "ended") window.coveredAt ??= Date.now();
    }).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-session"]});
"""
"""Notes when a tab was covered."""
COVER_SECONDS = 1.0

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with browser_at(chromium) as chromium_browser:
        yield chromium_browser


class Service:
    """The service of the worked example, and windows to look at it."""

    def __init__(self, process: Served, browser: Any) -> None:
        self.process = process
        self.dashboard = f"http://127.0.0.1:{process.ui_port}"
        self.violations: list[str] = []
        self._browser = browser

    def window(self, session: str = "") -> Any:
        """A window of a browser of its own, with a session or without."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 900})
        context.on("console", lambda m: self.violations.append(m.text) if "Content Security Policy" in m.text else None)
        context.add_init_script(NOTE_COVER)
        if session:
            cookie = {"name": "rootcost_session", "value": session, "url": self.dashboard, "httpOnly": True}
            context.add_cookies([cookie])
        return context

    def add_person(self, name: str, *grants: str) -> str:
        """A user, while the service runs."""
        with Books.open(self.process.home) as books:
            return add_person(books, name, *grants)


@pytest.fixture(scope="module")
def service(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("service") / "home"
    with Books.open(home) as books:
        write_worked_example(books)
        # The service attributes it anew by itself, and then these are who its teams come from.
        registry.import_text(books, "agent,team\nsupport-bot,Care\ncoder,Dev\n", uri="agents.csv", actor="test")
    process = Served(home, port=take_port(), ui_port=take_port())
    try:
        running_service = Service(process.until_ready(), browser)
        yield running_service
    finally:
        process.stop()
    assert running_service.violations == []


def heading_of(page: Any) -> str:
    """What a page says, once it is drawn."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)
    page.locator("[data-testid=stMain] h1, .rc table").first.wait_for(timeout=60_000)
    words: str = page.inner_text("[data-testid=stMain]")
    return words


def log_in(page: Any, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_people_log_in_see_their_part_and_lose_nothing(service: Service) -> None:
    """The administrator's link; a team's deep link; a session that ends in another tab while a budget is edited, which is saved after all."""
    link = re.search(r"http\S+/setup\?token=\S+", service.process.said())
    assert link is not None
    office = service.window()
    admin = office.new_page()
    admin.goto(link.group())
    admin.get_by_label("Name to log in with").fill("root")
    admin.get_by_label("Password, at least").fill(PASSWORD)
    admin.get_by_label("The same again").fill(PASSWORD)
    admin.get_by_role("button").click()
    admin.wait_for_url(f"{service.dashboard}/")
    admin.get_by_text("admin · everything").wait_for(timeout=20_000)

    service.add_person("ada", "viewer:Care")
    ada = service.window().new_page()
    deep_link = f"{service.dashboard}/explorer?by=team&filter=team%3DCare"
    ada.goto(deep_link)
    log_in(ada, "ada")
    ada.wait_for_url(deep_link)
    settled(ada)
    ada.get_by_text("Your part: Care").wait_for()
    assert ada.get_by_role("link", name="Care", exact=True).count() == 1
    assert ada.get_by_role("link", name="Dev", exact=True).count() == 0

    admin.goto(f"{service.dashboard}/budgets")
    admin.get_by_text("Set up a budget").click()
    admin.get_by_label("Name").fill("care-monthly")
    admin.get_by_label("Which one").fill("Care")
    admin.get_by_label("Limit of a period").fill("12.50")
    other_tab = office.new_page()
    other_tab.goto(f"{service.dashboard}/explorer?by=team")
    settled(other_tab)
    other_tab.get_by_role("button", name="Log out").click()
    for tab in (admin, other_tab):
        tab.get_by_text("You are logged out").wait_for(timeout=20_000)
    assert not admin.get_by_label("Which one").is_visible()
    with office.expect_page() as opened_page:
        admin.get_by_role("link", name="Log in").click()
    log_in(opened_page.value, "root")
    admin.get_by_label("Which one").wait_for(timeout=20_000)
    assert admin.get_by_label("Name").input_value() == "care-monthly"
    admin.get_by_role("button", name="Set up", exact=True).click()
    admin.get_by_text("Saved: care-monthly").wait_for(timeout=20_000)


@pytest.mark.parametrize("grant", [f"{role}{team}" for role in ROLES if role != "ingest" for team in ("", ":Care", ":Nobody")])
def test_each_role_opens_each_page(service: Service, grant: str) -> None:
    """Pages are drawn without an error, or say which role they need; a team reads nothing of another."""
    page = service.window(service.add_person(grant.replace(":", "-").lower(), grant)).new_page()
    for path in PAGES:
        page.goto(f"{service.dashboard}/{path}")
        words = heading_of(page)
        assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0, (path, words)
        is_closed = "needs a role over the whole ledger" in words
        assert is_closed == (path in WHOLE_PAGES and (":" in grant or not may(grant, WHOLE_PAGES[path]))), (path, words)
        if ":" in grant:
            assert not re.search(r"\b(Dev|coder)\b", words), (path, words)
    page.context.close()


def may(role: str, permission: str) -> bool:
    return permission in {one.value for one in ROLES[role]}


def seconds_to_cover(page: Any, since: float) -> float:
    """Seconds from a moment until a tab was covered."""
    page.get_by_text("You are logged out").wait_for(timeout=60_000)
    return float(page.evaluate("window.coveredAt")) / 1000 - since


@pytest.mark.clock
def test_a_person_who_is_disabled_is_out_of_every_tab_within_a_second(service: Service) -> None:
    """While pages are open, and one of them is being drawn."""
    window = service.window(service.add_person("grace", "viewer"))
    tabs = [window.new_page() for _ in range(2)]
    for tab, path in zip(tabs, ("budgets", "chains"), strict=True):
        tab.goto(f"{service.dashboard}/{path}")
        heading_of(tab)
    tabs[1].get_by_test_id("stSidebarNavLink").filter(has_text="Cost explorer").click()
    with Books.open(service.process.home) as books:
        users.set_disabled(books, "grace", is_disabled=True, actor="test")
        at = time.time()
    assert max(seconds_to_cover(tab, at) for tab in tabs) <= COVER_SECONDS
    for tab in tabs:
        assert tab.get_by_text("You are logged out").is_visible()
        assert not tab.get_by_test_id("stMain").is_visible()
    window.close()
