"""Claude Code session files."""

from ingest.sources.claude_code.source import SOURCE

__all__ = ["SOURCE"]
