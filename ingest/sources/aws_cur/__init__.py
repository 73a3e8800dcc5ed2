"""AWS Cost and Usage Reports."""

from ingest.sources.aws_cur.source import SOURCE

__all__ = ["SOURCE"]
