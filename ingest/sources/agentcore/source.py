"""Amazon Bedrock AgentCore: spans and usage logs from CloudWatch.

    rootcost ingest agentcore s3://logs/exported/aws-spans/       an export of the log group aws/spans
    rootcost ingest agentcore s3://logs/AWSLogs/                   usage logs, delivered to S3
    rootcost ingest agentcore events.json                          aws logs filter-log-events, Logs Insights, Firehose

Spans report calls of models and tools; usage logs report processor and memory time by session. Content logs have no usage and are
skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

from ingest import policies
from ingest.logs import cloudwatch, files, rows
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage
from ingest.otel import trace_stores
from ingest.otel.decode import Exported, from_document
from ingest.otel.trace_stores import StoredSpan, StoredSpans, mapping, nanoseconds, sequence, text
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.agentcore import usage
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "log of AgentCore"
_REMEDY = "export the log groups aws/spans and /aws/vendedlogs/bedrock-agentcore/… again"
_KINDS = frozenset({"INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"})


class AgentCore:
    """The `agentcore` source."""

    name = "agentcore"
    kind: Literal["bill", "log"] = "log"
    title = "Amazon Bedrock AgentCore: spans (aws/spans) and usage logs of CloudWatch"
    patterns: tuple[str, ...] = (*files.JSON_FILES, "*.log", "*.log.gz", "*.txt")
    access = Access(
        needs=policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=2),
        cron="*/15 * * * *",
        addresses=("s3://logs/AWSLogs/111122223333/bedrockagentcorelogs/", "agentcore-logs/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every file is a batch of its own; of an S3 prefix only new objects."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description="a log of AgentCore")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The spans and the usage records of one file."""
        spans, used, problems = trace_stores.batch(settings, self.name, item), list[rows.Row](), list[Problem]()
        has_records, has_foreign_records = False, False
        for entry in cloudwatch.records(item, description=_NOUN):
            if isinstance(entry, Damage):
                problems.append(Problem(self.name, item.uri, *entry))
                continue
            record = mapping(entry.value)
            export = _export(record)
            if export is not None:
                spans.add(export, place=entry.place)
                has_records = True
            elif usage.is_usage(record):
                has_records = True
                try:
                    used += [row | {"raw_id": item.raw_id} for row in usage.of_record(record)]
                except FieldError as error:
                    problems.append(Problem(self.name, item.uri, entry.place, error.field, error.reason, error.remedy))
            else:
                has_foreign_records = True
            if spans.height + len(used) >= rows.BATCH_ROWS:
                yield from (spans.reading(), Reading(rows.frame(used), problems))
                spans, used, problems = trace_stores.batch(settings, self.name, item), [], []
        if has_foreign_records and not has_records:
            raise FormatError(f"no {_NOUN}: neither spans nor usage", where=item.uri, remedy=_REMEDY)
        yield from (spans.reading(), Reading(rows.frame(used), problems))


SOURCE = AgentCore()


def _export(record: Mapping[str, Any]) -> Exported | None:
    """The span or export in a record; None for a record of another kind."""
    if "resourceSpans" in record:
        try:
            return from_document(record)
        except FormatError:
            return None
    if not {"traceId", "spanId", "startTimeUnixNano"} <= record.keys():
        return None
    kind = text(record.get("kind")).removeprefix("SPAN_KIND_")
    resource = mapping(record.get("resource"))
    links = (mapping(link) for link in sequence(record.get("links")))
    return StoredSpans(
        (
            StoredSpan(
                trace_id=text(record.get("traceId")),
                span_id=text(record.get("spanId")),
                parent_id=text(record.get("parentSpanId")),
                name=text(record.get("name")),
                kind=kind if kind in _KINDS else "",
                start_ns=nanoseconds(record.get("startTimeUnixNano")),
                end_ns=nanoseconds(record.get("endTimeUnixNano")),
                attributes=mapping(record.get("attributes")),
                resource=mapping(resource.get("attributes")) or resource,
                scope=text(mapping(record.get("scope")).get("name")),
                failed=mapping(record.get("status")).get("code") in ("ERROR", "STATUS_CODE_ERROR", 2),
                links=tuple((text(link.get("traceId")), text(link.get("spanId"))) for link in links),
            ),
        )
    )
