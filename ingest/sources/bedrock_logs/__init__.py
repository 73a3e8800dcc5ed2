"""Amazon Bedrock invocation logs."""

from ingest.sources.bedrock_logs.source import SOURCE

__all__ = ["SOURCE"]
