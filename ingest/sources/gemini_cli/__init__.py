"""Gemini CLI session files."""

from ingest.sources.gemini_cli.source import SOURCE

__all__ = ["SOURCE"]
