"""What other teams have and do changes nothing of what a team is answered: two ledgers that differ in others only give the same bytes.

Every reading and every tool is asked, in several formats; one that is new needs an example here.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from api.mcp.server import add_mcp
from ledger import db, registry
from ledger.access.keys import create_key
from ledger.access.principals import OPERATOR, Grant
from ledger.books import Books
from ledger.closing import states
from ledger.closing.lines import lines_of
from ledger.store import Store
from ledger.tables import ANOMALIES, CHAINS, COSTS, Table
from tests.api.access.test_matrix import gates_of
from tests.support.api_examples import (
    CALL_ROWS,
    CHAIN_1,
    CHAIN_2,
    CHAIN_ROWS,
    CODER,
    HOUR,
    ROLLUP,
    RUN,
    TRACE_2,
    WORKED_EXAMPLE,
    app_of,
    call,
    client_of,
    cost,
    frame,
    publish,
    who,
    write_calls,
    write_worked_example,
)
from tests.support.people import add_person, cheap_passwords

GRANTS = ("viewer:Care", "finance:Care", "admin:Care")
WHOLE = "admin"
FORMATS = (
    ("viewer:Care", "application/json"),
    ("finance:Care", "text/csv, application/json;q=0.5"),
    ("admin:Care", "application/x-ndjson, application/json;q=0.5"),
    ("viewer:Care", "application/vnd.apache.parquet, application/json;q=0.5"),
    ("finance:Care", "application/vnd.apache.arrow.stream, application/json;q=0.5"),
)
OF_THE_MOMENT = re.compile(
    r'"(now|published_at|age_seconds|principal)":"?[^,"}]*|20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+|"sha256":"[0-9a-f]+|JSON,[0-9a-f]{64}'
)
READINGS = {
    "/v1/agents": ["", "section=unregistered"],
    "/v1/agents/history": [""],
    "/v1/alert-deliveries": [""],
    "/v1/alert-mutes": [""],
    "/v1/alerts": [""],
    "/v1/alerts/{alert_id}": ["/v1/alerts/a1"],
    "/v1/anomalies": [""],
    "/v1/anomalies/{anomaly_id}": ["/v1/anomalies/x1"],
    "/v1/budgets": [""],
    "/v1/budgets/{name}": ["/v1/budgets/dev-monthly"],
    "/v1/budgets/{name}/revisions": ["/v1/budgets/dev-monthly/revisions"],
    "/v1/budget-names": [""],
    "/v1/budget-requests": [""],
    "/v1/chains": ["", "search=agent", "limit=1"],
    "/v1/chains/{chain_id}": [f"/v1/chains/{CHAIN_1}"],
    "/v1/compare": ["from=2026-09&to=2026-10&by=team,agent", "from=2026-10-05&to=2026-10-06&by=currency", "from=2026-09&to=2026-10&view=executor"],
    "/v1/costs": [
        "by=team,agent", "by=executor_team,executor_agent,model", "by=account,region&granularity=day", "by=team&limit=1", "view=executor&by=team",
        "filter=team=Dev", "by=cost_class,reason", "filter=model=N", "by=team&calendar=usage",
    ],
    "/v1/explain/cell": ["", "by=team&filter=team=Care", "filter=model=N", "filter=team=Dve"],
    "/v1/explain/{ref}": [f"/v1/explain/{CHAIN_1}", f"/v1/explain/{CHAIN_1[:36]}", "/v1/explain/charge-1", "/v1/explain/charge-2"],
    "/v1/forecast": ["month=2026-10&by=team", "month=2026-11&by=currency"],
    "/v1/freshness": [""],
    "/v1/me": [""],
    "/v1/periods/{month}/lines": ["/v1/periods/2026-10/lines"],
    "/v1/reservations": [""],
    "/v1/overview": ["", "view=executor"],
    "/v1/roles": [""],
    "/v1/sessions": [""],
    "/v1/statement": ["month=2026-10&team=Care", "month=2026-10&team=Care&format=csv"],
    "/v1/statements": ["month=2026-10"],
}  # fmt: skip
"""Questions about every reading that a team is answered at all."""
WHOLE_ONLY = {"/metrics", "/v1/audit"}
"""Beside those whose gate says so."""
TOOLS: dict[str, list[dict[str, Any]]] = {
    "what_did_it_cost": [{}, {"by": ["model", "account"]}, {"filters": ["team=Dev"]}],
    "why_did_it_change": [{"month": "2026-10"}],
    "compare_periods": [{"before_start": "2026-09", "before_end": "2026-10", "after_start": "2026-10", "after_end": "2026-11"}],
    "what_is_left": [{}, {"budget": "dev-monthly"}],
    "why_was_it_refused": [{}],
    "explain_cost": [{}, {"ref": CHAIN_1}, {"ref": "charge-2"}],
    "find_chains": [{}, {"search": "agent"}],
    "list_values": [{"dimension": name} for name in ("team", "agent", "executor_agent", "model", "account")],
}


@dataclass
class World:
    """A ledger, its API, and keys over one team."""

    http: Any
    books: Books
    keys: dict[str, dict[str, str]]

    @classmethod
    def of(cls, books: Books) -> World:
        made_keys = {grant: create_key(books, "test", [Grant.parse(grant)], actor="test")[1] for grant in (*GRANTS, WHOLE)}
        app = app_of(books)
        add_mcp(app, books)
        return cls(client_of(app), books, {grant: {"Authorization": f"Bearer {key}"} for grant, key in made_keys.items()})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    """The worked example, and the same with other others."""
    with Books.open(tmp_path_factory.mktemp("small")) as small, Books.open(tmp_path_factory.mktemp("large")) as large:
        for books in (small, large):
            write_worked_example(books)
            registry.import_text(books, "agent,team\nsupport-bot,Care\nresearcher,Data\n", uri="agents.csv", actor="test")
        write_other_others(large)
        for books in (small, large):
            close_month(books)
        with_small, with_large = World.of(small), World.of(large)
        with with_small.http, with_large.http:
            yield with_small, with_large


def close_month(books: Books) -> None:
    """October is closed at the published run."""
    with books.database.session() as session:
        lines = lines_of(books.store.scan(COSTS, {"run_id": [RUN]}))
        states.close(session, "2026-10", RUN, lines, OPERATOR, reason="", waived_items=())


def write_other_others(books: Books) -> None:
    """The shares of others in Care's charge come to the same sum; everything else of theirs differs."""
    with cheap_passwords():
        add_person(books, "eve", "viewer:Secret")
    ghost, dear = who(4, "ghost", "Secret", "ghost", "Secret"), {"model": "N", "account": "2222", "region": "eu-west-1"}
    publish(books, [
        *WORKED_EXAMPLE[:2],
        cost("0.002", quantity=Decimal(700), **CODER), cost("0.003", quantity=Decimal(1000), **ghost),
        cost("0.007", cost_class="unallocated", reason="uncaptured_usage", quantity=Decimal(2300)),
        cost("500", quantity=Decimal(9), lot_id=1, pool_id="pool-2", period_start=HOUR + timedelta(days=2), period_end=HOUR + timedelta(days=3), **(CODER | dear)),
        cost("70", cost_class="unallocated", reason="no_owner", basis="estimated", lot_id=1, pool_id="pool-2", **dear),
    ])  # fmt: skip
    write_calls(books, [*CALL_ROWS, call(TRACE_2, "00000000000000c1", f"{TRACE_2}:00000000000000c1", 70, **ghost)])
    chain = CHAIN_ROWS[1] | {"chain_id": f"{TRACE_2}:00000000000000c1", "initiator_agent": "ghost", "list_cost": Decimal(900)}
    slice_ = {"month": "2026-10", "rollup_id": ROLLUP}
    times = {"start_time": HOUR, "end_time": HOUR + timedelta(minutes=4)}
    books.store.replace(CHAINS, frame(CHAINS, [*CHAIN_ROWS, chain], **slice_, **times), slice_)
    registry.import_text(
        books, "agent,team\nsupport-bot,Care\nresearcher,Data\nghost,Secret\ncoder,Dev\n", uri="agents.csv", actor="test"
    )
    day = {"month": "2026-10", "run_id": RUN, "scope": "team", "currency": "USD", "score_approx": 9.0, "day": HOUR.date()}
    amounts = {"actual": Decimal(9), "expected": Decimal(2), "excess": Decimal(7)}
    books.store.append(ANOMALIES, frame(ANOMALIES, [{**day, **amounts, "scope_name": "Secret", "anomaly_id": "x1"}]))
    payload = {"scope": "team", "scope_name": "Secret"}
    with books.database.session() as session:
        session.add(
            db.Alert(
                alert_id="a1", kind="budget", severity="critical", subject="Secret", text="Secret is over", payload=payload,
                created_at=HOUR, attempts=0,
            )
        )  # fmt: skip


def answer_of(world: World, grant: str, address: str, accept: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers, without the time, the id of the key, and what the key itself has asked within the minute."""
    answer = world.http.get(address, headers=world.keys[grant] | {"Accept": accept})
    headers = {name: value for name, value in answer.headers.items() if name not in ("etag", "content-length", "ratelimit")}
    return answer.status_code, OF_THE_MOMENT.sub("", text_of(answer)), headers


def text_of(answer: Any) -> str:
    """What an answer says, as text; of tables the schema and the rows."""
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("application/vnd.apache"):
        return str(answer.text)
    read_table = pl.read_parquet if "parquet" in kind else pl.read_ipc_stream
    table = read_table(io.BytesIO(answer.content))
    return f"{table.schema} {[[str(value) for value in row] for row in table.rows()]}"


@pytest.fixture(scope="module")
def work(worlds: tuple[World, World]) -> Iterator[list[str]]:
    """What is read for an answer: statements and scans, in order. Who asks is looked up once a second, and is left out."""
    steps: list[str] = []
    scan = Store.scan

    def noting_scan(store: Store, table: Table, *arguments: Any, **options: Any) -> Any:
        steps.append(f"scan {table.name} {arguments} {options}")
        return scan(store, table, *arguments, **options)

    def note_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not re.search("api_keys|role_grants|users|user_sessions|audit", statement):
            steps.append(statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "scan", noting_scan)
        for world in worlds:
            sa.event.listen(world.books.database.engine, "before_cursor_execute", note_statement)
        yield steps


def answer_and_work(world: World, work: list[str], grant: str, address: str, accept: str) -> Any:
    """The answer, and what was read for it."""
    work.clear()
    answer = answer_of(world, grant, address, accept)
    return answer, list(work)


def scoped_paths(world: World) -> set[str]:
    """Readings that are answered to who has a role over one team."""
    gates = gates_of(world.http.app)
    return {path for (method, path), gate in gates.items() if method == "GET" and not (gate is not None and gate.whole)}


def test_every_reading_has_an_example(worlds: tuple[World, World]) -> None:
    assert scoped_paths(worlds[0]) - WHOLE_ONLY == set(READINGS)


@pytest.mark.parametrize("path", READINGS)
def test_a_reading_does_not_depend_on_others(worlds: tuple[World, World], work: list[str], path: str) -> None:
    """Neither the answer nor what is read for it: nothing is read on because of what others have."""
    for number, question in enumerate(READINGS[path]):
        address = question if question.startswith("/") else f"{path}?{question}"
        for grant, accept in FORMATS if number == 0 else FORMATS[:1]:
            small, large = (answer_and_work(world, work, grant, address, accept) for world in worlds)
            assert small == large, (address, accept)


@pytest.mark.parametrize(("foreign", "missing"), [
    (f"/v1/chains/{CHAIN_2}", f"/v1/chains/{'0' * 32}:{'0' * 16}"),
    (f"/v1/explain/{CHAIN_2}", f"/v1/explain/{'0' * 32}:{'0' * 16}"),
    ("/v1/explain/cell?filter=team=Secret", "/v1/explain/cell?filter=team=Sekret"),
    ("/v1/costs?filter=team=Secret", "/v1/costs?filter=team=Nobody"),
    ("/v1/costs?filter=model=N", "/v1/costs?filter=model=O"),
    ("/v1/chains?team=Secret", "/v1/chains?team=Nobody"),
    ("/v1/budgets/dev-monthly", "/v1/budgets/of-nobody-"),
])  # fmt: skip
def test_what_is_of_others_takes_the_work_of_what_is_not_there(
    worlds: tuple[World, World], work: list[str], foreign: str, missing: str
) -> None:
    """The same is read for both, so that neither the answer nor its time tells them apart."""
    names = {part for address in (foreign, missing) for part in re.split(r"[/=]", address)[-1:]}

    def neutral(text: str) -> str:
        return re.sub("|".join(map(re.escape, sorted(names, key=len, reverse=True))), "NAME", text)

    # What a first question reads for all that follow (published runs, the key) is no part of it.
    worlds[1].http.get(foreign.replace(max(names, key=len), "another"), headers=worlds[1].keys["viewer:Care"])
    outcomes = []
    for address in (foreign, missing):
        (status, text, headers), steps = answer_and_work(worlds[1], work, "viewer:Care", address, "application/json;q=0.9")
        outcomes.append((status, neutral(text), headers, [neutral(step) for step in steps]))
    assert outcomes[0] == outcomes[1]


def test_tags_of_others_are_of_no_use(worlds: tuple[World, World]) -> None:
    """Care's tag is not Dev's answer. Cursors: tests/api/test_formats.py."""
    world = worlds[1]
    _, dev_key = create_key(world.books, "dev", [Grant.parse("viewer:Dev")], actor="test")
    dev, care = {"Authorization": f"Bearer {dev_key}"}, world.keys["viewer:Care"]
    for path in sorted(set(READINGS) - {"/v1/budgets/{name}"}):
        question = READINGS[path][0]
        address = question if question.startswith("/") else f"{path}?{question}"
        tag = world.http.get(address, headers=care).headers.get("etag")
        if tag is None:
            continue
        assert world.http.get(address, headers=care | {"If-None-Match": tag}).status_code == 304, address
        assert world.http.get(address, headers=dev | {"If-None-Match": tag}).status_code != 304, address


@pytest.mark.parametrize("path", READINGS)
def test_an_answer_that_is_kept_reaches_no_other_scope(worlds: tuple[World, World], path: str) -> None:
    """In one ledger an administrator asks first, in the other one the team; each again, when the answers of both are kept."""
    address = READINGS[path][0] if READINGS[path][0].startswith("/") else f"{path}?{READINGS[path][0]}"
    accept = "application/json, */*;q=0.1"  # not asked for by any test before
    orders = ((WHOLE, GRANTS[0], WHOLE, GRANTS[0]), (GRANTS[0], WHOLE, GRANTS[0]))
    first, second = (
        [answer_of(world, grant, address, accept) for grant in order] for world, order in zip(worlds, orders, strict=True)
    )
    assert first[1] == first[3] == second[0] == second[2]
    assert first[0] == first[2]


def test_every_tool_has_an_example_and_does_not_depend_on_others(worlds: tuple[World, World]) -> None:
    tools = ask(worlds[0], "tools/list", {})["tools"]
    assert {tool["name"] for tool in tools} == set(TOOLS)
    for name, calls in TOOLS.items():
        for arguments in calls:
            small, large = (ask(world, "tools/call", {"name": name, "arguments": arguments}) for world in worlds)
            assert small == large, (name, arguments)


def ask(world: World, method: str, params: dict[str, Any]) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
    answer = world.http.post("/mcp", json=body, headers=world.keys[GRANTS[0]] | headers)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)["result"]
