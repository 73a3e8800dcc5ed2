"""Receivers of telemetry: OTLP over HTTP and LiteLLM's generic callback. A 2xx is sent only after the data is durable on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.access.gates import Telemetry
from api.errors import RETRY_SECONDS, RequestError, described_responses
from api.metrics import Metrics
from api.models import Accepted
from api.otlp_answers import JSON as JSON
from api.otlp_answers import PROTOBUF, encode_response
from api.receivers import ReceivedBatch, Receivers, Signal
from ledger.books import Books
from ledger.errors import DiskFull, SpoolFull
from ledger.inflate import InflateError
from ledger.inflate import inflate as inflated
from ledger.spool import Spool

BUSY_SECONDS = 1
"""Retry-After while too many bytes are being received."""
_MAX_REASONS = 5
_MAX_MEMBERS = 10_000
"""Gzip members of one body. Exporters send one; each costs some microseconds, and an empty one takes 20 bytes only."""
_USUAL_RATIO = 10
"""Usual compression ratio of telemetry."""

_ERROR_RESPONSES = described_responses(
    {
        400: "Nothing in the body can be read",
        401: "The key is missing or wrong",
        403: "The key may not send telemetry",
        408: "The body did not arrive in time",
        413: "The body is too large",
        415: "The type or encoding is not accepted",
        429: "Too much data is being received or waits in the spool, or the disk is full; retry after the time in Retry-After",
        503: "The disk cannot be written; retry after the time in Retry-After",
        507: "The disk is full, to LiteLLM; OTLP gets 429, which its exporters retry",
    }
)


class SpoolWriter:
    """Stores received data in the spool and counts it."""

    def __init__(self, spool: Spool, metrics: Metrics) -> None:
        self._spool, self._metrics = spool, metrics

    def __call__(self, result: ReceivedBatch, receiver: str) -> ReceivedBatch:
        """Stores the data durably. Raises `SpoolFull` or `StoreUnreachable` if nothing was stored."""
        self._spool.append(result.rows, result.problems, points=result.points, bodies=result.bodies)
        self._metrics.received.labels(receiver).inc(result.accepted)
        self._metrics.rejected.labels(receiver).inc(result.rejected)
        return result


class BodyLimiter:
    """Limits the bytes of request bodies in memory at once, whatever the number of senders."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._used_bytes = limit_bytes, 0

    @contextmanager
    def admit(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves bytes for one request; it raises `RequestError` (429) beyond the limit."""
        request_bytes = 0

        def hold(size: int) -> None:
            nonlocal request_bytes
            if self._used_bytes + size > self._limit and self._used_bytes > request_bytes:
                raise RequestError(
                    429,
                    "busy",
                    f"{self._used_bytes >> 20} MB of requests are being received",
                    where="body",
                    remedy="send again after the time in Retry-After, fewer at once, or raise serve.max_waiting_mb",
                    headers={"Retry-After": str(BUSY_SECONDS)},
                )
            self._used_bytes += size
            request_bytes += size

        try:
            yield hold
        finally:
            self._used_bytes -= request_bytes


def router(books: Books, keep: SpoolWriter, receivers: Receivers) -> APIRouter:
    """The receivers under /v1."""
    routes = APIRouter(prefix="/v1", tags=["receiving"], responses=_ERROR_RESPONSES)
    limit = books.settings.serve.max_body_mb << 20
    gate = BodyLimiter(max(books.settings.serve.max_waiting_mb << 20, 2 * limit))

    async def take(request: Request, signal: Signal) -> Response:
        kind = media_type(request, (PROTOBUF, JSON))
        with gate.admit() as hold:
            body = await read_body(request, limit, hold)
            receiver = "otlp" if signal == "traces" else f"otlp-{signal}"
            with _retryable_by_otlp():
                result = await run_in_threadpool(lambda: keep(receivers.otlp(signal, body, kind), receiver))
        return Response(encode_response(result, signal, kind), media_type=kind)

    @routes.post("/traces", summary="Receive OTLP traces", **_otlp("ExportTraceServiceResponse"))
    async def traces(_: Telemetry, request: Request) -> Response:
        """OTLP/HTTP, protobuf or JSON, also gzip or deflate. Spans that cannot be used are reported in `partial_success`."""
        return await take(request, "traces")

    @routes.post("/logs", summary="Receive OTLP logs", **_otlp("ExportLogsServiceResponse"))
    async def logs(_: Telemetry, request: Request) -> Response:
        """OTLP/HTTP log records. Records with usage are stored, each request once; all others are discarded."""
        return await take(request, "logs")

    @routes.post("/metrics", summary="Receive OTLP metrics", **_otlp("ExportMetricsServiceResponse"))
    async def metrics(_: Telemetry, request: Request) -> Response:
        """OTLP/HTTP metrics. Metrics of usage are stored for comparison with spans and events, and never counted."""
        return await take(request, "metrics")

    @routes.post(
        "/litellm",
        summary="Receive LiteLLM payloads",
        openapi_extra=_body(
            {
                JSON: {"oneOf": [{"type": "array", "items": {"type": ["object", "null"]}}, {"type": "object"}]},
                "application/x-ndjson": {"type": "string"},
            }
        ),
    )
    async def litellm(_: Telemetry, request: Request) -> Accepted:
        """LiteLLM's generic API callback: an object, an array, or one object a line. A bad item is a problem, never an error; null is none."""
        with _retryable_by_litellm(), gate.admit() as hold:
            body = await read_body(request, limit, hold)
            if not body.strip():
                raise RequestError(400, "format", "the body is empty", where="body", remedy="send the payloads as JSON")
            result = await run_in_threadpool(lambda: keep(receivers.litellm(body), "litellm"))
        return Accepted(accepted=result.accepted, rejected=result.rejected, reasons=_reasons(result)[:_MAX_REASONS])

    return routes


@contextmanager
def _retryable_by_otlp() -> Iterator[None]:
    """Replaces 507 by 429: exporters of OTLP send again after 429, 502, 503 and 504 only and drop their batch otherwise."""
    try:
        yield
    except DiskFull as error:
        wait = {"Retry-After": str(RETRY_SECONDS)}
        raise RequestError(429, "disk-full", error.what, where=error.where, remedy=error.remedy, headers=wait) from error


@contextmanager
def _retryable_by_litellm() -> Iterator[None]:
    """Replaces 408 and 429 by 503: LiteLLM's callback retries after 5xx only and drops its batch otherwise."""
    try:
        yield
    except SpoolFull as error:
        wait = {"Retry-After": str(RETRY_SECONDS)}
        raise RequestError(503, "spool-full", error.what, where=error.where, remedy=error.remedy, headers=wait) from error
    except RequestError as error:
        error.status = 503 if error.status in (408, 429) else error.status
        raise


def _otlp(message: str) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {
            200: {"description": f"{message}, in the request's type", "content": {PROTOBUF: {}, JSON: {"example": {}}}},
        },
        "openapi_extra": _body({PROTOBUF: {"type": "string", "format": "binary"}, JSON: {"type": "object"}}),
    }


def _body(content: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in content.items()}}}


def media_type(request: Request, media_types: tuple[str, ...]) -> str:
    """The media type of the request; refuses (415) types that are not accepted, and a missing type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in media_types:
        raise RequestError(
            415,
            "media-type",
            f"{kind!r} is not accepted" if kind else "the request has no Content-Type",
            where="Content-Type",
            remedy=f"send {' or '.join(media_types)}",
        )
    return kind


async def read_body(request: Request, limit: int, hold: Callable[[int], None] = lambda _: None) -> bytes:
    """The body, decompressed, as long as it stays under `limit` bytes either way; a decompression bomb is stopped early.

    `hold` is called with every number of bytes before they are kept in memory, and may raise.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise RequestError(
            415, "encoding", f"{encoding!r} is not accepted", where="Content-Encoding", remedy="send gzip, deflate or nothing"
        )
    content_length = request.headers.get("content-length", "")
    if content_length.isdigit() and int(content_length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        hold(len(chunk))
        chunks.append(chunk)
    body = b"".join(chunks)
    if encoding == "identity":
        return body
    hold(min(limit, _USUAL_RATIO * size))
    return await run_in_threadpool(inflate, body, encoding, limit)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undoes gzip or deflate; never makes more than `limit` bytes.

    >>> import gzip
    >>> inflate(gzip.compress(b"spans"), "gzip", 10)
    b'spans'
    """
    # deflate means zlib (RFC 9110), but some senders omit its header.
    windows = [31] if encoding != "deflate" else [15, -15]
    for last, bits in enumerate(windows, start=1):
        parts, size = list[bytes](), 0
        try:
            for part in inflated([body], wbits=bits, max_members=_MAX_MEMBERS):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
        except InflateError as error:
            if last < len(windows):
                continue
            raise RequestError(
                400,
                "format",
                f"the body is not sound {encoding}: {error}",
                where="body",
                remedy="send it whole, and as Content-Encoding says",
            ) from error
        return b"".join(parts)
    raise AssertionError("unreachable")


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "too-large",
        f"the body has more than {limit} bytes",
        where="body",
        remedy="send smaller batches, or raise serve.max_body_mb",
    )


def _reasons(result: ReceivedBatch) -> list[str]:
    return list(dict.fromkeys(f"{p.field}: {p.reason}" if p.field else p.reason for p in result.problems))
