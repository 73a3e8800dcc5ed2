"""Error responses: every error is sent as an RFC 9457 problem document, never as a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from api.models import FieldError, ProblemDocument
from api.problem_types import PROBLEM_TYPES, type_uri
from api.security_headers import SECURITY_HEADERS
from ledger import disk
from ledger.errors import (
    DeniedError,
    DiskFull,
    FormatError,
    ObjectMissingError,
    RootCostError,
    SpoolFull,
    StoreUnreachable,
    UsageError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
"""Retry-After of 429, 503 and 507 while the store, the spool or the disk is unavailable."""

_KINDS: tuple[tuple[type[RootCostError], int, str], ...] = (
    (SpoolFull, 429, "spool-full"),
    (DiskFull, 507, "disk-full"),
    (StoreUnreachable, 503, "store-unreachable"),
    (ObjectMissingError, 404, "not-found"),
    (FormatError, 400, "format"),
    (DeniedError, 403, "denied"),
    (UsageError, 400, "usage"),
)
"""The first matching class applies. Errors of any other class are defects of RootCost (500)."""


class RequestError(Exception):
    """A request is refused with this problem document."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        where: str = "",
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.where, self.remedy = status, kind, detail, where, remedy
        self.headers, self.extensions = dict(headers or {}), dict(extensions or {})


def described_responses(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Problem documents in the description of a route: what each status means there."""
    return {
        status: {"description": text, "model": ProblemDocument, "content": {MEDIA_TYPE: {}}}
        for status, text in descriptions.items()
    }


def document(
    status: int,
    kind: str,
    *,
    detail: str = "",
    path: str = "",
    where: str = "",
    remedy: str = "",
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """A problem document as a response."""
    problem = ProblemDocument(
        type=type_uri(kind),
        title=PROBLEM_TYPES[kind].title if kind in PROBLEM_TYPES and kind != "http" else HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=path,
        where=where,
        remedy=remedy,
        errors=errors or [],
        **(extensions or {}),
    )
    return Response(
        problem.model_dump_json(exclude_none=True), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def error_response(error: RequestError, path: str) -> Response:
    """The problem document of a refused request."""
    return document(
        error.status,
        error.kind,
        detail=error.detail,
        path=path,
        where=error.where,
        remedy=error.remedy,
        headers=error.headers,
        extensions=error.extensions,
    )


def install(app: FastAPI) -> None:
    """Registers handlers that turn every error of the app into a problem document."""
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RootCostError, rootcost_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error, request.url.path)


async def rootcost_error(request: Request, error: Exception) -> Response:
    """The problem document of an error that a user can act on; of another, that of a defect."""
    assert isinstance(error, RootCostError)
    for kind, status, name in _KINDS:
        if isinstance(error, kind):
            later = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INSUFFICIENT_STORAGE)
            headers = {"Retry-After": str(RETRY_SECONDS)} if later else {}
            return document(
                status,
                name,
                detail=error.what,
                path=request.url.path,
                where=error.where,
                remedy=error.remedy,
                headers=headers,
            )
    return await _unexpected(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [FieldError(field=_place(detail), reason=_reason(detail)) for detail in error.errors()]
    first = errors[0] if errors else FieldError(field="request", reason="invalid")
    return document(
        422,
        "invalid",
        detail=f"{first.field}: {first.reason}",
        path=request.url.path,
        where=first.field,
        remedy="/openapi.json describes what is accepted",
        errors=errors,
    )


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":  # its location is a character position, from 0
        return f"is no JSON at character {error['loc'][-1] + 1}: {error['ctx']['error']}"
    return str(error["msg"]).removeprefix("Value error, ")


def _place(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return "body"
    parts = [str(part) for part in error["loc"]]
    return ".".join(parts[1:] if len(parts) > 1 and parts[0] in ("query", "body", "path", "header") else parts)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail and error.detail != phrase else ""
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    remedies = {404: "/openapi.json lists what there is", 405: "the Allow header names the methods there are"}
    kinds = {404: "not-found", 405: "method-not-allowed"}
    return document(
        error.status_code,
        kinds.get(error.status_code, "http"),
        detail=detail,
        path=request.url.path,
        remedy=remedies.get(error.status_code, ""),
        headers=headers,
    )


def _methods(request: Request) -> set[str]:
    """The methods of a path. Starlette names those of the first route that has it, and a path has a route for each method."""
    routes = (route for route in iter_route_contexts(request.app.routes) if route.methods)
    methods = {method for route in routes if route.path_regex.match(request.url.path) for method in route.methods or ()}
    return methods | {"HEAD"} if "GET" in methods else methods


async def _unexpected(request: Request, error: Exception) -> Response:
    disk_error = None if isinstance(error, RootCostError) else disk.error_of(error, "the ledger")
    if disk_error is not None:
        return await rootcost_error(request, disk_error)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return document(
        500,
        "internal",
        path=request.url.path,
        detail="The error is in the log of `rootcost serve`.",
        remedy="please report it",
        headers=SECURITY_HEADERS,  # made outside of all middleware
    )
