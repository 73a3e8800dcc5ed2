"""Google Cloud billing exports."""

from ingest.sources.gcp.source import SOURCE

__all__ = ["SOURCE"]
