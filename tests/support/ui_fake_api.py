"""An API with canned answers that fit `api.models`, for the dashboard's tests: a month of a small company, or no figures at all.

Every answer is built from `ATOMS`, so that costs, overview and balance agree, and can be checked by hand.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from api import models as m
from tests.support import ui_fake_comparisons, ui_fake_periods

NOW = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
MONTHS = ["2026-09", "2026-10"]
TOKEN = "open-sesame"
HOSTILE = '<img src=x onerror="window.hacked=1"> $x$ *b* [a](javascript:1)'
CHAIN_ID = "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7"

Atom = dict[str, Any]


def _atom(
    month: str, day: int, cost: str, *, cls: str = "metered", basis: str = "billed", reason: str | None = None, **dims: str | None
) -> Atom:
    who = {
        "team": None,
        "agent": None,
        "model": None,
        "provider": "AWS",
        "service": "Amazon Bedrock",
        "workflow": None,
        "meter": None,
    }
    return {
        "month": month,
        "period": f"{month}-{day:02d}T00:00:00+00:00",
        "cost": Decimal(cost),
        "cost_class": cls,
        "basis": basis,
        "reason": reason,
        "currency": "USD",
        **who,
        **dims,
    }


def _atoms() -> Iterator[Atom]:
    agents = [
        ("Care", "support-bot", "claude-sonnet-4-6", "41.20"),
        ("Care", "refund-clerk", "claude-haiku-4-5", "6.35"),
        ("Dev", "coder", "claude-opus-4-6", "63.77"),
        ("Dev", "reviewer", "gpt-5.2", "12.08"),
        ("Data", "researcher", "claude-sonnet-4-6", "28.401"),
        ("Growth", HOSTILE, "gpt-5.2-mini", "0.0184"),
    ]
    for month, scale in (("2026-09", Decimal("0.8")), ("2026-10", Decimal(1))):
        for day in range(1, 31):
            swing = Decimal(3 + (day * 7) % 5) / 5 * (Decimal("0.4") if day % 7 in (3, 4) else 1)
            for team, agent, model, cost in agents:
                estimated = month == "2026-10" and day > 27
                provider, service = ("OpenAI", "OpenAI API") if model.startswith("gpt") else ("AWS", "Amazon Bedrock")
                amount = str((Decimal(cost) * scale * swing).quantize(Decimal("0.000001")))
                yield _atom(
                    month,
                    day,
                    amount,
                    team=team,
                    agent=agent,
                    model=model,
                    provider=provider,
                    service=service,
                    meter="input_tokens",
                    basis="estimated" if estimated else "billed",
                    workflow="tickets" if team == "Care" else None,
                )
        yield _atom(month, 2, "96.40", cls="unallocated", reason="uncaptured_usage", model="claude-sonnet-4-6")
        yield _atom(month, 2, "18.00", cls="owner", reason="uncaptured_usage", team="Growth")
        yield _atom(month, 5, "210.00", cls="shared", reason="no_logged_use", team="Care")
        yield _atom(month, 9, "75.50", cls="idle", service="Amazon EC2", reason="idle_capacity", team="Data")
        yield _atom(month, 30, "31.117", cls="unallocated", reason="unclassified_sku", service="Amazon OpenSearch")
        yield _atom(month, 30, "-40.00", cls="unallocated", reason="credit")


ATOMS = list(_atoms())
EURO = [{**_atom("2026-10", 3, "12.50", team="Data", agent="researcher"), "currency": "EUR", "provider": "Mistral"}]


def total(atoms: list[Atom]) -> Decimal:
    """Sum of their costs."""
    return sum((a["cost"] for a in atoms), Decimal(0))


def cost_rows(atoms: list[Atom], by: list[str], granularity: str) -> list[dict[str, Any]]:
    """Atoms grouped as the API groups them."""
    cut = {"total": 0, "month": 7, "day": 10, "hour": 13}[granularity]
    keys = [*by, *(k for k in ("currency",) if k not in by)]

    def key(a: Atom) -> tuple[str, ...]:
        return (a["period"][:cut], *(str(_dim(a, k) or "") for k in keys))

    rows = []
    for _, group in groupby(sorted(atoms, key=key), key):
        members = list(group)
        row = {k: _dim(members[0], k) for k in keys}
        start = members[0]["period"][:cut]
        row["period_start"] = {
            0: None,
            7: f"{start}-01T00:00:00+00:00",
            10: f"{start}T00:00:00+00:00",
            13: f"{start}:00:00+00:00",
        }[cut]
        row["cost"] = str(total(members))
        for basis in ("billed", "estimated"):
            row[f"cost_{basis}"] = str(total([a for a in members if a["basis"] == basis]))
        rows.append(row)
    return sorted(rows, key=lambda r: (r["period_start"] or "", -Decimal(r["cost"])))


def _dim(atom: Atom, name: str) -> str | None:
    return atom.get(name.removeprefix("initiator_").removeprefix("executor_"))


def overview(month: str, atoms: list[Atom], view: Any, basis: Any) -> m.Overview:
    """The month at a glance."""
    now = [a for a in atoms if a["month"] == month]
    before = [a for a in atoms if a["month"] < month]
    totals = []
    for currency in sorted({a["currency"] for a in now}, reverse=True):
        mine, past = ([a for a in some if a["currency"] == currency] for some in (now, before))
        lost = total([a for a in mine if a["cost_class"] == "unallocated"])
        totals.append(
            m.MonthTotal(
                currency=currency,
                cost=total(mine),
                previous=total(past),
                change=total(mine) - total(past),
                unallocated=lost,
                billed=total([a for a in mine if a["basis"] == "billed"]),
                estimated=total([a for a in mine if a["basis"] == "estimated"]),
                unallocated_percent=(100 * lost / total(mine)).quantize(Decimal("0.0001")),
            )
        )

    def spenders(dim: str) -> list[m.Spender]:
        rows = []
        for name, currency in sorted({(a[dim], a["currency"]) for a in now}, key=str):
            cost, previous = (total([a for a in some if a[dim] == name and a["currency"] == currency]) for some in (now, before))
            share = (100 * cost / total([a for a in now if a["currency"] == currency])).quantize(Decimal("0.0001"))
            rows.append(
                m.Spender(name=name, currency=currency, cost=cost, previous=previous, change=cost - previous, share_percent=share)
            )
        return sorted(rows, key=lambda r: r.cost, reverse=True)

    reasons = [
        m.ReasonTotal(
            reason=r, currency="USD", cost=total([a for a in now if a["cost_class"] == "unallocated" and a["reason"] == r])
        )
        for r in ("uncaptured_usage", "unclassified_sku", "credit")
    ]
    return m.Overview(
        month=month,
        months=MONTHS,
        timezone="UTC",
        view=view,
        basis=basis,
        totals=totals,
        classes=[],
        teams=spenders("team"),
        agents=spenders("agent"),
        unallocated=reasons,
        alerts=ALERTS,
        problems=3,
    )


ALERTS = [
    m.AlertRow(
        alert_id="a1",
        kind="budget",
        severity="critical",
        subject="care-monthly",
        text="Care has spent US$ 1,690 of its US$ 1,500 for October.",
        created_at=NOW - timedelta(hours=4),
        delivered_at=NOW - timedelta(hours=4),
        attempts=1,
    ),
    m.AlertRow(
        alert_id="a2",
        kind="anomaly",
        severity="warning",
        subject="coder",
        text="coder spent 4 times its usual on 21 October.",
        created_at=NOW - timedelta(days=3),
        attempts=2,
        last_error="the webhook answered 500",
    ),
]


ANOMALIES = [
    m.AnomalyRow(
        scope="agent",
        scope_name="coder",
        day=date(2026, 10, 21),
        currency="USD",
        actual=Decimal("204.50"),
        expected=Decimal("51.02"),
        excess=Decimal("153.48"),
        score_approx=9.1,
    )
]
RETRIES = m.AnomalyRow(
    scope="agent",
    scope_name="support-bot",
    day=date(2026, 10, 12),
    currency="USD",
    actual=Decimal("90.25"),
    expected=Decimal("40.25"),
    excess=Decimal(50),
    score_approx=7.5,
    kind="spike",
    grain="day",
    start_time=datetime(2026, 10, 12, tzinfo=UTC),
    end_time=datetime(2026, 10, 13, tzinfo=UTC),
    is_open=True,
    expected_end=datetime(2026, 10, 17, tzinfo=UTC),
    drivers={"retries": Decimal("60.000000000001"), "volume": Decimal("-10.000000000001")},
    chains=[CHAIN_ID],
    chain_note="three chains of 60 to 72 calls instead of 10 to 20",
    team="Care",
    anomaly_id="a2",
)
"""An anomaly with everything that is known of one; `part_of` it is its team's."""
EXPLAINED = [RETRIES, RETRIES.model_copy(update={"scope": "team", "scope_name": "Care", "anomaly_id": "a3", "part_of": "a2"})]


def _budget(name: str, scope: str, who: str, amount: str, spent: str | None, state: str | None, revision: int = 1) -> m.Budget:
    limit, used = Decimal(amount), None if spent is None else Decimal(spent)
    return m.Budget(
        name=name,
        scope=scope,
        scope_name=who,
        view="initiator",
        amount=limit,
        currency="USD",
        revision=revision,
        recorded_at=NOW - timedelta(days=20),
        month=None if used is None else "2026-10",
        billed=used,
        estimated=None if used is None else Decimal(0),
        spent=used,
        left=None if used is None else limit - used,
        used_percent=None if used is None else 100 * used / limit,
        state=state,
    )


def _terms(budget: m.Budget) -> dict[str, Any]:
    return budget.model_dump(mode="json", include={"name", "scope", "scope_name", "amount", "currency", "view", "revision"})


def budgets() -> list[m.Budget]:
    """Budgets in every state."""
    return [
        _budget("care-monthly", "team", "Care", "1500.00", "1690.4512", "exceeded", 2),
        _budget("dev-monthly", "team", "Dev", "2500.00", "2206.01", "warning"),
        _budget("researcher", "agent", "researcher", "1000", "720.5", "ok"),
        _budget("growth", "team", "Growth", "50", None, None),
    ]


def balance(atoms: list[Atom]) -> list[m.BalanceRow]:
    """Control totals that balance."""
    rows = []
    for month in MONTHS:
        for provider in ("AWS", "OpenAI"):
            mine = [
                a
                for a in atoms
                if a["month"] == month and a["provider"] == provider and a["basis"] == "billed" and a["currency"] == "USD"
            ]
            parts = {
                c: total([a for a in mine if a["cost_class"] == c]) for c in ("metered", "owner", "shared", "idle", "unallocated")
            }
            for column in ("billed_cost", "effective_cost"):
                rounding = Decimal("0.0000000000003") if provider == "AWS" else Decimal(0)
                row = {
                    "currency": "USD",
                    "invoice_month": month,
                    "provider": provider,
                    "cost_column": column,
                    "rounding": rounding,
                }
                rows.append(m.BalanceRow(**row, charges_in=total(mine), difference=Decimal(0), **parts))
    return rows


def evidence(month: str | None, atoms: list[Atom]) -> m.Evidence:
    """A month's money by what it stands on: metered and owned on evidence, estimated and shared on a table, idle on inference, the rest on nothing."""
    chosen = [a for a in atoms if month in (None, "all", a["month"])]

    def stands_on(atom: Atom) -> str:
        classes = {"metered": "evidence", "owner": "evidence", "shared": "table", "idle": "inference"}
        on = classes.get(atom["cost_class"], "nothing")
        return "table" if on == "evidence" and atom["basis"] == "estimated" else on

    def sums(rows: list[Atom]) -> dict[str, Any]:
        parts = {b: total([a for a in rows if a["basis"] == b]) for b in ("billed", "estimated")}
        return {
            "cost": total(rows),
            "cost_billed": parts["billed"],
            "cost_estimated": parts["estimated"],
            "rows": len(rows),
            "rows_without_cost": 0,
        }

    totals = {c: total([a for a in chosen if a["currency"] == c]) for c in sorted({a["currency"] for a in chosen})}
    parts, rows = [], []
    for currency, whole in totals.items():
        for on in ("evidence", "table", "inference", "nothing"):
            part = [a for a in chosen if a["currency"] == currency and stands_on(a) == on]
            unknown = 364 if on == "nothing" else 0
            sums_of_part: dict[str, Any] = {"evidence": on, "currency": currency, **sums(part), "calls_without_cost": unknown}
            parts.append(m.EvidencePart(**sums_of_part, percent=100 * sums_of_part["cost"] / whole))
            because: dict[str, Any] = {"column": "cost_class", "value": on, "emitter": None, "emitter_version": None}
            if on == "table":
                because = {"column": "reading", "value": "table", "emitter": HOSTILE, "emitter_version": "1.2"}
            rows.append(m.EvidenceRow(**sums_of_part, **because, meaning=f"Why {on}.", remedy="`rootcost prices coverage`"))
    counts = {"table_calls": 616, "assumed_calls": 0, "contradicted_calls": 3, "total_calls": 20, "agreeing_total_calls": 19}
    amounts = {
        "list_cost": "12.87",
        "assumed_cost": None,
        "contradicted_cost": "0.2",
        "compared_cost": "4",
        "reported_cost": "5.5",
    }
    emitters = [
        m.EmitterRow.model_validate(
            {"emitter": HOSTILE, "emitter_version": "1.2", "source": "otlp", "provider": "AWS", "model": "claude-sonnet-4-6"}
            | {"calls": 670, "tokens": 7_163_677, "compared_calls": 20, **counts, **amounts}
        ),
        m.EmitterRow.model_validate(
            {"emitter": "litellm", "emitter_version": None, "source": "litellm", "provider": None, "model": None}
            | {"calls": 9, "tokens": None, "compared_calls": 0, **dict.fromkeys(counts, 0), **dict.fromkeys(amounts)}
        ),
    ]
    finding = {
        "finding": "reported_cost_differs",
        "place": "acme claude-sonnet-4-6",
        "description": "20 calls are reported at 5.5",
    }
    finding |= {"remedy": "compare with `rootcost prices`", "severity": "warning", "source": "attribution", "month": "2026-10"}
    findings = [m.FindingRow.model_validate({**finding, "rows": 20, "cost": "4", "currency": "USD"})]
    return m.Evidence(
        months=MONTHS if atoms else [],
        month=(month or MONTHS[-1]) if atoms else None,
        basis="effective",
        timezone="UTC",
        totals=totals,
        parts=parts,
        rows=rows,
        emitters=emitters if atoms else [],
        findings=findings if atoms else [],
    )


def _call(n: int, model: str, agent: str, team: str, cost: str, inp: int, out: int, reason: str | None = None) -> m.CallCost:
    parts = [("input_tokens", inp, Decimal(cost) * 2 / 5), ("output_tokens", out, Decimal(cost) * 3 / 5)]
    return m.CallCost(
        gateway_call_id=f"call-{n}",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        span_id=f"{n:016x}",
        channels="otlp+litellm",
        start_time=NOW - timedelta(days=9),
        provider="AWS",
        model=model,
        region="us-east-1",
        initiator_agent="support-bot",
        initiator_team="Care",
        executor_agent=agent,
        executor_team=team,
        method="path",
        reason=reason,
        status="ok",
        list_cost=Decimal(cost),
        own_cost={} if reason == "unpriced" else {"USD": Decimal(cost)},
        meters=[m.MeterCost(meter=k, quantity=Decimal(q), own_cost=c, currency="USD", basis="billed") for k, q, c in parts],
    )


def chain_summary(n: int = 0, **changed: Any) -> m.ChainSummary:
    """One chain of the list."""
    said = {
        "chain_id": CHAIN_ID if n == 0 else f"{n:032x}:{n:016x}",
        "month": "2026-10",
        "root_name": "answer ticket" if n == 0 else f"ticket {n}",
        "start_time": NOW - timedelta(days=9, minutes=n),
        "end_time": NOW - timedelta(days=9, minutes=n) + timedelta(seconds=74),
        "initiator_agent": "support-bot",
        "initiator_team": "Care",
        "method": "path",
        "spans": 7,
        "calls": 4,
        "tokens": 18_640 - n,
        "list_cost": Decimal("0.1294") - Decimal(n) / 10000,
        "trace_ids": ["4bf92f3577b34da6a3ce929d0e0e4736"],
    }
    return m.ChainSummary(**{**said, **changed})


def chain_tree() -> m.ChainTree:
    """A chain over two teams: support-bot asks researcher, who calls twice; one call has no price."""
    start = NOW - timedelta(days=9)

    def node(i: int, parent: int | None, depth: int, name: str, own: str, sub: str, **more: Any) -> m.SpanNode:
        money = {key: ({"USD": Decimal(value)} if value else {}) for key, value in (("own_cost", own), ("subtree_cost", sub))}
        return m.SpanNode(
            node_id=f"n{i}",
            parent_id=None if parent is None else f"n{parent}",
            depth=depth,
            edge=more.pop("edge", "root" if parent is None else "parent"),
            name=name,
            channels="otlp",
            start_time=start + timedelta(seconds=i),
            end_time=start + timedelta(seconds=i + 3),
            status="ok",
            **money,
            **more,
        )

    nodes = [
        node(0, None, 0, "answer ticket", "", "0.1181", agent_name="support-bot", operation="invoke_agent", service_name="care"),
        node(
            1,
            0,
            1,
            "chat claude-sonnet-4-6",
            "0.0210",
            "0.0210",
            operation="chat",
            calls=[_call(1, "claude-sonnet-4-6", "support-bot", "Care", "0.0210", 3100, 420)],
        ),
        node(
            2, 0, 1, "research", "", "0.0871", agent_name="researcher", operation="invoke_agent", service_name="data", edge="link"
        ),
        node(3, 2, 2, "search_docs", "", "", tool_name="search_docs", operation="execute_tool"),
        node(
            4,
            2,
            2,
            "chat claude-opus-4-6",
            "0.0871",
            "0.0871",
            operation="chat",
            calls=[_call(2, "claude-opus-4-6", "researcher", "Data", "0.0871", 9800, 1200)],
        ),
        node(
            5,
            2,
            2,
            "chat house-model",
            "",
            "",
            operation="chat",
            calls=[_call(3, "house-model", "researcher", "Data", "0", 2000, 100, "unpriced")],
        ),
        node(
            6,
            0,
            1,
            HOSTILE,
            "0.0100",
            "0.0100",
            operation="chat",
            calls=[_call(4, "claude-haiku-4-5", "support-bot", "Care", "0.0100", 1900, 120)],
        ),
    ]
    return m.ChainTree(chain=chain_summary(), cost={"USD": Decimal("0.1181")}, basis="billed", unpriced_calls=1, nodes=nodes)


PROBLEMS = [
    m.ProblemRow(
        problem_id=f"p{n}",
        file=file,
        line=line,
        field=field,
        reason=reason,
        remedy=remedy,
        severity=severity,
        rows=rows,
        source=source,
        seen_at=NOW,
    )
    for n, (file, line, field, reason, remedy, severity, rows, source) in enumerate(
        [
            (
                "s3://bills/cur/2026-10/part-3.parquet",
                "row 812",
                "line_item_unblended_cost",
                "'12,50' is no decimal number",
                "write it as 12.50",
                "error",
                1,
                "focus",
            ),
            (
                "payloads/2026-10-03.jsonl",
                "line 77",
                "response_cost",
                "the payload ends in the middle",
                "send the file again",
                "error",
                1,
                "litellm",
            ),
            (
                "POST /v1/traces",
                "span 4",
                "gen_ai.usage.input_tokens",
                "-5 is no count",
                "report counts of 0 and more, or drop `usage`",
                "warning",
                12,
                "otlp",
            ),
        ]
    )
]


def problem(status: int, title: str, detail: str, remedy: str = "", errors: list[m.FieldError] | None = None) -> JSONResponse:
    """An RFC 9457 answer."""
    told = m.ProblemDocument(title=title, status=status, detail=detail, remedy=remedy, errors=errors or [])
    return JSONResponse(told.model_dump(mode="json"), status, media_type="application/problem+json")


def _source_run(run: int, name: str, **told: Any) -> m.SourceRunRow:
    began = NOW - timedelta(hours=run)
    known = {"source": "aws-cur", "cause": "schedule", "runner": "host:1", "status": "done", "started_at": began, "seconds": 12.5}
    counts = {"files": 3, "rows": 1200, "rows_changed": 40, "errors": 0, "warnings": 0, "money_in": {}}
    return m.SourceRunRow.model_validate({"run": run, "name": name, **known, "finished_at": began, **counts, **told})


SOURCE_RUNS = [
    _source_run(2, "aws-prod", money_in={"USD": "1234.567890123456"}, newest=NOW - timedelta(hours=30), lag_seconds=108_000),
    _source_run(1, "gateway", source="litellm", status="failed", rows=0, rows_changed=0, error="s3://logs: Access Denied"),
]


def _source(name: str, state: str, **told: Any) -> m.SourceStatus:
    known = {
        "source": "aws-cur",
        "kind": "bill",
        "addresses": ["s3://bills/cur/"],
        "cron": "7 */6 * * *",
        "paused": False,
        "failures": 0,
    }
    lags = {"expected_lag_seconds": 129_600, "stale_after_seconds": 151_200, "stale": False, "created_at": NOW}
    return m.SourceStatus.model_validate({"name": name, "state": state, **known, **lags, **told})


SOURCES = [
    _source(
        "aws-prod",
        "ok",
        newest=NOW - timedelta(hours=30),
        age_seconds=108_000,
        due_at=NOW + timedelta(hours=2),
        last_run=SOURCE_RUNS[0],
    ),
    _source(HOSTILE, "failing", source="litellm", kind="log", addresses=["s3://logs/"], failures=3, last_run=SOURCE_RUNS[1]),
]


def _event(alert: m.AlertRow) -> m.AlertEventRow:
    return m.AlertEventRow(step="opened", at=alert.created_at, actor="system")


def _message(alert: m.AlertRow) -> m.AlertDeliveryRow:
    return m.AlertDeliveryRow(
        delivery_id="d1", alert_id=alert.alert_id, channel="oncall", step="opened", state="dead", created_at=alert.created_at,
        due_at=alert.created_at, attempts=9, status=503, error="HTTP 503",
    )  # fmt: skip


def make_app(
    *,
    empty: bool = False,
    atoms: list[Atom] | None = None,
    now: datetime = NOW,
    rung: list[m.AlertRow] | None = None,
    further_anomalies: Sequence[m.AnomalyRow] = (),
) -> FastAPI:
    """The API. `requests` of its state lists what it was asked, in order; `rung` replaces the alerts, `further_anomalies` come after the others."""
    app = FastAPI()
    app.state.requests = []
    kept: list[Atom] = [] if empty else (ATOMS if atoms is None else atoms)
    limits = [] if empty else budgets()

    @app.middleware("http")
    async def _listen(request: Request, call_next: Any) -> Response:
        app.state.requests.append((request.method, request.url.path, request.url.query))
        answer: Response = await call_next(request)
        return answer

    @app.get("/health")
    def health() -> m.Health:
        return m.Health(status="ok", version="0.1.0")

    @app.get("/v1/overview")
    def get_overview(month: str | None = None, view: str = "initiator", basis: str = "effective") -> m.Overview:
        if empty:
            none: dict[str, Any] = {k: [] for k in ("months", "totals", "classes", "teams", "agents", "unallocated", "alerts")}
            return m.Overview(month=None, timezone="UTC", view=view, basis=basis, problems=0, **none)
        return overview(month or MONTHS[-1], kept, view, basis)

    @app.get("/v1/costs")
    def get_costs(
        by: str = "team,agent",
        view: str = "initiator",
        start: str = "",
        end: str = "9999",
        granularity: str = "total",
        basis: str = "effective",
        keep: list[str] = Query([], alias="filter"),
        as_file: str = Query("json", alias="format"),
    ) -> Response:
        names = [n for n in by.split(",") if n]
        if unknown := [n for n in names if n == "flavour"]:
            return problem(422, "The request means nothing", f"{unknown[0]!r} is no dimension", "valid are: agent, team, model")
        wanted: dict[str, list[str]] = {}
        for one in keep:
            name, _, value = one.partition("=")
            wanted.setdefault(name, []).append(value)
        chosen = [a for a in kept if start <= a["period"] < end and all(str(_dim(a, n) or "") in v for n, v in wanted.items())]
        rows = cost_rows(chosen, names, granularity)
        if as_file == "csv":
            return Response("\n".join(["name,cost", *(f"{r['cost_class']},{r['cost']}" for r in rows)]), media_type="text/csv")
        if as_file == "parquet":
            return Response(b"PAR1", media_type="application/vnd.apache.parquet")
        currencies = sorted({a["currency"] for a in chosen})
        table = {
            "by": names,
            "view": view,
            "basis": basis,
            "granularity": granularity,
            "timezone": "UTC",
            "runs": {"2026-10": "run-7"},
            "rows": rows,
            "totals": {c: str(total([a for a in chosen if a["currency"] == c])) for c in currencies},
        }
        return JSONResponse(table)

    @app.get("/v1/balance")
    def get_balance(month: list[str] = Query([])) -> m.Page[m.BalanceRow]:
        rows = [] if empty else [r for r in balance(kept) if not month or r.invoice_month in month]
        return m.Page[m.BalanceRow](rows=rows, total=len(rows))

    @app.get("/v1/chains")
    def get_chains(
        agent: str | None = None, search: str | None = None, limit: int = 50, offset: int = 0
    ) -> m.Page[m.ChainSummary]:
        rows = [] if empty else [chain_summary(n) for n in range(120)]
        rows = [
            r for r in rows if (agent is None or r.initiator_agent == agent) and (not search or search in (r.root_name or ""))
        ]
        return m.Page[m.ChainSummary](rows=rows[offset : offset + limit], total=len(rows), limit=limit, offset=offset)

    @app.get("/v1/chains/{chain_id}")
    def get_chain(chain_id: str) -> Response:
        if chain_id != CHAIN_ID:
            return problem(404, "Not found", f"no chain {chain_id!r}", "look for it on the page of chains")
        return Response(chain_tree().model_dump_json(), media_type="application/json")

    def story(ref: str, kind: Any) -> m.Explanation:
        cost = {"USD": Decimal("0.018")}
        charge = m.Link(kind="charge", ref="c7", address="/v1/explain/c7")
        part = m.Part(sentence="line 2 of october.csv", cost=Decimal("0.018"), currency="USD", link=charge)
        steps = [
            m.Step(step="charge", rule="RA-1", sentence="It comes from the bill: 1 charge.", parts=[part], sum=cost),
            m.Step(
                step="initiator", rule="CH-4", sentence="support-bot of Care started it.", rest=m.Remainder(count=3, cost=cost)
            ),
        ]
        return m.Explanation(ref=ref, kind=kind, cost=cost, billed=cost, estimated={}, steps=steps)

    @app.get("/v1/explain/cell")
    def explain_cell(request: Request) -> m.Explanation:
        return story(str(request.query_params), "cell")

    @app.get("/v1/explain/{ref}")
    def explain(ref: str) -> m.Explanation:
        return story(ref, "chain")

    @app.get("/v1/budgets")
    def get_budgets(month: str | None = None) -> m.Page[m.Budget]:
        nothing = dict.fromkeys(("month", "billed", "estimated", "spent", "left", "used_percent", "state"))
        rows = [b if month in (None, b.month) else b.model_copy(update=nothing) for b in limits]
        if month == "2026-09":
            rows[0] = _budget("care-monthly", "team", "Care", "1500.00", "1203.25", "ok", 2).model_copy(update={"month": month})
        return m.Page[m.Budget](rows=rows, total=len(rows))

    @app.post("/v1/budgets", status_code=201)
    def add_budget(request: Request, wanted: dict[str, Any]) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "Not allowed", "writing needs the token", "it is printed when `rootcost serve` first starts")
        ((scope, who),) = (wanted.get("scopes") or {wanted["scope"]: wanted["scope_name"]}).items()
        made = _budget(wanted["name"], scope, who, wanted["amount"], None, None)
        limits.append(made)
        return Response(made.model_dump_json(), 201, media_type="application/json")

    @app.delete("/v1/budgets/{name}", status_code=204)
    def drop_budget(name: str) -> None:
        limits[:] = [budget for budget in limits if budget.name != name]

    @app.put("/v1/budgets/{name}")
    def change_budget(request: Request, name: str, wanted: dict[str, Any]) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "Not allowed", "writing needs the token", "it is printed when `rootcost serve` first starts")
        at = next((i for i, b in enumerate(limits) if b.name == name), None)
        if at is None or request.headers.get("If-Match") not in ("*", f'"{limits[at].revision}"'):
            versions = {"expected": _terms(budgets()[0]), "current": None if at is None else _terms(limits[at])}
            document = {"title": "It has changed meanwhile", "status": 412, "detail": "it has changed meanwhile", **versions}
            return JSONResponse(document, 412, media_type="application/problem+json")
        limits[at] = limits[at].model_copy(update={"amount": Decimal(wanted["amount"]), "revision": limits[at].revision + 1})
        return Response(limits[at].model_dump_json(), media_type="application/json")

    @app.get("/v1/agents")
    def agents() -> m.Agents:
        lost = m.UnregisteredAgent(
            agent=HOSTILE, first_seen=NOW, last_seen=NOW, caused={"USD": Decimal("0.5")}, burned={"USD": Decimal("0.4")}
        )
        row = m.AgentRow(kind="agent", name="coder", agent="coder", team="Dev", valid_from=NOW - timedelta(days=90))
        return m.Agents(registered=[] if empty else [row], unregistered=[] if empty else [lost])

    @app.get("/v1/problems")
    def problems(source: str | None = None, severity: str | None = None) -> m.Page[m.ProblemRow]:
        rows = [] if empty else [p for p in PROBLEMS if source in (None, p.source) and severity in (None, p.severity)]
        return m.Page[m.ProblemRow](rows=rows, total=len(rows))

    @app.get("/v1/runs")
    def runs() -> m.Page[m.RunRow]:
        said = {"started_at": NOW - timedelta(hours=2), "months": ["2026-10"]}
        rows = [
            m.RunRow(
                run_id="run-7",
                finished_at=NOW - timedelta(hours=1, minutes=59),
                status="published",
                published_months=["2026-10"],
                cause="new bill",
                **said,
            ),
            m.RunRow(
                run_id="run-6",
                finished_at=None,
                status="failed",
                published_months=[],
                cause="new usage",
                error="the store did not answer",
                **said,
            ),
        ]
        rows = [] if empty else rows
        return m.Page[m.RunRow](rows=rows, total=len(rows))

    @app.get("/v1/alerts/{alert_id}")
    def one_alert(alert_id: str) -> m.AlertDetail:
        alert = next(row for row in ALERTS if row.alert_id == alert_id)
        return m.AlertDetail(**alert.model_dump(), events=[_event(alert)], deliveries=[_message(alert)])

    @app.post("/v1/alerts/{alert_id}/responses")
    def respond(alert_id: str, response: m.AlertResponse) -> m.AlertDetail:
        alert = next(row for row in ALERTS if row.alert_id == alert_id)
        events = [_event(alert), m.AlertEventRow(step=response.action, at=now, actor="eve", text=response.text)]
        return m.AlertDetail(**alert.model_dump() | {"state": "acknowledged"}, events=events, deliveries=[_message(alert)])

    @app.get("/v1/alert-deliveries")
    def deliveries(state: str | None = None) -> m.Page[m.AlertDeliveryRow]:
        rows = [] if empty else [_message(alert) for alert in ALERTS[:1]]
        return m.Page[m.AlertDeliveryRow](rows=rows, total=len(rows))

    @app.get("/v1/alert-channels")
    def channels() -> m.Page[m.AlertChannelRow]:
        row = m.AlertChannelRow(
            name="oncall", kind="pagerduty", teams=["Care"], state="failing", error="HTTP 503", waiting=2, dead=1
        )
        rows = [] if empty else [row]
        return m.Page[m.AlertChannelRow](rows=rows, total=len(rows))

    @app.get("/v1/alerts")
    def alerts(state: str | None = None) -> m.Page[m.AlertRow]:
        rows = [] if empty else ALERTS if rung is None else rung
        rows = [row for row in rows if state in (None, row.state)]
        return m.Page[m.AlertRow](rows=rows, total=len(rows))

    @app.get("/v1/anomalies")
    def anomalies(
        month: str | None = None, scope: str | None = None, kind: str | None = None, anomaly: str | None = None
    ) -> m.Page[m.AnomalyRow]:
        rows = [a for a in (*ANOMALIES, *further_anomalies) if not empty and month in (None, f"{a.day:%Y-%m}")]
        rows = [a for a in rows if scope in (None, a.scope) and kind in (None, a.kind) and anomaly in (None, a.anomaly_id)]
        return m.Page[m.AnomalyRow](rows=rows, total=len(rows))

    ui_fake_comparisons.register(app, empty=empty)
    ui_fake_periods.register(app, empty=empty)

    @app.get("/v1/evidence")
    def get_evidence(month: str | None = None, section: str = "figure", as_file: str = Query("json", alias="format")) -> Response:
        if as_file == "csv":
            return Response(f"{section},{month}\n", media_type="text/csv")
        return Response(evidence(month, kept).model_dump_json(), media_type="application/json")

    @app.get("/v1/sources")
    def sources() -> m.Page[m.SourceStatus]:
        rows = [] if empty else SOURCES
        return m.Page[m.SourceStatus](rows=rows, total=len(rows))

    @app.get("/v1/source-runs")
    def source_runs() -> m.Page[m.SourceRunRow]:
        rows = [] if empty else SOURCE_RUNS
        return m.Page[m.SourceRunRow](rows=rows, total=len(rows))

    @app.get("/v1/freshness")
    def freshness() -> m.Freshness:
        rows = [
            m.SourceFreshness(kind="charges", source="aws-cur", newest=NOW - timedelta(hours=30), age_seconds=108_000),
            m.SourceFreshness(kind="calls", source="otlp", newest=NOW - timedelta(seconds=40), age_seconds=40),
        ]
        return m.Freshness(
            now=now,
            sources=[] if empty else rows,
            published_at=None if empty else NOW - timedelta(hours=2),
            published_months=[] if empty else MONTHS,
            spool_files=0 if empty else 2,
            spool_bytes=0 if empty else 20480,
        )

    return app


def take_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(app: FastAPI, *, port: int = 0) -> Iterator[str]:
    """Serves the app on loopback while the block runs; gives its address."""
    port = port or take_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(5)


if __name__ == "__main__":
    import sys

    uvicorn.run(make_app(empty="empty" in sys.argv), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
