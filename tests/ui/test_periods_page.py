"""The page of months in the books: their checklist, documents and statements, and what is decided about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ledger.access.principals import Grant, Principal
from tests.support import ui_fake_api as fake
from tests.support.ui_fake_people import me
from tests.support.ui_shown import Shown


@pytest.fixture
def app() -> FastAPI:
    return fake.make_app()


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with fake.serving(app) as address:
        yield address


def files(page: Shown) -> dict[str, str]:
    """Addresses of downloads; the last of each name."""
    return {b.proto.label: b.proto.url for b in page.at.get("link_button")}


def test_months_have_a_state_and_what_blocks(visit: Any, full_url: str) -> None:
    page = visit(full_url, "periods")
    assert page.rows("Periods") == [
        ["October 2026", "provisional", "estimates", "–", "0"],
        ["September 2026", "closed", "–", "2026-10-05 09:30 UTC", "2"],
    ]
    assert page.links("Periods") == ["periods?month=2026-10", "periods?month=2026-09"]
    assert "Checklist" not in page.grids


def test_a_month_shows_its_checklist_with_remedies_and_its_statements(visit: Any, full_url: str) -> None:
    page = visit(full_url, "periods", month="2026-10")
    assert page.rows("Checklist") == [
        ["month over passed", "it ended 2026-11-01", ""],
        ["estimates blocks", "394.73 USD", "bring in the bill: `rootcost ingest`"],
        ["invoice ids to know", "12 rows", "ask the provider"],
    ]
    assert page.rows("Statements") == [
        ["Care", "2026-10/Care", "provisional", "US$ 41.20", "US$ 41.20"],
        ["(no team)", "2026-10/", "provisional", "US$ 8.80", "US$ 8.80"],
    ]
    assert page.rows("Control totals") == [["AWS, USD", "US$ 50.00", "US$ 50.00", "US$ 0.00", "US$ 50.00", "US$ 50.00"]]
    assert files(page) == {
        f"Download {name.upper()}": f"{full_url}/v1/statement?team=Care&month=2026-10&format={name}"
        for name in ("pdf", "xlsx", "csv", "json")
    }
    assert page.links("Statements")[1] == "periods?month=2026-10&statement=2026-10%2F"
    of_no_team = files(visit(full_url, "periods", month="2026-10", statement="2026-10/"))
    assert of_no_team["Download PDF"].endswith("/v1/statement?team=&month=2026-10&format=pdf")


def test_a_closed_month_shows_its_documents_and_says_what_is_missing(visit: Any, full_url: str) -> None:
    page = visit(full_url, "periods", month="2026-09")
    assert [row[:4] for row in page.rows("Documents")] == [
        ["2026-09-1", "actual", "–", "user:fay"],
        ["2026-09-2", "adjustment", "2026-09-1", "attribution"],
    ]
    assert files(page)["Download CSV"] == f"{full_url}/v1/periods/2026-09/lines?format=csv"
    assert "No statements yet: the run of 2026-09 was removed." in page.words
    assert not page.at.error


def test_a_month_is_closed_with_waivers_and_a_reason(visit: Any, url: str, app: FastAPI) -> None:
    at = visit(url, "periods", month="2026-10").at
    at.text_input(key="close-token").input(fake.TOKEN)
    assert "Still to do, or to be waived: estimates." in Shown(at.button(key="close-send").click().run()).words
    at.multiselect(key="close-waive").select("estimates")
    assert "Say why" in Shown(at.button(key="close-send").click().run()).words
    assert app.state.changes == []
    at.text_input(key="close-reason").input("this account is billed yearly")
    assert "Closed: 2026-10." in Shown(at.button(key="close-send").click().run()).words
    assert app.state.changes == [("2026-10", "close", {"reason": "this account is billed yearly", "waive": ["estimates"]})]


def test_a_month_is_opened_again_by_two_people(visit: Any, url: str, app: FastAPI) -> None:
    at = visit(url, "periods", month="2026-09").at
    at.text_input(key="reopen-token").input(fake.TOKEN)
    assert "Say why" in Shown(at.button(key="reopen-send").click().run()).words
    at.text_input(key="reopen-reason").input("an invoice was missing")
    assert "user:fay asks to open it again: an invoice was missing" in Shown(at.button(key="reopen-send").click().run()).words
    assert "Opened again: 2026-09." in Shown(at.button(key="decide-approve").click().run()).words
    assert [(month, verb) for month, verb, _ in app.state.changes] == [("2026-09", "reopen"), ("2026-09", "decision")]
    assert app.state.changes[-1][2]["approve"] is True


def test_a_change_is_made_from_the_version_that_was_seen(visit: Any, url: str, app: FastAPI) -> None:
    at = visit(url, "periods", month="2026-09").at
    for revision, verb in ((1, "reopen"), (2, "decision")):
        headers = {"Authorization": f"Bearer {fake.TOKEN}", "If-Match": f'"{revision}"'}
        httpx.post(f"{url}/v1/periods/2026-09/{verb}", json={"reason": "first"}, headers=headers).raise_for_status()
    at.text_input(key="reopen-token").input(fake.TOKEN)
    at.text_input(key="reopen-reason").input("second")
    words = Shown(at.button(key="reopen-send").click().run()).words
    assert "It has changed meanwhile: somebody else has changed it." in words
    assert "second" not in str(app.state.changes)
    assert "user:fay asks to open it again: second" in Shown(at.button(key="reopen-send").click().run()).words


def test_without_the_token_it_says_so(visit: Any, url: str, app: FastAPI) -> None:
    at = visit(url, "periods", month="2026-09").at
    at.text_input(key="reopen-reason").input("an invoice was missing")
    assert "Writing needs the token." in Shown(at.button(key="reopen-send").click().run()).words
    at.text_input(key="reopen-token").input("guess")
    assert "That is not the token" in Shown(at.button(key="reopen-send").click().run()).words
    assert app.state.changes == []


@pytest.mark.parametrize(("role", "is_offered"), [("finance", True), ("auditor", False)])
def test_only_who_may_close_months_is_offered_it(
    visit: Any, full_url: str, monkeypatch: pytest.MonkeyPatch, role: str, is_offered: bool
) -> None:
    person = me(Principal("user:ada", "user", "ada", (Grant(role),)))
    monkeypatch.setattr("ui.api_requests.ask_who", lambda: person)
    page = visit(full_url, "periods", month="2026-10")
    assert [button.key for button in page.at.button if button.key == "close-send"] == ["close-send"] * is_offered
    assert page.rows("Checklist")


def test_before_anything_is_published_it_says_what_to_do(visit: Any, empty_url: str) -> None:
    assert "rootcost demo" in visit(empty_url, "periods").words
