"""Heads of the audit log kept outside of the database: one small object for each, in a folder or below an S3 prefix, never overwritten.

The name of an object has all that counts, ``audit-head-SEQUENCE-HASH.json``: to list the names is to read the heads. In a bucket with
object lock an object is locked by the rule of the bucket, or, where it has none, for as long as the setting says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ledger.audit import Head, canonical
from ledger.audit_verify import read_head
from ledger.errors import StoreUnreachable, UsageError
from ledger.filesystem import make_folder, sync_folder
from ledger.s3 import s3_client

if TYPE_CHECKING:
    from ledger.books import Books

_NAME: Final = re.compile(r"audit-head-(\d+)-([0-9a-f]{64})\.json")
_REMEDY: Final = "check audit.heads_uri, the credentials and their rights (s3:PutObject, s3:ListBucket), and that it answers"


def keep_head(books: Books) -> Head | None:
    """Writes the head where the setting says, if it is not there yet; returns it if it was written."""
    uri = books.settings.audit.heads_uri
    if not uri:
        return None
    with books.database.session() as session:
        head = read_head(session)
    if head.sequence == 0 or head in kept_heads(books):
        return None
    name = f"audit-head-{head.sequence:012d}-{head.hash}.json"
    content = canonical({"sequence": head.sequence, "hash": head.hash, "kept_at": datetime.now(UTC)})
    with _reporting(uri):
        if uri.startswith("s3://"):
            _put_object(books, uri, name, content)
        else:
            _write_file(Path(uri).expanduser(), name, content)
    return head


def kept_heads(books: Books) -> list[Head]:
    """The heads that were kept; none where the setting names no place. Raises `StoreUnreachable` if the place does not answer."""
    uri = books.settings.audit.heads_uri
    if not uri:
        return []
    with _reporting(uri):
        names = _object_names(books, uri) if uri.startswith("s3://") else _file_names(Path(uri).expanduser())
        return sorted((head for name in names if (head := _parse_name(name)) is not None), key=lambda h: (h.sequence, h.hash))


def parse_head(text: str) -> Head:
    """A head as `rootcost audit head` prints it: SEQUENCE:HASH. Raises `UsageError` for anything else.

    >>> parse_head("12:" + "a" * 64).sequence
    12
    """
    sequence, _, digest = text.strip().partition(":")
    if not sequence.isdecimal() or not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(
            f"{text!r} is no head of the audit log",
            where="--head",
            remedy="write SEQUENCE:HASH, as `rootcost audit head` prints it",
        )
    return Head(int(sequence), digest)


def _parse_name(name: str) -> Head | None:
    match = _NAME.fullmatch(name)
    return None if match is None else Head(int(match[1]), match[2])


def _write_file(folder: Path, name: str, content: bytes) -> None:
    make_folder(folder)
    path = folder / name
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o400)
    sync_folder(folder)


def _file_names(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())


def _put_object(books: Books, uri: str, name: str, content: bytes) -> None:
    client, bucket, prefix = _client(books), *_bucket_and_prefix(uri)
    client.put_object(
        Bucket=bucket, Key=prefix + name, Body=content, ContentType="application/json", **_lock(books, client, bucket)
    )


def _lock(books: Books, client: Any, bucket: str) -> dict[str, Any]:
    """What locks an object, in a bucket that has object lock and no rule that does so by itself."""
    from botocore.exceptions import ClientError

    try:
        configuration = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    except ClientError:  # a bucket without object lock, or no right to ask: the object is written all the same
        return {}
    if configuration.get("ObjectLockEnabled") != "Enabled" or configuration.get("Rule"):
        return {}
    until = datetime.now(UTC) + timedelta(days=books.settings.audit.heads_locked_days)
    return {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until, "ChecksumAlgorithm": "SHA256"}


def _object_names(books: Books, uri: str) -> Iterator[str]:
    client, bucket, prefix = _client(books), *_bucket_and_prefix(uri)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            yield entry["Key"].removeprefix(prefix)


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def _client(books: Books) -> Any:
    return s3_client(books.settings.store.options)


@contextmanager
def _reporting(uri: str) -> Iterator[None]:
    """Turns what the disk or S3 answers into one error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise StoreUnreachable(f"the head of the audit log cannot be kept or read: {error}", where=uri, remedy=_REMEDY) from error
