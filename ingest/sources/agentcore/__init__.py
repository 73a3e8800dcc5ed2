"""Amazon Bedrock AgentCore."""

from ingest.sources.agentcore.source import SOURCE

__all__ = ["SOURCE"]
