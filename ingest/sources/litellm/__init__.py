"""LiteLLM logs."""

from ingest.sources.litellm.source import SOURCE

__all__ = ["SOURCE"]
