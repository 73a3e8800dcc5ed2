"""FOCUS bills."""

from ingest.sources.focus.source import SOURCE

__all__ = ["SOURCE"]
