"""The API over HTTP: every failure is a problem document, nothing changes without the token, the client says it in Python."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa

from api.client import ApiProblem, Client
from api.models import BudgetChange, NewBudget
from ledger import db
from ledger.books import Books
from ledger.errors import StoreUnreachable
from ledger.problems import Problem, to_frame
from ledger.tables import ANOMALIES, PROBLEMS
from tests.support.api_examples import CHAIN_1, RUN, TOKEN, SmallReceivers, frame, reach, write_worked_example
from tests.support.paths import ROOT

AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def http(books: Books) -> Iterator[httpx.Client]:
    write_worked_example(books)
    with reach(books) as client:
        yield client


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The app over empty books, for what never gets as far as the books."""
    with Books.open(tmp_path_factory.mktemp("bare")) as books, reach(books) as client:
        yield client


@pytest.fixture
def client(http: httpx.Client) -> Client:
    return Client("http://127.0.0.1", TOKEN, http=http)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The document of an error, which every error must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("/problems/")
    assert document["title"]
    return document


# reading


def test_money_travels_as_text(http: httpx.Client) -> None:
    answer = http.get("/v1/costs", params={"by": "team", "view": "executor"}).json()
    assert answer["totals"] == {"USD": "0.03"}
    assert answer["rows"][0] == {
        "period_start": None,
        "team": "Data",
        "currency": "USD",
        "cost": "0.012",
        "cost_billed": "0.012",
        "cost_estimated": "0",
        "omitted_rows": 0,
        "omitted_cost": None,
    }
    assert answer["runs"] == {"2026-10": RUN}
    assert http.get("/v1/balance").json()["rows"][0]["difference"] == "0"


def test_costs_come_as_files_too(http: httpx.Client) -> None:
    params = {"by": "team,model", "granularity": "day", "filter": ["team=Care", "team=Dev"]}
    csv = http.get("/v1/costs", params={**params, "format": "csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines()[1] == "Care,M,2026-10-05T00:00:00+00:00,USD,0.018,0.018,0"
    parquet = pl.read_parquet(io.BytesIO(http.get("/v1/costs", params={**params, "format": "parquet"}).content))
    assert parquet["cost"].sum() == Decimal("0.027")


def test_the_client_reads_what_the_queries_say(client: Client) -> None:
    table = client.costs(
        by=["team", "agent"],
        view="initiator",
        start="2026-10",
        end="2026-11",
        filters={"team": ["Care", "Dev"], "currency": "USD"},
    )
    assert [(r.get("team"), r.get("agent"), r.cost) for r in table.rows] == [
        ("Care", "support-bot", Decimal("0.018")),
        ("Dev", "coder", Decimal("0.009")),
    ]
    assert client.costs(by=["reason"], filters={"team": ""}).totals == {"USD": Decimal("0.003")}
    assert len(client.balance(["2026-10"]).rows) == 4
    assert client.chains(team="Care").rows[0].chain_id == CHAIN_1
    assert client.chain(CHAIN_1).nodes[0].subtree_cost == {"USD": Decimal("0.018")}
    assert client.explain("charge-1").kind == "charge"
    assert client.overview().month == "2026-10"
    assert {s.kind: s.source for s in client.freshness().sources} == {"charges": "focus", "calls": "otlp"}
    assert client.health().status == client.ready().status == "ok"
    assert client.costs_file("csv", by=["currency"]).splitlines()[-1] == b"USD,0.03,0.03,0"
    assert (client.alerts().total, client.anomalies().total, client.problems().total, client.runs().total) == (0, 0, 0, 0)


def test_unregistered_agents_are_listed_until_they_are_registered(client: Client) -> None:
    assert [(a.agent, a.caused.get("USD"), a.burned.get("USD")) for a in client.agents().unregistered] == [
        ("support-bot", Decimal("0.018"), Decimal("0.006")),
        ("researcher", None, Decimal("0.012")),
        ("coder", Decimal("0.009"), Decimal("0.009")),
    ]
    report = client.import_agents("agent,team,aliases\nsupport-bot,Care,\nresearch,Data,researcher\n,Nobody,\n", name="who.csv")
    assert (report.agents, report.names) == (2, 3)
    assert [(p.file, p.line, p.field, p.reason) for p in report.problems] == [("who.csv", "line 4", "agent", "is empty")]
    assert [a.agent for a in client.agents().unregistered] == ["coder"]
    assert ("alias", "researcher", "research", "Data") in [(a.kind, a.name, a.agent, a.team) for a in client.agents().registered]


def test_alerts_anomalies_problems_and_runs_come_newest_first(client: Client, books: Books) -> None:
    at = [datetime(2026, 10, day, tzinfo=UTC) for day in (1, 2)]
    with books.database.session() as session:
        for n, when in enumerate(at):
            session.add(
                db.Alert(
                    alert_id=f"a{n}",
                    kind="budget",
                    severity="critical",
                    subject="Care",
                    text=f"told {n}",
                    payload={"n": n},
                    created_at=when,
                    attempts=0,
                )
            )
            session.add(
                db.Run(
                    run_id=f"run-{n}",
                    started_at=when,
                    finished_at=when,
                    status="published",
                    months=["2026-10"],
                    inputs={},
                    cause="bill",
                )
            )
    rows = [
        Problem("focus", "a.csv", f"line {n}", "BilledCost", "is no number", "mend it", severity=s)
        for n, s in ((10, "error"), (9, "warning"))
    ]
    books.store.append(PROBLEMS, to_frame([*rows, rows[0]]))
    day = {"month": "2026-10", "run_id": RUN, "scope": "team", "scope_name": "Care", "currency": "USD", "score_approx": 4.2}
    amounts = {"actual": Decimal(9), "expected": Decimal(2), "excess": Decimal(7)}
    books.store.append(ANOMALIES, frame(ANOMALIES, [{**day, **amounts, "day": when.date()} for when in at]))
    assert [a.text for a in client.alerts().rows] == ["told 1", "told 0"]
    assert [(r.run_id, r.published_months) for r in client.runs().rows] == [("run-1", ["2026-10"]), ("run-0", [])]
    assert [(p.file, p.line, p.severity) for p in client.problems().rows] == [
        ("a.csv", "line 9", "warning"),
        ("a.csv", "line 10", "error"),
    ]
    assert client.problems(severity="error", limit=1).total == 1
    assert [a.day.day for a in client.anomalies().rows] == [2, 1]
    assert [client.anomalies(month=month).total for month in ("2026-09", "2026-10")] == [0, 2]
    assert [client.anomalies(scope=scope).total for scope in ("team", "agent")] == [2, 0]
    assert [client.anomalies(kind=kind).total for kind in ("spike", "new")] == [2, 0], "rows of older versions have no kind"
    assert [client.anomalies(is_open=is_open).total for is_open in (False, True)] == [2, 0]
    assert [client.anomalies(anomaly_id=anomaly).total for anomaly in ("a1", "")] == [0, 0]
    assert client.overview().problems == 2


# changing


def test_a_budget_is_revised_never_overwritten(client: Client, books: Books) -> None:
    care = NewBudget(name="care", scope="team", scope_name="Care", amount=Decimal("1500.00"), currency="USD")
    assert client.add_budget(care).revision == 1
    with pytest.raises(ApiProblem) as conflict:
        client.add_budget(care)
    assert (conflict.value.status, conflict.value.document.where) == (409, "care")
    assert client.change_budget(
        "care", BudgetChange(scope="team", scope_name="Care", amount=Decimal("0.01"), currency="USD")
    ).amount == Decimal("0.01")
    assert [(b.month, b.state, b.spent) for b in client.budgets(month="2026-09").rows] == [("2026-09", "ok", Decimal(0))]
    assert [(b.month, b.state, b.spent) for b in client.budgets(month="2026-11").rows] == [("2026-11", "no data", Decimal(0))]
    (budget,) = client.budgets().rows
    assert (budget.revision, budget.month, budget.state, budget.spent, budget.left, budget.used_percent) == (
        2,
        "2026-10",
        "exceeded",
        Decimal("0.018"),
        Decimal("-0.008"),
        Decimal(180),
    )
    budget_id = budget.budget_id
    renamed_budget = client.change_budget("care", BudgetChange(rename="care-monthly", reason="clearer"))
    assert (renamed_budget.name, renamed_budget.budget_id, renamed_budget.amount) == ("care-monthly", budget_id, Decimal("0.01"))
    assert client.change_budget(budget_id, BudgetChange(rename="care")).name == "care"
    assert [(r.revision, r.name, r.reason) for r in client.budget_revisions("care").rows][:2] == [
        (4, "care", ""),
        (3, "care-monthly", "clearer"),
    ]
    client.drop_budget("care")
    assert client.budgets().rows == []
    with pytest.raises(ApiProblem, match="no such budget"):
        client.drop_budget("care")
    assert client.add_budget(care).revision == 6
    with books.database.session() as session:
        audit = [
            (a.action, a.subject, (a.before or {}).get("amount"), (a.after or {}).get("amount"))
            for a in session.scalars(sa.select(db.Audit))
        ]
        assert len(session.scalars(sa.select(db.BudgetRevision)).all()) == 6
        assert session.scalars(sa.select(db.Budget.budget_id)).all() == [budget_id]
    assert audit == [
        ("budget.add", "care", None, "1500"),
        ("budget.change", "care", "1500", "0.01"),
        ("budget.change", "care-monthly", "0.01", "0.01"),
        ("budget.change", "care", "0.01", "0.01"),
        ("budget.drop", "care", "0.01", None),
        ("budget.add", "care", None, "1500"),
    ]


def test_the_audit_log_is_listed_by_keyset_and_filter(client: Client, http: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        client.add_budget(NewBudget(name=name, scope="team", scope_name="Care", amount=Decimal(1), currency="USD"))
    assert http.delete("/v1/budgets/a").status_code == 401  # the client of these tests sends no token by itself
    first = client.audit(limit=3)
    second = client.audit(limit=3, cursor=first.next)
    client.drop_budget("a")  # entries that come meanwhile move no page
    assert [e.object for e in (*first.rows, *second.rows)] == ["DELETE /v1/budgets/a", "c", "b", "a"]
    assert (first.total, second.next, client.audit(limit=3, cursor=first.next)) == (
        4,
        None,
        second.model_copy(update={"total": 5}),
    )
    denial = first.rows[0]
    assert (denial.actor, denial.action, denial.after) == (
        "anonymous",
        "access.denied",
        {"status": 401, "reason": "this request needs a key", "denials": 1},
    )
    assert denial.personal.keys() == {"address"}
    (drop_entry,) = client.audit(actor="key:first", action="budget.drop", object="a", start="2026-01").rows
    assert (drop_entry.actor_kind, drop_entry.previous_hash) == ("key", denial.hash)
    assert client.audit(end="2026-01").rows == []
    problem(http.get("/v1/audit", params={"start": "2026-02", "end": "2026-01"}), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/budgets"),
        ("PUT", "/v1/budgets/x"),
        ("DELETE", "/v1/budgets/x"),
        ("POST", "/v1/traces"),
        ("POST", "/v1/agents/import"),
        ("POST", "/v1/litellm"),
        ("PATCH", "/nowhere"),
    ],
)
@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xfc"]
)
def test_nothing_changes_without_the_token(bare: httpx.Client, method: str, path: str, given: str | None) -> None:
    headers = {} if given is None else {b"Authorization": given.encode("latin-1")}
    answer = bare.request(method, path, headers=headers, content=b"{}")
    assert problem(answer, 401)["where"] == "Authorization"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8787", "", "[::2]", "10.0.0.1"]
)
def test_a_name_that_is_not_this_machine_is_not_answered(bare: httpx.Client, host: str) -> None:
    assert problem(bare.get("/v1/costs", headers={"Host": host}), 421)["where"] == "Host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8787", "127.0.0.1:1", "[::1]:8787"])
def test_loopback_names_are_answered(bare: httpx.Client, host: str) -> None:
    assert bare.get("/health", headers={"Host": host}).status_code == 200


def test_no_other_origin_is_let_in(bare: httpx.Client) -> None:
    answer = bare.get("/v1/costs", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# failing


@pytest.mark.parametrize(
    ("path", "status", "where"),
    [
        ("/v1/costs?by=teem", 400, "by"),
        ("/v1/costs?filter=team", 400, "filter"),
        ("/v1/costs?start=soon", 400, "start"),
        ("/v1/costs?start=0001-01-01T00:00:00%2B12:00", 400, "start"),
        ("/v1/costs?start=2026-10&end=2026-09", 400, "end"),
        ("/v1/costs?view=both", 422, "view"),
        ("/v1/costs?teams=Care", 422, "teams"),
        ("/v1/budgets?x=1", 422, "x"),
        ("/v1/budgets?month=October", 400, "month"),
        ("/v1/anomalies?month=2026-13", 400, "month"),
        ("/v1/chains?limit=0", 422, "limit"),
        ("/v1/balance?month=13", 400, "month"),
        ("/v1/overview?month=2026-1x", 400, "month"),
        ("/v1/chains/no/such/chain", 404, "no/such/chain"),
        ("/v1/explain/nothing", 404, "nothing"),
        ("/v1/nowhere", 404, ""),
        ("/docs", 404, ""),
    ],
)
def test_every_failure_is_a_document(bare: httpx.Client, path: str, status: int, where: str) -> None:
    document = problem(bare.get(path), status)
    assert document["where"] == where
    assert document["remedy"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "b", "scope": "team", "scope_name": "Care", "amount": 12.5, "currency": "USD"}, "amount"),
        ({"name": "b", "scope": "team", "scope_name": "Care", "amount": "NaN", "currency": "USD"}, "amount"),
        ({"name": "b", "scope": "team", "scope_name": "Care", "amount": "-1", "currency": "USD"}, "amount"),
        ({"name": "b/c", "scope": "team", "scope_name": "Care", "amount": "1", "currency": "USD"}, "name"),
        ({"name": "b", "scope": "team", "scope_name": 7, "amount": "1", "currency": "USD"}, "scope_name"),
        ({"name": "b", "scope": "team", "scope_name": "Care", "amount": "1", "currency": "usd"}, "currency"),
        ({"name": "b", "scope": "team", "scope_name": "Care", "amount": "1", "currency": "USD", "amonut": "2"}, "amonut"),
    ],
)
def test_a_wrong_budget_names_the_field(bare: httpx.Client, body: dict[str, Any], field: str) -> None:
    document = problem(bare.post("/v1/budgets", json=body, headers=AUTH), 422)
    assert [e["field"] for e in document["errors"]] == [field]


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/budgets"), ("PUT", "/v1/budgets/x")])
def test_a_body_has_to_say_that_it_is_json(bare: httpx.Client, method: str, path: str) -> None:
    document = problem(bare.request(method, path, content=b'{"scope": "team"}', headers=AUTH), 415)
    assert (document["where"], document["remedy"]) == ("Content-Type", "send application/json")
    assert document["detail"] == "the request has no Content-Type"


def test_what_is_no_json_is_told_with_its_place(bare: httpx.Client) -> None:
    document = problem(bare.post("/v1/budgets", content=b"{bad", headers={**AUTH, "Content-Type": "application/json"}), 422)
    assert document["where"] == "body"
    assert document["detail"].startswith("body: is no JSON at character 2: ")


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("DELETE", "/v1/costs", "GET, HEAD"),
        ("OPTIONS", "/v1/budgets", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/budgets/care-october", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/v1/chains/a/b", "GET, HEAD"),
        ("GET", "/v1/traces", "POST"),
    ],
)
def test_a_wrong_method_names_the_right_ones(bare: httpx.Client, method: str, path: str, methods: str) -> None:
    answer = bare.request(method, path, headers=AUTH)
    problem(answer, 405)
    assert answer.headers["allow"] == methods


def test_a_registry_that_cannot_be_read(http: httpx.Client) -> None:
    problem(http.post("/v1/agents/import", content=b"agent,team\n", headers=AUTH), 415)
    headers = {**AUTH, "Content-Type": "text/csv"}
    assert "columns agent" in problem(http.post("/v1/agents/import", content=b"name\n", headers=headers), 400)["detail"]
    problem(http.post("/v1/agents/import", content=b"\xff\xfe", headers=headers), 400)


def test_a_store_that_does_not_answer_is_said_and_retried_later(
    http: httpx.Client, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise StoreUnreachable("connection refused", where="s3://books", remedy="check the store's address")

    monkeypatch.setattr(books.store, "delta", down)
    answer = http.get("/v1/costs")
    assert problem(answer, 503)["detail"] == "connection refused"
    assert answer.headers["retry-after"] == "5"
    assert problem(http.get("/ready"), 503)["where"] == "store"
    assert http.get("/health").status_code == 200
    assert "rootcost_ledger_up 0.0" in http.get("/metrics").text


def test_our_own_faults_tell_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    with reach(books) as http:
        monkeypatch.setattr(books.store, "scan", lambda *_, **__: 1 / 0)
        answer = http.get("/v1/problems")
    document = problem(answer, 500)
    assert "division" not in answer.text
    assert document["remedy"]


def test_the_client_says_when_nobody_answers(free_port: Any) -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as nobody, pytest.raises(ApiProblem) as fault:
        nobody.overview()
    assert fault.value.status == 0
    assert "rootcost serve" in fault.value.remedy


def test_the_client_passes_on_what_a_stranger_says() -> None:
    http = httpx.Client(
        base_url="http://x", transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<h1>Bad Gateway</h1>"))
    )
    with pytest.raises(ApiProblem) as fault:
        Client("http://x", http=http).budgets()
    assert (fault.value.status, fault.value.title) == (502, "Bad Gateway")


def test_the_token_cannot_be_empty(books: Books) -> None:
    from api.app import create_app
    from rootcost.operations import all_operations

    with pytest.raises(ValueError, match="token must not be empty"):
        create_app(books, receivers=SmallReceivers(), operations=all_operations(), token="")


# watching


def test_metrics_count_by_route_not_by_path(http: httpx.Client) -> None:
    http.get("/v1/chains/one")
    http.get("/v1/chains/two")
    http.get("/v1/nowhere-in-particular")
    text = http.get("/metrics").text
    assert 'rootcost_http_requests_total{method="GET",route="/v1/chains/{chain_id:path}",status="404"} 2.0' in text
    assert "nowhere-in-particular" not in text
    assert 'rootcost_unallocated_percent{currency="USD"} 10.0' in text
    assert 'rootcost_newest_charges_age_seconds{source="focus"}' in text
    assert "rootcost_spool_bytes 0.0" in text


def test_the_dashboard_and_the_rules_ask_for_what_there_is(http: httpx.Client) -> None:
    """Every metric that docs/monitoring names is exposed, and every address of the dashboard answers with its columns."""
    http.put(
        "/v1/budgets/care",
        json={"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"},
        headers=AUTH | {"If-None-Match": "*"},
    )
    text = http.get("/metrics").text
    assert 'rootcost_cost_approx{basis="billed",currency="USD",team="Care"} 0.018' in text
    assert 'rootcost_budget_amount_approx{budget="care",currency="USD"} 5.0' in text
    monitoring = ROOT / "docs/monitoring"
    rules, dashboard = (monitoring / name for name in ("prometheus-rules.yml", "grafana-dashboard.json"))
    names = set(re.findall(r"rootcost_[a-z_]+", rules.read_text() + dashboard.read_text()))
    assert {name for name in names if f"# TYPE {name} " not in text} == set()
    targets = [target for panel in json.loads(dashboard.read_text())["panels"] for target in panel["targets"] if "url" in target]
    assert targets
    for target in targets:
        frame = pl.read_csv(io.BytesIO(http.get(target["url"]).content))
        assert {column["selector"] for column in target["columns"]} <= set(frame.columns)


def test_every_error_is_described_as_the_problem_document_that_it_is(bare: httpx.Client) -> None:
    errors = [
        (path, status, answer)
        for path, methods in bare.get("/openapi.json").json()["paths"].items()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert len(errors) > 50
    assert [(path, status) for path, status, answer in errors if "application/problem+json" not in answer["content"]] == []


def test_the_description_is_complete(bare: httpx.Client) -> None:
    described = bare.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("description"), (method, path)
            for parameter in operation.get("parameters", []):
                assert parameter.get("description") or parameter["name"] in ("view", "basis"), (path, parameter["name"])
    for name, model in described["components"]["schemas"].items():
        for field, schema in model.get("properties", {}).items():
            assert schema.get("description") or "$ref" in schema, (name, field)
    assert (
        described["components"]["schemas"]["BalanceRow"]["properties"]["charges_in"]["description"]
        == "sum of the charges; null where none of them has the column"
    )
