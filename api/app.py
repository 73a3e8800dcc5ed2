"""Assembles the API: routes, access control, problem documents, metrics, health."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from api import errors
from api.access.authentication import Authenticator
from api.access.gates import WholeService
from api.access.hosts import Site
from api.access.middleware import Access
from api.answer_cache import AnswerCache
from api.cursors import CursorSeal
from api.deadlines import BodyDeadline
from api.errors import RequestError
from api.etags import NotModifiedError, ReadingHeaders, TagSeal, not_modified
from api.idempotency import Idempotency
from api.metrics import Metrics, MetricsMiddleware
from api.models import Health
from api.operations import Operations
from api.preconditions import RevisionError, revision_error
from api.rate_limits import RateLimits
from api.receivers import Receivers
from api.routes import (
    access,
    alerts,
    anomalies,
    audit,
    budgets,
    comparisons,
    erasures,
    forecasts,
    imports,
    login,
    people,
    periods,
    prices,
    problem_types,
    provider_login,
    read,
    receive,
    reservations,
    rules,
    sources,
    state,
    statements,
)
from api.security_headers import SecurityHeaders
from ledger import disk
from ledger.audit_denials import DenialLog
from ledger.books import Books
from ledger.errors import RootCostError
from ledger.spool import Spool
from ledger.tables import CHARGES
from ledger.version import product_version

_ABOUT = """Cost of AI by the agent and team that started the work.

Money is a decimal string. Times are ISO 8601; ranges are `[start, end)`. Errors are RFC 9457 documents.
Requests carry `Authorization: Bearer <key>`; without people set up, this machine reads without one.
"""


def create_app(
    books: Books,
    *,
    receivers: Receivers,
    operations: Operations,
    token: str,
    spool: Spool | None = None,
    site: Site | None = None,
) -> FastAPI:
    """The API over open books.

    `receivers` turn telemetry into rows, `operations` manage what it means (both are injected: the API knows no formats); `token` is what changes need;
    `spool` stores received rows until they are merged, HOME/spool by default; `site` is where it is reached, by the settings by default.
    """
    if not token:
        raise ValueError("the token must not be empty")
    receiver_spool = spool or Spool(books.home / "spool")
    metrics, site = Metrics(books, receiver_spool), site or Site.of(books.settings.serve)
    # No interactive pages: they would load scripts from the web.
    app = FastAPI(
        title="RootCost",
        description=_ABOUT,
        version=product_version(),
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    bearer = HTTPBearer(auto_error=False, description="An API key, or the token of HOME/token.")
    strict = Depends(read.refuse_unknown)
    strict_document = [strict, Depends(read.refuse_unacceptable)]
    changing = [Depends(bearer), *strict_document]
    app.include_router(read.router(books.settings), dependencies=strict_document)
    app.include_router(state.router(books.settings, receiver_spool), dependencies=strict_document)
    app.include_router(budgets.reading(books.settings), dependencies=strict_document)
    app.include_router(alerts.reading(), dependencies=strict_document)
    app.include_router(anomalies.reading(), dependencies=strict_document)
    app.include_router(reservations.reading(), dependencies=strict_document)
    app.include_router(imports.reading(), dependencies=strict_document)
    app.include_router(rules.reading(operations.rules), dependencies=strict_document)
    app.include_router(periods.reading(operations.periods), dependencies=strict_document)
    app.include_router(prices.reading(operations.prices), dependencies=strict_document)
    app.include_router(sources.reading(operations.sources), dependencies=strict_document)
    app.include_router(comparisons.router(books.settings), dependencies=strict_document)
    app.include_router(statements.reading(), dependencies=strict_document)
    app.include_router(forecasts.router(books.settings), dependencies=strict_document)
    app.include_router(access.router(), dependencies=strict_document)
    app.include_router(people.router(), dependencies=changing)
    app.include_router(audit.router(), dependencies=strict_document)
    app.include_router(problem_types.router(), dependencies=[strict])
    app.include_router(budgets.writing(), dependencies=changing)
    app.include_router(erasures.router(operations.erasures), dependencies=changing)
    app.include_router(alerts.writing(), dependencies=changing)
    app.include_router(anomalies.writing(), dependencies=changing)
    app.include_router(reservations.writing(), dependencies=changing)
    app.include_router(imports.writing(), dependencies=changing)
    app.include_router(periods.writing(operations.periods), dependencies=changing)
    app.include_router(statements.writing(), dependencies=changing)
    app.include_router(prices.writing(operations.prices), dependencies=changing)
    app.include_router(rules.writing(operations.rules), dependencies=changing)
    app.include_router(sources.writing(operations.sources), dependencies=changing)
    app.state.books = books
    app.state.evaluator_delay = str  # nothing is late where nothing evaluates; `rootcost serve` sets it
    app.state.cursor_seal = CursorSeal(token)
    app.state.etag_key = sha256(b"etag\0" + token.encode()).digest()
    app.state.tag_seal = TagSeal(app.state.etag_key, books.settings)
    app.state.denials = DenialLog(books.database)
    app.state.authenticator = Authenticator(books, token=token)
    app.state.keep = receive.SpoolWriter(receiver_spool, metrics)
    app.include_router(receive.router(books, app.state.keep, receivers), dependencies=[Depends(bearer)])
    login_service = login.LoginService(books, site)
    app.include_router(login.router(login_service))
    app.include_router(access.discovery())
    app.include_router(access.session_states(books))
    app.include_router(provider_login.router(login_service))
    _service(app, books, receiver_spool, metrics)
    errors.install(app)
    app.add_exception_handler(NotModifiedError, not_modified)
    app.add_exception_handler(RevisionError, revision_error)
    answer_bytes = books.settings.serve.answer_cache_mb << 20
    seals = {"seal": app.state.tag_seal, "cursor_seal": app.state.cursor_seal}
    app.add_middleware(AnswerCache, books=books, **seals, max_bytes=answer_bytes)
    app.add_middleware(ReadingHeaders)
    max_body_bytes = books.settings.serve.max_body_mb << 20
    app.add_middleware(Idempotency, database=books.database, max_body_bytes=max_body_bytes)
    app.add_middleware(BodyDeadline, seconds=books.settings.serve.request_seconds)
    app.add_middleware(RateLimits, quota=books.settings.serve.requests_per_minute)
    app.add_middleware(Access, authenticator=app.state.authenticator, denials=app.state.denials, site=site)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    return app


def _service(app: FastAPI, books: Books, spool: Spool, metrics: Metrics) -> None:
    @app.get("/health", tags=["service"], summary="Whether the process answers")
    def health() -> Health:
        """Does not use the store or the database. A full disk is told, and that alerts are not evaluated; the process is alive."""
        failures = {"disk": disk.shortage(books.folders) or "", "alerts": app.state.evaluator_delay()}
        checks = {name: failure for name, failure in failures.items() if failure}
        return Health(status="degraded" if checks else "ok", checks=checks, version=product_version())

    @app.get(
        "/ready", tags=["service"], summary="Whether the process can do its work", responses={503: read.ERROR_RESPONSES[503]}
    )
    def ready() -> Health:
        """Store and database answer, and the spool can be written."""
        checks = {"store": _store(books), "database": _database(books), "spool": _spool(spool)}
        checks["disk"] = disk.shortage(books.folders) or "ok"
        failures = {name: state for name, state in checks.items() if state != "ok"}
        if failures:
            detail = "; ".join(f"{name}: {state}" for name, state in failures.items())
            headers = {"Retry-After": str(errors.RETRY_SECONDS)}
            raise RequestError(
                503, "not-ready", detail, where=", ".join(failures), remedy="see the log of `rootcost serve`", headers=headers
            )
        return Health(status="ok", checks=checks, version=product_version())

    @app.get(
        "/metrics",
        tags=["service"],
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    def prometheus(_: WholeService) -> Response:
        """Requests, latency, receivers, spool, age of facts, unallocated share."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _store(books: Books) -> str:
    try:
        books.store.delta(CHARGES)
    except RootCostError as error:
        return error.what
    return "ok"


def _database(books: Books) -> str:
    try:
        with books.database.session() as session:
            session.execute(sa.text("SELECT 1"))
    except (RootCostError, sa.exc.SQLAlchemyError, OSError) as error:
        return type(error).__name__  # the driver's message may contain the address with its password
    return "ok"


def _spool(spool: Spool) -> str:
    return "ok" if os.access(spool.folder, os.W_OK | os.X_OK) else f"{spool.folder} cannot be written"


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, from which docs/api.md is generated."""
    return app.openapi()
