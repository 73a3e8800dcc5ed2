"""Routes of the price book: its rates, lists that are entered or only compared, and rates that wait to be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api import models, preconditions, queries
from api.access.gates import BillChanges, WholeBill
from api.etags import reads
from api.models import Page
from api.models.prices import Origin
from api.operations import PriceFile, PriceOperations
from api.preconditions import NOTHING_EXPECTED, IfMatch, Precondition, SeenThere, existing, version_tag
from api.queries.listing import Order
from api.routes.answers import ROWS, AnyPage
from api.routes.imports import CSV, FileName, Preview, body_of
from api.routes.read import ERROR_RESPONSES
from api.routes.receive import JSON
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger.tables import PRICES, PRICES_STAGED

R = TypeVar("R", models.PriceBook, models.PricesImported, models.StagedDecision)

_KEY = [*map(Order, ("origin", "provider", "model", "meter", "service_tier", "context_above", "region", "valid_from"))]
_EXAMPLE = "provider,model,meter,unit,rate,currency,valid_from\nopenai,gpt-4o,input_tokens,1M tokens,2.10,USD,2026-10-01\n"


@dataclass
class ListOptions:
    """How a price list is to be read: parameters of its import."""

    name: FileName = "upload.csv"
    origin: Annotated[Origin, Query(description="list: public prices; contract: what you negotiated, goes before lists.")] = (
        "list"
    )
    book: Annotated[str, Query(max_length=256, description="Name of the list; a later edition is compared with it.")] = ""
    valid_from: Annotated[
        str, Query(max_length=40, description="Usage from this day on is priced with rates that name no day. Default: now.")
    ] = ""
    factor: Annotated[int, Query(ge=2, le=10**6, description="A rate that moves by more than this factor is doubted.")] = 10


def reading(operations: PriceOperations) -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get(
        "/prices", response_model=Page[models.PriceRow], summary="The price book", responses=ROWS, dependencies=reads(PRICES)
    )
    def prices(
        books: WholeBill,
        answer: AnyPage,
        model: Annotated[str, Query(max_length=512, description="Only this model, as a log or a list names it.")] = "",
        provider: Annotated[str, Query(max_length=256, description="Only this provider.")] = "",
        meter: Annotated[str, Query(max_length=64, description="Only this meter.")] = "",
    ) -> Response:
        """Every rate ever recorded: from when until when, from which list, and when it was learnt."""
        frame = operations.rates(books, model, provider=provider, meter=meter).lazy()
        return answer(books, queries.FrameListing(models.PriceRow, frame, [*_KEY, Order("recorded_at")]), "prices")

    @routes.get("/price-book", summary="The version of the price book")
    def price_book(books: WholeBill, response: Response) -> models.PriceBook:
        """Its ETag is the version, which imports and decisions send as `If-Match`."""
        return _tagged(operations.price_book(books), response)

    @routes.get(
        "/prices/staged",
        response_model=Page[models.StagedPrice],
        summary="Rates that wait to be accepted",
        responses=ROWS,
        dependencies=reads(PRICES_STAGED),
    )
    def staged_prices(books: WholeBill, answer: AnyPage) -> Response:
        """They look wrong, and price nothing."""
        return answer(books, queries.FrameListing(models.StagedPrice, operations.staged(books).lazy(), _KEY), "prices-staged")

    return routes


def writing(operations: PriceOperations) -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)
    kinds = {"text/csv": {"schema": {"type": "string"}, "example": _EXAMPLE}, JSON: {"schema": {}}}

    @routes.post(
        "/prices/import",
        summary="Import a price list, or compare it",
        openapi_extra={"requestBody": {"required": True, "content": kinds}},
        responses=preconditions.RESPONSES,
    )
    async def import_prices(
        books: BillChanges,
        request: Request,
        options: Annotated[ListOptions, Depends()],
        precondition: Annotated[Precondition, Depends(_seen_unless_preview)],
        response: Response,
        accept: Annotated[bool, Query(description="Enter what looks wrong as well.")] = False,
        preview: Preview = False,
    ) -> models.PricesImported:
        """Litellm's or genai-prices' JSON, or a CSV of rates, into the price book of the version that `If-Match` names. Only what differs from the
        rates in force is added, dated; earlier usage keeps its price, so a rate is ended by `valid_to` and never removed. What looks wrong is
        staged. With `preview` it is the difference, and needs no `If-Match`.
        """
        content = await body_of(request, books.settings.serve.max_body_mb, (*CSV, JSON))
        file = PriceFile(content, options.name, options.origin, options.book, options.valid_from, options.factor)
        result = await run_in_threadpool(operations.import_list, books, file, precondition, accept=accept, preview=preview)
        return _tagged(result, response)

    @routes.post(
        "/prices/staged/accept",
        summary="Accept staged rates",
        dependencies=[Depends(is_json)],
        responses=preconditions.RESPONSES,
    )
    def accept_prices(
        books: BillChanges, selection: models.StagedSelection, precondition: SeenThere, response: Response
    ) -> models.StagedDecision:
        """Takes them into the price book, from the day they were stated for."""
        return _tagged(operations.decide(books, selection, precondition, accept=True), response)

    @routes.post(
        "/prices/staged/reject",
        summary="Reject staged rates",
        dependencies=[Depends(is_json)],
        responses=preconditions.RESPONSES,
    )
    def reject_prices(
        books: BillChanges, selection: models.StagedSelection, precondition: SeenThere, response: Response
    ) -> models.StagedDecision:
        """Drops them. The price book stays as it is."""
        return _tagged(operations.decide(books, selection, precondition, accept=False), response)

    return routes


def _seen_unless_preview(preview: Preview = False, if_match: IfMatch = None) -> Precondition:
    return NOTHING_EXPECTED if preview and if_match is None else existing(if_match)


def _tagged(result: R, response: Response) -> R:
    response.headers["ETag"] = version_tag(result.version)
    return result
