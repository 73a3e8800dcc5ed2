"""The HTTP client for providers: retries, backoff, and error messages without secrets.

A request is sent up to `ATTEMPTS` times: again after 408, 425, 429 and 5xx, and after a connection that could not be made or broke.
Between attempts it waits as long as ``Retry-After`` says, else exponentially longer with jitter. Redirects are not followed: they would
carry the key to another host.

Retries of our own are made with tenacity, here, in `ingest.fetch` and in `rootcost.service.webhooks`. The clients of AWS and Google
retry by themselves; they are configured, not wrapped.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ingest.source import Request
from ledger.errors import ObjectMissingError, StoreUnreachable

if TYPE_CHECKING:
    from tenacity import RetryCallState

ATTEMPTS = 5
"""How often a request is sent before it fails for this run."""
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 60.0
_TIMEOUT_SECONDS = 60.0
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class Response:
    """A body with status 2xx; `address` is the URL with its query, `version` the ETag if there is one."""

    address: str
    content: bytes
    version: str = ""


class HttpClient:
    """A client for one run. Connections are kept until `close`."""

    def __init__(self, *, pause: Any = time.sleep) -> None:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs URLs with their secrets
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)
        self._pause = pause

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def request(self, request: Request) -> Response:
        """The response with status 2xx. Raises `ObjectMissingError` (404), or `StoreUnreachable` with the remedy."""
        import httpx
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        query = [*httpx.QueryParams(httpx.URL(request.url).query).multi_items(), *request.query]
        address = str(httpx.URL(request.url, params=query))
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait_seconds,
            sleep=self._pause,
            retry=retry_if_exception_type(_TransientError),
            reraise=True,
        )
        try:
            return retrying(self._send, request, address)
        except _TransientError as error:
            message = f"{error}, after {ATTEMPTS} attempts"
        # Raised here, without the causing exception: that one may quote the URL with its secrets.
        raise StoreUnreachable(
            message, where=address, remedy="check the address and the network; it is asked again with the next run"
        )

    def _send(self, request: Request, address: str) -> Response:
        """One attempt. Raises `_TransientError` where another one may succeed."""
        import httpx

        url = httpx.URL(address).copy_merge_params(list(request.secret_query)) if request.secret_query else address
        headers = {"accept": "application/json", **request.headers, **request.secrets}
        try:
            response = self._client.request("GET" if request.body is None else "POST", url, headers=headers, json=request.body)
        except httpx.TransportError as error:
            raise _TransientError(str(error) or type(error).__name__) from None
        if response.is_success:
            return Response(address, response.content, response.headers.get("etag", "").strip('"'))
        message = f"{response.status_code} {response.reason_phrase}{_error_message(response)}"
        if response.status_code in _RETRIED_STATUSES:
            raise _TransientError(message, _retry_after(response.headers.get("retry-after")))
        raise _rejection(response.status_code, message, address)


class _TransientError(Exception):
    """An attempt failed and may be repeated; `wait_seconds` is what the server asks for, None: it does not say."""

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def _wait_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wait_seconds = error.wait_seconds if isinstance(error, _TransientError) else None
    return _backoff_seconds(state.attempt_number - 1) if wait_seconds is None else wait_seconds


def _rejection(status: int, message: str, address: str) -> ObjectMissingError | StoreUnreachable:
    if status == 404:
        return ObjectMissingError(message, where=address, remedy="check the address")
    if status in (401, 403):
        return StoreUnreachable(message, where=address, remedy="the key is missing, wrong, or lacks the right to read this")
    return StoreUnreachable(message, where=address, remedy="the request was not understood; check the address")


def _backoff_seconds(attempt: int) -> float:
    max_seconds = min(FIRST_PAUSE_SECONDS * 2**attempt, MAX_PAUSE_SECONDS)
    return random.uniform(max_seconds / 2, max_seconds)  # noqa: S311 - spreads callers, guards nothing


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait as the server asks, in either form of the header, never more than a minute.

    >>> _retry_after("7"), _retry_after("900"), _retry_after("soon"), _retry_after(None)
    (7.0, 60.0, None, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), MAX_PAUSE_SECONDS)


def _error_message(response: Any) -> str:
    """The message in the body of an error, where providers put it: ``error.message``, ``message`` or ``detail``."""
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    error = body.get("error", body)
    message = (
        next((error[k] for k in ("message", "detail") if isinstance(error.get(k), str)), "") if isinstance(error, dict) else error
    )
    return f": {str(message)[:200]}" if message else ""
