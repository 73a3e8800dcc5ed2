"""Cases of counts: files of records, read by their source, metered and priced at list prices, without a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from attribution.pricing import PriceBook
from attribution.usage.rollup import build_rollup
from attribution.usage.rollup_rows import RollupRows
from ingest.prices.litellm_map import import_litellm_map
from ingest.sources import litellm
from ingest.sources.claude_code import SOURCE as CLAUDE_CODE
from ingest.sources.codex import SOURCE as CODEX
from ingest.sources.langfuse import SOURCE as LANGFUSE
from ingest.sources.otlp import SOURCE as OTLP
from ledger import registry
from ledger.settings import Settings
from tests.support.log_sources import read
from tests.support.paths import DATA

CASES = DATA / "cases"
SOURCES: Mapping[str, Any] = {
    "otlp": OTLP,
    "langfuse": LANGFUSE,
    "litellm": litellm.SOURCE,
    "codex": CODEX,
    "claude-code": CLAUDE_CODE,
}


@lru_cache
def list_prices() -> PriceBook:
    """The price list that comes with the package."""
    return PriceBook(import_litellm_map())


def rollup_of(source: str, path: Path) -> RollupRows:
    """Calls, chains and hourly usage of one file, by list prices."""
    return rollup_of_spans(read(SOURCES[source], path).frame)


def rollup_of_spans(frame: pl.DataFrame) -> RollupRows:
    """Calls, chains and hourly usage of spans, by list prices."""
    return build_rollup(
        frame.lazy(), None, registry.timeline(pl.DataFrame(schema=registry.SCHEMA)), list_prices(), Settings(), rollup_id="r"
    )


def costs_by_trace(rollup: RollupRows) -> dict[str, Decimal]:
    """The list cost of each trace; its id without leading zeros."""
    sums = (
        rollup.calls.group_by(trace_id=pl.col("chain_id").str.extract("^(.*):")).agg(pl.col("list_cost").sum()).sort("trace_id")
    )
    return {str(trace).lstrip("0"): cost for trace, cost in sums.iter_rows()}


def reasons(rollup: RollupRows) -> list[str | None]:
    """The reasons of each call, in the order of traces."""
    return rollup.calls.sort("trace_key", "span_key")["reason"].to_list()
