"""OpenCode session files."""

from ingest.sources.opencode.source import SOURCE

__all__ = ["SOURCE"]
