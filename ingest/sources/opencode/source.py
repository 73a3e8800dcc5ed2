"""OpenCode: its database and session files below ``~/.local/share/opencode``, and exports of sessions.

    rootcost ingest opencode ~/.local/share/opencode               opencode.db, or storage/ of older versions
    rootcost ingest opencode session.json                          what `opencode export` prints

Each request to a model counts once, whichever of these it is read from; a sub-agent's session hangs below the one that started it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from ingest import policies
from ingest.logs import files, session_files
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.opencode import records
from ingest.sources.opencode.sessions import Sessions
from ledger.problems import Problem
from ledger.settings import IngestSettings

_NOUN = "session of OpenCode"


class OpenCode:
    """The `opencode` source."""

    name = "opencode"
    kind: Literal["bill", "log"] = "log"
    title = "OpenCode sessions: its database, its files, exports"
    patterns: tuple[str, ...] = ("opencode*.db", "msg_*.json", "ses_*.json", "session*.json", "opencode*.json", "*.json.gz")
    access = Access(
        needs="the folder that OpenCode keeps its data in, or a copy of it; on S3, " + policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=24),
        cron="*/15 * * * *",
        addresses=("~/.local/share/opencode", "s3://agents/opencode/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every file is a batch of its own."""
        return files.file_batches(
            fetcher, uri, source=self.name, patterns=self.patterns, description=f"a {_NOUN}", skip=("session_diff", "todo")
        )

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """Sessions and requests."""
        return session_files.readings(
            item,
            Sessions(),
            source=self.name,
            description=_NOUN,
            remedy="name a folder like ~/.local/share/opencode",
            entries=records.items(item, description=_NOUN),
        )


SOURCE = OpenCode()
