"""Least-privilege policies that several sources share, to paste into the provider's console."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from ingest.source import Access

S3_READ: Final = """{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::BUCKET", "Condition": {"StringLike": {"s3:prefix": "PREFIX/*"}}},
    {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::BUCKET/PREFIX/*"}
  ]
}"""
"""Reading one prefix of one bucket."""

S3_NEEDS: Final = (
    "AWS credentials of the default chain with s3:ListBucket and s3:GetObject below the prefix; local files need none"
)

AZURE_READ: Final = """az storage container generate-sas --account-name ACCOUNT --name CONTAINER \\
  --permissions rl --expiry 2027-01-01 --https-only --auth-mode login --as-user
# and put what it prints into AZURE_STORAGE_SAS_TOKEN"""
"""Reading one container of Azure blob storage."""


def export_access(addresses: tuple[str, ...], needs: str = S3_NEEDS) -> Access:
    """What a source of exported files needs: they are made by hand or once a day."""
    return Access(needs=needs, policy=S3_READ, lag=timedelta(hours=24), cron="*/15 * * * *", addresses=addresses)
