"""Requests carry the identity of their tab, and no answer reaches another identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
import streamlit as st

from api.client import ApiProblem
from api.models import NewBudget
from tests.support import ui_fake_api as fake
from tests.support.ui_fake_people import COOKIE, People, Person
from ui import api_requests, identity
from ui.addresses import api_url
from ui.identity import Identity
from ui.tagged_answers import Place, TaggedAnswer, TaggedAnswers

BUDGET = {"name": "x", "scope": "team", "scope_name": "Dev", "amount": "1", "currency": "USD", "view": "initiator"}


@pytest.fixture(scope="module")
def people_and_url() -> Iterator[tuple[People, str]]:
    people = People(
        {"ada": Person.of("Ada", "viewer:Care"), "bo": Person.of("Bo", "platform"), "ci": Person.of("Ci", "viewer:Dev")}
    )
    with fake.serving(people) as url:  # type: ignore[arg-type]
        yield people, url


@pytest.fixture
def people(people_and_url: tuple[People, str], monkeypatch: pytest.MonkeyPatch) -> People:
    """An API with three people, which the dashboard asks."""
    monkeypatch.setenv("ROOTCOST_API_URL", people_and_url[1])
    st.cache_data.clear()
    return people_and_url[0]


@pytest.fixture
def tab(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Draws as a tab with a session."""

    def choose(session: str) -> None:
        monkeypatch.setattr(identity, "of_tab", lambda: Identity(f"{COOKIE}={session}" if session else ""))

    return choose


def teams() -> set[str]:
    rows = api_requests.request(lambda api: api.costs(by=["team"])).value.rows
    return {str(row.get("team")) for row in rows}


def test_the_same_url_is_answered_to_each_identity_on_its_own(people: People, tab: Callable[[str], None]) -> None:
    for session, teams_of_session in {"ada": {"Care"}, "ci": {"Dev"}}.items():
        tab(session)
        assert teams() == teams_of_session
    tab("ada")
    request_count = len(people.requests)
    assert teams() == {"Care"}
    assert len(people.requests) == request_count, "an answer of the same identity is kept"
    tab("bo")
    assert teams() > {"Care", "Dev"}
    for session in ("", "nobody"):
        tab(session)
        problem = api_requests.try_request(lambda api: api.costs(by=["team"]))
        assert isinstance(problem, ApiProblem) and problem.type == "/problems/login-needed"


def test_an_answer_that_still_holds_is_not_sent_again_and_is_nobody_elses(
    people: People, tab: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the API gave two people one tag, neither would be shown what the other was answered."""
    monkeypatch.setattr(people, "tag", 'W/"1"')
    people.conditions.clear()
    for session, teams_of_session in [("ada", {"Care"}), ("ci", {"Dev"}), ("ada", {"Care"}), ("ci", {"Dev"})]:
        tab(session)
        assert teams() == teams_of_session
        st.cache_data.clear()
    assert people.conditions == [
        ("ada", "/v1/costs", None), ("ci", "/v1/costs", None), ("ada", "/v1/costs", 'W/"1"'), ("ci", "/v1/costs", 'W/"1"'),
    ]  # fmt: skip
    monkeypatch.setattr(people, "tag", 'W/"2"')
    tab("ada")
    assert teams() == {"Care"}
    assert people.conditions[-1] == ("ada", "/v1/costs", 'W/"1"')


def test_tagged_answers_have_a_limit() -> None:
    answers = TaggedAnswers(max_bytes=25_000)
    places = [Place(f"http://127.0.0.1/{number}", "", "key") for number in range(6)]
    for place in places:
        answers.put(place, TaggedAnswer('W/"1"', [], b"x" * 5_000))
    assert [answers.get(place) is not None for place in places] == [False, False, True, True, True, True]
    answers.put(places[2], TaggedAnswer('W/"2"', [], b"x" * 30_000))
    assert [answers.get(place) for place in places] == [None] * 6


def test_a_cookie_that_an_answer_sets_goes_to_nobody(people: People, tab: Callable[[str], None]) -> None:
    people.set_cookie = f"{COOKIE}=bo; Path=/"
    tab("ada")
    api_requests.request(lambda api: api.overview())
    tab("")
    problem = api_requests.try_request(lambda api: api.overview())
    people.set_cookie = ""
    assert isinstance(problem, ApiProblem) and problem.status == 401
    assert people.requests[-1][0] == ""


def test_a_change_is_made_as_who_is_logged_in(people: People, tab: Callable[[str], None]) -> None:
    tab("bo")
    budget = NewBudget.model_validate(BUDGET)
    assert api_requests.send_change(lambda api: api.add_budget(budget)).amount == Decimal(1)
    assert people.requests[-1] == ("bo", "POST", "/v1/budgets")


def test_a_token_is_sent_without_the_cookie(people: People, tab: Callable[[str], None]) -> None:
    tab("bo")
    budget = NewBudget.model_validate(BUDGET)
    with pytest.raises(ApiProblem):
        api_requests.send_change(lambda api: api.add_budget(budget), token="some-key")
    assert people.requests[-1] == ("", "POST", "/v1/budgets")


def test_files_are_fetched_from_the_api_and_not_held(people: People, tab: Callable[[str], None]) -> None:
    request_count = len(people.requests)
    tab("ada")
    address = api_requests.file_address(lambda api: api.costs_file("csv", by=["team"]))
    assert address.startswith(f"{api_url()}/v1/costs?by=team&")
    assert address.endswith("format=csv")
    assert len(people.requests) == request_count


def test_no_part_of_an_identity_is_printed(tab: Callable[[str], None]) -> None:
    assert "secret" not in repr(Identity("rootcost_session=secret"))


def test_only_one_fetch_is_cached_and_its_key_has_the_identity() -> None:
    """Every cache of the dashboard is listed here: another one needs the identity in its key too."""
    from tests.support.paths import ROOT

    lines = [
        (path.name, line.strip(), code[number + 1].strip())
        for path in sorted((ROOT / "ui").rglob("*.py"))
        for code in [path.read_text().splitlines()]
        for number, line in enumerate(code)
        if "cache_data" in line or "cache_resource" in line or "download_button" in line
    ]
    assert [(name, below) for name, _, below in lines] == [
        ("api_requests.py", "def _wire(direct: bool) -> httpx.Client:"),
        (
            "api_requests.py",
            "def _fetch(url: str, accept: str, identity_key: str, _identity: Identity) -> tuple[int, list[tuple[str, str]], bytes]:",
        ),
    ]
