"""Google on loopback: BigQuery, Cloud Billing and the Cloud Catalog, as far as our clients ask, in the wire format they document.

It speaks HTTP and JSON as the real ones do (values as text, times in microseconds, pages by token) and can be told to misbehave: to be
busy, to throttle, to refuse, to end an answer early, to change a table between two pages. It knows our three questions by their
parameters and answers them over rows held in Python, which is the second implementation the tests compare with.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]


def refusal(status: int, reason: str, message: str) -> tuple[int, Row]:
    """An error as Google words it."""
    told = {"code": status, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return status, {"error": told}


@dataclass
class Table:
    """A table: its columns, its rows, and what it is parted by."""

    columns: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    parted_by: str | None = ""
    """A column; empty: the time of loading; None: not parted."""


@dataclass
class Google:
    """What the server holds, what it was asked, and how it misbehaves."""

    tables: dict[str, Table] = field(default_factory=dict)
    accounts: list[Row] = field(default_factory=list)
    projects: dict[str, list[Row]] = field(default_factory=dict)
    services: list[Row] = field(default_factory=list)
    skus: dict[str, list[Row]] = field(default_factory=dict)
    page_rows: int = 3
    asked: list[tuple[str, str]] = field(default_factory=list)
    queries: list[Row] = field(default_factory=list)
    faults: list[tuple[str, tuple[int, Row]]] = field(default_factory=list)
    """The next answer to a path that holds the text is this one instead; each is given once."""
    always: list[tuple[str, tuple[int, Row]]] = field(default_factory=list)
    between_pages: Callable[[], None] | None = None
    ends_early: bool = False
    address: str = ""
    _jobs: dict[str, list[Row]] = field(default_factory=dict)
    _schemas: dict[str, list[Row]] = field(default_factory=dict)

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Row) -> tuple[int, Row]:
        """The answer to one request."""
        self.asked.append((method, path))
        for number, (part, told) in enumerate(self.faults):
            if part in path:
                del self.faults[number]
                return told
        for part, told in self.always:
            if part in path:
                return told
        if "/bigquery/v2/" in path:
            return self._bigquery(path.split("/bigquery/v2", 1)[1], query, body)
        return self._billing(path, query)

    # ── BigQuery ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _bigquery(self, path: str, query: Mapping[str, list[str]], body: Row) -> tuple[int, Row]:
        if found := re.fullmatch(r"/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)", path):
            return self._about(".".join(found.groups()))
        if found := re.fullmatch(r"/projects/([^/]+)/datasets/([^/]+)/tables", path):
            prefix = ".".join(found.groups()) + "."
            names = [name.removeprefix(prefix) for name in self.tables if name.startswith(prefix)]
            listed = [
                {"tableReference": dict(zip(("projectId", "datasetId", "tableId"), (*found.groups(), n), strict=True))}
                for n in names
            ]
            return 200, {"tables": listed, "totalItems": len(listed)}
        if re.fullmatch(r"/projects/[^/]+/queries", path):
            return self._query(body)
        if found := re.fullmatch(r"/projects/[^/]+/queries/([^/]+)", path):
            return self._page(found[1], int((query.get("pageToken") or ["0"])[0]))
        if found := re.fullmatch(r"/projects/([^/]+)/jobs/([^/]+)", path):
            return 200, self._job(found[2]) | {"status": {"state": "DONE"}, "configuration": {"query": {}, "jobType": "QUERY"}}
        return refusal(404, "notFound", f"no such path {path}")

    def _about(self, name: str) -> tuple[int, Row]:
        table = self.tables.get(name)
        if table is None:
            return refusal(404, "notFound", f"Not found: Table {name.replace('.', ':', 1)}")
        project, dataset, own = name.split(".")
        told: Row = {
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": own},
            "schema": {"fields": [{"name": column, "type": "STRING"} for column in table.columns]},
            "location": "EU",
            "type": "TABLE",
        }
        if table.parted_by is not None:
            told["timePartitioning"] = {"type": "DAY", **({"field": table.parted_by} if table.parted_by else {})}
        return 200, told

    def _query(self, body: Row) -> tuple[int, Row]:
        self.queries.append(body)
        sql = body["query"]
        name = re.search(r"FROM `([^`]+)`", sql)
        assert name and body["useLegacySql"] is False and body["location"] == "EU"
        if name[1] not in self.tables:
            return refusal(404, "notFound", f"Not found: Table {name[1]}")
        given = {p["name"]: _parameter(p) for p in body.get("queryParameters", ())}
        assert set(given) == set(re.findall(r"@(\w+)", sql)), "every parameter is used, and every one that is used is given"
        columns, rows = _answered(sql, self.tables[name[1]], given)
        job = f"job-{len(self._jobs)}"
        self._jobs[job], self._schemas[job] = rows, [{"name": n, "type": t} for n, t in columns]
        return self._page(job, 0)

    def _page(self, job: str, start: int) -> tuple[int, Row]:
        rows = self._jobs[job]
        end = start + self.page_rows
        more = end < len(rows) and not self.ends_early
        told = {
            **self._job(job),
            "jobComplete": True,
            "kind": "bigquery#queryResponse",
            "schema": {"fields": self._schemas[job]},
            "rows": [{"f": [{"v": row[c["name"]]} for c in self._schemas[job]]} for row in rows[start:end]],
            "totalRows": str(len(rows)),
            "totalBytesProcessed": "10485760",
        }
        if more:
            told["pageToken"] = str(end)
        if self.between_pages and more:
            self.between_pages()
        return 200, told

    def _job(self, job: str) -> Row:
        return {"jobReference": {"projectId": "p", "jobId": job, "location": "EU"}}

    # ── Cloud Billing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _billing(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Row]:
        if path == "/v1/billingAccounts":
            return self._paged("billingAccounts", self.accounts, query)
        if found := re.fullmatch(r"/v1/(billingAccounts/[^/]+)/projects", path):
            return self._paged("projectBillingInfo", self.projects.get(found[1], []), query)
        if path == "/v1/services":
            return self._paged("services", self.services, query)
        if found := re.fullmatch(r"/v1/(services/[^/]+)/skus", path):
            return self._paged("skus", self.skus.get(found[1], []), query)
        return refusal(404, "notFound", f"no such path {path}")

    def _paged(self, name: str, rows: Sequence[Row], query: Mapping[str, list[str]]) -> tuple[int, Row]:
        start = int((query.get("pageToken") or ["0"])[0])
        end = start + self.page_rows
        if self.between_pages and end < len(rows):
            self.between_pages()
        return 200, {name: rows[start:end], "nextPageToken": str(end) if end < len(rows) else ""}


def _parameter(told: Row) -> Any:
    value = told["parameterValue"]["value"]
    if told["parameterType"]["type"] == "TIMESTAMP":
        return datetime.fromisoformat(value)
    return value


def micros(moment: datetime) -> str:
    """A TIMESTAMP as BigQuery's REST API sends it."""
    return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def written(row: Row) -> str:
    """TO_JSON_STRING of a row: times in ISO 8601, numbers as they are."""
    return json.dumps(
        {k: v.isoformat().replace("+00:00", "Z") if isinstance(v, datetime) else v for k, v in row.items() if k != "loaded"}
    )


def _answered(sql: str, table: Table, given: Row) -> tuple[list[tuple[str, str]], list[Row]]:
    """Our own questions, by what they say."""
    day = given.get("day")
    rows = [row for row in table.rows if day is None or row.get("loaded") is None or row["loaded"] >= day]
    if "GROUP BY month, export_time" in sql:
        loads: dict[tuple[str | None, datetime], int] = {}
        for row in rows:
            if row["export_time"] > given["since"]:
                key = (row["invoice"]["month"], row["export_time"])
                loads[key] = loads.get(key, 0) + 1
        kinds = [("month", "STRING"), ("export_time", "TIMESTAMP"), ("charges", "INTEGER")]
        return kinds, [{"month": m, "export_time": micros(t), "charges": str(n)} for (m, t), n in loads.items()]
    if "invoice.month = @month" in sql:
        found = [r for r in rows if r["invoice"]["month"] == given["month"] and r["export_time"] <= given["until"]]
        selected = re.search(r"\(SELECT (.*?) FROM", sql)
        assert selected
        columns = selected[1].split(", ")
        return [("line", "STRING")], [{"line": written({c: r.get(c) for c in columns})} for r in found]
    if "MIN(logging_time)" in sql:
        times = [r["logging_time"] for r in rows if r["logging_time"] > given["since"] and r["logging_time"] < given["until"]]
        kinds = [("first", "TIMESTAMP"), ("last", "TIMESTAMP")]
        return kinds, [{"first": micros(min(times)) if times else None, "last": micros(max(times)) if times else None}]
    found = [r for r in rows if given["since"] <= r["logging_time"] < given["until"]]
    return [("line", "STRING")], [{"line": written(without_words(r))} for r in found]


def without_words(row: Row) -> Row:
    """What our question about a logged call lets through: no prompt and no answer."""
    request, response = row.get("full_request") or {}, row.get("full_response")
    chunks = response if isinstance(response, list) else [response] if response else []
    kept = ("responseId", "modelVersion", "createTime", "usageMetadata", "error")
    return {
        **{
            k: v
            for k, v in row.items()
            if k not in ("full_request", "full_response", "request_payload", "response_payload", "otel_log")
        },
        "full_request": {k: request.get(k) for k in ("model", "endpoint", "labels")},
        "full_response": [{k: chunk.get(k) for k in kept} for chunk in chunks],
        "response_payload": [
            {k: part.get(k) for k in ("type", "id", "model", "usage", "message")}
            for part in map(json.loads, row.get("response_payload") or ())
        ],
    }


@contextmanager
def serving(google: Google) -> Iterator[Google]:
    """Serves it on a free loopback port; `google.address` says where."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            asked = urlsplit(self.path)
            status, told = google.answer(self.command, asked.path, parse_qs(asked.query), body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json; charset=UTF-8")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _reply  # noqa: N815 - names the standard library looks for

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    google.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield google
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
