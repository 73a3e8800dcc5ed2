"""Request logs of Azure OpenAI and API Management, as Azure Monitor's diagnostic settings deliver them.

    rootcost ingest azure-openai-logs https://acme.blob.core.windows.net/insights-logs-gatewayllmlogs
    rootcost ingest azure-openai-logs query.json                                  rows of Log Analytics, as the command line prints them

Of a container only blobs written since the last run are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from typing import Literal

from ingest import azure_blobs, policies
from ingest.logs import files, rows
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading
from ingest.sources.azure_openai_logs import calls, records
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "request log of Azure OpenAI or API Management"
_REMEDY = "deliver GatewayLlmLogs and GatewayLogs of API Management, or RequestResponse of Azure OpenAI; other categories have no requests to models"

_AGAIN = "fetch the log again; the records that are whole were read"


class AzureOpenAiLogs:
    """The `azure-openai-logs` source."""

    name = "azure-openai-logs"
    kind: Literal["bill", "log"] = "log"
    title = "Azure OpenAI and API Management request logs: blob storage, Event Hubs, Log Analytics"
    patterns: tuple[str, ...] = (*files.JSON_FILES, "*.log")
    access = Access(
        needs=f"a shared access signature with the rights to read and list the container, in {azure_blobs.KEY}; local files need none",
        policy=policies.AZURE_READ,
        lag=timedelta(hours=2),
        cron="*/15 * * * *",
        addresses=("https://account.blob.core.windows.net/insights-logs-gatewayllmlogs", "apim-logs/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every object is a batch of its own; of a container only new ones."""
        if not azure_blobs.is_address(uri):
            return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}")

        def listing(first: date | None, last: date | None) -> Iterator[ListedObject]:
            blobs = azure_blobs.list_blobs(fetcher, uri)
            return (entry for entry in files.written_since(blobs, first) if files.may_contain(entry.uri, first, last))

        return files.new_batches(
            fetcher,
            uri,
            source=self.name,
            patterns=self.patterns,
            description=f"a {_NOUN}",
            listing=listing,
            get=partial(azure_blobs.fetch_blob, fetcher),
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The requests of one object, in batches."""
        return rows.readings(
            records.items(files.items(item, description=_NOUN, remedy=_AGAIN)),
            item,
            source=self.name,
            description=_NOUN,
            remedy=_REMEDY,
            rows_of=calls.rows,
        )


SOURCE = AzureOpenAiLogs()
