"""Rows of an exported BigQuery table: JSON lines, JSON arrays, gzip or Parquet, recognised by content.

Such files come from ``bq extract``, ``EXPORT DATA``, downloads of consoles and notebooks, and RootCost's own queries. Numbers keep
their digits; doubles of Parquet become their shortest decimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from ingest.logs import json_items
from ingest.logs.json_items import Damage, Item, ItemStream, LineBlock, PartStream
from ingest.source import ListedObject, RawObject
from ledger.errors import FormatError, ObjectMissingError
from ledger.headers import require_unique

PATTERNS = ("*.json", "*.jsonl", "*.ndjson", "*.json.gz", "*.jsonl.gz", "*.ndjson.gz", "*.gz", "*.zst", "*.xz", "*.parquet")
_REMEDY = "export the table again; the rows that are whole were read"
_PARQUET_ROWS = 8192


def select_files(listing: Sequence[ListedObject], uri: str) -> list[ListedObject]:
    """The files that look like extracts. Raises `ObjectMissingError` where there is none."""
    exact_matches = [entry for entry in listing if entry.uri == uri or len(listing) == 1]
    entries = exact_matches or [entry for entry in listing if _looks_like_one(entry.uri.rsplit("/", 1)[-1].lower())]
    if not entries:
        raise ObjectMissingError(
            "nothing here looks like an extract of a table", where=uri, remedy=f"files should end in {', '.join(PATTERNS)}"
        )
    return entries


def _looks_like_one(name: str) -> bool:
    return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in PATTERNS)


def of_object(item: RawObject) -> ItemStream:
    """The rows of a file, and its unreadable parts as `Damage`. Raises `FormatError` if it is neither JSON nor Parquet."""
    yield from json_items.items_of(parts_of_object(item))


def parts_of_object(item: RawObject) -> PartStream:
    """The same, with the lines of JSON lines in blocks of some megabytes."""
    with item.path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        yield from _of_parquet(item)
        return
    try:
        for entry in json_items.parts_of_file(item.path, item.uri):
            yield entry._replace(remedy=_REMEDY) if isinstance(entry, (Damage, LineBlock)) else entry
    except FormatError as error:
        reason = error.what if "LiteLLM" not in error.what else "neither JSON nor Parquet"
        raise FormatError(
            reason,
            where=item.uri,
            remedy="extract the table as newline-delimited JSON or as Parquet; CSV cannot hold nested columns",
        ) from error


def _of_parquet(item: RawObject) -> ItemStream:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(item.path) as file:
            require_unique(file.schema_arrow.names, item.uri)
            for batch in file.iter_batches(_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Item(f"row {number}", row)
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0][:120]
        if not number:
            raise FormatError(
                f"no readable Parquet file: {message}", where=item.uri, remedy="fetch the file again; it may be cut off"
            ) from error
        yield Damage(f"row {number + 1}", "file", f"the Parquet file is damaged from here on: {message}", _REMEDY)
