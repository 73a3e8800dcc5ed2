"""What the providers charge for the month: a model of its own that knows true usage, list prices and contracts.

It shares no code with attribution: expected figures must come from somewhere else than the code they check. All arithmetic is
`decimal.Decimal`. The rows are turned into files by `rootcost.demo.exports`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import polars as pl

from rootcost.demo import company as co
from rootcost.demo.company import AWS_METER, METERS, MODELS, OPENAI_METER, PRIVATE_RATE, PRODUCTION
from rootcost.demo.pricebook import list_rates

HOUR = timedelta(hours=1)
CENT = Decimal("0.01")
GPU_RATE = Decimal("1.006")
"""g5.xlarge on demand, us-east-1, a hour."""
OCU_RATE = Decimal("0.24")
"""OpenSearch Serverless, an OCU-hour."""
VCPU_RATE, MEMORY_RATE = Decimal("0.0895"), Decimal("0.00945")
"""AgentCore runtime, a vCPU-hour and a GB-hour."""
GPU_HOURS = range(13, 18)
"""Hours of a working day in which the node is rented."""

_MODEL = {m.name: m for m in MODELS}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsLine:
    """One line item, as the billing system sees it before it is written to a file.

    `listed` is the public on-demand price, `net` what Brightwater pays after its private rate.
    """

    start: datetime
    end: datetime
    account: str
    product_code: str
    product_name: str
    usage_type: str
    operation: str
    description: str
    listed: Decimal
    net: Decimal
    quantity: Decimal = Decimal(0)
    unit: str = ""
    rate: Decimal = Decimal(0)
    line_type: str = "Usage"
    region: str = co.US
    resource: str = ""
    principal: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    truth: str = "logged"
    """What the demo knows about the row: logged, shadow-owner, shadow-plain, …; not written to any file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiLine:
    """One day of one line item of OpenAI's invoice."""

    day: datetime
    item: str
    model: str
    meter: str
    quantity: Decimal
    rate: Decimal
    cost: Decimal
    unit: str = "Tokens"


@dataclass(slots=True)
class Bill:
    """Everything that was charged."""

    aws: list[AwsLine] = field(default_factory=list)
    openai: list[OpenAiLine] = field(default_factory=list)


def hour_start(hour: int) -> datetime:
    """The instant of an hour counted from 1970.

    >>> hour_start(497904).isoformat()
    '2026-10-20T00:00:00+00:00'
    """
    return datetime.fromtimestamp(hour * 3600, UTC)


def token_lines(
    usage: pl.DataFrame, *, truth: str = "logged", tags: tuple[tuple[str, str], ...] = (), account: str = PRODUCTION
) -> Iterator[AwsLine]:
    """Bedrock lines for true usage summed by (hour, model, principal): one a meter, in units of 1K tokens.

    Ten thousand input tokens of Sonnet at $0.003 a thousand, less 12 %:

    >>> hour = pl.DataFrame([{"hour": 497904, "model": "anthropic.claude-sonnet-4-6", "principal": "p", "input_tokens": 10_000,
    ...                       "cache_read_tokens": 0, "cache_write_5m_tokens": 0, "output_tokens": 0}])
    >>> [(l.usage_type, str(l.quantity), str(l.listed), str(l.net)) for l in token_lines(hour)]
    [('USE1-Claude4.6Sonnet-input-tokens', '10.000', '0.030000', '0.02640000')]
    """
    for row in usage.sort("hour", "model", "principal").iter_rows(named=True):
        model = _MODEL[row["model"]]
        start = hour_start(row["hour"])
        rates = list_rates(model)
        for meter in METERS:
            tokens = row[meter]
            if not tokens:
                continue
            per_thousand = plain(rates[meter] * 1000)
            quantity = Decimal(tokens).scaleb(-3)
            list_cost = quantity * per_thousand
            yield AwsLine(
                start=start,
                end=start + HOUR,
                account=account,
                product_code="AmazonBedrock",
                product_name="Amazon Bedrock",
                usage_type=f"{co.USAGE_PREFIX[model.region]}-{model.billed}-{AWS_METER[meter]}",
                operation="InvokeModelInference",
                description=f"${per_thousand} per 1K tokens for {model.billed} {AWS_METER[meter]} in {model.region}",
                listed=list_cost,
                net=list_cost * (1 - PRIVATE_RATE),
                quantity=quantity,
                unit="1K tokens",
                rate=per_thousand,
                region=model.region,
                principal=row["principal"],
                tags=tags,
                truth=truth,
            )


def plain(amount: Decimal) -> Decimal:
    """The same number without exponent and trailing zeros, at no less than three places.

    >>> plain(Decimal("3E-6") * 1000), plain(Decimal("0.00012500"))
    (Decimal('0.003'), Decimal('0.000125'))
    """
    short = amount.normalize()
    places = -int(short.as_tuple().exponent)
    return short.quantize(Decimal(1).scaleb(-max(places, 3)))


def openai_lines(usage: pl.DataFrame) -> Iterator[OpenAiLine]:
    """OpenAI's lines: one a day, model and meter, in tokens."""
    daily = (
        usage.with_columns(day=pl.col("hour") // 24)
        .group_by("day", "model")
        .agg(pl.col(m).sum() for m in METERS)
        .sort("day", "model")
    )
    for row in daily.iter_rows(named=True):
        model = _MODEL[row["model"]]
        rates = list_rates(model)
        for meter, word in OPENAI_METER.items():
            if row[meter]:
                quantity = Decimal(row[meter])
                yield OpenAiLine(
                    day=hour_start(row["day"] * 24),
                    item=f"{model.billed}, {word}",
                    model=model.name,
                    meter=meter,
                    quantity=quantity,
                    rate=rates[meter],
                    cost=quantity * rates[meter],
                )


def gpu_lines(first: datetime, until: datetime, nodes: int) -> Iterator[AwsLine]:
    """The rented GPU nodes, hour by hour, whether they were busy or not."""
    for at in _hours(first, until):
        if at.weekday() < 5 and at.hour in GPU_HOURS:
            for node in co.GPU_NODES[:nodes]:
                yield AwsLine(
                    start=at,
                    end=at + HOUR,
                    account=PRODUCTION,
                    product_code="AmazonEC2",
                    product_name="Amazon Elastic Compute Cloud",
                    usage_type="BoxUsage:g5.xlarge",
                    operation="RunInstances",
                    description=f"${GPU_RATE} per On Demand Linux g5.xlarge Instance Hour",
                    listed=GPU_RATE,
                    net=GPU_RATE,
                    quantity=Decimal(1),
                    unit="Hrs",
                    rate=GPU_RATE,
                    resource=node,
                    truth="gpu",
                )


def store_lines(first: datetime, until: datetime, units: Decimal) -> Iterator[AwsLine]:
    """The vector store: search and indexing capacity, always on."""
    for at in _hours(first, until):
        for usage_type in ("USE1-SearchOCU", "USE1-IndexingOCU"):
            quantity = units
            yield AwsLine(
                start=at,
                end=at + HOUR,
                account=PRODUCTION,
                product_code="AmazonES",
                product_name="Amazon OpenSearch Service",
                usage_type=usage_type,
                operation="ESServerless",
                description=f"${OCU_RATE} per OCU-hour",
                listed=quantity * OCU_RATE,
                net=quantity * OCU_RATE,
                quantity=quantity,
                unit="OCU-hours",
                rate=OCU_RATE,
                resource=co.VECTOR_STORE,
                truth="vector-store",
            )


def runtime_lines(seconds: Mapping[int, float]) -> Iterator[AwsLine]:
    """The hosted agent runtime: 2 vCPU while active, and 8 GB for as long as sessions last, ten times longer: they idle out."""
    for hour in sorted(seconds):
        active = Decimal(round(seconds[hour] * 1000)).scaleb(-3)
        parts = (("vCPU", active * 2, VCPU_RATE, "vCPU-Hours"), ("Memory", active * 80, MEMORY_RATE, "GB-Hours"))
        for part, used, rate, unit in parts:
            quantity = (used / 3600).quantize(Decimal("0.00000001"), rounding=ROUND_HALF_EVEN)
            yield AwsLine(
                start=hour_start(hour),
                end=hour_start(hour) + HOUR,
                account=PRODUCTION,
                product_code="AmazonBedrockAgentCore",
                product_name="Amazon Bedrock AgentCore",
                usage_type=f"EUC1-Runtime:Consumption-based:{part}",
                operation="Runtime",
                description=f"${rate} per {unit} for AgentCore Runtime",
                listed=quantity * rate,
                net=quantity * rate,
                quantity=quantity,
                unit=unit,
                rate=rate,
                region=co.EU,
                resource=co.AGENT_RUNTIME,
                truth="runtime",
            )


def plumbing_lines(first: datetime, until: datetime, scale: int) -> Iterator[AwsLine]:
    """Ordinary infrastructure: storage that carries a team tag, functions that do not."""
    for at in _days(first, until):
        stored_gb, invocations = Decimal("18.5") * scale, Decimal(31_000) * scale
        yield AwsLine(
            start=at,
            end=at + 24 * HOUR,
            account=PRODUCTION,
            product_code="AmazonS3",
            product_name="Amazon Simple Storage Service",
            usage_type="TimedStorage-ByteHrs",
            operation="StandardStorage",
            description="$0.023 per GB - first 50 TB / month of storage used",
            listed=stored_gb * Decimal("0.023"),
            net=stored_gb * Decimal("0.023"),
            quantity=stored_gb,
            unit="GB-Mo",
            rate=Decimal("0.023"),
            resource="brightwater-documents",
            tags=(("resourceTags/user:team", "Platform"),),
            truth="owner",
        )
        cost = invocations * Decimal("0.0000002")
        yield AwsLine(
            start=at,
            end=at + 24 * HOUR,
            account=PRODUCTION,
            product_code="AWSLambda",
            product_name="AWS Lambda",
            usage_type="Request",
            operation="Invoke",
            description="$0.20 per 1 million requests",
            listed=cost,
            net=cost,
            quantity=invocations,
            unit="Requests",
            rate=Decimal("0.0000002"),
            resource=f"arn:aws:lambda:{co.US}:{PRODUCTION}:function:thumbnailer",
            truth="unowned",
        )


def monthly_lines(aws: Iterable[AwsLine], first: datetime, end: datetime) -> Iterator[AwsLine]:
    """Support, credit, refund and tax: what a bill adds to usage. Rounded to cents, as invoices are."""
    aws_lines = list(aws)
    usage = sum((line.net for line in aws_lines), Decimal(0))
    bedrock = sum((line.net for line in aws_lines if line.product_code == "AmazonBedrock"), Decimal(0))
    ec2 = sum((line.net for line in aws_lines if line.product_code == "AmazonEC2"), Decimal(0))
    month = AwsLine(
        start=first,
        end=end,
        account=PRODUCTION,
        product_code="AmazonBedrock",
        product_name="Amazon Bedrock",
        usage_type="",
        operation="",
        description="",
        listed=Decimal(0),
        net=Decimal(0),
    )

    def one(amount: Decimal, **changes: object) -> AwsLine:
        cents = amount.quantize(CENT, rounding=ROUND_HALF_EVEN)
        return replace(month, listed=cents, net=cents, **changes)  # type: ignore[arg-type]

    yield one(
        usage * Decimal("0.10"),
        product_code="AWSSupportBusiness",
        product_name="AWS Support (Business)",
        usage_type="Dollar",
        line_type="Fee",
        description="AWS Support (Business)",
        truth="support",
    )
    yield one(bedrock * Decimal("-0.03"), line_type="Credit", description="AWS Activate credit", truth="credit")
    sonnet = f"USE1-{co.SONNET.billed}-output-tokens"
    yield one(
        bedrock * Decimal("-0.004"),
        line_type="Refund",
        usage_type=sonnet,
        operation="InvokeModelInference",
        description="Refund for degraded service",
        truth="refund",
    )
    yield one(bedrock * Decimal("0.0325"), line_type="Tax", description="Tax for product code AmazonBedrock", truth="tax")
    yield one(
        ec2 * Decimal("0.0325"),
        line_type="Tax",
        product_code="AmazonEC2",
        product_name="Amazon Elastic Compute Cloud",
        description="Tax for product code AmazonEC2",
        truth="tax",
    )


def _hours(first: datetime, until: datetime) -> Iterator[datetime]:
    at = first
    while at < until:
        yield at
        at += HOUR


def _days(first: datetime, until: datetime) -> Iterator[datetime]:
    at = first
    while at < until:
        yield at
        at += 24 * HOUR
