"""GET routes of what is in force and what happened: the registry, alerts, runs, sources, problems."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api import queries
from api.access.gates import CostRows, RegistryRows, WholeBill, WholeSources
from api.etags import reads
from api.models import (
    AgentRow,
    Agents,
    Freshness,
    GapRow,
    Gaps,
    Page,
    ProblemRow,
    RunRow,
    SourceRunRow,
    SourceStatus,
    UnregisteredAgent,
)
from api.queries.publication import one_publication
from api.routes.answers import ROWS, AnyPage, AnyRows
from api.routes.parameters import End, Start
from api.routes.read import ERROR_RESPONSES
from ledger import db
from ledger.periods import parse_bound
from ledger.settings import Settings
from ledger.spool import Spool
from ledger.tables import METRIC_POINTS, PROBLEMS, SPANS

_PAGE_FIELDS = ("rows", "total", "limit", "offset", "next")


def router(settings: Settings, spool: Spool) -> APIRouter:
    """The GETs under /v1 that show no cost by dimension."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)
    _registry(routes)
    _facts(routes)
    _sources(routes, spool)
    _gaps(routes, settings)
    return routes


def _registry(routes: APIRouter) -> None:
    @routes.get(
        "/agents",
        response_model=Agents | Page[AgentRow] | Page[UnregisteredAgent],
        summary="The registry, and agents missing from it",
        responses=ROWS,
        dependencies=reads(db.Owner),
    )
    def agents(
        books: RegistryRows,
        answer: AnyPage,
        section: Annotated[
            Literal["registered", "unregistered"] | None,
            Query(description="One of the two lists, in pages; none: both whole, and of a file the registered names."),
        ] = None,
    ) -> Response:
        """Every registered name with its owners over time, and agents with cost that are not registered."""

        @one_publication
        def whole_answer() -> Response:
            registry = queries.agents(books)
            if section is None and answer.is_json and answer.is_all:
                return answer.document(registry)
            if section == "unregistered":
                missing = queries.ModelListing(UnregisteredAgent, registry.unregistered, ["agent"], is_of_runs=True)
                return answer(books, missing, "agents-unregistered")
            names = queries.ModelListing(AgentRow, registry.registered, ["kind", "name", "valid_from"])
            return answer(books, names, "agents")

        return whole_answer()


def _facts(routes: APIRouter) -> None:
    @routes.get(
        "/problems",
        response_model=Page[ProblemRow],
        summary="Problems with the input",
        responses=ROWS,
        dependencies=reads(PROBLEMS),
    )
    def problems(
        books: WholeSources,
        answer: AnyPage,
        source: Annotated[str | None, Query(description="Only of this source.")] = None,
        severity: Annotated[Literal["error", "warning"] | None, Query(description="error: left out; warning: kept.")] = None,
    ) -> Response:
        """Newest first, each with a remedy."""
        return answer(books, queries.problems(books, source=source, severity=severity), "problems")

    @routes.get(
        "/runs",
        response_model=Page[RunRow],
        summary="Attribution runs, newest first",
        responses=ROWS,
        dependencies=reads(db.Run),
    )
    def runs(books: WholeBill, answer: AnyPage) -> Response:
        """Including runs that were not published, with the reason."""
        return answer(books, queries.runs(books), "runs")


def _sources(routes: APIRouter, spool: Spool) -> None:
    @routes.get("/sources", response_model=Page[SourceStatus], summary="Configured sources and their state", responses=ROWS)
    def sources(books: WholeSources, answer: AnyRows) -> Response:
        """Schedule, freshness and last run of each source."""
        return answer.whole(queries.ModelListing(SourceStatus, queries.sources(books), ["name"]), "sources")

    @routes.get(
        "/source-runs",
        response_model=Page[SourceRunRow],
        summary="Runs of the configured sources, newest first",
        responses=ROWS,
        dependencies=reads(db.SourceRun),
    )
    def all_source_runs(books: WholeSources, answer: AnyPage) -> Response:
        """Of all sources, including removed ones."""
        return answer(books, queries.source_runs(books), "source-runs")

    @routes.get(
        "/sources/{name}/runs",
        response_model=Page[SourceRunRow],
        summary="Runs of one configured source, newest first",
        responses=ROWS,
        dependencies=reads(db.SourceRun),
    )
    def source_runs(
        books: WholeSources, answer: AnyPage, name: Annotated[str, Path(description="Name of the source.")]
    ) -> Response:
        """Rows, money in, duration and lag of each run."""
        return answer(books, queries.source_runs(books, name), "source-runs")

    @routes.get("/freshness", summary="Freshness of the facts")
    def freshness(books: CostRows) -> Freshness:
        """Newest charge and call of each source, published months, and size of the spool."""
        return queries.freshness(books, spool)


def _gaps(routes: APIRouter, settings: Settings) -> None:
    @routes.get(
        "/gaps",
        response_model=Gaps,
        summary="Calls that each channel missed",
        responses=ROWS,
        dependencies=reads(METRIC_POINTS, SPANS, db.FactRemoval),
    )
    def gaps(
        books: WholeBill,
        answer: AnyPage,
        start: Start = None,
        end: End = None,
        granularity: Annotated[
            Literal["hour", "day"], Query(description="Time granularity, in the reporting timezone.")
        ] = "hour",
    ) -> Response:
        """Calls of the gateway that one channel reported and another did not, with their tokens and cost."""
        zone = settings.report.timezone
        query = queries.GapQuery(
            start=parse_bound(start, field="start", timezone=zone) if start else None,
            end=parse_bound(end, field="end", timezone=zone) if end else None,
            granularity=granularity,
        )

        @one_publication
        def whole_answer() -> Response:
            report = queries.gaps(books, query)

            def document_of(page: Page[GapRow]) -> Gaps:
                counters = report.counters[: page.limit]
                return report.model_copy(update={**{name: getattr(page, name) for name in _PAGE_FIELDS}, "counters": counters})

            listing = queries.ModelListing(GapRow, report.rows, ["period_start", "channel"], is_of_runs=True)
            return answer(books, listing, "gaps", document_of)

        return whole_answer()
