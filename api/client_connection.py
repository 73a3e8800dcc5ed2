"""The connection of the client: sends requests, tries again where that is safe, and raises what went wrong as a typed problem."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from api.client_problems import problem_of, raised, unreachable

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

MAX_WAIT_SECONDS = 30.0
"""The longest wait before a request is sent again, whatever Retry-After says."""
_FIRST_WAIT_SECONDS = 0.5
_RETRIED = frozenset({429, 502, 503, 504})


class PageOf(Protocol[R]):
    """A page of a list."""

    @property
    def rows(self) -> list[R]:
        """Its rows."""
        ...

    @property
    def next(self) -> Any:
        """The cursor of the next page; None on the last one."""
        ...


class Connection:
    """Talks to a running RootCost as whoever the key belongs to.

    With `retries`, a request that was not answered, or answered 429, 502, 503 or 504, is sent again, after `Retry-After` or a growing pause;
    a change carries one `Idempotency-Key` in all its attempts. `http` replaces the connection, for tests that call the app directly.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retries: int = 0,
        http: httpx.Client | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._http = http or httpx.Client(base_url=self.base_url, timeout=timeout_seconds)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.is_replay = False
        """Whether the answer to the last change was a stored one: it had been made before, by a request whose answer was lost."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def every(self, reading: Callable[..., PageOf[R]], *arguments: Any, **conditions: Any) -> Iterator[R]:
        """All rows of a list, page by page: ``client.every(client.chains, team="Care")``.

        Raises `ReplacedProblem` if the figures were published anew meanwhile: what came is of the replaced run, and one starts again.
        """
        page = reading(*arguments, **conditions)
        yield from page.rows
        while page.next is not None:
            page = reading(*arguments, **conditions, cursor=page.next)
            yield from page.rows

    def rows(self, path: str, file_format: str, **params: Any) -> Iterator[bytes]:
        """All rows of a list, such as ``/v1/chains``, as `ndjson`, `csv`, `parquet` or `arrow`, in pieces as they arrive.

        A stream that the API could not finish raises `UnreachableProblem`: what arrived is not the whole.
        """
        query = {name: value for name, value in params.items() if value is not None} | {"format": file_format}
        try:
            with self._http.stream("GET", path, params=query, headers=self._headers) as answer:
                if not answer.is_success:
                    answer.read()
                    raise raised(problem_of(answer))
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise raised(unreachable(self.base_url, path, error)) from error

    def _get(self, model: type[M], path: str, params: Mapping[str, Any] | None = None) -> M:
        return _read(model, self._send("GET", path, params=params))

    def _put(
        self,
        model: type[M],
        method: str,
        path: str,
        body: BaseModel | None,
        params: Mapping[str, Any] | None = None,
        *,
        if_match: str = "",
    ) -> M:
        content = b"" if body is None else body.model_dump_json(exclude_unset=True).encode()
        content_type = "" if body is None else "application/json"
        return _read(
            model, self._send(method, path, params=params, content=content, content_type=content_type, if_match=if_match)
        )

    def _file(
        self, model: type[M], path: str, content: bytes, content_type: str, params: Mapping[str, Any], *, if_match: str = ""
    ) -> M:
        sent = self._send("POST", path, params=params, content=content, content_type=content_type, if_match=if_match)
        return _read(model, sent)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        content_type: str = "",
        encoding: str = "identity",
        if_match: str = "",
    ) -> httpx.Response:
        headers = self._headers | ({"If-Match": if_match} if if_match else {})
        if content_type:
            headers["Content-Type"] = content_type
        if encoding != "identity":
            headers["Content-Encoding"] = encoding
        if self.retries and method != "GET":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        query = {k: _text(v) for k, v in (params or {}).items() if v is not None}
        attempt = 0
        while True:
            wait_seconds = min(_FIRST_WAIT_SECONDS * 2**attempt, MAX_WAIT_SECONDS)
            try:
                answer = self._http.request(method, path, params=query, content=content, headers=headers)
            except httpx.HTTPError as error:
                if attempt >= self.retries:
                    raise raised(unreachable(self.base_url, path, error)) from error
            else:
                if answer.is_success:
                    if method != "GET":
                        self.is_replay = answer.headers.get("RootCost-Replayed") == "true"
                    return answer
                if answer.status_code not in _RETRIED or attempt >= self.retries:
                    raise raised(problem_of(answer))
                retry_after = answer.headers.get("Retry-After", "")
                wait_seconds = min(float(retry_after), MAX_WAIT_SECONDS) if retry_after.isdigit() else wait_seconds
            time.sleep(wait_seconds)
            attempt += 1


def if_match(revision: int | str | None) -> str:
    """The `If-Match` of a change of a revision, by default of whatever is there."""
    return "*" if revision is None else f'"{revision}"'


def segment(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def _read(model: type[M], answer: httpx.Response) -> M:
    return model.model_validate_json(answer.content)


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
