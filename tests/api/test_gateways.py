"""Gateways that enforce the ledger's budgets: what they hold counts for everybody, and what others spend lowers what they may grant."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.budgets.status import standings
from rootcost_litellm.budgets import BudgetFileError, Caller
from rootcost_litellm.gate import Gate, RefusedError
from rootcost_litellm.ledger import Ledger, Refresher
from rootcost_litellm.setup import gate_of_file
from tests.enforcement.test_worst_case import MODELS, chat
from tests.support.api_examples import reach

pytestmark = pytest.mark.clock
D = Decimal


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Books, Any]]:
    with Books.open(tmp_path_factory.mktemp("gateways")) as home_books, reach(home_books) as client:
        yield home_books, client


@pytest.fixture
def books(home: tuple[Books, Any]) -> Books:
    """The same books for all tests, without what the one before left."""
    with home[0].database.engine.begin() as connection:
        for table in ("reservation_levels", "reservations", "budget_revisions", "budgets"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    return home[0]


@pytest.fixture
def http(home: tuple[Books, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the API, which the plug-in reaches, too; it refreshes when a test says so."""
    client = home[1]

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        if not request.full_url.startswith("http://testserver/"):
            raise OSError("connection refused")
        answer = client.post(request.selector, content=request.data, headers=dict(request.header_items()))
        if answer.status_code >= 400:
            raise urllib.error.HTTPError(request.full_url, answer.status_code, "", Message(), io.BytesIO(answer.content))
        return io.BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(Refresher, "start", lambda _: None)
    return client


def header(books: Books, grant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key(books, grant)}"}


def key(books: Books, grant: str) -> str:
    return create_key(books, "gateway", [Grant.parse(grant)], actor="test")[1]


def set_limit(http: Any, books: Books, name: str = "care", amount: str = "1.00", **terms: Any) -> str:
    fields = {"name": name, "scopes": {"team": "Care"}, "amount": amount, "currency": "USD", "enforcement": "hard"} | terms
    answer = http.post("/v1/budgets", json=fields, headers=header(books, "admin"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["budget_id"])


def report(http: Any, headers: dict[str, str], epoch: str, *levels: dict[str, str], gateway: str = "eu") -> list[dict[str, Any]]:
    answer = http.post(f"/v1/gateways/{gateway}/budgets", json={"epoch": epoch, "levels": levels}, headers=headers)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["budgets"]
    return rows


def sums(budget: dict[str, Any], cost: str, under_way: str = "0", uncertain: str = "0") -> dict[str, str]:
    amounts = {"committed": cost, "open": under_way, "uncertain": uncertain}
    return {"budget_id": budget["budget_id"], "window_start": budget["window_start"], **amounts}


def test_what_a_gateway_holds_counts_for_everybody_else(books: Books, http: Any) -> None:
    set_limit(http, books)
    ingest = header(books, "ingest")
    (budget,) = report(http, ingest, "life-1")
    assert (budget["limit"], budget["elsewhere"], budget["usd_rate"], budget["scopes"]) == ("1", "0", "1", {"team": "Care"})
    (own,) = report(http, ingest, "life-1", sums(budget, "0.40", "0.20", "0.10"))
    (other,) = report(http, ingest, "life-1", gateway="us")
    (later_life,) = report(http, ingest, "life-2")
    assert (own["elsewhere"], other["elsewhere"], later_life["elsewhere"]) == ("0", "0.7", "0.7")
    (status,) = standings(books, with_outlook=False)
    assert status.encumbered == D("0.30")
    refusal = http.post("/v1/reservations", json={"amount": "0.35", "team": "Care"}, headers=ingest)
    assert (refusal.status_code, "USD 0.30 left of 1.00" in refusal.json()["detail"]) == (402, True)
    assert http.post("/v1/reservations", json={"amount": "0.25", "team": "Care"}, headers=ingest).status_code == 201
    assert report(http, ingest, "life-1")[0]["elsewhere"] == "0.25"


def test_reports_that_come_again_or_out_of_order_commit_nothing_twice(books: Books, http: Any) -> None:
    set_limit(http, books)
    ingest = header(books, "ingest")
    (budget,) = report(http, ingest, "life-1")
    for cost, under_way in (("0.10", "0.5"), ("0.30", "0"), ("0.30", "0"), ("0.20", "0")):
        report(http, ingest, "life-1", sums(budget, cost, under_way))
    assert report(http, ingest, "life-1", gateway="us")[0]["elsewhere"] == "0.3"
    assert [row["state"] for row in http.get("/v1/reservations", headers=header(books, "admin")).json()["rows"]] == []


def test_a_key_of_a_team_sees_and_reports_its_own_budgets_alone(books: Books, http: Any) -> None:
    set_limit(http, books)
    set_limit(http, books, "dev", scopes={"team": "Dev"})
    budgets = report(http, header(books, "ingest"), "life-1")
    dev = next(row for row in budgets if row["name"] == "dev")
    of_care = header(books, "ingest:Care")
    assert [row["name"] for row in report(http, of_care, "life-1", sums(dev, "0.9"))] == ["care"]
    assert [row["elsewhere"] for row in report(http, header(books, "ingest"), "life-9")] == ["0", "0"]
    refusal = http.post("/v1/gateways/eu/budgets", json={"epoch": "x"}, headers=header(books, "viewer"))
    assert refusal.status_code == 403
    answer = http.post("/v1/gateways/no_such_name_at_all_/budgets", json={"epoch": "x"}, headers=header(books, "ingest"))
    assert answer.status_code == 422


def gate(folder: Path, secret: str, **ledger: Any) -> Gate:
    path = folder / "budgets.json"
    path.write_text(json.dumps({"ledger": {"url": "http://testserver", **ledger}}))
    return gate_of_file(path, MODELS, {"ROOTCOST_KEY": secret})


def call(door: Gate, team: str = "care") -> Any:
    return asyncio.run(door.admit(Caller({"team": frozenset({team})}, "", "small"), "small", chat(max_tokens=100)))


def fill(door: Gate) -> None:
    """Calls until there is no room."""
    for _ in range(100):
        call(door)


def refresh(door: Gate) -> bool:
    return bool(door.store.baseline.refresh())  # type: ignore[attr-defined]


def test_the_plug_in_enforces_the_ledgers_budgets_and_a_raise_takes_effect(books: Books, http: Any, tmp_path: Path) -> None:
    set_limit(http, books, amount="0.002", owner="Dana")
    door = gate(tmp_path, key(books, "ingest"), raise_at="https://costs.example")
    first_call = call(door)
    assert (first_call.budgets[0][0].name, call(door, "dev")) == ("care", None)
    with pytest.raises(RefusedError, match=r"Budget care \(team Care; .*, by month\) has USD .* left of USD 0.002.*Dana \(https"):
        fill(door)
    door.commit(first_call, 100_000)
    assert refresh(door)
    (status,) = standings(books, with_outlook=False)
    assert D(0) < status.encumbered <= D("0.0019")
    change = {"amount": "5", "reason": "launch"}
    assert http.put("/v1/budgets/care", json=change, headers=header(books, "admin") | {"If-Match": "*"}).status_code == 200
    assert refresh(door)
    assert call(door) is not None


def test_a_proxy_that_starts_again_has_what_was_spent(books: Books, http: Any, tmp_path: Path) -> None:
    """With the ledger, and from the copy on disk while it is away."""
    set_limit(http, books, amount="0.001")
    secret = key(books, "ingest")
    door = gate(tmp_path, secret)
    door.commit(call(door), 900_000)
    assert refresh(door)
    for later_door in (gate(tmp_path, secret), gate(tmp_path, secret, url="http://away.example")):
        with pytest.raises(RefusedError, match=r"left of USD 0\.001"):
            fill(later_door)
        assert later_door.budgets[0].elsewhere == 900_000


@pytest.mark.parametrize(("on_outage", "is_admitted"), [("closed", False), ("open", True)])
def test_before_the_ledger_ever_answered_the_setting_decides(
    books: Books, http: Any, tmp_path: Path, on_outage: str, is_admitted: bool
) -> None:
    door = gate(tmp_path, "rc_x_y", url="http://away.example", on_outage=on_outage)
    if is_admitted:
        assert call(door) is None
    else:
        with pytest.raises(RefusedError, match="Whoever runs RootCost"):
            call(door)


def test_a_budget_in_a_currency_without_a_rate_is_decided_by_its_outage(books: Books, http: Any, tmp_path: Path) -> None:
    set_limit(http, books, currency="SEK", on_outage="closed")
    door = gate(tmp_path, key(books, "ingest"))
    with pytest.raises(RefusedError, match=r"SEK 0\.00 left"):
        call(door)


def test_settings_of_the_ledger_are_checked_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BudgetFileError, match="ROOTCOST_KEY holds a key"):
        gate_of_file(None, MODELS, {"ROOTCOST_URL": "http://127.0.0.1:8787"})
    with pytest.raises(BudgetFileError, match="'uri' is none of url"):
        gate(tmp_path, "rc_x_y", uri="x")
    assert Ledger("http://x", "secret").__repr__().count("secret") == 0
