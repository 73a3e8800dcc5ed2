"""Codex: its session files below ``~/.codex/sessions``.

    rootcost ingest codex ~/.codex/sessions
    rootcost ingest codex s3://agents/codex/

Each answer of a model counts once, however often its count is repeated or copied; sub-agents belong to the session that started them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from ingest import policies
from ingest.logs import files, session_files
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.codex.sessions import Session, session_name
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "session of Codex"


class Codex:
    """The `codex` source."""

    name = "codex"
    kind: Literal["bill", "log"] = "log"
    title = "Codex sessions: the files below ~/.codex/sessions"
    patterns: tuple[str, ...] = session_files.PATTERNS
    access = Access(
        needs="the folder that Codex keeps its sessions in, or a copy of it; on S3, " + policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=24),
        cron="*/15 * * * *",
        addresses=("~/.codex/sessions", "s3://agents/codex/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every session file is a batch of its own."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The session and its answers."""
        session = Session(session_name(item.uri))
        return session_files.readings(
            item, session, source=self.name, description=_NOUN, remedy="name a folder like ~/.codex/sessions"
        )


SOURCE = Codex()
