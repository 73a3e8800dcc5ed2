"""Sources managed over the API: set up, test_result, scheduled, read and removed, with who did it in the audit log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ledger import sources
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.addresses import is_under
from ledger.books import Books
from ledger.db import Audit
from ledger.locks import exclusive, lock_of
from tests.support.api_examples import reach
from tests.support.cli_books import write_files

ANY = {"If-Match": "*"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bills that sources may read: one charge of 0.03 USD."""
    return write_files(tmp_path_factory.mktemp("bills"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Books]:
    home = tmp_path_factory.mktemp("home")
    (home / "rootcost.toml").write_text(f'[serve]\nsource_addresses = ["s3://", "https://api.openai.com", "{folder}"]\n')
    with Books.open(home) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    _, key = create_key(books, "platform", [Grant("platform")], actor="test")
    with reach(books) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def changes(books: Books, name: str) -> list[tuple[str, str]]:
    with books.database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.subject == name).order_by(Audit.sequence))
        return [(row.action, row.actor.split(":")[0]) for row in rows]


def ended_run(http: httpx.Client, name: str, run: int) -> dict[str, Any]:
    """The run, once it has ended."""
    row: dict[str, Any] = {}
    for _ in range(500):
        row = next(row for row in http.get(f"/v1/sources/{name}/runs").json()["rows"] if row["run"] == run)
        if row["finished_at"]:
            return row
        time.sleep(0.01)
    raise AssertionError(row)


def test_a_source_from_its_test_to_its_end(books: Books, http: httpx.Client, folder: Path) -> None:
    terms = {"source": "focus", "addresses": [str(folder / "bill.csv")]}
    (test_result,) = http.post("/v1/sources/test", json=terms).json()["rows"]
    assert (test_result["ok"], test_result["rows"]) == (True, 1)
    assert http.get("/v1/sources").json()["rows"] == []

    answer = http.post("/v1/sources", json={"name": "bill", **terms, "cron": "@daily", "expected_lag_seconds": 3600})
    assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/sources/bill"), answer.text
    source = http.get("/v1/sources/bill").json()
    assert source == answer.json()
    assert (source["cron"], source["expected_lag_seconds"], source["stale_after_seconds"]) == ("@daily", 3600, 3600 + 86400)
    assert http.post("/v1/sources/bill/test").json()["total"] == 1

    run_answer = http.post("/v1/sources/bill/runs", json={})
    assert run_answer.status_code == 202, run_answer.text
    run = ended_run(http, "bill", run_answer.json()["run"])
    assert (run["cause"], run["status"], run["money_in"]) == ("hand", "done", {"USD": "0.03"})
    backfill = http.post("/v1/sources/bill/runs", json={"since": "2026-09", "until": "2026-10"}).json()
    assert (backfill["cause"], backfill["since"], backfill["until"]) == ("backfill", "2026-09-01", "2026-10-01")
    ended_run(http, "bill", backfill["run"])

    body, seen = {"addresses": [str(folder / "*.csv")], "cron": "@hourly"}, {"If-Match": f'"{source["revision"]}"'}
    new_terms = http.put("/v1/sources/bill", json=body, headers=seen).json()
    assert (new_terms["addresses"], new_terms["cron"]) == ([str(folder / "*.csv")], "@hourly")
    assert new_terms["revision"] != source["revision"]
    entry = http.patch("/v1/schedule/bill", json={"paused": True}, headers=ANY).json()
    assert (entry["paused"], entry["cron"], entry["longest_pause_seconds"]) == (True, "@hourly", 3600)
    assert http.patch("/v1/schedule/bill", json={"paused": False, "cron": "@daily"}, headers=ANY).json()["cron"] == "@daily"
    assert [row["cron"] for row in http.get("/v1/schedule").json()["rows"]] == ["@daily"]
    assert http.delete("/v1/sources/bill", headers=ANY).status_code == 204
    assert http.get("/v1/sources/bill").status_code == 404
    assert http.get("/v1/sources/bill/runs").json()["total"] == 2, "its history stays"
    assert changes(books, "bill") == [
        (f"source.{action}", "key") for action in ("add", "run", "run", "change", "pause", "change", "resume", "remove")
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "place", "sentence"),
    [
        ("POST", "", {"name": "a/b", "source": "otlp"}, 400, "name", "cannot be the name"),
        ("POST", "", {"name": "x", "source": "otlp", "cron": 5}, 422, "cron", "valid string"),
        ("POST", "", {"name": "x", "source": "foccus"}, 400, "", "did you mean focus?"),
        ("POST", "", {"name": "x", "source": "focus"}, 400, "addresses", "a bill needs an address"),
        ("POST", "", {"name": "x", "source": "otlp", "scope": "s"}, 400, "scope", "only bills have datasets"),
        ("POST", "", {"name": "x", "source": "aws-cur", "addresses": ["s3://b/"], "cron": "* *"}, 400, "cron", "five fields"),
        ("POST", "", {"name": "x", "source": "aws-cur", "addresses": ["s3://me:${HOME}@b/"]}, 400, "addresses", "names no variable"),
        ("POST", "", {"name": "x", "source": "focus", "addresses": ["/etc/passwd"]}, 400, "addresses", "serve.source_addresses"),
        ("POST", "/test", {"source": "openai", "addresses": ["https://api.openai.com.evil"]}, 400, "addresses", "serve.source_addresses"),
        ("POST", "", {"name": "live", "source": "otlp"}, 409, "name", "PUT /v1/sources/live"),
        ("PUT", "/live", {"addresses": ["/etc/"]}, 400, "addresses", "serve.source_addresses"),
        ("PUT", "/lives", {}, 404, "name", "did you mean 'live'?"),
        ("DELETE", "/lives", None, 404, "name", "did you mean 'live'?"),
        ("POST", "/live/runs", {}, 400, "live", "over HTTP"),
        ("POST", "/live/runs", {"until": "2026-10"}, 400, "until", "since when"),
        ("POST", "/live/runs", {"since": "2999-10"}, 400, "since", "that has"),
        ("POST", "/live/runs", {"since": "2026-10", "until": "2026-09"}, 400, "until", "not read"),
    ],
)  # fmt: skip
def test_what_cannot_be_names_field_and_remedy(
    books: Books, http: httpx.Client, method: str, path: str, body: Any, status: int, place: str, sentence: str
) -> None:
    if not sources.list_sources(books):
        assert http.post("/v1/sources", json={"name": "live", "source": "otlp"}).status_code == 201
    answer = http.request(method, f"/v1/sources{path}", json=body, headers=ANY)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem["where"] == place or not place
    assert sentence in problem["remedy"] + problem["detail"]
    assert [source.name for source in sources.list_sources(books)] == ["live"]


def test_a_kind_is_read_by_one_at_a_time(books: Books, http: httpx.Client, folder: Path) -> None:
    http.post("/v1/sources", json={"name": "busy", "source": "focus", "addresses": [str(folder / "bill.csv")]})
    with exclusive(lock_of(books, "source-focus")):
        answer = http.post("/v1/sources/busy/runs", json={})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/busy"), answer.text
    assert http.delete("/v1/sources/busy", headers=ANY).status_code == 204


def test_kinds_tell_what_they_need(http: httpx.Client) -> None:
    kinds = {row["source"]: row for row in http.get("/v1/source-kinds").json()["rows"]}
    assert kinds["aws-cur"]["kind"] == "bill"
    assert "s3:ListBucket" in kinds["aws-cur"]["policy"]


def test_links_and_wildcards_lead_nowhere_else(folder: Path) -> None:
    (folder / "out").symlink_to("/etc")
    assert [is_under(str(folder / path), [str(folder)]) for path in ("bill.csv", "*.csv", "out/passwd", "out/*", "../x")] == [
        True, True, False, False, False,
    ]  # fmt: skip
