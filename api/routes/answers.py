"""Answers of every route that lists rows: format, page and cursor are decided here, once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import polars as pl
from fastapi import Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api.cursors import CursorSeal, digest, query_of
from api.errors import RequestError, described_responses
from api.etags import NOT_MODIFIED
from api.formats import FILE_TYPES, Format, file_response, negotiated
from api.models import Page
from api.queries.chains import MAX_PAGE
from api.queries.gate import ScopedBooks, published
from api.queries.listing import Listing, RowGoneError, Totals
from api.queries.model_frames import frame_of
from api.queries.publication import one_publication
from ledger import money

M = TypeVar("M", bound=BaseModel)

ROWS: dict[int | str, dict[str, Any]] = {
    200: {"content": FILE_TYPES, "description": "A page as JSON, or all rows in another format"},
    **NOT_MODIFIED,
    **described_responses({410: "The cursor belongs to runs that were replaced"}),
}
"""The responses of a route that lists rows."""

_PAGE_ROWS = 100

FormatParam = Annotated[
    Format | None, Query(description="json, ndjson, csv, parquet or arrow; by default what the Accept header likes best.")
]


class Rows:
    """How a request wants its rows: a dependency of the routes that list rows, which answer with it."""

    def __init__(self, request: Request, format: FormatParam = None) -> None:  # noqa: A002 - the name in the address
        self._request = request
        self.format: Format = format or negotiated(request.headers.get("accept", ""))

    @property
    def is_json(self) -> bool:
        """Whether JSON is wanted, else a file."""
        return self.format == "json"

    def document(self, document: BaseModel) -> Response:
        """A document as JSON."""
        return Response(document.model_dump_json(warnings="none"), media_type="application/json")

    def whole(self, listing: Listing[M], name: str) -> Response:
        """All rows, as one page or as a file."""
        return self.document(listing.page()) if self.is_json else self.file(listing, name)

    def file(self, listing: Listing[M], name: str, totals: Totals | None = None) -> Response:
        """All rows as a file. Their number, and sums of money, are in the headers."""
        totals = totals or listing.totals()
        headers = _total_headers(totals)
        return file_response(listing.frames(totals), self.format, name=name, headers=headers)

    def frame_file(self, frame: pl.DataFrame, name: str, sums: Sequence[str] = ()) -> Response:
        """A frame as a file, with the sums of its columns by currency."""
        by_currency = (
            frame.group_by("currency", maintain_order=True).agg(pl.col(column).sum() for column in sums) if sums else frame
        )
        totals = {column: dict(by_currency.select("currency", column).iter_rows()) for column in sums}
        return file_response([frame], self.format, name=name, headers=_total_headers(Totals(frame.height, totals)))


class Pages(Rows):
    """The same for lists with pages."""

    def __init__(
        self,
        request: Request,
        format: FormatParam = None,  # noqa: A002
        limit: Annotated[
            int | None,
            Query(ge=1, le=MAX_PAGE, description="Maximum number of rows of a page; none: 100 as JSON, and all rows as a file."),
        ] = None,
        cursor: Annotated[
            str | None, Query(max_length=4096, description="`next` of the page before, from the same query.")
        ] = None,
        offset: Annotated[
            int, Query(ge=0, le=2**31, description="Number of rows to skip; a cursor is faster, and misses no row.")
        ] = 0,
    ) -> None:
        super().__init__(request, format)
        self.limit, self.cursor, self.offset = limit, cursor, offset
        request.state.is_personal = cursor is not None  # a cursor belongs to its principal
        if cursor is not None and offset:
            raise RequestError(422, "invalid", "a cursor has its place already", where="offset", remedy="send one of the two")

    @property
    def is_all(self) -> bool:
        """Whether no page is asked for."""
        return self.limit is None and self.cursor is None and not self.offset

    def __call__(
        self, books: ScopedBooks, listing: Listing[M], name: str, document_of: Callable[[Page[M]], BaseModel] | None = None
    ) -> Response:
        """One page, or all rows as a file. `document_of` makes the document of a page that is more than its rows."""
        if not self.is_json and self.is_all:
            return self.file(listing, name)
        page = self._page(books, listing)
        headers = {}
        if page.next:
            self._request.state.next_cursor = page.next
            next_url = self._request.url.include_query_params(cursor=page.next).remove_query_params("offset")
            headers["Link"] = f'<{next_url.replace(path=quote(self._request.url.path))}>; rel="next"'
        if self.is_json:
            document = document_of(page) if document_of else page
            return Response(document.model_dump_json(warnings="none"), media_type="application/json", headers=headers)
        totals = Totals(page.total, page.totals)
        return file_response(
            [frame_of(listing.model, page.rows)], self.format, name=name, headers=headers | _total_headers(totals)
        )

    @one_publication
    def _page(self, books: ScopedBooks, listing: Listing[M]) -> Page[M]:
        seal: CursorSeal = self._request.app.state.cursor_seal
        query = query_of(self._request.url.path, self._request.query_params.multi_items(), books.principal)
        place = {"query": query, "runs": _runs(books) if listing.is_of_runs else ""}
        after = None if self.cursor is None else seal.open(self.cursor, **place)
        try:
            page, last = listing.page_with_keys(limit=self.limit or _PAGE_ROWS, offset=self.offset, after=after)
        except RowGoneError as error:
            raise RequestError(410, "cursor-replaced", error.what, where=error.where, remedy=error.remedy) from error
        if last is not None:
            page.next = seal.close(last, **place)
        return page


def _runs(books: ScopedBooks) -> str:
    return digest(*(f"{m.month}:{m.run_id}:{','.join(m.rollup_ids)}" for m in published(books)))


def _total_headers(totals: Totals) -> dict[str, str]:
    # A bill may name any currency, and a header holds no other characters than these.
    sums = (
        f"{name}.{quote(currency, safe='')}={money.text(amount)}"
        for name, sums in totals.sums.items()
        for currency, amount in sums.items()
    )
    return {"RootCost-Rows": str(totals.rows), **({"RootCost-Totals": text} if (text := ", ".join(sums)) else {})}


AnyRows = Annotated[Rows, Depends(Rows)]
AnyPage = Annotated[Pages, Depends(Pages)]
