"""Gemini CLI: its session files below ``~/.gemini/tmp``.

    rootcost ingest gemini-cli ~/.gemini/tmp
    rootcost ingest gemini-cli s3://agents/gemini-cli/

Each answer counts once, however often its message is written; a sub-agent's session hangs below the one that started it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from ingest import policies
from ingest.logs import files, session_files
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.gemini_cli.sessions import Session, names
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "session of Gemini CLI"


class GeminiCli:
    """The `gemini-cli` source."""

    name = "gemini-cli"
    kind: Literal["bill", "log"] = "log"
    title = "Gemini CLI sessions: the files below ~/.gemini/tmp"
    patterns: tuple[str, ...] = (*session_files.PATTERNS, "session-*.json", "session-*.json.gz")
    access = Access(
        needs="the folder that Gemini CLI keeps its sessions in, or a copy of it; on S3, " + policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=24),
        cron="*/15 * * * *",
        addresses=("~/.gemini/tmp", "s3://agents/gemini-cli/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every session file is a batch of its own."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The session and its answers."""
        return session_files.readings(
            item, Session(*names(item.uri)), source=self.name, description=_NOUN, remedy="name a folder like ~/.gemini/tmp"
        )


SOURCE = GeminiCli()
