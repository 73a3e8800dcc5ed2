"""OpenCode: its database and session files below ``~/.local/share/opencode``, and exports of sessions.

    rootcost ingest opencode ~/.local/share/opencode               opencode.db, or storage/ of older versions
    rootcost ingest opencode session.json                          what `opencode export` prints

Each request to a model counts once, whichever of these it is read from; a sub-agent's session hangs below the one that started it.
"""

from __future__ import annotations

from ingest.logs.session_files import SessionFolder
from ingest.sources.opencode.records import items
from ingest.sources.opencode.sessions import Sessions

SOURCE = SessionFolder(
    name="opencode",
    agent="OpenCode",
    title="OpenCode sessions: its database, its files, exports",
    folder="~/.local/share/opencode",
    session=lambda uri: Sessions(),
    patterns=("opencode*.db", "msg_*.json", "ses_*.json", "session*.json", "opencode*.json", "*.json.gz"),
    items=items,
    skip=("session_diff", "todo"),
)
