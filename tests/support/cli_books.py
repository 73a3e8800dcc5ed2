"""The worked example of the specification as files: a FOCUS bill, an OTLP export, a registry. And a way to run commands on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from rootcost.cli import app

AGENTS = "agent,team\nsupport-bot,Care\nresearcher,Data\ncoder,Dev\n"

_BILL = {
    "BillingAccountId": "9999",
    "BillingAccountName": "company",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargePeriodStart": "2026-10-05T10:00:00Z",
    "ChargePeriodEnd": "2026-10-05T11:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "Claude Sonnet 4.6 input tokens",
    "ChargeFrequency": "Usage-Based",
    "BilledCost": "0.030000000000",
    "EffectiveCost": "0.030000000000",
    "ListCost": "0.030000000000",
    "ContractedCost": "0.030000000000",
    "ConsumedQuantity": "10.0",
    "ConsumedUnit": "1K tokens",
    "PricingQuantity": "10.0",
    "PricingUnit": "1K tokens",
    "PricingCategory": "Standard",
    "ProviderName": "AWS",
    "PublisherName": "AWS",
    "InvoiceIssuerName": "AWS",
    "ServiceName": "Amazon Bedrock",
    "ServiceCategory": "AI and Machine Learning",
    "SubAccountId": "1111",
    "RegionId": "us-east-1",
    "SkuId": "sku-1",
    "SkuPriceId": "price-1",
    "SkuMeter": "USE1-Claude4.6Sonnet-input-tokens",
    "Tags": "{}",
}

_HOUR_NS = 1_791_194_400 * 10**9  # 2026-10-05T10:00:00Z


def bill(**told: str) -> str:
    """A FOCUS file of one row: 10.0 units of 1K input tokens for $0.03."""
    row = _BILL | told
    return ",".join(row) + "\n" + ",".join(f'"{value.replace(chr(34), chr(34) * 2)}"' for value in row.values()) + "\n"


def trace() -> dict[str, Any]:
    """Chain 1: support-bot uses 2 000 tokens itself and 4 000 through researcher; chain 2: coder uses 3 000."""
    spans = [
        _agent(1, 1, None, "support-bot"),
        _call(1, 2, 1, 2000),
        _agent(1, 3, 1, "researcher"),
        _call(1, 4, 3, 4000),
        _agent(2, 5, None, "coder"),
        _call(2, 6, 5, 3000),
    ]
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "by-hand"}, "spans": spans}]}]}


def _agent(trace_number: int, number: int, parent: int | None, name: str) -> dict[str, Any]:
    return _span(
        trace_number, number, parent, f"invoke_agent {name}", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
    )


def _call(trace_number: int, number: int, parent: int, tokens: int) -> dict[str, Any]:
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": "anthropic.claude-sonnet-4-6-v1:0",
        "gen_ai.response.model": "anthropic.claude-sonnet-4-6-v1:0",
        "gen_ai.usage.input_tokens": tokens,
    }
    return _span(trace_number, number, parent, "chat sonnet", attributes)


def _span(trace_number: int, number: int, parent: int | None, name: str, attributes: dict[str, str | int]) -> dict[str, Any]:
    start = _HOUR_NS + number * 10**9
    return {
        "traceId": f"{trace_number:032x}",
        "spanId": f"{number:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent:016x}"}),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 10**9),
        "attributes": [
            {"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in attributes.items()
        ],
    }


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        """stdout as JSON: it must hold nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Command:
    """`rootcost --home HOME …`. In this process, which is quick; `in_a_process` is the real thing."""

    home: Path

    def __call__(self, *arguments: str | Path, **environment: str) -> Ran:
        """Runs it here, as if from a shell."""
        done = CliRunner().invoke(app, ["--home", str(self.home), *map(str, arguments)], env=environment, prog_name="rootcost")
        return _sound(Ran(done.exit_code, done.stdout, done.stderr))

    def in_a_process(self, *arguments: str | Path, **environment: str) -> Ran:
        """Runs it as a process of its own."""
        line = [sys.executable, "-m", "rootcost.cli", "--home", str(self.home), *map(str, arguments)]
        told = {**os.environ, **environment}
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=told, stdin=subprocess.DEVNULL)
        return _sound(Ran(done.returncode, done.stdout, done.stderr))


def _sound(ran: Ran) -> Ran:
    assert "Traceback" not in ran.err, ran.err
    assert "unexpected" not in ran.err, ran.err
    return ran


def write_files(folder: Path) -> Path:
    """The three files of the example."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bill.csv").write_text(bill())
    (folder / "traces.json").write_text(json.dumps(trace()) + "\n")
    (folder / "agents.csv").write_text(AGENTS)
    return folder
