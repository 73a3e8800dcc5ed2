"""Copilot CLI: its session files below ``~/.copilot/session-state``.

    rootcost ingest copilot-cli ~/.copilot/session-state
    rootcost ingest copilot-cli s3://agents/copilot-cli/

The tokens of each model and run of a session count once, whether the totals begin anew when it is resumed or go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from ingest import policies
from ingest.logs import files, session_files
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.copilot_cli.sessions import Session, session_name
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "session of Copilot CLI"


class CopilotCli:
    """The `copilot-cli` source."""

    name = "copilot-cli"
    kind: Literal["bill", "log"] = "log"
    title = "Copilot CLI sessions: the files below ~/.copilot/session-state"
    patterns: tuple[str, ...] = session_files.PATTERNS
    access = Access(
        needs="the folder that Copilot CLI keeps its sessions in, or a copy of it; on S3, " + policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=24),
        cron="*/15 * * * *",
        addresses=("~/.copilot/session-state", "s3://agents/copilot-cli/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every session file is a batch of its own."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The session and what its runs used."""
        session = Session(session_name(item.uri))
        return session_files.readings(
            item, session, source=self.name, description=_NOUN, remedy="name a folder like ~/.copilot/session-state"
        )


SOURCE = CopilotCli()
