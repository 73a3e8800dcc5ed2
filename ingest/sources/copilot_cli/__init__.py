"""Copilot CLI session files."""

from ingest.sources.copilot_cli.source import SOURCE

__all__ = ["SOURCE"]
