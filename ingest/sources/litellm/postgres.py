"""LiteLLM's PostgreSQL: new rows of ``LiteLLM_SpendLogs``, page by page, with little load on the database.

Pages are keyed by ``("startTime", request_id)``, for which LiteLLM has an index, never by offset. Each page is a read-only transaction,
so that a slow reader blocks nothing. Rows are written in batches after their calls ended, so every run looks back; where the table has
the time of writing, rows that were read before are not sent again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from time import sleep
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ingest.source import Batch, Fetcher, Window
from ledger.errors import ObjectMissingError, StoreUnreachable

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

SCHEMES = ("postgresql://", "postgres://")
TABLE = "LiteLLM_SpendLogs"
COLUMNS = (
    "request_id", "call_type", "api_key", "spend", "total_tokens", "prompt_tokens", "completion_tokens", "startTime", "endTime",
    "model", "model_id", "model_group", "custom_llm_provider", "api_base", "user", "metadata", "cache_hit", "request_tags", "team_id",
    "organization_id", "end_user", "session_id", "status", "mcp_namespaced_tool_name", "billing_agent_id", "agent_id",
    "litellm_call_id", "updated_at",
)  # fmt: skip
"""The columns that are read, where the gateway's version has them. Columns of prompts and answers are not among them."""
PASSWORD = "ROOTCOST_LITELLM_DB_PASSWORD"  # noqa: S105 - the name of a variable
GRANT = "\n".join(
    (
        "CREATE ROLE rootcost_reader LOGIN PASSWORD '…';",
        f'GRANT SELECT ({", ".join(f"{chr(34)}{name}{chr(34)}" for name in COLUMNS)}) ON "{TABLE}" TO rootcost_reader;',
    )
)
"""The least privileges that a reader needs; leave out columns that the gateway's version does not have."""

PAGE_ROWS = 5_000
LOOK_BACK = timedelta(hours=1)
"""How long after its start a call may be written and is still read, in tables without a time of writing."""
LOOK_BACK_BY_WRITE_TIME = timedelta(hours=3)
"""The same for tables with a time of writing: only recently written rows are sent, so looking back is cheap."""
_SKEW = timedelta(minutes=15)
"""Largest difference between the clocks of the proxies, which set the time of writing."""
_STATEMENT_SECONDS = 300
_ATTEMPTS = 4
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_PRISMA_PARAMETERS = frozenset(
    {"schema", "connection_limit", "pool_timeout", "pgbouncer", "socket_timeout", "statement_cache_size"}
)
"""Parameters of LiteLLM's own DATABASE_URL that only Prisma understands."""


@dataclass(frozen=True, slots=True)
class Address:
    """``postgresql://user@host:5432/database?schema=public``: the public URI, without secrets, and the connection string."""

    uri: str
    connection: str
    schema: str


def address(uri: str) -> Address:
    """Parses an address. A password in it is for the connection only.

    >>> address("postgres://reader@db.example/litellm?schema=gateway&connection_limit=5").uri
    'postgresql://reader@db.example/litellm?schema=gateway'
    >>> address("postgres://reader:pass@db.example/litellm").uri, address("postgres://reader:pass@db.example/litellm").connection
    ('postgresql://reader@db.example/litellm', 'postgresql://reader:pass@db.example/litellm')
    """
    parts = urlsplit(uri)
    query = parse_qsl(parts.query)
    userinfo, at, host = parts.netloc.rpartition("@")
    user = userinfo.partition(":")[0]
    schema = next((value for name, value in query if name == "schema"), "")
    base = f"postgresql://{user}{at}{host}{parts.path.rstrip('/')}"
    public_uri = f"{base}?{urlencode({'schema': schema})}" if schema else base
    libpq = urlencode([(name, value) for name, value in query if name not in _PRISMA_PARAMETERS], quote_via=quote)
    connection = f"postgresql://{userinfo}{at}{host}{parts.path.rstrip('/')}"
    return Address(public_uri, f"{connection}?{libpq}" if libpq else connection, unquote(schema))


Rows = list[tuple[datetime, str, datetime | None, str]]
"""Of each row: start, request id, time of writing if the table has it, and the row as JSON."""


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """How far the table was read: the newest start of a call, and the newest time of writing if the table has it."""

    last_start: datetime
    last_write: datetime | None = None

    @classmethod
    def parse(cls, value: str | None) -> _Checkpoint | None:
        if value is None:
            return None
        fields = json.loads(value)
        return cls(*(datetime.fromisoformat(fields[name]) if fields.get(name) else None for name in ("started", "written")))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return json.dumps({"started": self.last_start.isoformat(), "written": self.last_write and self.last_write.isoformat()})

    def advance(self, rows: Rows, *, now: datetime) -> _Checkpoint:
        """The checkpoint after a page, at most `now`: a row dated in the future must not hide earlier rows."""
        write_times = [min(row[2], now) for row in rows if row[2]] + ([self.last_write] if self.last_write else [])
        return _Checkpoint(max(self.last_start, min(rows[-1][0], now)), max(write_times, default=None))


def plan(fetcher: Fetcher, uri: str, *, page_rows: int = PAGE_ROWS) -> Iterator[Batch]:
    """New rows of the table, one batch a page; with a window, the rows of calls that started in it.

    The first run reads all rows. Raises `StoreUnreachable` or `ObjectMissingError`, which say what is missing.
    """
    target = address(uri)
    last, window = _Checkpoint.parse(fetcher.checkpoint(target.uri)), fetcher.window
    checkpoint = last or _Checkpoint(_BEGINNING)
    with _Table(target) as table:
        columns, now = table.columns(), table.now()
        has_write_times = "updated_at" in columns
        query, begin = _query(columns, target.schema, window, last, has_write_times=has_write_times)
        after: tuple[datetime, str] = (begin, "")
        while rows := table.page(query | {"started": after[0], "id": after[1], "rows": page_rows}):
            page = fetcher.store_bytes(f"{target.uri}#{TABLE} after {after[0].isoformat()} {after[1]}".rstrip(), _lines(rows))
            checkpoint, after = checkpoint.advance(rows, now=now), rows[-1][:2]
            # Until the look-back range is read completely, the newest time of writing must not hide the rest of it.
            safe = replace(checkpoint, last_write=last.last_write) if last and after[0] <= last.last_start else checkpoint
            yield Batch(scope=target.uri, objects=(page,), checkpoints={target.uri: str(safe)} if window == Window() else {})
    if window != Window():
        checkpoint = last or _Checkpoint(_BEGINNING)
    if checkpoint.last_start > _BEGINNING:
        yield Batch(scope=target.uri, objects=(), checkpoints={target.uri: str(checkpoint)})


def _lines(rows: Rows) -> Iterator[bytes]:
    for _, _, _, row in rows:
        yield row.encode() + b"\n"


def _query(
    columns: frozenset[str], schema: str, window: Window, last: _Checkpoint | None, *, has_write_times: bool
) -> tuple[dict[str, Any], datetime]:
    """The query of a page with its constant parameters, and the start of the first page."""
    from psycopg import sql

    since = datetime.combine(window.since, time(), UTC) if window.since else None
    until = datetime.combine(window.until, time(), UTC) if window.until else None
    begin = since or _BEGINNING
    conditions: sql.Composable = sql.SQL("")
    parameters: dict[str, Any] = {"until": until}
    if last is not None and window == Window():
        begin = last.last_start - (LOOK_BACK_BY_WRITE_TIME if has_write_times and last.last_write else LOOK_BACK)
        if has_write_times and last.last_write:
            conditions += sql.SQL(' AND ("startTime" > %(seen)s::timestamp OR "updated_at" >= %(written)s::timestamp)')
            parameters |= {"seen": last.last_start, "written": last.last_write - _SKEW}
    if until is not None:
        conditions += sql.SQL(' AND "startTime" < %(until)s::timestamp')
    statement = sql.SQL(
        'SELECT "startTime"::timestamptz, "request_id", {written}::timestamptz, to_jsonb(page)::text FROM ('
        "SELECT {columns} FROM {table} "
        'WHERE ("startTime", "request_id") > (%(started)s::timestamp, %(id)s){kept} ORDER BY "startTime", "request_id" LIMIT %(rows)s) page'
    ).format(
        written=sql.Identifier("updated_at") if has_write_times else sql.SQL("NULL"),
        columns=sql.SQL(", ").join(sql.Identifier(name) for name in COLUMNS if name in columns),
        table=sql.Identifier(schema, TABLE) if schema else sql.Identifier(TABLE),
        kept=conditions,
    )
    return parameters | {"statement": statement}, begin


class _Table:
    """The table, through a connection that reconnects after a failure."""

    def __init__(self, target: Address) -> None:
        self._where = target
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def columns(self) -> frozenset[str]:
        """The readable columns. Raises `ObjectMissingError` or `StoreUnreachable` where required columns are missing or not readable."""
        from psycopg import sql

        name = sql.Identifier(self._where.schema, TABLE) if self._where.schema else sql.Identifier(TABLE)

        def execute(cursor: psycopg.Cursor[Any]) -> list[tuple[str, bool]]:
            cursor.execute("SELECT to_regclass(%s)", (name.as_string(cursor),))
            (oid,) = cursor.fetchone() or (None,)
            if oid is None:
                return []
            cursor.execute(
                "SELECT attname, has_column_privilege(attrelid, attnum, 'SELECT') FROM pg_attribute "
                "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                (name.as_string(cursor),),
            )
            return cursor.fetchall()

        privileges = dict(self._execute(execute))
        if not privileges:
            raise ObjectMissingError(
                f"there is no table {TABLE} here",
                where=self._where.uri,
                remedy="name LiteLLM's own database, and its schema as ?schema=… if it is not in the search path",
            )
        required_columns = {"request_id", "startTime"}
        if not required_columns <= privileges.keys():
            raise ObjectMissingError(
                f"{TABLE} has no column {', '.join(sorted(required_columns - privileges.keys()))}",
                where=self._where.uri,
                remedy="name LiteLLM's own database",
            )
        readable = frozenset(column for column, may in privileges.items() if may)
        if not required_columns <= readable:
            raise StoreUnreachable(f"{TABLE} may not be read", where=self._where.uri, remedy=f"run as its owner: {GRANT}")
        return readable

    def now(self) -> datetime:
        """The server's clock."""

        def execute(cursor: psycopg.Cursor[Any]) -> datetime:
            cursor.execute("SELECT now()")
            (value,) = cursor.fetchone() or (datetime.now(UTC),)
            moment: datetime = value
            return moment

        return self._execute(execute)

    def page(self, query: Mapping[str, Any]) -> Rows:
        """The rows of one page."""

        def execute(cursor: psycopg.Cursor[Any]) -> Rows:
            cursor.execute(query["statement"], {k: v for k, v in query.items() if k != "statement"})
            return cursor.fetchall()

        return self._execute(execute)

    def _execute(self, run_query: Callable[[psycopg.Cursor[Any]], T]) -> T:
        """The answer to a question, put again on a new connection where the old one broke."""
        import psycopg

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                connection = self._connected()
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s'; SET LOCAL timezone = 'UTC'")
                    return run_query(cursor)
            except psycopg.errors.InsufficientPrivilege as error:
                raise self._unreachable_error(error, f"run as its owner: {GRANT}") from error
            except psycopg.OperationalError as error:
                broken = self._connection is not None and not isinstance(error, psycopg.errors.QueryCanceled)
                self._close()
                if not broken or attempt == _ATTEMPTS:
                    raise self._unreachable_error(error, _remedy(error)) from error
                sleep(0.5 * 2 ** (attempt - 1))
            except psycopg.Error as error:
                raise self._unreachable_error(error, "check the address and the table") from error
        raise AssertionError("unreachable")

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            import psycopg

            secret = os.environ.get(PASSWORD) or None
            # Without prepared statements and session settings it also works behind a pooler.
            self._connection = psycopg.connect(
                self._where.connection, connect_timeout=10, application_name="rootcost", prepare_threshold=None, password=secret
            )
            self._connection.read_only = True
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _unreachable_error(self, error: Exception, remedy: str) -> StoreUnreachable:
        message = " ".join(str(error).split())[:300] or type(error).__name__
        return StoreUnreachable(message, where=self._where.uri, remedy=remedy)


def _remedy(error: Exception) -> str:
    message = str(error)
    if "password" in message or "authentication" in message:
        return f"set {PASSWORD} or PGPASSWORD, or use ~/.pgpass"
    if "statement timeout" in message:
        return 'the table needs its index on ("startTime", request_id); ask a shorter window until it has one'
    return "check host, port and database; it is asked again with the next run"
