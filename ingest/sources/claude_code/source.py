"""Claude Code: its session files below ``~/.claude/projects``.

    rootcost ingest claude-code ~/.claude/projects
    rootcost ingest claude-code s3://agents/claude/

Each message of a model counts once, however many lines repeat it; sub-agents belong to the session that started them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from ingest import policies
from ingest.logs import files, session_files
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.claude_code.sessions import Sessions
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "session of Claude Code"


class ClaudeCode:
    """The `claude-code` source."""

    name = "claude-code"
    kind: Literal["bill", "log"] = "log"
    title = "Claude Code sessions: the files below ~/.claude/projects"
    patterns: tuple[str, ...] = session_files.PATTERNS
    access = Access(
        needs="the folder that Claude Code keeps its sessions in, or a copy of it; on S3, " + policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=24),
        cron="*/15 * * * *",
        addresses=("~/.claude/projects", "s3://agents/claude/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every session file is a batch of its own."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The session, its sub-agents and its messages."""
        return session_files.readings(
            item, Sessions(), source=self.name, description=_NOUN, remedy="name a folder like ~/.claude/projects"
        )


SOURCE = ClaudeCode()
