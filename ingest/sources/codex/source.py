"""Codex: its session files below ``~/.codex/sessions``.

    rootcost ingest codex ~/.codex/sessions
    rootcost ingest codex s3://agents/codex/

Each answer of a model counts once, however often its count is repeated or copied; sub-agents belong to the session that started them.
"""

from __future__ import annotations

from ingest.logs.session_files import SessionFolder
from ingest.sources.codex.sessions import Session, session_name

SOURCE = SessionFolder(
    name="codex",
    agent="Codex",
    title="Codex sessions: the files below ~/.codex/sessions",
    folder="~/.codex/sessions",
    session=lambda uri: Session(session_name(uri)),
)
