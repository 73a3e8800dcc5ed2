"""Whether an address names a file, or a folder or prefix of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingest.source import ListedObject


def is_the_file(entry: ListedObject, uri: str, listing: Sequence[ListedObject]) -> bool:
    """Whether the address named exactly this file, rather than a folder that happens to hold one.

    >>> one = [ListedObject("s3://b/cur/part.csv", 1)]
    >>> is_the_file(one[0], "s3://b/cur/part.csv", one), is_the_file(one[0], "s3://b/cur", one)
    (True, False)
    """
    return len(listing) == 1 and entry.uri.rsplit("/", 1)[-1] == uri.rsplit("/", 1)[-1]


def folder_name(uri: str) -> str:
    """The name of a folder or prefix, without what is above it.

    >>> folder_name("s3://bucket/exports/focus/"), folder_name("s3://bucket")
    ('focus', 'bucket')
    """
    return uri.rstrip("/").rsplit("/", 1)[-1] if uri.startswith("s3://") else Path(uri).expanduser().resolve().name


def folder_address(uri: str) -> str:
    """The whole address of a folder or prefix, without a slash at its end.

    >>> folder_address("s3://bucket/exports/focus/")
    's3://bucket/exports/focus'
    """
    return uri.rstrip("/") if uri.startswith("s3://") else Path(uri).expanduser().absolute().as_posix()
