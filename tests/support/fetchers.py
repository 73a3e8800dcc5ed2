"""A fetcher for tests of sources that read no world at all; a test overrides the methods its source may call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ingest.source import Fetcher, ListedObject, RawObject, Request, Window


class NoFetcher(Fetcher):
    """Every method raises `AssertionError`: the source was not expected to call it."""

    manifest_locations: Sequence[str] = ()

    def __init__(self) -> None:
        self.window = Window()

    def list(self, uri: str) -> Sequence[ListedObject]:
        raise AssertionError(uri)

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        raise AssertionError(uri)

    def get(self, uri: str) -> RawObject:
        raise AssertionError(uri)

    def request(self, request: Request) -> RawObject:
        raise AssertionError(request)

    def store_bytes(self, uri: str, content: bytes | Iterable[bytes], *, version: str = "") -> RawObject:
        raise AssertionError(uri)

    def checkpoint(self, key: str) -> str | None:
        raise AssertionError(key)
