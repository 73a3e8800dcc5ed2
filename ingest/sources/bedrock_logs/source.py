"""Amazon Bedrock's model invocation logs: one record per call, with tokens and caller.

    rootcost ingest bedrock-logs s3://logs/bedrock/                the bucket that logs are delivered to
    rootcost ingest bedrock-logs records.json                      the same from CloudWatch (export task, Firehose, command line)

Only new objects of a bucket are read, by the dates of its folders and the modification time. Large bodies, in folders named ``data``,
are never fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Literal

from ingest import policies
from ingest.logs import cloudwatch, files, rows
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.bedrock_logs import calls
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "model invocation log of Bedrock"
_BODIES = "data"


class BedrockLogs:
    """The `bedrock-logs` source."""

    name = "bedrock-logs"
    kind: Literal["bill", "log"] = "log"
    title = "Amazon Bedrock model invocation logs: S3, or out of CloudWatch"
    patterns: tuple[str, ...] = (*files.JSON_FILES, "*.log", "*.log.gz")
    access = Access(
        needs=policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=1),
        cron="*/15 * * * *",
        addresses=("s3://logs/bedrock/", "s3://logs/bedrock/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every object is a batch of its own; of an S3 prefix only new objects. Bodies are not fetched."""
        return files.file_batches(
            fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}", skip=(_BODIES,)
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The calls of one object, in batches."""
        return rows.readings(
            cloudwatch.records(item, description=_NOUN),
            item,
            source=self.name,
            description=_NOUN,
            remedy="name the prefix that Bedrock delivers its logs to",
            rows_of=partial(calls.rows, settings=settings),
        )


SOURCE = BedrockLogs()
