"""Azure cost exports."""

from ingest.sources.azure.source import SOURCE

__all__ = ["SOURCE"]
