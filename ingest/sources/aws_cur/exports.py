"""Discovery of an AWS account's cost exports: Data Exports (CUR 2.0, FOCUS) and legacy Cost and Usage Reports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ledger.errors import StoreUnreachable

if TYPE_CHECKING:
    from botocore.client import BaseClient

POLICY: Final = """{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": ["bcm-data-exports:ListExports", "bcm-data-exports:GetExport"], "Resource": "*"},
    {"Effect": "Allow", "Action": "cur:DescribeReportDefinitions", "Resource": "*"}
  ]
}"""
"""The least privileges for listing the exports."""

_HOME = "us-east-1"
"""The only region of both APIs, regardless of the buckets' regions."""
_TIMES = 4
_FROM = re.compile(r"\bFROM\s+([A-Za-z_][\w.]*)", re.IGNORECASE)
_SELECT = re.compile(r"\bSELECT\b(.*?)\bFROM\b", re.IGNORECASE | re.DOTALL)

WORTH: Final[Mapping[str, str]] = {
    "line_item_resource_id": "resource ids: runtimes, inference profiles and machines find their users",
    "line_item_iam_principal": "IAM principals: calls find their role and session",
    "tags": "the map of all tags: owners by tag",
    "pricing_unit": "units: 1K and 1M are told apart",
    "savings_plan_savings_plan_effective_cost": "savings plans spread over what they cover",
    "reservation_effective_cost": "reservations spread over what they cover",
}
"""Columns that assign costs to owners, with the purpose of each."""

_OPTIONS: Final[Mapping[str, str]] = {
    "line_item_resource_id": "INCLUDE_RESOURCES",
    "line_item_iam_principal": "INCLUDE_IAM_PRINCIPAL_DATA",
}


@dataclass(frozen=True, slots=True)
class Export:
    """One export: its destination and its content. `source` is the ingestor that reads it; None: it is no bill."""

    name: str
    account: str | None
    table: str
    source: str | None
    uri: str
    region: str | None
    granularity: str | None
    overwrite: str | None
    file_format: str | None
    columns: tuple[str, ...]
    lacks: tuple[str, ...]
    status: str
    refreshed_at: datetime | None


def exports() -> tuple[list[Export], list[StoreUnreachable]]:
    """All exports these credentials can see, by name, and the requests that failed. Raises `StoreUnreachable` if all failed."""
    results: list[Export] = []
    errors: list[StoreUnreachable] = []
    for ask in (_data_exports, _legacy_reports):
        try:
            results += ask()
        except StoreUnreachable as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]
    return sorted(results, key=lambda export: (export.name, export.account or "", export.uri)), errors


def _data_exports() -> Iterator[Export]:
    client = _client("bcm-data-exports")
    with _TranslatedErrors("bcm-data-exports:ListExports"):
        entries = _pages(client.list_exports, "Exports")
    for entry in entries:
        with _TranslatedErrors("bcm-data-exports:GetExport"):
            response = client.get_export(ExportArn=entry["ExportArn"])
        yield _export(response["Export"], response.get("ExportStatus") or entry.get("ExportStatus") or {})


def _export(export: Mapping[str, Any], status: Mapping[str, Any]) -> Export:
    query = export["DataQuery"]
    table = _table(query["QueryStatement"])
    columns = selected(query["QueryStatement"])
    options = (query.get("TableConfigurations") or {}).get(table, {})
    to = export["DestinationConfigurations"]["S3Destination"]
    output = to.get("S3OutputConfigurations") or {}
    arn = str(export.get("ExportArn") or "")
    refreshed_time = status.get("LastRefreshedAt") or status.get("LastUpdatedAt")
    healthy = status.get("StatusCode", "HEALTHY") == "HEALTHY"
    return Export(
        name=export["Name"],
        account=arn.split(":")[4] if arn.count(":") >= 5 else None,
        table=table,
        source=_source(table),
        uri=_uri(to["S3Bucket"], to.get("S3Prefix") or "", export["Name"]),
        region=to.get("S3Region"),
        granularity=options.get("TIME_GRANULARITY"),
        overwrite=output.get("Overwrite"),
        file_format=output.get("Format"),
        columns=columns,
        lacks=_lacking(columns, options) if _source(table) == "aws-cur" else (),
        status="healthy" if healthy else f"unhealthy: {str(status.get('StatusReason') or 'no reason given').lower()}",
        refreshed_at=refreshed_time.astimezone(UTC) if refreshed_time else None,
    )


def _legacy_reports() -> Iterator[Export]:
    client = _client("cur")
    with _TranslatedErrors("cur:DescribeReportDefinitions"):
        definitions = _pages(client.describe_report_definitions, "ReportDefinitions")
    for report in definitions:
        resources = "RESOURCES" in (report.get("AdditionalSchemaElements") or ())
        status = (report.get("ReportStatus") or {}).get("lastStatus", "SUCCESS")
        is_delivered = (report.get("ReportStatus") or {}).get("lastDelivery", "")
        yield Export(
            name=report["ReportName"],
            account=None,
            table="legacy Cost and Usage Report",
            source="aws-cur",
            uri=_uri(report["S3Bucket"], report.get("S3Prefix") or "", report["ReportName"]),
            region=report.get("S3Region"),
            granularity=report.get("TimeUnit"),
            overwrite=report.get("ReportVersioning"),
            file_format=report.get("Format"),
            columns=(),
            lacks=() if resources else ("line_item_resource_id",),
            status="healthy" if status == "SUCCESS" else f"unhealthy: {status.lower()}",
            refreshed_at=_compact(is_delivered),
        )


def _compact(timestamp: str) -> datetime | None:
    """The legacy report's format of an instant, ``20261105T120000Z``."""
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _uri(bucket: str, prefix: str, name: str) -> str:
    """The export's own folder.

    >>> _uri("billing", "/exports/", "company"), _uri("billing", "", "company")
    ('s3://billing/exports/company/', 's3://billing/company/')
    """
    return "/".join(["s3:/", bucket, *filter(None, prefix.split("/")), name, ""])


def _table(query: str) -> str:
    match = _FROM.search(query)
    return match[1].upper() if match else ""


def _source(table: str) -> str | None:
    """The ingestor that reads a table; None: it is no bill.

    >>> _source("COST_AND_USAGE_REPORT"), _source("FOCUS_1_2_AWS"), _source("CARBON_EMISSIONS")
    ('aws-cur', 'focus', None)
    """
    return "aws-cur" if table == "COST_AND_USAGE_REPORT" else "focus" if table.startswith("FOCUS") else None


def selected(query: str) -> tuple[str, ...]:
    """The columns a query delivers, under the names they arrive with.

    >>> selected("SELECT bill_invoice_id, product.product_name, concat(a, b) AS joined FROM COST_AND_USAGE_REPORT")
    ('bill_invoice_id', 'product.product_name', 'joined')
    """
    match = _SELECT.search(query)
    if match is None:
        return ()
    columns, depth, word = [], 0, ""
    for letter in match[1] + ",":
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            columns.append(re.split(r"\s+AS\s+|\s+", word.strip(), flags=re.IGNORECASE)[-1].strip('"`'))
            word = ""
        else:
            word += letter
    return tuple(column for column in columns if column)


def _lacking(columns: tuple[str, ...], options: Mapping[str, str]) -> tuple[str, ...]:
    """Useful columns that the export lacks: the query does not select them, or their option is off."""
    has_all = "*" in columns
    maps = {"tags": ("tags", "resource_tags")}
    return tuple(
        column
        for column in WORTH
        if not (has_all or any(name in columns for name in maps.get(column, (column,))))
        or options.get(_OPTIONS.get(column, ""), "TRUE").upper() == "FALSE"
        or (column == "line_item_iam_principal" and options.get(_OPTIONS[column], "FALSE").upper() != "TRUE")
    )


def _pages(ask: Any, name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        page = ask(**({"NextToken": token} if token else {}))
        entries += page.get(name) or []
        token = page.get("NextToken")
        if not token:
            return entries


def _client(service: str) -> BaseClient:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries = Config(retries={"mode": "standard", "total_max_attempts": _TIMES}, connect_timeout=10, read_timeout=60)
    try:
        client: BaseClient = boto3.client(service, region_name=_HOME, config=retries)
    except BotoCoreError as error:
        raise StoreUnreachable(str(error), where=f"AWS {service}", remedy="correct the AWS profile or its settings") from error
    return client


class _TranslatedErrors:
    """Converts AWS errors to one sentence and its remedy."""

    def __init__(self, right: str) -> None:
        self.right = right

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        service = f"AWS {self.right.partition(':')[0]}"
        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code", "?"))
            is_denied = "denied" in code.lower() or code in (
                "UnrecognizedClientException",
                "ExpiredTokenException",
                "InvalidSignatureException",
            )
            remedy = f"allow {self.right} in the payer account" if is_denied else "try again later"
            raise StoreUnreachable(
                f"AWS refuses access ({code})" if is_denied else f"AWS answered {code}", where=service, remedy=remedy
            ) from error
        if isinstance(error, BotoCoreError):
            remedy = "name credentials: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; and check the network"
            raise StoreUnreachable(str(error), where=service, remedy=remedy) from error
