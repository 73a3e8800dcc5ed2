"""Codex session files."""

from ingest.sources.codex.source import SOURCE

__all__ = ["SOURCE"]
