"""Asking providers over HTTP: politely, again after a fault, and never telling a secret.

A request is asked up to `ATTEMPTS` times: after 429 and 5xx, and after a connection that could not be made or broke. In between it
waits as long as ``Retry-After`` says, else twice as long each time, with jitter. Redirects are not followed: they would carry the key
to another host.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ingest.source import Request
from ledger.errors import ObjectMissingError, StoreUnreachable

ATTEMPTS = 5
"""How often a request is asked before it is given up for this run."""
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
    """A client for one run. Connections are kept; `close` lets them go."""

    def __init__(self, *, pause: Any = time.sleep) -> None:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it tells addresses with the secrets in them
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)
        self._pause = pause

    def close(self) -> None:
        """Hangs up."""
        self._client.close()

    def request(self, request: Request) -> Response:
        """The answer, or `ObjectMissingError` (404), or `StoreUnreachable` with what to do about it."""
        import httpx

        address = str(
            httpx.URL(request.url, params=[*httpx.QueryParams(httpx.URL(request.url).query).multi_items(), *request.query])
        )
        url = httpx.URL(address).copy_merge_params(list(request.secret_query)) if request.secret_query else address
        headers = {"accept": "application/json", **request.headers, **request.secrets}
        message = ""
        for attempt in range(ATTEMPTS):
            method = "GET" if request.body is None else "POST"
            wait_seconds = None
            try:
                response = self._client.request(method, url, headers=headers, json=request.body)
            except httpx.TransportError as error:
                message = str(error) or type(error).__name__
            else:
                if response.is_success:
                    return Response(address, response.content, response.headers.get("etag", "").strip('"'))
                message = f"{response.status_code} {response.reason_phrase}{_error_message(response)}"
                if response.status_code not in _RETRIED_STATUSES:
                    raise _rejection(response.status_code, message, address)
                wait_seconds = _retry_after(response.headers.get("retry-after"))
            if attempt + 1 < ATTEMPTS:
                self._pause(wait_seconds if wait_seconds is not None else _backoff_seconds(attempt))
        raise StoreUnreachable(
            f"{message}, after {ATTEMPTS} attempts",
            where=address,
            remedy="check the address and the network; it is asked again with the next run",
        )


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
    """What the body of an error says, where it says it as providers do: ``error.message``, ``message`` or ``detail``."""
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
