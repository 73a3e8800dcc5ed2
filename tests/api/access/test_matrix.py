"""Every route × role × scope, from the OpenAPI document and the routes' own gates: who may not see is refused, and who sees a team sees no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.access.gates import Gate, known
from api.access.middleware import PUBLIC
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.access.roles import ROLES
from ledger.audit_denials import DENIED
from ledger.books import Books
from ledger.db import Audit
from ledger.store import Store
from ledger.tables import Table
from tests.support.api_examples import CHAIN_1, CHAIN_2, TRACE_1, app_of, reach, write_worked_example

FOREIGN = ("Dev", "coder", "0.009", "0.027", "0.03", "0.003", "0.024", CHAIN_2)
"""What the worked example holds of other teams than Care and Data: names, amounts, and sums that contain them."""
PATHS = {
    "/v1/chains/{chain_id}": f"/v1/chains/{CHAIN_1}",
    "/v1/explain/{ref}": f"/v1/explain/{CHAIN_1}",
    "/v1/explain/cell": "/v1/explain/cell?by=team",
    "/v1/compare": "/v1/compare?from=2026-09&to=2026-10",
    "/v1/statement": "/v1/statement?month=2026-10&team=Care",
    "/v1/statements": "/v1/statements?month=2026-10",
    "/v1/statements/control": "/v1/statements/control?month=2026-10",
    "/v1/periods/{month}": "/v1/periods/2026-10",
    "/v1/periods/{month}/checklist": "/v1/periods/2026-10/checklist",
    "/v1/periods/{month}/lines": "/v1/periods/2026-10/lines",
    "/v1/sources/{name}/runs": "/v1/sources/none/runs",
    "/v1/users/{user_id}": "/v1/users/1",
}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("matrix")) as home_books:
        write_worked_example(home_books)
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books) as client:
        yield client


def header(books: Books, *grants: str) -> dict[str, str]:
    _, key = create_key(books, "test", [Grant.parse(grant) for grant in grants], actor="test")
    return {"Authorization": f"Bearer {key}"}


def gates_of(app: FastAPI) -> dict[tuple[str, str], Gate | None]:
    """The gate of each (method, path); None for routes that anybody known may use."""
    gates: dict[tuple[str, str], Gate | None] = {}
    inner_routers: list[Any] = [getattr(route, "original_router", None) for route in app.routes]
    routers = [app.router, *filter(None, inner_routers)]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    paths = {route.path.replace(":path", "") for route in routes}
    assert paths >= set(app.openapi()["paths"]), "routes that are described and not foreign_words here"
    for route in routes:
        if route.path in PUBLIC:
            continue
        calls: list[Any] = [dependency.call for dependency in route.dependant.dependencies]
        gate = next((call for call in calls if isinstance(call, Gate)), None)
        assert gate is not None or known in calls, f"{route.path} has no gate: take one of api.access.gates"
        for method in route.methods or ():
            gates[method, route.path.replace(":path", "")] = gate
    return gates


@pytest.mark.slow
def test_every_route_has_a_gate_and_every_role_is_held_to_it(tmp_path: Path) -> None:
    """Roles over the whole and over a team. An allowed reading is answered, a denied one says what it needs. Empty books answer faster."""
    with Books.open(tmp_path) as books, reach(books) as http:
        check_gates(books, http)


def check_gates(books: Books, http: httpx.Client) -> None:
    keys = {(role, team): header(books, f"{role}:{team}" if team else role) for role in ROLES for team in ("", "Care")}
    gates = gates_of(app_of(books))
    assert len(gates) > 20
    for (method, path), gate in gates.items():
        for (role, team), key in keys.items():
            kind = {"Content-Type": {"/v1/agents/import": "text/csv"}.get(path, "application/json")} if method != "GET" else {}
            answer = http.request(method, PATHS.get(path, path).replace("{name}", "none"), headers=key | kind)
            is_allowed = gate is None or (gate.permission in ROLES[role] and not (gate.whole and team))
            assert (answer.status_code == 403) != is_allowed, (method, path, role, team, answer.text)
            if not is_allowed:
                assert answer.json()["type"].endswith("/denied")
                assert answer.json()["remedy"].startswith("ask an administrator")
            elif method == "GET":
                assert answer.status_code in (200, 404), (path, role, team, answer.text)


@pytest.mark.parametrize("address", [
    "/v1/costs?by=team,agent", "/v1/costs?by=initiator_team,executor_team", "/v1/costs?by=team&format=csv", "/v1/costs?by=model",
    "/v1/costs?by=account,cost_class,reason&granularity=hour", "/v1/costs?by=team&filter=team=Dev", "/v1/overview", "/v1/chains",
    f"/v1/chains/{CHAIN_1}", f"/v1/explain/{CHAIN_1}", f"/v1/explain/{TRACE_1}:00000000000000a1", "/v1/explain/cell?by=team",
    "/v1/agents", "/v1/budgets", "/v1/alerts", "/v1/anomalies", "/v1/freshness", "/v1/me",
    "/v1/statements?month=2026-10", "/v1/compare?from=2026-09&to=2026-10&by=team,agent", "/v1/forecast?by=team,agent&month=2026-10",
])  # fmt: skip
def test_a_team_sees_nothing_of_others(books: Books, http: httpx.Client, address: str) -> None:
    """Neither names nor amounts nor totals; the sums are those of its own rows."""
    answer = http.get(address, headers=header(books, "viewer:Care"))
    assert answer.status_code == 200, answer.text
    # An explanation says what the charges and pools of one's money are whole, of which others' parts are one sum.
    words = set(FOREIGN) - ({"0.03"} if "explain" in address else set())
    foreign_words = [
        word for word in sorted(words) if f'"{word}' in answer.text or f" {word} " in answer.text or f",{word}" in answer.text
    ]
    assert foreign_words == [], answer.text


def test_what_is_not_theirs_is_not_there(books: Books, http: httpx.Client) -> None:
    """A chain, a call, a charge and a cell of others are as unknown as what does not exist, suggestions included."""
    care, dev = header(books, "viewer:Care"), header(books, "viewer:Dev")
    for address in (f"/v1/chains/{CHAIN_1}", f"/v1/explain/{CHAIN_1}", "/v1/explain/cell?filter=team=Care"):
        answer = http.get(address, headers=dev)
        assert answer.status_code == 404, answer.text
        assert "support-bot" not in answer.text
    unknown_team = http.get("/v1/explain/cell?filter=team=Caer", headers=dev)
    assert unknown_team.status_code == 404
    assert "Care" not in unknown_team.text.replace("Caer", "")
    assert http.get(f"/v1/explain/{CHAIN_1[:40]}", headers=dev).json()["remedy"].count(CHAIN_1) == 0
    assert http.get("/v1/costs?by=team", headers=care).json()["totals"] == {"USD": "0.018"}
    assert http.get("/v1/costs?by=team&view=executor", headers=care).json()["totals"] == {"USD": "0.006"}
    assert http.get("/v1/overview", headers=care).json()["totals"][0]["cost"] == "0.018"
    assert http.get("/v1/overview", headers=care).json()["totals"][0]["unallocated"] == "0"


def test_foreign_spans_of_a_chain_are_boxes(books: Books, http: httpx.Client) -> None:
    """Care started the chain: Data's call is its money and a box. Data sees its own call, and nothing of Care's."""
    care = http.get(f"/v1/chains/{CHAIN_1}", headers=header(books, "viewer:Care")).json()
    assert care["cost"] == {"USD": "0.018"}
    boxes = [node for node in care["nodes"] if node["redacted"]]
    assert [(box["name"], box["agent_name"], box["calls"]) for box in boxes] == [("another team", None, [])] * len(boxes)
    assert {box["own_cost"].get("USD") for box in boxes} >= {"0.012"}
    data = http.get(f"/v1/chains/{CHAIN_1}", headers=header(books, "viewer:Data")).json()
    assert data["cost"] == {"USD": "0.012"}
    assert data["chain"]["initiator_team"] is None
    assert data["chain"]["list_cost"] is None
    assert "support-bot" not in str([node for node in data["nodes"] if node["redacted"]])
    assert http.get("/v1/chains", headers=header(books, "viewer:Data")).json()["total"] == 0


def test_the_shares_of_others_in_a_charge_are_one_sum(books: Books, http: httpx.Client) -> None:
    """Of the one charge of 0.03, Care sees its 0.018 and 0.012 of others, not whose."""
    charge_id = http.get("/v1/explain/cell?by=team", headers=header(books, "auditor")).json()
    refs = [part["facts"]["charge_id"] for step in charge_id["steps"] if step["step"] == "charge" for part in step["parts"]]
    answer = http.get(f"/v1/explain/{refs[0]}", headers=header(books, "viewer:Care")).json()
    assert answer["cost"] == {"USD": "0.018"}
    (charge,) = [step for step in answer["steps"] if step["step"] == "charge"]
    assert charge["parts"][-1]["sentence"].endswith("of it is others'")
    assert charge["sum"] == {"USD": "0.018"}
    assert "Dev" not in str(answer)
    assert http.get(f"/v1/explain/{refs[0]}", headers=header(books, "viewer:Nobody")).status_code == 404


def test_a_charge_of_others_takes_the_reads_of_a_charge_that_is_not_there(
    books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long the answer takes does not tell that a charge exists."""
    cell = http.get("/v1/explain/cell?by=team", headers=header(books, "auditor")).json()
    (charge,) = [part["facts"]["charge_id"] for step in cell["steps"] if step["step"] == "charge" for part in step["parts"]]
    tables: list[str] = []
    scan = Store.scan

    def noted_scan(store: Store, table: Table, *arguments: Any, **options: Any) -> pl.LazyFrame:
        tables.append(table.name)
        return scan(store, table, *arguments, **options)

    monkeypatch.setattr(Store, "scan", noted_scan)
    tables_by_ref, nobody = {}, header(books, "viewer:Nobody")
    for ref in (charge, "no-such-charge-at-all"):
        tables.clear()
        answer = http.get(f"/v1/explain/{ref}", headers=nobody)
        assert answer.status_code == 404
        tables_by_ref[ref] = list(tables), answer.json()["remedy"]
    assert len(set(map(str, tables_by_ref.values()))) == 1


def test_denials_are_in_the_audit_log(books: Books, http: httpx.Client) -> None:
    key = header(books, "viewer:Care")
    assert http.get("/v1/balance", headers=key).status_code == 403
    with books.database.session() as session:
        entries = session.scalars(sa.select(Audit).where(Audit.action == DENIED, Audit.subject == "GET /v1/balance")).all()
    assert entries[-1].actor.startswith("key:")
    assert entries[-1].after == {"status": 403, "reason": "needs books:read over the whole", "denials": 1}


def test_a_platform_team_sets_its_own_budgets_only(books: Books, http: httpx.Client) -> None:
    key, anything = header(books, "platform:Care"), {"If-Match": "*"}
    budget: dict[str, Any] = {"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"}
    assert http.put("/v1/budgets/care", json=budget, headers=key | {"If-None-Match": "*"}).status_code == 200
    assert http.put("/v1/budgets/dev", json=budget | {"scope_name": "Dev"}, headers=key | anything).status_code == 403
    assert (
        http.put(
            "/v1/budgets/dev", json=budget | {"scope_name": "Dev"}, headers=header(books, "admin") | {"If-None-Match": "*"}
        ).status_code
        == 200
    )
    assert http.put("/v1/budgets/dev", json=budget, headers=key | anything).status_code == 403, "nor take another's budget over"
    assert http.delete("/v1/budgets/dev", headers=key | anything).status_code == 403
    assert [row["name"] for row in http.get("/v1/budgets", headers=key).json()["rows"]] == ["care"]


def test_keys_end(books: Books, http: httpx.Client) -> None:
    from ledger.access.keys import revoke_key

    row, key = create_key(books, "short", [Grant("viewer")], actor="test")
    wrong_key = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert http.get("/v1/costs", headers={"Authorization": f"Bearer {wrong_key}"}).status_code == 401
    revoke_key(books, row.key_id, actor="test")
    assert http.get("/v1/costs", headers={"Authorization": f"Bearer {key}"}).status_code == 401
