"""A LiteLLM gateway's spend log, as PostgreSQL holds it and as ``/spend/logs/v2`` gives it."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg import sql

from tests.support.postgres_server import faked_clock

BASELINE = """
CREATE TABLE "LiteLLM_SpendLogs" (
    "request_id" TEXT NOT NULL PRIMARY KEY, "call_type" TEXT NOT NULL, "api_key" TEXT NOT NULL DEFAULT '',
    "spend" DOUBLE PRECISION NOT NULL DEFAULT 0.0, "total_tokens" INTEGER NOT NULL DEFAULT 0,
    "prompt_tokens" INTEGER NOT NULL DEFAULT 0, "completion_tokens" INTEGER NOT NULL DEFAULT 0,
    "startTime" TIMESTAMP(3) NOT NULL, "endTime" TIMESTAMP(3) NOT NULL, "completionStartTime" TIMESTAMP(3),
    "model" TEXT NOT NULL DEFAULT '', "model_id" TEXT DEFAULT '', "model_group" TEXT DEFAULT '',
    "custom_llm_provider" TEXT DEFAULT '', "api_base" TEXT DEFAULT '', "user" TEXT DEFAULT '', "metadata" JSONB DEFAULT '{}',
    "cache_hit" TEXT DEFAULT '', "cache_key" TEXT DEFAULT '', "request_tags" JSONB DEFAULT '[]', "team_id" TEXT, "end_user" TEXT,
    "requester_ip_address" TEXT, "messages" JSONB DEFAULT '{}', "response" JSONB DEFAULT '{}'
);
CREATE INDEX ON "LiteLLM_SpendLogs" ("startTime");
"""
"""The table as LiteLLM's migrations made it in March 2025."""

SINCE = """
ALTER TABLE "LiteLLM_SpendLogs" ADD COLUMN "proxy_server_request" JSONB DEFAULT '{}', ADD COLUMN "session_id" TEXT,
    ADD COLUMN "status" TEXT, ADD COLUMN "mcp_namespaced_tool_name" TEXT, ADD COLUMN "organization_id" TEXT,
    ADD COLUMN "agent_id" TEXT, ADD COLUMN "request_duration_ms" INTEGER, ADD COLUMN "litellm_call_id" TEXT,
    ADD COLUMN "billing_agent_id" TEXT, ADD COLUMN "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    ADD COLUMN "updated_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP;
CREATE INDEX ON "LiteLLM_SpendLogs" ("startTime", "request_id");
CREATE INDEX ON "LiteLLM_SpendLogs" ("litellm_call_id");
"""
"""What later migrations added, until September 2026."""


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """The address of a PostgreSQL of our own on loopback, gone afterwards. The role `postgres` needs no password."""
    # The server refuses to run as root; the package's own user may, in a folder it can reach.
    cluster = Path(tempfile.mkdtemp(prefix="rootcost-postgres-"))
    root = os.geteuid() == 0
    if root:
        shutil.chown(cluster, "postgres")
    user_options: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
    run_options: dict[str, Any] = {
        "check": True,
        "capture_output": True,
        "env": {"PATH": os.environ["PATH"], "LC_ALL": "C", **faked_clock()},
        "cwd": cluster,
    }
    subprocess.run(
        [programs / "initdb", "-D", cluster / "data", "-A", "trust", "-U", "postgres", "-E", "UTF8"],
        **run_options,
        **user_options,
    )
    only = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    (cluster / "data" / "pg_hba.conf").write_text(only)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    control: list[str | Path] = [programs / "pg_ctl", "-D", cluster / "data", "-w", "-l", cluster / "log"]
    subprocess.run(
        [*control, "-o", f"-p {port} -h 127.0.0.1 -k {cluster} -c fsync=off -c timezone=Asia/Kolkata", "start"],
        **run_options,
        **user_options,
    )
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run_options, **user_options)
        shutil.rmtree(cluster)


class Gateway:
    """The gateway's own database: a table that LiteLLM writes and we only read."""

    def __init__(self, address: str, *, old: bool = False, schema: str = "public") -> None:
        self.address = address
        self.connection = psycopg.connect(address, autocommit=True)
        if schema != "public":
            self.run(f'CREATE SCHEMA "{schema}"; SET search_path = "{schema}"')
        self.run(BASELINE if old else BASELINE + SINCE)
        self._columns = BASELINE if old else BASELINE + SINCE

    def run(self, statement: str) -> None:
        """Any statement."""
        self.connection.execute(statement.encode())

    def write(self, *rows: dict[str, Any]) -> None:
        """Rows as LiteLLM writes them, those columns that this version of the table has; an id that is there stays as it is."""
        for row in rows:
            values = {k: v for k, v in row.items() if f'"{k}"' in self._columns and v is not None}
            self.connection.execute(
                sql.SQL('INSERT INTO "LiteLLM_SpendLogs" ({}) VALUES ({}) ON CONFLICT DO NOTHING').format(
                    sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join([sql.Placeholder()] * len(values))
                ),
                [json.dumps(v) if isinstance(v, (dict, list)) else v for v in values.values()],
            )

    def close(self) -> None:
        """Leaves the server to others."""
        self.connection.close()


def row(number: int, started: datetime, **changes: Any) -> dict[str, Any]:
    """A row of an ordinary call: 1200 tokens in, of which 1024 cached, 80 out; 0.00252 dollars."""
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 80,
        "total_tokens": 1280,
        "prompt_tokens_details": {"cached_tokens": 1024},
    }
    told = started.astimezone(UTC).replace(tzinfo=None)
    return {
        "request_id": f"chatcmpl-{number}", "litellm_call_id": f"call-{number}", "call_type": "acompletion", "api_key": "hash-1",
        "spend": 0.0025200000000000005, "prompt_tokens": 1200, "completion_tokens": 80, "total_tokens": 1280, "startTime": told,
        "endTime": told, "model": "openai/gpt-4o", "model_group": "gpt-4o", "custom_llm_provider": "openai", "cache_hit": "False",
        "metadata": {"usage_object": usage, "litellm_call_id": f"call-{number}"}, "request_tags": [], "status": "success",
        "session_id": f"session-{number % 3}", "messages": {"role": "secret prompt"}, "response": {"choices": "secret answer"},
    } | changes  # fmt: skip


class SpendLogServer:
    """``/spend/logs/v2`` on loopback: both ends of the range count, ties are in no order, the total is told up to 10 000."""

    KEY = "sk-of-a-viewer"
    MOST = 10_000

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.disorder = 1
        """0: rows that began at the same instant are in the same order on every page."""
        self.before: Callable[[dict[str, str]], int | None] = lambda _: None
        """Called before each answer; a number is the status to refuse with."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                status, answer = server.answer(parts.path, query, self.headers.get("authorization", ""))
                body = answer if isinstance(answer, bytes) else json.dumps(answer, default=str).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, query: dict[str, str], key: str) -> tuple[int, Any]:
        """What the gateway says."""
        if path != "/spend/logs/v2":
            return 404, {"detail": "Not Found"}
        if key != f"Bearer {self.KEY}":
            return 401, {"error": {"message": "Authentication Error, Invalid proxy server token passed", "code": "401"}}
        self.asked.append(query)
        if (status := self.before(query)) is not None:
            return status, {"error": {"message": "try again"}}
        first, last = (
            datetime.strptime(query[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for name in ("start_date", "end_date")
        )
        page, size = int(query["page"]), int(query["page_size"])
        assert size <= 1000 and query["sort_by"] == "startTime" and query["sort_order"] == "asc"
        rows_in_range = [r for r in self.rows if first <= r["startTime"].replace(tzinfo=UTC) <= last]
        random.Random(self.disorder * page).shuffle(rows_in_range)
        rows_in_range.sort(key=lambda r: r["startTime"])
        total = min(len(rows_in_range), self.MOST)
        page_rows = [
            {k: v for k, v in r.items() if k not in ("messages", "response")}
            for r in rows_in_range[(page - 1) * size : page * size]
        ]
        for r in page_rows:
            r["startTime"], r["endTime"] = (
                r[name].isoformat(timespec="milliseconds") + "+00:00" for name in ("startTime", "endTime")
            )
        pages = -(-total // size)
        return 200, {"data": page_rows, "total": total, "page": page, "page_size": size, "total_pages": pages} | (
            {"total_is_capped": True} if len(rows_in_range) > self.MOST else {}
        )

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
