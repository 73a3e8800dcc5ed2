"""A server on loopback that answers as the admin APIs of OpenAI and Anthropic, GitHub's billing API and Azure's blob storage do, faults included.

It holds facts a day and groups them as it is asked. `faults` are answers it gives first; `before` is called with every request, so that
a test can change the facts while they are read.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

OPENAI_KEY = "sk-admin-test-openai"
ANTHROPIC_KEY = "sk-ant-admin-test"
GITHUB_TOKEN = "github_pat_test"
SAS = "sv=2024-11-04&sp=rl&sig=c2VjcmV0"
_DAY = timedelta(days=1)


@dataclass
class Fault:
    """An answer given instead of the right one: to the next request of this path."""

    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "told by the test", "type": "test"}}'


@dataclass
class Provider:
    """What the server knows, and what it was asked."""

    address: str = ""
    costs: list[dict[str, Any]] = field(default_factory=list)
    """OpenAI: day, amount, and the fields it may be grouped by (project_id, line_item, api_key_id), quantity."""
    usage: list[dict[str, Any]] = field(default_factory=list)
    """OpenAI: day, fields of a completions result."""
    report: list[dict[str, Any]] = field(default_factory=list)
    """Anthropic: day, amount in cents, and the fields of a cost result."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Anthropic: day, fields of a messages usage result."""
    credits: list[dict[str, Any]] = field(default_factory=list)
    """GitHub: day, and the fields of a usage item, which are added up by SKU and model."""
    missing: dict[str, str] = field(default_factory=dict)
    """By day, or by month for GitHub: what the total has that no group has."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Azure: container/name to content."""
    refused_groups: tuple[str, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    before: Callable[[str, dict[str, list[str]]], None] = lambda path, query: None
    page_blobs: int = 2

    def count(self, path: str) -> int:
        """How often a path was asked."""
        return sum(p == path for p, _ in self.asked)


def _grouped(rows: Sequence[dict[str, Any]], by: Sequence[str], sums: Sequence[str]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        group = groups.setdefault(tuple(row.get(name) for name in by), {name: row.get(name) for name in by} | dict.fromkeys(sums))
        for name in sums:
            if row.get(name) is not None:
                group[name] = Decimal(str(row[name])) + (group[name] or 0)
    return list(groups.values())


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        told = self.provider
        told.before(parts.path, query)
        told.asked.append((parts.path, query))
        fault = next((f for f in told.faults if f.path == parts.path), None)
        if fault is not None:
            told.faults.remove(fault)
            self._answer(fault.status, fault.body.encode(), "application/json", fault.headers)
        elif parts.path.startswith("/v1/organization/"):
            self._openai(parts.path, query)
        elif parts.path.startswith("/v1/organizations/"):
            self._anthropic(parts.path, query)
        elif parts.path.endswith("/settings/billing/ai_credit/usage"):
            self._github(parts.path, query)
        else:
            self._azure(parts.path.removeprefix("/"), query)

    def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, told: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(told).encode(), "application/json")

    def _days(self, start: datetime, end: datetime, query: dict[str, list[str]], most: int) -> tuple[list[datetime], str | None]:
        """The days of the page that is asked, and the cursor of the next."""
        limit = int(query.get("limit", ["7"])[0])
        assert 1 <= limit <= most, limit
        first = datetime.fromisoformat(query["page"][0].removeprefix("page_")) if "page" in query else start
        days: list[datetime] = []
        while first < end and len(days) < limit:
            days.append(first)
            first += _DAY
        return days, f"page_{first.isoformat()}" if first < end else None

    def _openai(self, path: str, query: dict[str, list[str]]) -> None:
        if self.headers.get("authorization") != f"Bearer {OPENAI_KEY}":
            self._json({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, 401)
            return
        start, end = (datetime.fromtimestamp(int(query[n][0]), UTC) for n in ("start_time", "end_time"))
        by = query.get("group_by[]", []) + query.get("group_by", [])
        costs = path.endswith("/costs")
        if costs and set(by) & set(self.provider.refused_groups):
            self._json({"error": {"message": f"unknown group_by {by}", "type": "invalid_request_error"}}, 400)
            return
        days, cursor = self._days(start, end, query, 180 if costs else 31)
        buckets = []
        for day in days:
            results = self._openai_costs(day, by) if costs else self._openai_usage(day, by)
            buckets.append(
                {
                    "object": "bucket",
                    "start_time": int(day.timestamp()),
                    "end_time": int((day + _DAY).timestamp()),
                    "results": results,
                }
            )
        self._json({"object": "page", "data": buckets, "has_more": cursor is not None, "next_page": cursor})

    def _openai_costs(self, day: datetime, by: Sequence[str]) -> list[dict[str, Any]]:
        rows = [r for r in self.provider.costs if r["day"] == day.date().isoformat()]
        groups = _grouped(rows, by, ["amount", "quantity"])
        if not by and groups:
            groups[0]["amount"] += Decimal(self.provider.missing.get(day.date().isoformat(), "0"))
        return [
            {
                "object": "organization.costs.result",
                "amount": {"value": f"{g['amount']:.30f}", "currency": "usd"},
                "line_item": g.get("line_item"),
                "project_id": g.get("project_id"),
                "project_name": "Main" if g.get("project_id") else None,
                "api_key_id": g.get("api_key_id"),
                "organization_id": "org-bright",
                "organization_name": "Brightwater",
                "user_id": None,
                "user_email": None,
                "quantity": float(g["quantity"]) if "line_item" in by and g["quantity"] is not None else None,
            }
            for g in groups
        ]

    def _openai_usage(self, day: datetime, by: Sequence[str]) -> list[dict[str, Any]]:
        names = ["input_tokens", "input_cached_tokens", "output_tokens", "num_model_requests"]
        rows = [r for r in self.provider.usage if r["day"] == day.date().isoformat()]
        results = []
        for group in _grouped(rows, by, names):
            counts = {n: int(group[n] or 0) for n in names}
            results.append({**group, **counts, "object": "organization.usage.completions.result"})
        return results

    def _anthropic(self, path: str, query: dict[str, list[str]]) -> None:
        if self.headers.get("x-api-key") != ANTHROPIC_KEY or not self.headers.get("anthropic-version"):
            self._json({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}, 401)
            return
        start, end = (datetime.fromisoformat(query[n][0]) for n in ("starting_at", "ending_at"))
        by = query.get("group_by[]", [])
        days, cursor = self._days(start, end, query, 31)
        costs = path.endswith("/cost_report")
        buckets = [
            {
                "starting_at": day.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "ending_at": (day + _DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "results": self._anthropic_costs(day, by) if costs else self._anthropic_usage(day, by),
            }
            for day in days
        ]
        self._json({"data": buckets, "has_more": cursor is not None, "next_page": cursor})

    def _anthropic_costs(self, day: datetime, by: Sequence[str]) -> list[dict[str, Any]]:
        rows = [r for r in self.provider.report if r["day"] == day.date().isoformat()]
        told = ["description", "model", "token_type", "cost_type", "service_tier", "context_window", "inference_geo"]
        names = [*(["workspace_id"] if "workspace_id" in by else []), *(told if "description" in by else [])]
        groups = _grouped(rows, names, ["amount"])
        if not by and groups:
            groups[0]["amount"] += Decimal(self.provider.missing.get(day.date().isoformat(), "0"))
        every = dict.fromkeys(["workspace_id", *told])
        return [every | g | {"amount": format(g["amount"], "f"), "currency": "USD"} for g in groups]

    def _anthropic_usage(self, day: datetime, by: Sequence[str]) -> list[dict[str, Any]]:
        names = ["uncached_input_tokens", "cache_read_input_tokens", "w5", "w1", "output_tokens", "searches"]
        rows = [r for r in self.provider.messages if r["day"] == day.date().isoformat()]
        every = dict.fromkeys(["api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo"])
        results = []
        for group in _grouped(rows, by, names):
            count = defaultdict(int, {n: int(group.pop(n) or 0) for n in names})
            results.append(
                every
                | group
                | {
                    "uncached_input_tokens": count["uncached_input_tokens"],
                    "cache_read_input_tokens": count["cache_read_input_tokens"],
                    "cache_creation": {"ephemeral_5m_input_tokens": count["w5"], "ephemeral_1h_input_tokens": count["w1"]},
                    "output_tokens": count["output_tokens"],
                    "server_tool_use": {"web_search_requests": count["searches"]},
                }
            )
        return results

    def _github(self, path: str, query: dict[str, list[str]]) -> None:
        if self.headers.get("authorization") != f"Bearer {GITHUB_TOKEN}" or not self.headers.get("x-github-api-version"):
            self._json({"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest", "status": "401"}, 401)
            return
        kind, account = path.split("/")[1:3]
        stated = {name: int(query[name][0]) for name in ("year", "month", "day") if name in query}
        prefix = "-".join(f"{number:02d}" for number in stated.values())
        names = ["grossQuantity", "grossAmount", "discountQuantity", "discountAmount", "netQuantity", "netAmount"]
        rows = [row for row in self.provider.credits if row["day"].startswith(prefix)]
        groups = _grouped(rows, ["product", "sku", "model", "unitType", "pricePerUnit"], names)
        if groups and prefix in self.provider.missing:
            groups[0]["netAmount"] += Decimal(self.provider.missing[prefix])
        items = [group | {name: float(group[name] or 0) for name in names} for group in groups]
        self._json({"timePeriod": stated, kind.removesuffix("s"): account, "usageItems": items})

    def _azure(self, name: str, query: dict[str, list[str]]) -> None:
        name = unquote(name)
        if query.get("sig") != ["c2VjcmV0"]:
            body = '<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code><Message>no valid signature</Message></Error>'
            self._answer(403, body.encode(), "application/xml")
        elif query.get("comp") == ["list"]:
            prefix, at = query.get("prefix", [""])[0], query.get("marker", [""])[0]
            found = sorted(n for n in self.provider.blobs if n.startswith(f"{name}/{prefix}") and n >= at)
            page, more = found[: self.provider.page_blobs], found[self.provider.page_blobs :]
            entries = "".join(
                f"<Blob><Name>{escape(n.removeprefix(name + '/'))}</Name><Properties>"
                f"<Last-Modified>Mon, 12 Oct 2026 04:00:00 GMT</Last-Modified><Etag>{_etag(self.provider.blobs[n])}</Etag>"
                f"<Content-Length>{len(self.provider.blobs[n])}</Content-Length></Properties></Blob>"
                for n in page
            )
            body = (
                '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
                f"{entries}</Blobs><NextMarker>{escape(more[0]) if more else ''}</NextMarker></EnumerationResults>"
            )
            self._answer(200, body.encode(), "application/xml")
        elif name in self.provider.blobs:
            self._blob(self.provider.blobs[name])
        else:
            self._answer(404, b"<Error><Code>BlobNotFound</Code></Error>", "application/xml")

    def _blob(self, content: bytes) -> None:
        etag = f'"{_etag(content)}"'
        if self.headers.get("if-match") not in (None, etag):
            self._answer(412, b"<Error><Code>ConditionNotMet</Code></Error>", "application/xml")
            return
        span = self.headers.get("range")
        first, last = (int(n) for n in span.removeprefix("bytes=").split("-")) if span else (0, len(content) - 1)
        self._answer(206 if span else 200, content[first : last + 1], "application/octet-stream", {"etag": etag})


def _etag(content: bytes) -> str:
    return f"0x{zlib.crc32(content):X}"


@contextmanager
def serving() -> Iterator[Provider]:
    """A running server."""
    provider = Provider()
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    provider.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
