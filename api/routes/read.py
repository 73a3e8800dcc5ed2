"""GET routes: every figure that a page shows has an address."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from api import queries
from api.access.gates import CostRows, WholeBill
from api.errors import described_responses
from api.etags import NOT_MODIFIED, reads
from api.formats import negotiated
from api.models import (
    BalanceRow,
    Basis,
    ChainSummary,
    ChainTree,
    CostTable,
    Evidence,
    EvidenceSection,
    Explanation,
    Overview,
    Page,
    View,
)
from api.queries.chains import MAX_PAGE
from api.queries.publication import one_publication
from api.routes.answers import ROWS, AnyPage, AnyRows, Pages, Rows
from api.routes.documents import cost_document, cost_file
from api.routes.parameters import (
    MONTH,
    BasisParam,
    ByParam,
    CalendarParam,
    End,
    FilterParam,
    GranularityParam,
    MaxLines,
    Start,
    ViewParam,
    shape,
)
from ledger.db import Alert, Budget, BudgetRevision, FactRemoval, Owner, Run, StoredRule
from ledger.periods import parse_bound
from ledger.settings import Settings
from ledger.tables import CHARGES, EXCHANGE_RATES, PRICES, PROBLEMS, RAW_FILES, SPANS

ERROR_RESPONSES = described_responses(
    {
        400: "The request cannot mean anything",
        401: "The key is missing or wrong",
        403: "The roles of the key or person do not allow it",
        404: "There is no such thing",
        406: "None of the accepted types is there",
        421: "The Host header names another machine",
        422: "The request is not valid",
        429: "More requests than a key or person may make in a minute",
        503: "The store or the database does not answer; try again",
    }
)

_EXPLAINED = (CHARGES, PRICES, RAW_FILES, SPANS, FactRemoval, Owner, Run, StoredRule)


def router(settings: Settings) -> APIRouter:
    """All GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)
    _costs(routes, settings)
    _chains(routes, settings)
    _explanations(routes, settings)
    _evidence(routes)
    return routes


def _costs(routes: APIRouter, settings: Settings) -> None:
    parse = partial(queries.CostQuery.parse, timezone=settings.report.timezone)

    @routes.get(
        "/costs",
        response_model=CostTable,
        summary="Cost by any dimension",
        responses=ROWS,
        dependencies=reads(EXCHANGE_RATES),
    )
    def costs(
        books: CostRows,
        rows: AnyRows,
        by: ByParam = [],  # noqa: B006 - FastAPI copies defaults
        view: ViewParam = "initiator",
        start: Start = None,
        end: End = None,
        granularity: GranularityParam = "total",
        basis: BasisParam = "effective",
        filter: FilterParam = [],  # noqa: A002, B006 - the name in the address
        calendar: CalendarParam = None,
        currency: Annotated[
            str | None,
            Query(
                description="Currency to convert all costs into, at the imported rate of each day; none: no conversion.",
                examples=["EUR"],
            ),
        ] = None,
    ) -> Response:
        """One row for each value of `by`, period and currency; `cost_class` and `reason` are among them if `by` names them. Currencies are never
        summed together. Each cost says how much of it is billed and how much estimated. With `currency`, all costs are converted: the
        response lists the rates applied, and a missing rate is an error.
        """
        query = parse(
            by=by, view=view, start=start, end=end, granularity=granularity, basis=basis, filters=filter, calendar=calendar
        )
        if rows.is_json:
            return cost_document(queries.cost_table_in(books, query, currency) if currency else queries.cost_table(books, query))
        return cost_file(rows, queries.costs_in(books, query, currency)[0] if currency else queries.costs(books, query))

    @routes.get(
        "/balance",
        response_model=Page[BalanceRow],
        summary="Charges in, costs out, difference 0",
        responses=ROWS,
        dependencies=reads(),
    )
    def balance(
        books: WholeBill,
        answer: AnyRows,
        month: Annotated[
            list[Annotated[str, Field(json_schema_extra=shape(MONTH))]],
            Query(description="Invoice month, repeated for more; none: all published.", examples=[["2026-10"]]),
        ] = [],  # noqa: B006
    ) -> Response:
        """Control totals of the runs in force, for each currency, invoice month, provider and cost column."""
        frame = queries.balance(books, month)
        if not answer.is_json:
            return answer.frame_file(frame, "balance")
        rows = [BalanceRow.model_validate(row) for row in frame.iter_rows(named=True)]
        return answer.document(Page[BalanceRow](rows=rows, total=len(rows)))

    @routes.get("/overview", summary="Overview of a month", dependencies=reads(Alert, Owner, PROBLEMS), responses=NOT_MODIFIED)
    def overview(
        books: CostRows,
        month: Annotated[
            str | None,
            Query(
                description="Invoice month; by default the newest published one.",
                examples=["2026-10"],
                json_schema_extra=shape(f"({MONTH})?"),
            ),
        ] = None,
        view: View = "initiator",
        basis: Basis = "effective",
        top: Annotated[int, Query(ge=0, le=MAX_PAGE, description="Maximum number of teams and agents per currency.")] = 10,
    ) -> Overview:
        """Totals, top teams and agents compared with the month before, unallocated cost by reason, newest alerts."""
        return queries.overview(books, month=month, view=view, basis=basis, top=top)


def _chains(routes: APIRouter, settings: Settings) -> None:
    zone = settings.report.timezone

    @routes.get(
        "/chains",
        response_model=Page[ChainSummary],
        summary="Chains by cost, highest first",
        responses=ROWS,
        dependencies=reads(),
    )
    def chains(
        books: CostRows,
        answer: AnyPage,
        start: Start = None,
        end: End = None,
        agent: Annotated[str | None, Query(description="Agent that started the chain, exact name; empty: unknown.")] = None,
        team: Annotated[str | None, Query(description="Team that started the chain, exact name; empty: unknown.")] = None,
        method: Annotated[str | None, Query(description="How the initiator was determined.")] = None,
        reason: Annotated[str | None, Query(description="Irregularity of the chain; empty: none.")] = None,
        search: Annotated[str | None, Query(description="Part of the root span's name.")] = None,
    ) -> Response:
        """Chains that started in the range, by cost at list price; a file of all has them in no particular order."""
        query = queries.ChainQuery(
            start=parse_bound(start, field="start", timezone=zone) if start else None,
            end=parse_bound(end, field="end", timezone=zone) if end else None,
            agent=agent,
            team=team,
            method=method,
            reason=reason,
            search=search,
        )

        @one_publication
        def whole_answer() -> Response:
            return answer(books, queries.chains(books, query), "chains")

        return whole_answer()

    @routes.get(
        "/chains/{chain_id:path}",
        summary="One chain as a tree, with the cost of every call",
        dependencies=reads(SPANS, Owner, Budget, BudgetRevision, EXCHANGE_RATES),
        responses=NOT_MODIFIED,
    )
    def chain(books: CostRows, chain_id: Annotated[str, Path(description="Id of the chain.")]) -> ChainTree:
        """Nodes come depth first. Only `own_cost` may be summed; `subtree_cost` contains it."""
        return queries.chain(books, chain_id)


def _explanations(routes: APIRouter, settings: Settings) -> None:
    parse = partial(queries.CostQuery.parse, timezone=settings.report.timezone)

    # Registered before /explain/{ref}: `cell` is not a reference.
    @routes.get("/explain/cell", summary="Explain a cell of a report", dependencies=reads(*_EXPLAINED), responses=NOT_MODIFIED)
    def explain_cell(
        books: CostRows,
        by: ByParam = [],  # noqa: B006
        view: ViewParam = "initiator",
        start: Start = None,
        end: End = None,
        granularity: GranularityParam = "total",
        basis: BasisParam = "effective",
        filter: FilterParam = [],  # noqa: A002, B006
        calendar: CalendarParam = None,
        most: MaxLines = queries.DEFAULT_LINES,
    ) -> Explanation:
        """Explains the cost that `/v1/costs` sums with the same parameters. The sum of every step is the figure or a named part of it."""
        query = parse(
            by=by, view=view, start=start, end=end, granularity=granularity, basis=basis, filters=filter, calendar=calendar
        )
        return queries.explain_cell(books, query, most=most)

    @routes.get(
        "/explain/{ref:path}",
        summary="Explain the cost of a chain, a call or a charge",
        dependencies=reads(*_EXPLAINED),
        responses=NOT_MODIFIED,
    )
    def explain(
        books: CostRows,
        ref: Annotated[
            str,
            Path(
                description="Id of a chain, of a call (trace:span, gateway call id, provider request id, span id) or of a charge."
            ),
        ],
        basis: BasisParam = "effective",
        most: MaxLines = queries.DEFAULT_LINES,
    ) -> Explanation:
        """The derivation of the cost: charge, pool, rate, call, span, executor, initiator, owner, rule, run; each step with its rule."""
        return queries.explain(books, ref, basis=basis, most=most)


def _evidence(routes: APIRouter) -> None:
    @routes.get(
        "/evidence",
        response_model=Evidence,
        summary="What a month's money stands on",
        responses=ROWS,
        dependencies=reads(PROBLEMS),
    )
    def evidence(
        books: WholeBill,
        answer: AnyRows,
        month: Annotated[
            str | None,
            Query(
                description="Invoice month, or all; by default the newest published one.",
                examples=["2026-10"],
                json_schema_extra=shape(f"({MONTH}|all)"),
            ),
        ] = None,
        basis: BasisParam = "effective",
        section: Annotated[
            EvidenceSection, Query(description="Section of a file: the figure by what decides it, emitters, or findings.")
        ] = "figure",
    ) -> Response:
        """How much of the month stands on evidence, on the table, on inference and on nothing; how each emitter counts; findings with their
        money. The parts sum to the total of `/v1/costs` with the same month and `basis`.
        """
        if not answer.is_json:
            return answer.frame_file(queries.evidence_table(books, section, month=month, basis=basis), f"evidence-{section}")
        return answer.document(queries.evidence(books, month=month, basis=basis))


async def refuse_unacceptable(request: Request) -> None:
    """Refuses (406) a request that takes no JSON, of a route whose answers are in no other form."""
    route = request.scope.get("route")
    dependant, has_body = getattr(route, "dependant", None), getattr(route, "status_code", None) != 204
    if has_body and not any(dependency.call in (Rows, Pages) for dependency in getattr(dependant, "dependencies", ())):
        negotiated(request.headers.get("accept", ""), ("json",))


async def refuse_unknown(request: Request) -> None:
    """Refuses (422) unknown query parameters, so that a misspelt one is not ignored."""
    from api.errors import RequestError

    route = request.scope.get("route")
    parameters = _parameters(getattr(route, "dependant", None))
    unknown = sorted(set(request.query_params) - parameters)
    if unknown:
        raise RequestError(
            422,
            "invalid",
            f"unknown parameter {unknown[0]!r}",
            where=unknown[0],
            remedy=f"known are: {', '.join(sorted(parameters)) or 'none'}",
        )


def _parameters(dependant: Any) -> set[str]:
    if dependant is None:
        return set()
    return {field.alias for field in dependant.query_params}.union(*map(_parameters, dependant.dependencies))
