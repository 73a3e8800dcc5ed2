"""Queries over the ledger, the HTTP API, its models and its client.

Reads facts and conclusions from the ledger; independent of ingestion and attribution.
"""
