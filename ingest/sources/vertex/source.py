"""Vertex AI's request-response logs: their BigQuery table, queried live or read from extracts.

Live queries select usage, ids, names, labels and times only: prompts and answers do not leave BigQuery. In extracts they are ignored.
The log is read day by day from the newest ``logging_time`` of the last run, with an overlap; a call that is read twice is stored once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ingest.google import bigquery
from ingest.google.bigquery import BigQuery, TableDescription
from ingest.logs import rows as log_rows
from ingest.logs import table_items
from ingest.logs.files import whole_folder_batches
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage
from ingest.logs.unread_usage import UnreadUsage
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.vertex import calls
from ingest.sources.vertex.calls import NEEDED, Row
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_OVERLAP = timedelta(hours=1)
"""Rows are logged in the background: a row may appear after a later one."""
_DAY = timedelta(days=1)
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_CHUNK = (
    "JSON_VALUE(chunk, '$.responseId') AS responseId, JSON_VALUE(chunk, '$.modelVersion') AS modelVersion, "
    "JSON_QUERY(chunk, '$.usageMetadata') AS usageMetadata, JSON_VALUE(chunk, '$.error.code') AS error, "
    "JSON_QUERY(chunk, '$.candidates[0].groundingMetadata.webSearchQueries') IS NOT NULL AS grounded"
)
_PART = (
    "JSON_VALUE(part, '$.type') AS type, JSON_VALUE(part, '$.id') AS id, JSON_VALUE(part, '$.model') AS model, "
    "JSON_QUERY(part, '$.usage') AS usage, STRUCT(JSON_VALUE(part, '$.message.id') AS id, "
    "JSON_VALUE(part, '$.message.model') AS model, JSON_QUERY(part, '$.message.usage') AS usage) AS message"
)
_EXTRACTED_COLUMNS: Mapping[str, str] = {
    "full_request": (
        "STRUCT(JSON_VALUE(full_request, '$.model') AS model, JSON_VALUE(full_request, '$.endpoint') AS endpoint, "
        "JSON_QUERY(full_request, '$.labels') AS labels) AS full_request"
    ),
    "full_response": (
        f"ARRAY(SELECT AS STRUCT {_CHUNK} FROM UNNEST(IFNULL(JSON_QUERY_ARRAY(full_response), [full_response])) AS chunk) "  # noqa: S608
        "AS full_response"
    ),
    "response_payload": (
        f"ARRAY(SELECT AS STRUCT {_PART} FROM (SELECT SAFE.PARSE_JSON(spelt) AS part FROM UNNEST(response_payload) AS spelt)) "  # noqa: S608
        "AS response_payload"
    ),
}
"""Columns with prompts and answers, and the parts of them that are selected. Columns neither here nor below are not selected."""
_PLAIN_COLUMNS = (
    "logging_time",
    "request_id",
    "endpoint",
    "deployed_model_id",
    "model",
    "model_version",
    "api_method",
    "metadata",
)


class Vertex:
    """The `vertex` source."""

    name = "vertex"
    kind: Literal["bill", "log"] = "log"
    title = "Vertex AI request-response logs: BigQuery, or extracts of it as JSON lines or Parquet"
    patterns: tuple[str, ...] = table_items.PATTERNS
    access = Access(
        needs="Google credentials (GOOGLE_APPLICATION_CREDENTIALS) that may read the log's dataset and run queries; extracts need none",
        policy=(
            "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT --role=roles/bigquery.jobUser\n"
            "bq query --use_legacy_sql=false 'GRANT `roles/bigquery.dataViewer` ON SCHEMA `PROJECT.DATASET` "
            'TO "serviceAccount:ACCOUNT"\''
        ),
        lag=timedelta(hours=1),
        cron="*/15 * * * *",
        addresses=("bigquery://project.dataset.request_response_logging", "s3://bucket/vertex-logs/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The days of a table since the last run; or every extract of a folder as a batch of its own."""
        if uri.startswith(bigquery.SCHEME):
            yield from _days(fetcher, uri)
            return
        description = "an extract of a table"
        yield from whole_folder_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=description)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The calls of one object, in batches."""
        rows, problems, item_count = list[Row](), list[Problem](), 0
        unread = UnreadUsage(self.name, item.uri)

        def add_problem(place: str, field: str, reason: str, remedy: str) -> None:
            problems.append(Problem(self.name, item.uri, place, field, reason, remedy))

        for entry in table_items.of_object(item):
            if isinstance(entry, Damage):
                add_problem(*entry)
                continue
            item_count += 1
            if item_count == 1 and not (isinstance(entry.value, Mapping) and set(entry.value) >= NEEDED):
                raise FormatError(
                    "no request-response log of Vertex AI",
                    where=item.uri,
                    remedy=f"a row of the log has {', '.join(sorted(NEEDED))}, model, full_request and full_response",
                )
            try:
                rows.append(calls.of_row(entry.value, settings, unread) | {"raw_id": item.raw_id})
            except FieldError as error:
                add_problem(entry.place, error.field, error.reason, error.remedy)
            if len(rows) >= log_rows.BATCH_ROWS:
                yield Reading(log_rows.frame(rows), problems)
                rows, problems = [], []
        problems += unread.problems()
        if rows or problems:
            yield Reading(log_rows.frame(rows), problems)


# ── the live table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _days(fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
    table = bigquery.parse_address(uri)
    query = BigQuery(table)
    about = query.describe()
    missing_columns = sorted(NEEDED - about.columns)
    if missing_columns:
        raise FormatError(
            f"no request-response log: the table lacks {', '.join(missing_columns)}",
            where=table.uri,
            remedy="name the table of setPublisherModelConfig or of the endpoint, such as request_response_logging",
        )
    window, checkpoint = fetcher.window, fetcher.checkpoint(table.uri)
    has_window = window.since is not None or window.until is not None
    since = _midnight(window.since) if window.since else _BEGINNING
    if checkpoint and not has_window:
        since = datetime.fromisoformat(checkpoint) - _OVERLAP
    until = _midnight(window.until) if window.until else datetime(9999, 1, 1, tzinfo=UTC)
    first, last = _time_range(query, about, since, until)
    while first is not None and last is not None and first <= last:
        end = min(_midnight(first) + _DAY, last + timedelta(microseconds=1))
        content = bigquery.sort_lines(_calls(query, about, first, end))
        item = fetcher.store_bytes(f"{table.uri}/{table.table}_{first:%Y-%m-%dT%H%M%S}.jsonl", content)
        last_read = end - timedelta(microseconds=1)
        yield Batch(scope=table.uri, objects=(item,), checkpoints={} if has_window else {table.uri: last_read.isoformat()})
        first = end


def _midnight(day: Any) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _time_range(
    query: BigQuery, about: TableDescription, since: datetime, until: datetime
) -> tuple[datetime | None, datetime | None]:
    """The oldest and the newest call in ``(since, until)``."""
    sql = (
        f"SELECT MIN(logging_time) AS first, MAX(logging_time) AS last FROM {query.address.quoted} "  # noqa: S608 - names are checked
        "WHERE logging_time > @since AND logging_time < @until"
    )
    for row in query.query(sql, about, since=since, until=until):
        return row["first"], row["last"]
    return None, None


def _calls(query: BigQuery, about: TableDescription, since: datetime, until: datetime) -> Iterator[str]:
    """The calls of ``[since, until)`` as JSON, without prompts and answers."""
    columns = [name for name in _PLAIN_COLUMNS if name in about.columns] + [
        sql for name, sql in _EXTRACTED_COLUMNS.items() if name in about.columns
    ]
    sql = (
        f"SELECT TO_JSON_STRING(call) AS line FROM (SELECT {', '.join(columns)} FROM {query.address.quoted} "  # noqa: S608 - names are checked
        "WHERE logging_time >= @since AND logging_time < @until) AS call"
    )
    for row in query.query(sql, about, since=since, until=until):
        yield row["line"]


SOURCE = Vertex()
