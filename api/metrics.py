"""Prometheus metrics: requests, latency, spool size, freshness of facts, unallocated share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.queries import CostQuery, budget_standings, costs, freshness, overview, published, runs, sources
from api.queries.gate import of_operator
from ledger.books import Books
from ledger.errors import RootCostError
from ledger.periods import next_month, now
from ledger.spool import Spool

_MAX_TEAMS = 500
"""Maximum number of teams in the gauges of cost: labels must stay few."""
_CACHE_SECONDS = 15.0
"""Minimum seconds between reads of the tables, whatever the number of scrapers."""


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, books: Books, spool: Spool) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rootcost_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram("rootcost_http_request_seconds", "Time to answer.", ["method", "route"], registry=self.registry)
        self.received = Counter(
            "rootcost_received_spans",
            "Spans and gateway payloads written down by a receiver.",
            ["receiver"],
            registry=self.registry,
        )
        self.rejected = Counter("rootcost_rejected_items", "Items a receiver refused.", ["receiver"], registry=self.registry)
        self.registry.register(_LedgerCollector(books, spool))

    def text(self) -> bytes:
        """The exposition format, text version."""
        return generate_latest(self.registry)


class _LedgerCollector(Collector):
    """Gauges that are read from the ledger at a scrape."""

    def __init__(self, books: Books, spool: Spool) -> None:
        self._books, self._spool = books, spool
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._gauges: list[GaugeMetricFamily] = []

    def describe(self) -> list[Any]:
        """Empty: registering must not read tables."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        yield _gauge("rootcost_spool_bytes", "Telemetry received but not yet in the ledger.", [([], self._spool.size_bytes())])
        yield _gauge("rootcost_spool_files", "Deliveries received but not yet in the ledger.", [([], len(self._spool.pending()))])
        with self._lock:
            if time.monotonic() - self._read_at > _CACHE_SECONDS:
                try:
                    self._gauges = [
                        *self._ages(),
                        *self._shares(),
                        *self._costs(),
                        *self._budgets(),
                        *self._sources(),
                        _gauge("rootcost_ledger_up", "Whether the ledger answers.", [([], 1)]),
                    ]
                except RootCostError:  # reported as a gauge: a scrape must not fail with the store
                    self._gauges = [_gauge("rootcost_ledger_up", "Whether the ledger answers.", [([], 0)])]
                self._read_at = time.monotonic()
            yield from self._gauges

    def _ages(self) -> Iterator[GaugeMetricFamily]:
        fresh = freshness(of_operator(self._books), self._spool)
        for kind, noun in (("charges", "charge period covered by a bill"), ("calls", "call in a log")):
            ages = [([s.source], s.age_seconds) for s in fresh.sources if s.kind == kind]
            yield _gauge(f"rootcost_newest_{kind}_age_seconds", f"Seconds since the newest {noun}.", ages, ["source"])
        if fresh.published_at is not None:
            yield _gauge(
                "rootcost_published_age_seconds",
                "Seconds since figures were last published.",
                [([], (now() - fresh.published_at).total_seconds())],
            )
        newest = runs(of_operator(self._books)).page(limit=1).rows
        if newest:
            yield _gauge(
                "rootcost_run_age_seconds",
                "Seconds since the newest attribution run began.",
                [([newest[0].status], (now() - newest[0].started_at).total_seconds())],
                ["status"],
            )

    def _sources(self) -> Iterator[GaugeMetricFamily]:
        statuses = sources(of_operator(self._books))
        ages = [([s.name, s.source], float(s.age_seconds)) for s in statuses if s.age_seconds is not None]
        success_ages = [
            ([s.name, s.source], (now() - s.succeeded_at).total_seconds()) for s in statuses if s.succeeded_at is not None
        ]
        gauges = {
            "rootcost_source_age_seconds": ("Seconds since the newest row of a configured source.", ages),
            "rootcost_source_success_age_seconds": ("Seconds since a configured source was last read.", success_ages),
            "rootcost_source_stale_after_seconds": (
                "Age from which a configured source counts as stale.",
                [([s.name, s.source], float(s.stale_after_seconds)) for s in statuses],
            ),
            "rootcost_source_stale": (
                "Whether a configured source is stale.",
                [([s.name, s.source], float(s.stale)) for s in statuses],
            ),
            "rootcost_source_paused": ("Whether it is paused.", [([s.name, s.source], float(s.paused)) for s in statuses]),
            "rootcost_source_failures": (
                "Runs of a configured source that failed in a row.",
                [([s.name, s.source], float(s.failures)) for s in statuses],
            ),
        }
        for name, (description, values) in gauges.items():
            yield _gauge(name, description, values, ["name", "source"])

    def _shares(self) -> Iterator[GaugeMetricFamily]:
        glance = overview(of_operator(self._books), top=0)
        shares = [([t.currency], float(t.unallocated_percent)) for t in glance.totals if t.unallocated_percent is not None]
        yield _gauge(
            "rootcost_unallocated_percent",
            "Percent of the newest month's cost that nobody owns; a statistic, not money.",
            shares,
            ["currency"],
        )
        yield _gauge("rootcost_problems", "Rows in `problems`.", [([], glance.problems)])

    def _costs(self) -> Iterator[GaugeMetricFamily]:
        """Of the newest month only: history belongs to the API, since Prometheus cannot restate."""
        books = of_operator(self._books)
        months = published(books)[-1:]
        if not months:
            return
        month = months[0].month
        query = CostQuery.parse(by="team,basis", start=month, end=next_month(month))
        rows = costs(books, query).filter(pl.col("cost").is_not_null()).head(_MAX_TEAMS)
        values = [
            ([team or "", currency, basis], float(figure))  # a gauge is a float
            for team, currency, basis, figure in rows.select("team", "currency", "basis", "cost").iter_rows()
        ]
        text = "Cost of the newest invoice month by team and basis; for looking at, the exact amount is that of /v1/costs."
        yield _gauge("rootcost_cost_approx", text, values, ["team", "currency", "basis"])

    def _budgets(self) -> Iterator[GaugeMetricFamily]:
        budget_rows = budget_standings(of_operator(self._books), with_outlook=False)
        remainders = [([row.terms.name, row.terms.currency], float(row.available)) for row in budget_rows]
        limits = [(row.terms.name, row.terms.currency, row.amount) for row in budget_rows]
        amounts = [([name, currency], float(limit)) for name, currency, limit in limits]
        text = "What is left of a budget in its newest period; negative when it is exceeded. For looking at."
        yield _gauge("rootcost_budget_remaining_approx", text, remainders, ["budget", "currency"])
        yield _gauge("rootcost_budget_amount_approx", "Amount of a budget. For looking at.", amounts, ["budget", "currency"])


def _gauge(
    name: str, description: str, values: Sequence[tuple[list[str], float]], labels: list[str] | None = None
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, description, labels=labels or [])
    for names, value in values:
        family.add_metric(names, value)
    return family


class MetricsMiddleware:
    """Middleware that counts and times requests by route, not by path: paths contain ids (unbounded cardinality)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and measures its duration."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = (
                scope["method"] if scope["method"] in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE") else "other"
            )
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.latency.labels(method, route).observe(time.perf_counter() - began)
