"""Explanations as they are asked for: over the API with the parameters of the report, and on the command line with its options."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import Client
from ledger.books import Books
from tests.support.api_examples import CHAIN_1, reach, write_worked_example
from tests.support.cli_books import Command, write_files

OCTOBER: dict[str, Any] = {"start": "2026-10", "end": "2026-11"}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Books.open(tmp_path_factory.mktemp("asked")) as books:
        write_worked_example(books)
        yield reach(books)


@pytest.mark.parametrize("view", ["initiator", "executor"])
@pytest.mark.parametrize("by", ["team", "team,model", "agent,meter"])
def test_every_row_of_a_report_is_explained_by_its_own_query(http: httpx.Client, view: str, by: str) -> None:
    asked = {"by": by, "view": view, **OCTOBER}
    rows = http.get("/v1/costs", params=asked).json()["rows"]
    assert rows
    for row in rows:
        kept = [f"{name}={row[name] or ''}" for name in (*by.split(","), "currency")]
        story = http.get("/v1/explain/cell", params={**asked, "filter": kept}).json()
        assert story["cost"] == {"USD": row["cost"]}
        assert story["steps"][0]["sum"] == {"USD": row["cost"]}


def test_what_links_leads_on(http: httpx.Client) -> None:
    """From a report to a cell, to its call, to its chain, to its charge, each by the address it was given."""
    story = http.get("/v1/explain/cell", params={"by": "team", **OCTOBER}).json()
    care = next(part for part in story["steps"][0]["parts"] if part["sentence"].startswith("team Care"))
    story = http.get(care["link"]["address"]).json()
    assert story["cost"] == {"USD": "0.018"}
    call = next(step for step in story["steps"] if step["step"] == "call")
    story = http.get(call["parts"][0]["link"]["address"]).json()
    assert (story["kind"], story["cost"]) == ("call", {"USD": "0.012"})
    story = http.get(call["links"][0]["address"]).json()
    assert (story["kind"], story["ref"], story["cost"]) == ("chain", CHAIN_1, {"USD": "0.018"})
    charge = next(step for step in story["steps"] if step["step"] == "charge")
    story = http.get(charge["parts"][0]["link"]["address"]).json()
    assert (story["kind"], story["cost"]) == ("charge", {"USD": "0.03"})


def test_other_cost_columns_are_explained_too(http: httpx.Client) -> None:
    story = http.get("/v1/explain/charge-1", params={"basis": "billed", "most": 1}).json()
    assert (story["basis"], story["cost"]) == ("billed", {"USD": "0.03"})
    assert all(len(step["parts"]) <= 1 for step in story["steps"])


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/v1/explain/charge-2", 404, "no chain, call or charge has that id"),
        ("/v1/explain/cell?filter=team=Cara", 404, "no cost has team 'Cara'"),
        ("/v1/explain/cell?filter=teem=Care", 400, "'teem' is no dimension"),
        ("/v1/explain/cell?most=0", 422, "most"),
        ("/v1/explain/charge-1?view=executor", 422, "unknown parameter 'view'"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(http: httpx.Client, address: str, status: int, said: str) -> None:
    answer = http.get(address)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_near_matches_are_a_remedy(http: httpx.Client) -> None:
    assert "charge-1" in http.get("/v1/explain/charge-2").json()["remedy"]
    assert "Care" in http.get("/v1/explain/cell?filter=team=Cara").json()["remedy"]


def test_the_client_asks_the_same(http: httpx.Client) -> None:
    client = Client("http://127.0.0.1", http=http)
    story = client.explain_cell(by=["team"], view="executor", filters={"team": "Data"}, **OCTOBER)
    assert story.cost == {"USD": Decimal("0.012")}
    assert client.explain("charge-1", basis="list").basis == "list"


# --- on the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rootcost(tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder: Path = tmp_path_factory.mktemp("cli")
    files = write_files(folder)
    run = Command(folder / "home")
    for line in (("ingest", "focus", files / "bill.csv"), ("ingest", "otlp", files / "traces.json"), ("attribute",)):
        done = run(*line)
        assert done.code == 0, done.err
    return run


@pytest.mark.slow
def test_a_cell_is_asked_for_as_its_report(rootcost: Command) -> None:
    asked = ("--month", "2026-10", "--group-by", "agent", "--where", "executor_agent=researcher", "--view", "executor")
    told = rootcost("explain", *asked)
    assert told.code == 0, told.err
    assert "researcher" in told.out
    assert "3 USD a million" in told.out
    assert "0.012 USD" in told.out
    story = rootcost("explain", *asked, "--format", "json").rows
    assert (story["kind"], story["cost"], story["view"]) == ("cell", {"USD": "0.012"}, "executor")
    ranged = rootcost("explain", "--by", "agent", "--from", "2026-10", "--to", "2026-11", *asked[4:], "--format", "json").rows
    assert ranged == story


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("explain", 2, "say what to explain"),
        ("explain c0 --month 2026-10", 2, "options name a cell instead"),
        ("explain --month 2026-10 --from 2026-10", 2, "a month is a range already"),
        ("explain --month October", 2, "'October' is no month"),
        ("explain --where team", 2, "--where"),
        ("explain --by colour", 2, "colour"),
        ("explain --where executor_agent=reseacher", 1, "similar: researcher"),
    ],
)
def test_a_wrong_question_is_one_line(rootcost: Command, line: str, code: int, said: str) -> None:
    done = rootcost(*line.split())
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
