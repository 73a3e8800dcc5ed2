"""Pricing: calls a second on one core, against `litellm.completion_cost` asked for the same calls in the same run. Prints one JSON line.

The load: calls of forty models of the installed price map over a month, with cached input, reasoning, service tiers and long prompts.
Ours is timed from metered columns to the cost of every meter and call, with a price book at hand; LiteLLM from an answer that is
already an object of its own, with `import litellm` (eight seconds) not counted. Both in processor time, so that a busy machine does
not decide.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import argparse
import json
import time
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import polars as pl

from attribution.pricing import PriceBook, add_list_cost
from attribution.usage.metering import disjoint_meters
from bench.memory import peak_mb
from ingest.prices.litellm_map import read_litellm_map
from ledger.tables import SPANS, USAGE_COLUMNS

MODELS = (
    (
        "openai",
        "gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini gpt-4.1-nano o3 o4-mini gpt-5 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.4 o1 gpt-4-turbo",
    ),
    (
        "anthropic",
        "claude-sonnet-4-5 claude-opus-4-5 claude-haiku-4-5 claude-sonnet-4-6 claude-opus-4-6 claude-opus-4-7 claude-opus-4-1",
    ),
    ("gemini", "gemini/gemini-2.5-pro gemini/gemini-2.5-flash gemini/gemini-2.5-flash-lite gemini/gemini-3-pro-preview"),
    ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0 amazon.nova-lite-v1:0 amazon.nova-pro-v1:0 amazon.nova-micro-v1:0"),
    ("azure", "azure/gpt-4o azure/gpt-4o-mini azure/gpt-4.1 azure/gpt-5 azure/gpt-5-mini"),
    ("mistral", "mistral/mistral-large-latest mistral/mistral-small-latest mistral/codestral-latest"),
    ("groq", "groq/llama-3.3-70b-versatile groq/llama-3.1-8b-instant"),
    ("deepseek", "deepseek/deepseek-chat"),
)
SLICE = 500_000
"""Calls priced at once, about as many as a slice of a rollup holds."""
STARTED = datetime(2026, 10, 1, tzinfo=UTC)


def load(count: int, known: set[str]) -> pl.DataFrame:
    """The calls, as a gateway's log has them."""
    chance = np.random.default_rng(4)
    offers = [(provider, model) for provider, told in MODELS for model in told.split() if model in known]
    which = pl.Series(chance.integers(0, len(offers), count))
    prompt = np.minimum(10 ** chance.normal(3.3, 0.7, count), 900_000).astype(np.int64) + 1
    read = np.where(chance.random(count) < 0.4, (prompt * chance.random(count) * 0.9).astype(np.int64), 0)
    made = np.minimum(10 ** chance.normal(2.3, 0.6, count), 60_000).astype(np.int64) + 1
    tiers = pl.Series([None, None, None, None, None, None, "priority", "flex"], dtype=pl.String)
    written = pl.Series(np.where(chance.random(count) < 0.1, (prompt - read) // 2, 0))
    spans = pl.DataFrame(
        {
            "provider": pl.Series([p for p, _ in offers]).gather(which),
            "request_model": pl.Series([m for _, m in offers]).gather(which),
            "response_model": pl.Series([m for _, m in offers]).gather(which),
            "service_tier": tiers.gather(pl.Series(chance.integers(0, len(tiers), count))),
            "start_time": pl.Series(chance.integers(0, 31 * 86_400, count)) * 1_000_000 + int(STARTED.timestamp()) * 1_000_000,
            "input_tokens": prompt,
            "cache_read_tokens": read,
            "cache_write_5m_tokens": written.set(written == 0, None),
            "output_tokens": made,
            "reasoning_tokens": np.where(chance.random(count) < 0.3, made // 3, 0),
        }
    ).with_columns(pl.col("start_time").cast(SPANS.schema["start_time"]))
    told = (*USAGE_COLUMNS, "region", "cache_hit", "reported_cost", "other_usage", "end_time")
    lacking = [pl.lit(None, dtype=SPANS.schema[c]).alias(c) for c in told if c not in spans.columns]
    return spans.with_columns(*lacking, input_includes_cache=pl.lit(value=True), output_includes_reasoning=pl.lit(value=True))


def theirs(calls: pl.DataFrame, seconds: float) -> tuple[float, float, list[float]]:
    """Calls a second of LiteLLM, told model, provider and tier, and told the answer alone as its manual has it; and what it said."""
    import litellm
    from litellm.types.utils import CompletionTokensDetailsWrapper, ModelResponse, PromptTokensDetailsWrapper, Usage

    litellm.suppress_debug_info = True
    asked = []
    for row in calls.iter_rows(named=True):
        usage = Usage(
            prompt_tokens=row["input_tokens"],
            completion_tokens=row["output_tokens"],
            total_tokens=row["input_tokens"] + row["output_tokens"],
            prompt_tokens_details=PromptTokensDetailsWrapper(
                cached_tokens=row["cache_read_tokens"], cache_creation_tokens=row["cache_write_5m_tokens"] or 0
            ),
            completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=row["reasoning_tokens"]),
        )
        about = {"model": row["request_model"], "custom_llm_provider": row["provider"], "service_tier": row["service_tier"]}
        asked.append((ModelResponse(model=row["response_model"], usage=usage), about))
    rates: list[float] = []
    said: list[float] = []
    for told in (True, False):
        for response, about in asked[:200]:
            litellm.completion_cost(completion_response=response, **(about if told else {}))
        began = time.process_time()
        costs = []
        for response, about in asked:
            costs.append(float(litellm.completion_cost(completion_response=response, **(about if told else {}))))
            if time.process_time() - began > seconds:
                break
        rates.append(len(costs) / (time.process_time() - began))
        said = said or costs
    return rates[0], rates[1], said


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3_000_000)
    parser.add_argument("--seconds", type=float, default=5, help="how long LiteLLM is asked")
    given = parser.parse_args()
    prices = read_litellm_map().frame
    calls = load(given.calls, set(prices["model"].unique()))
    began = time.process_time()
    metered = disjoint_meters(calls.lazy()).collect()
    metering = time.process_time() - began
    before = peak_mb()
    book = PriceBook(prices)
    priced, took = add_list_cost(metered, book), []
    for _ in range(5):
        began = time.process_time()
        for start in range(0, given.calls, SLICE):
            add_list_cost(metered.slice(start, SLICE), book)
        took.append(time.process_time() - began)
    peak = peak_mb()
    rate, bare, said = theirs(calls.head(20_000), given.seconds)
    ours = priced["list_cost"].head(len(said)).to_list()
    tolerance = [Decimal("5e-12") + Decimal(repr(cost)) * Decimal("1e-12") for cost in said]
    differ = sum(abs(Decimal(repr(cost)) - (mine or 0)) > near for mine, cost, near in zip(ours, said, tolerance, strict=True))
    print(
        json.dumps(
            {
                "bench": "pricing",
                "calls": given.calls,
                "ours, calls/s/core": round(given.calls / min(took)),
                "litellm.completion_cost, calls/s/core": round(rate),
                "ratio": round(given.calls / min(took) / rate),
                "litellm.completion_cost(response), calls/s/core": round(bare),
                "ratio to that": round(given.calls / min(took) / bare),
                "unpriced": priced["list_cost"].null_count(),
                "compared": len(said),
                "different": differ,
                "seconds": round(min(took), 3),
                "metering seconds": round(metering, 3),
                "peak MB above the calls": round(peak - before),
            }
        )
    )


if __name__ == "__main__":
    main()
