"""Gemini CLI: its session files below ``~/.gemini/tmp``.

    rootcost ingest gemini-cli ~/.gemini/tmp
    rootcost ingest gemini-cli s3://agents/gemini-cli/

Each answer counts once, however often its message is written; a sub-agent's session hangs below the one that started it.
"""

from __future__ import annotations

from ingest.logs.session_files import PATTERNS, SessionFolder
from ingest.sources.gemini_cli.sessions import Session, names

SOURCE = SessionFolder(
    name="gemini-cli",
    agent="Gemini CLI",
    title="Gemini CLI sessions: the files below ~/.gemini/tmp",
    folder="~/.gemini/tmp",
    session=lambda uri: Session(*names(uri)),
    patterns=(*PATTERNS, "session-*.json", "session-*.json.gz"),
)
