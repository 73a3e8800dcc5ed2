"""Vertex AI request-response logs."""

from ingest.sources.vertex.source import SOURCE

__all__ = ["SOURCE"]
