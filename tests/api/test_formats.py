"""Every list in every format, pages by cursor, and streams that are whole or cut."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
from fastapi import FastAPI

from api.formats import MEDIA_TYPES, file_response
from ledger import money
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.access.users import add_user
from ledger.audit import erase
from ledger.books import Books
from ledger.problems import Problem, to_frame
from ledger.tables import PROBLEMS
from tests.support.api_examples import CHAIN_1, CHAIN_2, publish, reach, write_worked_example

LISTS = ("costs", "balance", "chains", "budgets", "agents", "alerts", "anomalies", "problems", "runs", "sources", "source-runs", "gaps",
         "evidence", "forecast", "audit")  # fmt: skip


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("formats")) as home_books:
        write_worked_example(home_books)
        home_books.store.append(
            PROBLEMS, to_frame([Problem("focus", f"f{n}", "=1+1", "BilledCost", "is no number", "mend it") for n in range(7)])
        )
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books) as client:
        yield client


def rows_of(answer: httpx.Response, file_format: str) -> pl.DataFrame:
    content = io.BytesIO(answer.content)
    if file_format == "arrow":
        return pl.from_arrow(pa.ipc.open_stream(content).read_all())  # type: ignore[return-value]
    readers: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
        "csv": pl.read_csv,
        "ndjson": pl.read_ndjson,
        "parquet": pl.read_parquet,
    }
    return readers[file_format](content)


@pytest.mark.parametrize("name", LISTS)
def test_every_list_is_there_in_every_format(http: httpx.Client, name: str) -> None:
    """By Accept and by ?format=, named, with the number of its rows; what nobody offers is 406."""
    for file_format, media_type in MEDIA_TYPES.items():
        by_name = http.get(f"/v1/{name}", params={"format": file_format})
        by_type = http.get(f"/v1/{name}", headers={"Accept": media_type})
        assert by_name.status_code == by_type.status_code == 200, by_name.text
        assert (
            by_name.headers["content-type"].partition(";")[0] == media_type == by_type.headers["content-type"].partition(";")[0]
        )
        if file_format == "json":
            continue
        assert by_name.headers["content-disposition"].endswith(f'.{file_format}"')
        if by_name.content or file_format in ("parquet", "arrow"):
            assert rows_of(by_name, file_format).height == int(by_name.headers["RootCost-Rows"])
    refused = http.get(f"/v1/{name}", headers={"Accept": "image/png"})
    assert refused.status_code == 406
    assert "text/csv" in refused.json()["remedy"]


def test_money_is_exact_in_every_format(http: httpx.Client) -> None:
    answers = {name: http.get("/v1/costs", params={"by": "team", "format": name}) for name in MEDIA_TYPES}
    assert answers["json"].json()["totals"] == {"USD": "0.03"}
    for name in ("parquet", "arrow"):
        frame = rows_of(answers[name], name)
        assert frame.schema["cost"] == money.MONEY
        assert frame["cost"].sum() == Decimal("0.03")
    assert answers["csv"].text.splitlines()[:2] == ["team,currency,cost,cost_billed,cost_estimated", "Care,USD,0.018,0.018,0"]
    assert json.loads(answers["ndjson"].text.splitlines()[0])["cost"] == "0.018"
    assert answers["csv"].headers["RootCost-Totals"].startswith("cost.USD=0.03, ")
    chains = http.get("/v1/chains?format=arrow")
    assert (chains.headers["RootCost-Rows"], chains.headers["RootCost-Totals"]) == ("2", "list_cost.USD=0.003")


def test_texts_are_no_formulas_in_csv_and_exact_elsewhere(http: httpx.Client) -> None:
    assert set(rows_of(http.get("/v1/problems?format=csv"), "csv")["line"]) == {"'=1+1"}
    assert set(rows_of(http.get("/v1/problems?format=parquet"), "parquet")["line"]) == {"=1+1"}


def test_a_file_from_slices_of_the_table_has_the_same_rows(
    books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows are read slice by slice: what is filtered out, and what the principal may not see, is in no slice."""
    _, key = create_key(books, "team", [Grant("viewer", "Care")], actor="test")
    for query in ("", "&agent=coder", "&search=support", "&end=2026-10-05", "&reason="):
        for headers in ({}, {"Authorization": f"Bearer {key}"}):
            files = []
            for many_rows in (50_000, 0):
                monkeypatch.setattr("api.queries.listing._MANY_ROWS", many_rows)
                answers = {
                    name: http.get(f"/v1/chains?format={name}{query}", headers=headers) for name in ("csv", "arrow", "parquet")
                }
                frames = [rows_of(answer, name) for name, answer in answers.items()]
                totals = {answer.headers["RootCost-Rows"] for answer in answers.values()}
                files.append(([frame.sort("chain_id").rows() for frame in frames], totals))
                assert {str(frame.height) for frame in frames} == totals
            assert files[0] == files[1], (query, headers)


@pytest.mark.parametrize("name", ["problems", "chains"])
def test_pages_by_cursor_are_all_rows_once_and_totals_are_of_all(http: httpx.Client, name: str) -> None:
    whole = http.get(f"/v1/{name}").json()
    rows, address = [], f"http://127.0.0.1/v1/{name}?limit=1"
    for _ in range(whole["total"]):
        answer = http.get(address)
        page = answer.json()
        assert (page["total"], page["totals"]) == (whole["total"], whole["totals"])
        rows += page["rows"]
        address = answer.links.get("next", {}).get("url", "")
        assert bool(address) == bool(page["next"])
    assert (address, rows) == ("", whole["rows"])


def test_a_cursor_is_of_one_query_and_one_principal(books: Books, http: httpx.Client) -> None:
    cursor = http.get("/v1/problems?limit=2").json()["next"]
    _, key = create_key(books, "other", [Grant("auditor")], actor="test")
    changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    assert http.get("/v1/problems", params={"cursor": cursor}).status_code == 200
    for wrong in ({"cursor": changed}, {"cursor": "x"}, {"cursor": cursor, "severity": "error"}):
        assert http.get("/v1/problems", params=wrong).json()["type"].endswith("/cursor")
    assert http.get("/v1/runs", params={"cursor": cursor}).status_code == 400
    assert http.get("/v1/problems", params={"cursor": cursor}, headers={"Authorization": f"Bearer {key}"}).status_code == 400


def test_a_cursor_of_replaced_runs_is_gone(tmp_path: Any) -> None:
    with Books.open(tmp_path) as books, reach(books) as http:
        write_worked_example(books)
        cursor = http.get("/v1/chains?limit=1").json()["next"]
        assert [c["chain_id"] for c in http.get("/v1/chains", params={"cursor": cursor}).json()["rows"]] == [CHAIN_2]
        assert CHAIN_1 != CHAIN_2
        publish(books, [], run="run-2")
        answer = http.get("/v1/chains", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["remedy"]) == (410, "ask again without cursor, from the first page on")


@pytest.mark.parametrize("file_format", ["csv", "ndjson", "arrow", "parquet"])
def test_a_stream_that_fails_is_cut(file_format: Any) -> None:
    """The last message that would end the answer is never sent, and the server closes the connection."""
    frame = pl.DataFrame({"cost": [1]})

    def frames() -> Iterator[pl.DataFrame]:
        yield frame
        yield frame
        raise OSError("the store went away")

    app = FastAPI()
    app.get("/")(lambda: file_response(frames(), file_format, name="costs", headers={}))
    messages: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            messages.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "asgi": {"version": "3.0"}}
        await app(scope, receive, send)

    with pytest.raises((OSError, BaseExceptionGroup)):
        asyncio.run(ask())
    assert messages[0]["status"] == 200
    assert all(message.get("more_body") for message in messages[1:])


def test_entries_of_the_audit_log_are_whole_in_a_file(books: Books, http: httpx.Client) -> None:
    """What was before and after, and who it was, is JSON in one column each; what was erased is null there."""
    _, key = create_key(books, "reader", [Grant("auditor")], actor="test")
    headers = {"Authorization": f"Bearer {key}"}
    add_user(books, "ada", [Grant("viewer")], actor="test")
    add_user(books, "grace", [Grant("viewer")], actor="test")
    with books.database.session() as session:
        erase(session, "test", "grace")
    lines = rows_of(http.get("/v1/audit?action=user.add&format=csv", headers=headers), "csv")
    assert [json.loads(text)["name"] for text in lines["personal"]] == [None, "ada"]
    assert [json.loads(text) for text in lines["after"]] == [{"grants": ["viewer"]}] * 2
    page = http.get("/v1/audit?action=user.add&limit=1", headers=headers).json()
    assert (page["total"], [row["sequence"] for row in page["rows"]]) == (2, [lines["sequence"][0]])
