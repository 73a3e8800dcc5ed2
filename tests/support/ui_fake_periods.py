"""Canned months in the books for the dashboard's tests: October, which can be closed, and September, which is closed and adjusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from api import models as m

CLOSED_AT = datetime(2026, 10, 5, 9, 30, tzinfo=UTC)
TOKEN = "open-sesame"


def months() -> dict[str, m.PeriodRow]:
    """By month, newest first."""
    october = m.PeriodRow(month="2026-10", state="provisional", revision=0, run_id="run-7", blocking=["estimates"])
    documents = [
        m.PeriodDocumentRow(number="2026-09-1", month="2026-09", kind="actual", run_id="run-5", made_by="user:fay", made_at=CLOSED_AT),
        m.PeriodDocumentRow(
            number="2026-09-2", month="2026-09", kind="adjustment", run_id="run-6", adjusts="2026-09-1", made_by="attribution",
            made_at=CLOSED_AT + timedelta(days=9),
        ),
    ]  # fmt: skip
    booking: dict[str, Any] = {"closed_by": "user:fay", "closed_at": CLOSED_AT, "documents": documents}
    september = m.PeriodRow(month="2026-09", state="closed", revision=1, run_id="run-6", **booking)
    return {"2026-10": october, "2026-09": september}


CHECKS = [
    m.PeriodCheck(item="month_over", passed=True, blocks=True, waivable=False, figure="it ended 2026-11-01"),
    m.PeriodCheck(
        item="estimates",
        passed=False,
        blocks=True,
        waivable=True,
        figure="394.73 USD",
        remedy="bring in the bill: `rootcost ingest`",
    ),
    m.PeriodCheck(item="invoice_ids", passed=False, blocks=False, waivable=True, figure="12 rows", remedy="ask the provider"),
]
"""Of October; those of September have passed."""
STATEMENTS = [
    m.StatementRow(
        team="Care", number="2026-10/Care", state="provisional", currency="USD", booked=Decimal("41.20"), exact=Decimal("41.199")
    ),
    m.StatementRow(
        team="", number="2026-10/", state="provisional", currency="USD", booked=Decimal("8.80"), exact=Decimal("8.801")
    ),
]
CONTROL = m.StatementControl(
    currency="USD",
    provider="AWS",
    exact=Decimal(50),
    charges_in=Decimal(50),
    difference=Decimal(0),
    booked=Decimal(50),
    invoices=Decimal(50),
)


def register(app: FastAPI, *, empty: bool) -> None:
    """The routes. Changes are kept while the app lives; `changes` of its state lists them, each with its body."""
    by_month = {} if empty else months()
    app.state.changes = []

    @app.get("/v1/periods")
    def periods() -> m.Page[m.PeriodRow]:
        return m.Page[m.PeriodRow](rows=list(by_month.values()), total=len(by_month))

    @app.get("/v1/periods/{month}/checklist")
    def checklist(month: str) -> m.Page[m.PeriodCheck]:
        rows = [check if month == "2026-10" else check.model_copy(update={"passed": True, "remedy": ""}) for check in CHECKS]
        return m.Page[m.PeriodCheck](rows=rows, total=len(rows))

    @app.get("/v1/statements")
    def statements(month: str) -> Response:
        if month == "2026-09":
            return _problem(404, "Not found", "the run of 2026-09 was removed")
        page = m.Page[m.StatementRow](rows=STATEMENTS, total=len(STATEMENTS))
        return Response(page.model_dump_json(), media_type="application/json")

    @app.get("/v1/statements/control")
    def statement_control(month: str) -> m.Page[m.StatementControl]:
        return m.Page[m.StatementControl](rows=[CONTROL], total=1)

    @app.post("/v1/periods/{month}/{verb}")
    def change(request: Request, month: str, verb: str, terms: dict[str, Any]) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _problem(401, "Not allowed", "writing needs the token")
        if request.headers.get("If-Match") != f'"{by_month[month].revision}"':
            return _problem(412, "It has changed meanwhile", "somebody else has changed it")
        app.state.changes.append((month, verb, terms))
        request_fields = {"asked_by": "user:fay", "asked_reason": terms.get("reason")} if verb == "reopen" else {"asked_by": None}
        state = {"close": "closed", "reopen": "closed"}.get(verb, "final" if terms.get("approve") else "closed")
        revision = by_month[month].revision + 1
        by_month[month] = by_month[month].model_copy(update={"state": state, "revision": revision, **request_fields})
        return Response(by_month[month].model_dump_json(), media_type="application/json")


def _problem(status: int, title: str, detail: str) -> Response:
    document = m.ProblemDocument(title=title, status=status, detail=detail)
    return JSONResponse(document.model_dump(mode="json"), status, media_type="application/problem+json")
