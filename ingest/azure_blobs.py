"""File access to Azure blob storage: ``https://account.blob.core.windows.net/container/folder``.

Blobs are listed and read with a shared access signature from the environment. A large blob is read in parts of one version: if it is
overwritten meanwhile, an error is raised, and it is read with the next run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit
from xml.etree import ElementTree as ET

from ingest.source import Fetcher, ListedObject, RawObject, Request
from ledger.errors import FormatError, ObjectMissingError, StoreUnreachable

KEY: Final = "AZURE_STORAGE_SAS_TOKEN"
_HEADERS: Final = {"accept": "*/*", "x-ms-version": "2023-11-03"}
_PART_BYTES = 32 << 20


def is_address(uri: str) -> bool:
    """Whether the address is an HTTP address."""
    return uri.startswith(("http://", "https://"))


def list_blobs(fetcher: Fetcher, uri: str) -> Sequence[ListedObject]:
    """All blobs of a container below a folder, in name order. Raises `ObjectMissingError` where there are none."""
    container, folder = _parts(uri)
    blobs: list[ListedObject] = []
    marker: str | None = ""
    while marker is not None:
        query = [("restype", "container"), ("comp", "list"), ("prefix", folder), *([("marker", marker)] if marker else [])]
        item = fetcher.request(Request(container, query=query, headers=_HEADERS, secret_query=_signature()))
        page, following = _page(item.path.read_bytes(), container, uri)
        if following is not None and following == marker:
            raise FormatError("the listing does not end", where=uri, remedy="list again later")
        blobs += page
        marker = following
    blobs_below = [
        e for e in blobs if not folder or e.uri == f"{container}/{folder}" or e.uri.startswith(f"{container}/{folder}/")
    ]
    if not blobs_below:
        raise ObjectMissingError("no blobs here", where=uri, remedy="check the account, the container and the folder")
    return sorted(blobs_below, key=lambda entry: entry.uri)


def fetch_blob(fetcher: Fetcher, entry: ListedObject) -> RawObject:
    """The bytes of a blob, all of one version."""
    guard = {"if-match": f'"{entry.version}"'} if entry.version else {}

    def asked(headers: dict[str, str]) -> RawObject:
        request = Request(_quoted_url(entry.uri), headers=_HEADERS | guard | headers, secret_query=_signature())
        try:
            return fetcher.request(request)
        except StoreUnreachable as error:
            if not error.what.startswith("412"):
                raise
            remedy = "nothing to do: it is read with the next run"
            raise StoreUnreachable("the blob was overwritten while it was read", where=entry.uri, remedy=remedy) from error

    def parts() -> Iterator[bytes]:
        for start in range(0, entry.size, _PART_BYTES):
            part = asked({"range": f"bytes={start}-{min(start + _PART_BYTES, entry.size) - 1}"})
            yield part.path.read_bytes()
            part.path.unlink(missing_ok=True)  # it goes on as a part of the whole

    if entry.size > _PART_BYTES:
        return replace(fetcher.store_bytes(entry.uri, parts(), version=entry.version), modified=entry.modified)
    item = asked({})
    return replace(item, uri=entry.uri, version=item.version or entry.version, modified=entry.modified)


def _parts(uri: str) -> tuple[str, str]:
    """The container's address, and the folder in it."""
    url = urlsplit(uri)
    container, _, folder = url.path.strip("/").partition("/")
    if url.query:
        raise StoreUnreachable(
            "the address holds a query; a signature in it would be stored",
            where=f"{url.scheme}://{url.netloc}{url.path}",
            remedy=f"name the address without it, and put the signature into {KEY}",
        )
    if not container:
        raise ObjectMissingError(
            "the address names no container", where=uri, remedy="write https://account.blob.core.windows.net/container/folder"
        )
    return f"{url.scheme}://{url.netloc}/{container}", folder


def _signature() -> Sequence[tuple[str, str]]:
    token = os.environ.get(KEY, "").strip().lstrip("?")
    if not token:
        raise StoreUnreachable(
            f"no signature in the environment ({KEY})",
            remedy=f"set {KEY} to a shared access signature with the rights to read and list (sp=rl) the container",
        )
    return parse_qsl(token, keep_blank_values=True)


def _quoted_url(uri: str) -> str:
    url = urlsplit(uri)
    path = uri[len(f"{url.scheme}://{url.netloc}") :]
    return f"{url.scheme}://{url.netloc}{quote(path)}"


def _page(body: bytes, container: str, uri: str) -> tuple[list[ListedObject], str | None]:
    """The blobs of a page of the listing, and the marker of the next."""
    format_error = FormatError(
        "the response is no listing of blobs", where=uri, remedy="check the address: it should be a container's"
    )
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise format_error
    try:
        root = ET.fromstring(body.decode("utf-8-sig"))  # noqa: S314 - without declarations there is nothing to expand
    except (ET.ParseError, UnicodeDecodeError) as error:
        raise format_error from error
    blobs = []
    for blob in root.iterfind("Blobs/Blob"):
        name, size = blob.findtext("Name"), blob.findtext("Properties/Content-Length")
        if root.tag != "EnumerationResults" or not name or size is None or not size.isdigit():
            raise format_error
        version = (blob.findtext("Properties/Etag") or "").strip('"')
        blobs.append(
            ListedObject(f"{container}/{name}", int(size), version, _parse_time(blob.findtext("Properties/Last-Modified")))
        )
    return blobs, root.findtext("NextMarker") or None


def _parse_time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except (ValueError, TypeError):
        return None
