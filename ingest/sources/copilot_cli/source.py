"""Copilot CLI: its session files below ``~/.copilot/session-state``.

    rootcost ingest copilot-cli ~/.copilot/session-state
    rootcost ingest copilot-cli s3://agents/copilot-cli/

The tokens of each model and run of a session count once, whether the totals begin anew when it is resumed or go on.
"""

from __future__ import annotations

from ingest.logs.session_files import SessionFolder
from ingest.sources.copilot_cli.sessions import Session, session_name

SOURCE = SessionFolder(
    name="copilot-cli",
    agent="Copilot CLI",
    title="Copilot CLI sessions: the files below ~/.copilot/session-state",
    folder="~/.copilot/session-state",
    session=lambda uri: Session(session_name(uri)),
)
