"""Routes that bring in owners of names and exchange rates, and list what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api import imports, models, queries
from api.access.gates import BillChanges, RegistryChanges, RegistryRows, WholeBill
from api.etags import reads
from api.models import Page
from api.queries.listing import Order
from api.routes.answers import ROWS, AnyPage
from api.routes.read import ERROR_RESPONSES
from api.routes.receive import media_type, read_body
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger import db, exchange_rates, registry
from ledger.tables import EXCHANGE_RATES

CSV = ("text/csv", "application/csv")
FileName = Annotated[str, Query(max_length=256, description="Name of the file in problems and audit.")]
Preview = Annotated[bool, Query(description="Write nothing, and tell what would change.")]


def csv_body(example: str) -> Mapping[str, Any]:
    """The description of a body that is a CSV file."""
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


async def body_of(request: Request, max_body_mb: int, media_types: tuple[str, ...] = CSV) -> bytes:
    """The body of a request that is a file. Raises `RequestError` (413, 415)."""
    media_type(request, media_types)
    return await read_body(request, max_body_mb << 20)


def reading() -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get(
        "/exchange-rates",
        response_model=Page[models.ExchangeRate],
        summary="Exchange rates in force",
        responses=ROWS,
        dependencies=reads(EXCHANGE_RATES),
    )
    def list_exchange_rates(books: WholeBill, answer: AnyPage) -> Response:
        """By pair and day."""
        order = [*map(Order, ("from_currency", "to_currency", "day"))]
        frame = exchange_rates.rates_in_force(books.whole).lazy()
        return answer(books, queries.FrameListing(models.ExchangeRate, frame, order), "exchange-rates")

    @routes.get(
        "/agents/history",
        response_model=Page[models.OwnerRecord],
        summary="The registry as it was recorded, newest first",
        responses=ROWS,
        dependencies=reads(db.Owner),
    )
    def agent_history(
        books: RegistryRows,
        answer: AnyPage,
        agent: Annotated[str | None, Query(description="Only names of this agent.")] = None,
        name: Annotated[str | None, Query(description="Only this name.")] = None,
    ) -> Response:
        """Records are never changed: of those that overlap the later recorded one holds."""
        frame = registry.rows(books.whole).lazy().filter(books.is_own("team"))
        for column, value in (("agent", agent), ("name", name)):
            frame = frame if value is None else frame.filter(pl.col(column) == value)
        order = [Order("recorded_at", descending=True), *map(Order, ("kind", "name", "valid_from"))]
        return answer(books, queries.FrameListing(models.OwnerRecord, frame, order), "agents-history")

    return routes


def writing() -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post("/agents", summary="Enter an agent, or give it another owner", dependencies=[Depends(is_json)])
    def enter_agent(books: RegistryChanges, entry: models.AgentEntry, preview: Preview = False) -> models.RegistryImported:
        """As a line of a registry file. What was recorded earlier stays recorded, and holds for the time before."""
        return imports.enter_agent(books, entry, preview=preview)

    @routes.post(
        "/agents/import",
        summary="Import the registry",
        openapi_extra=dict(csv_body("agent,team,valid_from\nsupport-bot,Care,2026-01-01\n")),
    )
    async def import_agents(
        books: RegistryChanges, request: Request, name: FileName = "upload.csv", preview: Preview = False
    ) -> models.RegistryImported:
        """A CSV file of agents, teams and their other names. Existing rows are unchanged; invalid lines are returned as problems."""
        body = await body_of(request, books.settings.serve.max_body_mb)
        return await run_in_threadpool(imports.import_agents, books, body, name, preview=preview)

    @routes.post(
        "/exchange-rates/import",
        summary="Import exchange rates",
        openapi_extra=dict(csv_body("date,from,to,rate,source\n2026-10-01,EUR,USD,1.0842,ECB\n")),
    )
    async def import_exchange_rates(
        books: BillChanges, request: Request, name: FileName = "upload.csv", preview: Preview = False
    ) -> models.RatesImported:
        """A CSV file of days, pairs and rates. Earlier rates stay; of two for one day the later imported one holds."""
        body = await body_of(request, books.settings.serve.max_body_mb)
        return await run_in_threadpool(imports.import_rates, books, body, name, preview=preview)

    return routes
