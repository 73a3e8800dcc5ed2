"""Routes of erasures: what one would do, and doing it. Only for who may do everything, and only after a preview of the same."""

from __future__ import annotations

import hmac
from hashlib import sha256

from fastapi import APIRouter, Depends, Request, Response

from api import models
from api.access.gates import ErasureChanges
from api.errors import RequestError
from api.operations import ErasureOperations
from api.routes.write import WRITE_ERROR_RESPONSES, is_json


def router(operations: ErasureOperations) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES, dependencies=[Depends(is_json)])

    @routes.post("/erasures/preview", summary="What an erasure would do")
    def preview_erasure(
        books: ErasureChanges, erasure: models.ErasureRequest, request: Request, response: Response
    ) -> models.Erasure:
        """Nothing is changed. The answer names a `plan`, by which the same erasure is confirmed."""
        response.headers["Cache-Control"] = "no-store"
        return operations.preview(books, erasure).model_copy(update={"plan": _plan(request, erasure)})

    @routes.post("/erasures", status_code=201, summary="Erase a person or a period")
    def erase(books: ErasureChanges, erasure: models.ConfirmedErasure, request: Request, response: Response) -> models.Erasure:
        """It cannot be undone; the costs stay. Broken off, it goes on when it is repeated, or by itself."""
        if not hmac.compare_digest(erasure.plan, _plan(request, erasure)):
            raise RequestError(
                400,
                "usage",
                "this is not the plan of this erasure",
                where="plan",
                remedy="ask POST /v1/erasures/preview with the same person or period and reason, look at it, and send its plan",
            )
        # What it names is not kept with the Idempotency-Key.
        response.headers["Cache-Control"] = "no-store"
        return operations.erase(books, erasure)

    return routes


def _plan(request: Request, erasure: models.ErasureRequest) -> str:
    """What says that a preview of this erasure was answered, by this server's key."""
    terms = erasure.model_dump_json(exclude={"plan"})
    key: bytes = request.app.state.etag_key
    return hmac.new(key, b"erasure\0" + terms.encode(), sha256).hexdigest()
