"""Where telemetry comes in: OTLP over HTTP and LiteLLM's generic callback. A 2xx is said only once the rows are safe on disk."""

from __future__ import annotations

import json
import zlib
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.metrics import Metrics
from api.models import Accepted, ProblemDocument
from api.problem_documents import MEDIA_TYPE, Refused
from api.receivers import Received, Receivers
from ledger.books import Books
from ledger.spool import Spool

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_MOST_REASONS = 5

_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "model": ProblemDocument, "content": {MEDIA_TYPE: {}}}
    for status, what in (
        (400, "Nothing in the body can be read"),
        (401, "The token is missing or wrong"),
        (413, "The body is too large"),
        (415, "The type or encoding is not accepted"),
        (503, "The spool is full; try again after the time in Retry-After"),
    )
}


def router(books: Books, spool: Spool, receivers: Receivers, metrics: Metrics) -> APIRouter:
    """The receivers under /v1."""
    routes = APIRouter(prefix="/v1", tags=["receiving"], responses=_FAULTS)
    limit = books.settings.serve.max_body_mb << 20

    def keep(received: Received, receiver: str) -> Received:
        spool.append(received.rows, received.problems)
        metrics.received.labels(receiver).inc(received.rows.height)
        metrics.rejected.labels(receiver).inc(received.rejected)
        return received

    @routes.post(
        "/traces",
        summary="Receive OTLP traces",
        response_class=Response,
        responses={
            200: {
                "description": "ExportTraceServiceResponse, in the request's type",
                "content": {PROTOBUF: {}, JSON: {"example": {}}},
            }
        },
        openapi_extra=_body({PROTOBUF: {"type": "string", "format": "binary"}, JSON: {"type": "object"}}),
    )
    async def traces(request: Request) -> Response:
        """OTLP/HTTP, protobuf or JSON, also gzip or deflate. Spans that cannot be used are told of in `partial_success`."""
        kind = media_type(request, (PROTOBUF, JSON))
        body = await read_body(request, limit)
        encoding = request.headers.get("content-encoding", "identity")
        received = await run_in_threadpool(lambda: keep(receivers.otlp(body, kind, encoding), "otlp"))
        return Response(_export_response(received, kind), media_type=kind)

    @routes.post(
        "/litellm",
        summary="Receive LiteLLM payloads",
        openapi_extra=_body(
            {
                JSON: {"oneOf": [{"type": "array", "items": {"type": "object"}}, {"type": "object"}]},
                "application/x-ndjson": {"type": "string"},
            }
        ),
    )
    async def litellm(request: Request) -> Accepted:
        """LiteLLM's generic API callback: an object, an array, or one object a line. A bad item is a problem, never an error."""
        body = await read_body(request, limit)
        received = await run_in_threadpool(lambda: keep(receivers.litellm(body), "litellm"))
        return Accepted(accepted=received.rows.height, rejected=received.rejected, reasons=_reasons(received)[:_MOST_REASONS])

    return routes


def _body(content: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in content.items()}}}


def media_type(request: Request, accepted: tuple[str, ...]) -> str:
    """What the body is, as the request says; refuses (415) what is not accepted, and a body of which nothing is said."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in accepted:
        raise Refused(
            415,
            "media-type",
            f"{kind!r} is not accepted" if kind else "the request does not say what its body is",
            where="Content-Type",
            remedy=f"send {' or '.join(accepted)}",
        )
    return kind


async def read_body(request: Request, limit: int) -> bytes:
    """The body, decompressed, as long as it stays under `limit` bytes either way; a bomb is stopped while it unfolds."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Refused(
            415, "encoding", f"{encoding!r} is not accepted", where="Content-Encoding", remedy="send gzip, deflate or nothing"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    body = b"".join(chunks)
    return body if encoding == "identity" else await run_in_threadpool(inflate, body, encoding, limit)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undoes gzip or deflate; never makes more than `limit` bytes.

    >>> import gzip
    >>> inflate(gzip.compress(b"spans"), "gzip", 10)
    b'spans'
    """
    # deflate means zlib (RFC 9110), yet some senders leave its header out.
    windows = [31] if encoding != "deflate" else [15, -15]
    for last, bits in enumerate(windows, start=1):
        stream = zlib.decompressobj(wbits=bits)
        try:
            whole = stream.decompress(body, limit + 1)
            # A gzip body may be several members, one after another.
            while stream.eof and stream.unused_data and bits == 31 and len(whole) <= limit:
                rest, stream = stream.unused_data, zlib.decompressobj(wbits=bits)
                whole += stream.decompress(rest, limit + 1 - len(whole))
        except zlib.error as fault:
            if last < len(windows):
                continue
            raise Refused(
                400,
                "format",
                f"the body is not {encoding}: {fault}",
                where="body",
                remedy="send it whole, and as Content-Encoding says",
            ) from fault
        if len(whole) > limit:
            raise _too_large(limit)
        if not stream.eof:
            raise Refused(400, "format", f"the {encoding} body ends early", where="body", remedy="send it whole")
        return whole
    raise AssertionError("unreachable")


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        "too-large",
        f"the body has more than {limit} bytes",
        where="body",
        remedy="send smaller batches, or raise serve.max_body_mb",
    )


def _reasons(received: Received) -> list[str]:
    return list(dict.fromkeys(f"{p.field}: {p.reason}" if p.field else p.reason for p in received.problems))


def _export_response(received: Received, kind: str) -> bytes:
    told = "; ".join(_reasons(received))[:2000]
    if kind == JSON:
        # proto3 JSON: 64-bit integers are strings, an empty message leaves the field out.
        partial = (
            {"partialSuccess": {"rejectedSpans": str(received.rejected), "errorMessage": told}}
            if received.rejected or told
            else {}
        )
        return json.dumps(partial).encode()
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    if received.rejected or told:
        answer.partial_success.CopyFrom(ExportTracePartialSuccess(rejected_spans=received.rejected, error_message=told))
    encoded: bytes = answer.SerializeToString()
    return encoded
