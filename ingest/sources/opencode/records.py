"""What a file of OpenCode holds: the JSON of a message, of a session or of an export, or the rows of its SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from ingest.logs import files
from ingest.logs.json_fields import parse_json
from ingest.logs.json_items import Damage, Item, ItemStream
from ingest.source import RawObject
from ledger.errors import FormatError

_MAGIC = b"SQLite format 3\x00"
_REMEDY = "copy the database again while OpenCode is closed, or export the session: opencode export"
_QUERIES: Mapping[str, str] = {
    "session": "SELECT id, parent_id AS parentID, time_created FROM session",
    "message": "SELECT id, session_id AS sessionID, data FROM message",
    "part": "SELECT id, session_id AS sessionID, message_id AS messageID, data FROM part WHERE data LIKE '%step-finish%'",
}
"""What is read of each table: the text of parts is not, but for requests that ended."""


def items(item: RawObject, description: str) -> ItemStream:
    """The records of a file. Raises `FormatError` where it is none of OpenCode."""
    with item.path.open("rb") as file:
        is_database = file.read(len(_MAGIC)) == _MAGIC
    if not is_database:
        yield from files.items(item, description=description, remedy="copy the session's file again")
        return
    try:
        with closing(sqlite3.connect(f"{item.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.row_factory = sqlite3.Row
            for table, query in _QUERIES.items():
                yield from _rows(database, table, query)
    except sqlite3.Error as error:
        raise FormatError(f"no readable database of OpenCode: {error}", where=item.uri, remedy=_REMEDY) from error


def _rows(database: sqlite3.Connection, table: str, query: str) -> Iterator[Item | Damage]:
    for number, row in enumerate(database.execute(query), 1):
        columns = dict(row)
        try:
            data: Any = (
                parse_json(columns.pop("data")) if "data" in columns else {"time": {"created": columns.pop("time_created")}}
            )
        except (ValueError, TypeError, RecursionError):
            yield Damage(f"{table} {number}", "data", "is no JSON", _REMEDY)
            continue
        record = dict(data) if isinstance(data, Mapping) else {}
        record |= {name: value for name, value in columns.items() if value is not None}
        yield Item(f"{table} {number}", record | ({"projectID": ""} if table == "session" else {}))
