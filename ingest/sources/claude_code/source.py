"""Claude Code: its session files below ``~/.claude/projects``.

    rootcost ingest claude-code ~/.claude/projects
    rootcost ingest claude-code s3://agents/claude-code/

Each message of a model counts once, however many lines repeat it; sub-agents belong to the session that started them.
"""

from __future__ import annotations

from ingest.logs.session_files import SessionFolder
from ingest.sources.claude_code.sessions import Sessions

SOURCE = SessionFolder(
    name="claude-code",
    agent="Claude Code",
    title="Claude Code sessions: the files below ~/.claude/projects",
    folder="~/.claude/projects",
    session=lambda uri: Sessions(),
)
