"""All hostile inputs at once beside two teams' honest calls: bounded, told, balanced, and never to another team's cost."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ledger.books import Books
from ledger.tables import BALANCE, COSTS, PROBLEMS, SPANS
from tests.support import cli_books
from tests.support.cli_books import Command

D = Decimal
AGENTS = "agent,team,credentials\ncare-bot,Care,care-key\ndev-bot,Dev,dev-key\nmallory,Mal,mallory-key\n"
MODEL = "anthropic.claude-sonnet-4-6-v1:0"
START = 1_791_194_700  # 2026-10-05T10:05:00Z
IDS = 2_000
"""Ids in the headers of one call."""
LONG_ID = "x" * 10_000_000


def payload(call: str, key: str, tokens: int, **changes: Any) -> dict[str, Any]:
    """A line of LiteLLM's log: input tokens of Bedrock."""
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    labels = {"user_api_key_alias": key, "usage_object": usage}
    row = {
        "id": f"answer-{call}",
        "litellm_call_id": call,
        "trace_id": f"trace-{call}",
        "call_type": "acompletion",
        "status": "success",
    }
    times = {"startTime": float(START), "endTime": float(START + 5)}
    return {**row, **times, **usage, "custom_llm_provider": "bedrock", "model": MODEL, "metadata": labels} | changes


def hostile_calls() -> list[dict[str, Any]]:
    """Six calls of one key, of 100 input tokens each."""
    key = "mallory-key"
    headers = {f"llm_provider-x-request-id-{n}": f"id-{n}" for n in range(IDS)} | {"llm_provider-x-request-id": "answer-care"}
    details = {"cached_tokens": 10**9, "cache_creation_tokens": 7}
    contradictory = {"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 10**11, "prompt_tokens_details": details}
    return [
        payload("long", key, 100, id=LONG_ID),
        payload("ids", key, 100, hidden_params={"additional_headers": headers}, response={"id": "answer-care"}),
        payload(
            "totals",
            key,
            100,
            total_tokens=10**11,
            metadata={"user_api_key_alias": key, "usage_object": contradictory},
            response_cost=10**6,
        ),
        payload("release", key, 100, model="anthropic.claude-sonnet-4-6-20269999-v1:0"),
        payload("other", key, 100, model="gpt-4o-anthropic.claude-sonnet-4-6-v1:0", model_group="azure/gpt-4o"),
        payload(
            "care", key, 100, end_user="eve", response_cost=1, request_tags=["agent:care-bot", "team:Care"], trace_id="trace-care"
        ),
    ]


def bill() -> str:
    """Five thousand tokens at 0.015, a tax of them, and taxes that name themselves: their own service, account and invoice."""
    own = {
        "SubAccountId": "T",
        "ServiceName": "Tax",
        "SkuMeter": "Tax",
        "InvoiceId": "T-1",
        "ConsumedQuantity": "",
        "ConsumedUnit": "",
    }
    taxes = [own | {"ChargeCategory": "Tax"} | dict.fromkeys(COST_COLUMNS, cost) for cost in ("0.0010", "0.0005")]
    charge = {"ConsumedQuantity": "5.0", "PricingQuantity": "5.0", "InvoiceId": "I-1"} | dict.fromkeys(COST_COLUMNS, "0.015")
    files = [
        list(csv.reader(cli_books.bill(**row).splitlines())) for row in (charge, *({"InvoiceId": ""} | tax for tax in taxes))
    ]
    return (
        "\n".join(",".join(f'"{v.replace(chr(34), chr(34) * 2)}"' for v in row) for row in (files[0][0], *(f[1] for f in files)))
        + "\n"
    )


COST_COLUMNS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


@pytest.mark.slow
def test_hostile_inputs_together_move_no_cost_to_another_team(home: Path, tmp_path: Path) -> None:
    """Care logged 3,000 tokens and Dev 1,000 of 5,000 that cost 0.015; what is hostile is of a third team."""
    honest = [payload("care", "care-key", 3000), payload("dev", "dev-key", 1000)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*honest, *hostile_calls()]), encoding="utf-8")
    (tmp_path / "bill.csv").write_text(bill(), encoding="utf-8")
    (tmp_path / "agents.csv").write_text(AGENTS, encoding="utf-8")
    rootcost = Command(home)
    rootcost("agents", "import", tmp_path / "agents.csv")
    rootcost("ingest", "litellm", tmp_path / "log.jsonl")
    rootcost("ingest", "focus", tmp_path / "bill.csv")
    rootcost("attribute")
    with Books.open(home) as books:
        costs = books.store.scan(COSTS).filter(pl.col("basis") == "billed").collect()
        is_metered = (pl.col("cost_class") == "metered") & (pl.col("rule") != "RA-5")
        by_team = dict(costs.filter(is_metered).group_by("initiator_team").agg(pl.col("effective_cost").sum()).iter_rows())
        assert (by_team["Care"], by_team["Dev"]) == (D("0.009"), D("0.003"))
        assert set(by_team) == {"Care", "Dev", "Mal"}
        assert by_team["Mal"] <= D("0.0018")
        assert costs["effective_cost"].sum() == D("0.0165")
        assert not books.store.scan(BALANCE).filter(pl.col("difference") != 0).collect().height
        longest = (
            books.store.scan(SPANS)
            .select(pl.col("provider_request_id", "request_ids", "span_id").str.len_bytes().max())
            .collect()
        )
        assert all((length or 0) < 2_000 for length in longest.row(0))
        reasons = set(books.store.scan(PROBLEMS).collect()["reason"].str.extract(r"^([a-z_]+):").drop_nulls())
        assert "id_conflict" in reasons
