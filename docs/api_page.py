"""docs/api.md: the API's own OpenAPI document in prose, with answers that a real ledger gave.

The ledger is the worked example of docs/concepts.md (docs/example). Ids and times that differ from run to run are made fixed.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent / "example"
BASE = "http://127.0.0.1:8787"
CHAIN = f"{1:032x}:{1:016x}"
METRICS = "GET /metrics"
MAX_ITEMS = 2
"""Lists of an example are cut after this many items."""

_FIXED: Mapping[str, Any] = {
    "now": "2026-11-02T08:00:00Z",
    "seen_at": "2026-11-02T07:30:00Z",
    "recorded_at": "2026-11-02T07:30:00Z",
    "created_at": "2026-11-02T07:30:05Z",
    "changed_at": "2026-11-02T07:30:05Z",
    "budget_id": "bud-234d348c3d5900cc",
    "started_at": "2026-11-02T07:30:00Z",
    "finished_at": "2026-11-02T07:30:04Z",
    "published_at": "2026-11-02T07:30:04Z",
    "age_seconds": 2415600,
    "version": "0.1.0",
}
_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
_TAGS = {
    "reading": "Reading",
    "writing": "Changes",
    "access": "People, keys and sessions",
    "receiving": "Receiving telemetry",
    "service": "Service",
}

ASKED: Mapping[str, str] = {
    "GET /v1/costs": "/v1/costs?by=team,agent&start=2026-10&end=2026-11",
    "GET /v1/balance": "/v1/balance?month=2026-10",
    "GET /v1/overview": "/v1/overview?month=2026-10",
    "GET /v1/chains": "/v1/chains?team=Care",
    "GET /v1/chains/{chain_id}": f"/v1/chains/{CHAIN}",
    "GET /v1/explain/cell": "/v1/explain/cell?start=2026-10&end=2026-11&filter=team=Care&most=1",
    "GET /v1/explain/{ref}": f"/v1/explain/{CHAIN}",
    "GET /v1/budgets": "/v1/budgets",
    "GET /v1/budgets/{name}": "/v1/budgets/care-monthly",
    "GET /v1/agents": "/v1/agents",
    "GET /v1/alerts": "/v1/alerts?limit=1",
    "GET /v1/anomalies": "/v1/anomalies",
    "GET /v1/problems": "/v1/problems",
    "GET /v1/runs": "/v1/runs",
    "GET /v1/sources": "/v1/sources",
    "GET /v1/source-runs": "/v1/source-runs",
    "GET /v1/schedule": "/v1/schedule",
    "GET /v1/exchange-rates": "/v1/exchange-rates",
    "GET /v1/rules": "/v1/rules",
    "GET /v1/prices": "/v1/prices?model=gpt-4o&meter=input_tokens",
    "GET /v1/prices/staged": "/v1/prices/staged",
    "GET /v1/price-book": "/v1/price-book",
    "GET /v1/agents/history": "/v1/agents/history?agent=support-bot",
    "GET /v1/gaps": "/v1/gaps?start=2026-10&granularity=day",
    "GET /v1/freshness": "/v1/freshness",
    "GET /v1/me": "/v1/me",
    "GET /v1/roles": "/v1/roles",
    "GET /health": "/health",
    "GET /ready": "/ready",
}
SENT: Mapping[str, tuple[str, str, str]] = {
    "POST /v1/budgets": (
        "/v1/budgets",
        "application/json",
        '{"name": "data-monthly", "scope": "team", "scope_name": "Data", "amount": "1500.00", "currency": "USD"}',
    ),
    "PUT /v1/budgets/{name}": (
        "/v1/budgets/data-monthly",
        "application/json",
        '{"scope": "team", "scope_name": "Data", "amount": "2000.00", "currency": "USD"}',
    ),
    "DELETE /v1/budgets/{name}": ("/v1/budgets/data-monthly", "", ""),
    "POST /v1/sources": (
        "/v1/sources",
        "application/json",
        '{"name": "aws-prod", "source": "aws-cur", "addresses": ["s3://billing/exports/company-cur2/"], "cron": "15 */6 * * *"}',
    ),
    "PATCH /v1/schedule/{name}": ("/v1/schedule/aws-prod", "application/json", '{"paused": true}'),
    "DELETE /v1/sources/{name}": ("/v1/sources/aws-prod", "", ""),
    "POST /v1/agents/import": (
        "/v1/agents/import?name=agents.csv",
        "text/csv",
        "agent,team,valid_from\nsupport-bot,Growth,2026-12-01\n",
    ),
    "POST /v1/agents": (
        "/v1/agents?preview=true",
        "application/json",
        '{"agent": "support-bot", "team": "Growth", "valid_from": "2026-12-01"}',
    ),
    "POST /v1/rules": (
        "/v1/rules",
        "application/json",
        '{"name": "support", "service": "AWS Support", "method": "even"}',
    ),
    "PUT /v1/rules/{name}": (
        "/v1/rules/support",
        "application/json",
        '{"service": "AWS Support", "method": "fixed", "shares": {"Care": "2", "Data": "1"}}',
    ),
    "DELETE /v1/rules/{name}": ("/v1/rules/support", "", ""),
    "POST /v1/rules/preview": (
        "/v1/rules/preview",
        "application/json",
        '{"month": "2026-10", "rules": [{"name": "rest", "reason": "uncaptured_usage", "method": "even", "teams": ["Care", "Data"]}]}',
    ),
    "POST /v1/erasures/preview": (
        "/v1/erasures/preview",
        "application/json",
        '{"period": {"start": "2026-08", "end": "2026-09"}, "reason": "end of a contract"}',
    ),
    "POST /v1/prices/import": (
        "/v1/prices/import?preview=true&origin=contract&name=contract.csv",
        "text/csv",
        "provider,model,meter,unit,rate,currency,valid_from\nopenai,gpt-4o,input_tokens,1M tokens,2.10,USD,2026-10-01\n",
    ),
    "POST /v1/exchange-rates/import": (
        "/v1/exchange-rates/import?name=ecb.csv",
        "text/csv",
        "date,from,to,rate,source\n2026-10-01,EUR,USD,1.0842,ECB\n",
    ),
    "POST /v1/traces": ("/v1/traces", "application/json", '{"resourceSpans": []}'),
    "POST /v1/litellm": (
        "/v1/litellm",
        "application/json",
        '[{"id": "chatcmpl-1", "litellm_call_id": "c-1", "call_type": "acompletion", "model": "openai/gpt-4o", "startTime": 1791194400}]',
    ),
}
IF_MATCH: Mapping[str, str] = {
    "PUT /v1/budgets/{name}": '"1"',
    "DELETE /v1/budgets/{name}": '"2"',
    "PUT /v1/rules/{name}": '"1"',
    "DELETE /v1/rules/{name}": '"2"',
    "PATCH /v1/schedule/{name}": "*",
    "DELETE /v1/sources/{name}": "*",
}


def page(mark: str) -> Iterator[str]:
    """The lines of docs/api.md."""
    with tempfile.TemporaryDirectory() as folder:
        document, answers = _asked(Path(folder))
    yield "# API"
    yield ""
    yield mark
    yield ""
    yield f"`rootcost serve` answers on `{BASE}` (see `serve.port`); `{BASE}/openapi.json` describes it for machines."
    yield ""
    yield "* It listens on this machine only, and answers only where the Host header is `127.0.0.1`, `localhost`, `::1` or one of"
    yield "  `serve.allowed_hosts`. Others get 421."
    yield "* Until [people](access.md) are set up, reading is open to this machine. Everything else needs `Authorization: Bearer <key>`,"
    yield "  or the cookie of a log-in."
    yield "  The token in `HOME/token` is such a key; the first start prints it."
    yield "* Money is a decimal string. Times are ISO 8601, ranges are `[start, end)`. An unknown parameter is refused with 422, not ignored."
    yield "* Lists are JSON, or `application/x-ndjson`, `text/csv`, `application/vnd.apache.parquet` and `application/vnd.apache.arrow.stream`, by `Accept` or"
    yield "  `?format=`. JSON comes in pages: `next` is the `cursor` of the next one. A file has all rows, and is streamed; when that fails"
    yield "  in the middle, the connection is cut. `RootCost-Rows` and `RootCost-Totals` say number and sums of all rows."
    yield "* Readings have an `ETag`; with `If-None-Match` an answer that is still the same gets 304, and is not made. A tag belongs to the query, the accepted"
    yield "  types and the key or person: nobody else's matches it. Answers that tell an age (`/v1/sources`, `/v1/freshness`) have none."
    yield "  Answers with a tag are kept in memory, up to `serve.answer_cache_mb`, and sent to who has the same roles while they hold."
    yield "* What can be changed has its version as strong `ETag`. A change sends it as `If-Match`: without one it gets 428, and 412 with both versions"
    yield "  (`expected`, `current`) if somebody changed it meanwhile. `If-Match: *` changes whatever is there, `If-None-Match: *` makes something new."
    yield "* A change with `Idempotency-Key` may be sent again when its answer was lost: within a day the same key with the same request gets the stored answer"
    yield "  (`RootCost-Replayed: true`), with another request 422, and 409 while the first is being made. Errors and secrets are not stored."
    yield "* HEAD is answered like GET, without the body."
    yield "* In CSV, texts that begin like a formula have an apostrophe before them. Parquet, Arrow and NDJSON have them as they are."
    yield "* Errors are RFC 9457 documents (`application/problem+json`) with `where` and `remedy`; `type` leads to a page about [its kind](problems.md)."
    yield "* `agent` and `team` in `by` and `filter` mean those of the chosen `view`; `initiator_agent`, `executor_team` … can be named in any view."
    yield ""
    yield f"The answers below come from the ledger of [the worked example](concepts.md#a-worked-example). Lists are cut after {MAX_ITEMS} items."
    yield ""
    operations = [
        (verb.upper(), path, operation) for path, verbs in document["paths"].items() for verb, operation in verbs.items()
    ]
    for tag, title in _TAGS.items():
        yield f"## {title}"
        yield ""
        for verb, path, operation in operations:
            if tag in operation["tags"]:
                yield from _operation(verb, path, operation, answers.get(f"{verb} {path}"))
    yield "## Models"
    yield ""
    for name, schema in sorted(document["components"]["schemas"].items()):
        if not name.startswith("Page_") and not name.endswith("ValidationError"):
            yield from _model(name, schema)


def _operation(verb: str, path: str, operation: Mapping[str, Any], answer: tuple[int, str] | None) -> Iterator[str]:
    from generate import grid

    yield f"### {verb} {path}"
    yield ""
    yield f"{operation['summary']}. {operation.get('description', '')}".strip()
    yield ""
    if operation.get("parameters"):
        rows = []
        for parameter in operation["parameters"]:
            schema = parameter["schema"]
            fallback = schema.get("default")
            description = parameter.get("description") or schema.get("description", "")
            rows.append(
                [
                    f"`{parameter['name']}`",
                    parameter["in"],
                    _kind(schema),
                    "required" if parameter["required"] else "" if fallback in (None, []) else f"`{fallback}`",
                    description,
                ]
            )
        yield from grid(["parameter", "in", "type", "default", "meaning"], rows)
    if body := operation.get("requestBody"):
        kinds = [f"`{kind}`{_of(content.get('schema', {}))}" for kind, content in body["content"].items()]
        yield f"Body: {', '.join(kinds)}."
        yield ""
    yield f"Answers: {'; '.join(f'{status}: {_answer(r)}' for status, r in sorted(operation['responses'].items()))}."
    yield ""
    yield from _example(f"{verb} {path}", answer)


def _answer(response: Mapping[str, Any]) -> str:
    """A response in words; what everybody knows of success is left to its model."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    description = response.get("description", "")
    if description == "Successful Response":
        description = "done"
    return f"{description}{_of(schema)}" if "ProblemDocument" not in str(schema) else description


def _example(key: str, answer: tuple[int, str] | None) -> Iterator[str]:
    from generate import grid

    if answer is None:
        return
    if key == METRICS:
        metrics = re.findall(r"^# HELP (rootcost_\w+) (.*)\n# TYPE \S+ (\w+)", answer[1], re.MULTILINE)
        yield from grid(
            ["metric", "type", "meaning"],
            [[f"`{name}`", kind, meaning] for name, meaning, kind in metrics if not name.endswith("_created")],
        )
        return
    if key in ASKED:
        yield "```bash"
        yield f"curl '{BASE}{ASKED[key]}'"
        yield "```"
    else:
        path, kind, body = SENT[key]
        verb = key.split(" ")[0]
        yield "```bash"
        yield f"curl -X {verb} '{BASE}{path}' -H \"Authorization: Bearer $(cat .rootcost/token)\"{_condition(key)}" + (
            " \\" if body else ""
        )
        if body:
            escaped_body = body.replace("\n", "\\n")
            yield f"  -H 'Content-Type: {kind}' --data-binary {'$' if escaped_body != body else ''}'{escaped_body}'"
        yield "```"
    yield ""
    status, text = answer
    if text:
        yield "```json"
        yield text
        yield "```"
    else:
        yield f"{status}, without a body."
    yield ""


def _condition(key: str) -> str:
    return f" -H 'If-Match: {IF_MATCH[key]}'" if key in IF_MATCH else ""


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return _linked(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    if schema.get("format") == "decimal":
        return "decimal string"
    return {"date-time": "time", "date": "date"}.get(schema.get("format", ""), str(schema.get("type", "any")))


def _linked(ref: str) -> str:
    name = ref.rsplit("/", 1)[-1]
    inner = re.fullmatch(r"Page_(\w+)_", name)
    return f"page of [{inner[1]}](#{inner[1].lower()})" if inner else f"[{name}](#{name.lower()})"


def _of(schema: Mapping[str, Any]) -> str:
    return f", {_linked(schema['$ref'])}" if "$ref" in schema else ""


def _model(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    from generate import grid

    yield f"### {name}"
    yield ""
    yield schema.get("description", "").replace("\n", " ")
    yield ""
    required_names = schema.get("required", [])
    fields = [
        [f"`{key}`", _kind(f), "" if key in required_names else "may be absent", f.get("description", "")]
        for key, f in schema["properties"].items()
    ]
    yield from grid(["field", "type", "", "meaning"], fields)
    for example in schema.get("examples", []):
        yield "```json"
        yield json.dumps(example, indent=2, ensure_ascii=False)
        yield "```"
        yield ""


# ── a ledger that answers ───────────────────────────────────────────────────────────────────────────────────────────────


def _asked(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """The API's description, and what it answers to the examples: status and body."""
    from api.app import create_app
    from ledger.books import Books
    from rootcost.operations import all_operations
    from rootcost.service.receivers import Parsers

    with Books.open(folder / "home") as books:
        _fill(books, folder)
        app = create_app(books, receivers=Parsers(books.settings.ingest), operations=all_operations(), token="token")
        answers = asyncio.run(_answers(app, str(folder)))
        document: dict[str, Any] = app.openapi()
    return document, answers


async def _answers(app: Any, folder: str) -> dict[str, tuple[int, str]]:
    import httpx

    answers: dict[str, tuple[int, str]] = {}
    requests = [(key, path, "", "") for key, path in ASKED.items()] + [(key, *sent) for key, sent in SENT.items()]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers={"Authorization": "Bearer token"}
    ) as client:
        for key, path, kind, body in requests:
            headers = {"Content-Type": kind} if kind else {}
            if key in IF_MATCH:
                headers["If-Match"] = IF_MATCH[key]
            answer = await client.request(key.split(" ")[0], path, content=body, headers=headers)
            assert answer.status_code < 300, (key, answer.text)
            answers[key] = (answer.status_code, _shown(answer.json(), folder) if answer.content else "")
        answers[METRICS] = (200, (await client.get("/metrics")).text)
    return answers


def _fill(books: Any, folder: Path) -> None:
    """The worked example, a line that cannot be read, and a budget that is too small."""
    from decimal import Decimal

    from api.changes import add_budget
    from api.models import NewBudget
    from api.queries import of_operator
    from attribution.monitoring import budgets
    from attribution.run import attribute
    from ingest.run import ingest
    from ledger import registry
    from rootcost.pricebook import at_hand

    bill = (EXAMPLE / "bill.csv").read_text(encoding="utf-8")
    damaged_bill = bill.splitlines()[1].replace("0.030000000000", "three cents", 1)
    (folder / "bill.csv").write_text(f"{bill}{damaged_bill}\n", encoding="utf-8")
    ingest(books, "focus", [str(folder / "bill.csv")])
    ingest(books, "otlp", [str(EXAMPLE / "traces.json")])
    registry.import_csv(books, EXAMPLE / "agents.csv")
    add_budget(
        of_operator(books),
        NewBudget(name="care-monthly", scope="team", scope_name="Care", amount=Decimal("0.015"), currency="USD"),
    )
    at_hand(books)
    attribute(books, cause="command")
    budgets.evaluate(books)


def _shown(answer: Any, folder: str) -> str:
    text = json.dumps(_settled(answer), indent=2, ensure_ascii=False)
    return _RUN.sub("20261102T073000-5e1f0c2a", text.replace(f"{folder}/", "/bills/"))


def _settled(value: Any, key: str = "") -> Any:
    """The answer without what differs from run to run, and with short lists."""
    if key in _FIXED and value is not None:
        return _FIXED[key]
    if key in ("inputs", "alert_id", "problem_id", "usage_key"):
        return {} if isinstance(value, dict) else "…"
    if key == "tree":
        return "… as /v1/chains/{chain_id} answers"
    if isinstance(value, dict):
        return {name: _settled(field_value, name) for name, field_value in value.items()}
    if isinstance(value, list) and key != "sentences":
        return [_settled(item) for item in value[:MAX_ITEMS]]
    return value
