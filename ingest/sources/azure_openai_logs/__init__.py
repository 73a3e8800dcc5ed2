"""Request logs of Azure OpenAI and API Management."""

from ingest.sources.azure_openai_logs.source import SOURCE

__all__ = ["SOURCE"]
