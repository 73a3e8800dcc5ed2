"""The S3 client of the ledger itself, by the options that its tables are stored with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def s3_client(storage_options: Mapping[str, str]) -> Any:
    """A client of S3. What the options do not say comes from the AWS default chain."""
    import boto3

    options = {name.lower().removeprefix("aws_"): value for name, value in storage_options.items()}
    return boto3.client(
        "s3",
        endpoint_url=options.get("endpoint_url") or options.get("endpoint") or None,
        region_name=options.get("region") or None,
        aws_access_key_id=options.get("access_key_id"),
        aws_secret_access_key=options.get("secret_access_key"),
        aws_session_token=options.get("session_token"),
    )
