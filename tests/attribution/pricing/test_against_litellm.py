"""Our pricer against LiteLLM itself: every model of its map, many usages each. (litellm is the oracle; the product never imports it.)

Where the two differ, `data/pricing/differences.csv` says for which model and usage and why; the list is exact. After an update of
litellm: ``python -m tests.attribution.pricing.test_against_litellm`` writes the list anew, with a reason wherever a known one fits.
"""

from __future__ import annotations

import csv
import json
import os
import re
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.pricing import PriceBook, add_list_cost
from attribution.usage.metering import disjoint_meters
from ingest.prices.litellm_map import litellm_map_path, read_litellm_map
from ledger.tables import SPANS, TOKEN_METERS, USAGE_COLUMNS
from tests.support.paths import DATA
from tests.support.pricing_cases import Case, cases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""What LiteLLM's own types warn of is not ours to mend."""

STEP = 1 if os.environ.get("EVERY_MODEL") or __name__ == "__main__" else 4
"""One model of so many is compared; `make pricing-oracle` compares all."""
LIST = DATA / "pricing" / "differences.csv"
SEED = 7
RELATIVE, A_METER = Decimal("1e-12"), Decimal("5e-13")
"""How near is equal: LiteLLM computes in floating point; ours is rounded at twelve decimals a meter."""
ENOUGH = Decimal("0.995")
COLUMNS = (*USAGE_COLUMNS, "other_usage", "provider", "region", "request_model", "response_model", "service_tier", "start_time")


def priced(asked: list[tuple[Case, str]]) -> pl.DataFrame:
    """All cases in one frame, through the product's own metering and pricing."""
    rows = []
    for case, provider in asked:
        call = {k: v for k, v in case.call.items() if k != "other"}
        other = case.call.get("other")
        rows.append(
            call | {"provider": provider, "request_model": case.model, "other_usage": json.dumps(other) if other else None}
        )
    spans = pl.DataFrame(rows, schema={name: SPANS.schema[name] for name in COLUMNS}).with_columns(
        input_includes_cache=pl.lit(value=True),
        output_includes_reasoning=pl.lit(value=True),
        cache_hit=pl.lit(None, dtype=pl.Boolean),
    )
    return add_list_cost(disjoint_meters(spans.lazy()).collect(), PriceBook(read_litellm_map().frame))


def equal(ours: Decimal | None, theirs: float, meters: int) -> bool:
    """Whether both say the same; LiteLLM's 0 of a model it has no price for is our null. (ES-2)"""
    if ours is None:
        return theirs == 0
    exact = Decimal(repr(theirs))
    return abs(ours - exact) <= abs(exact) * RELATIVE + A_METER * meters


def reason(case: Case, entry: dict[str, Any]) -> str:
    """Why LiteLLM says otherwise, as far as a rule can tell; empty: nobody knows yet."""
    provider, tier = entry["litellm_provider"], case.call.get("service_tier")
    cached = any(case.call.get(c) for c in ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"))
    sizes = [int(size) * 1000 for key in entry for size in re.findall(r"_above_(\d+)k_tokens", key)]
    large = any(case.call.get("input_tokens", 0) > size for size in sizes)
    rules = (
        (provider == "perplexity" and "input_cost_per_request" in entry, "LiteLLM never bills input_cost_per_request"),
        (
            case.model.startswith("perplexity/perplexity/"),
            "LiteLLM takes a repeated provider off the name and finds another model",
        ),
        (provider == "perplexity", "LiteLLM's calculator for Perplexity knows neither cache nor context rates"),
        (
            provider == "fireworks_ai" and tier in ("priority", "fast"),
            "LiteLLM's calculator for Fireworks ignores the service tier",
        ),
        (provider == "parallel_ai", "LiteLLM's calculator for Parallel bills one search, whatever their number"),
        (case.kind == "pictures", "LiteLLM takes the first price of a picture the entry states, though it is 0"),
        (case.model.startswith("meta/sam") and case.kind == "units", "LiteLLM bills nothing for a model without token rates"),
        (tier == "batch" and "tiered_pricing" in entry, "LiteLLM's batches of models with a price table are free"),
        (
            tier == "batch" and "output_cost_per_image_token" in entry,
            "LiteLLM's batches of picture models give other tokens away",
        ),
        (
            tier == "batch" and case.call.get("cache_write_1h_tokens"),
            "LiteLLM bills one-hour cache writes of a batch as short ones",
        ),
        (tier == "batch" and "inference_geo" in case.asked, "LiteLLM's batches ignore the inference geography"),
        (tier == "batch" and large, "LiteLLM halves the rate of small prompts for large ones too"),
        (tier == "batch" and cached, "LiteLLM's batches give cached tokens away where no rate is stated for them"),
        (
            tier in ("priority", "fast", "flex") and bool(case.call.get("input_audio_tokens")),
            "LiteLLM drops audio rates of a tier",
        ),
        (
            tier is not None and "searches" not in case.asked and "maps" in case.asked,
            "LiteLLM finds the map price in another entry",
        ),
    )
    return next((why for holds, why in rules if holds), "")


def compared() -> tuple[list[dict[str, str]], int, set[str]]:
    """Every difference, how many (model, usage) pairs were compared, and of which models."""
    from tests.support import litellm_oracle as oracle

    entries = {
        m: e
        for m, e in json.loads(litellm_map_path().read_bytes()).items()
        if m not in ("sample_spec", "fallback_generalizations")
    }
    entries = dict(list(entries.items())[::STEP])
    asked, told = [], []
    for model, entry in entries.items():
        provider = oracle.provider(model, entry)
        for case in cases(model, entry, SEED):
            asked.append((case, provider))
            told.append(oracle.cost(case, provider, entry))
    ours = priced(asked)
    meters = ours.select(pl.sum_horizontal(pl.col(m).is_not_null() for m in TOKEN_METERS)).to_series() + 3
    assert {case.model for case, _ in asked} >= {m for m, e in entries.items() if "input_cost_per_token" in e}, (
        "a model was not asked"
    )
    different = [
        {
            "model": case.model,
            "usage": case.kind,
            "ours": "" if mine is None else f"{mine.normalize():f}",
            "litellm": f"{Decimal(repr(theirs)).normalize():f}",
            "reason": reason(case, entries[case.model]),
        }
        for (case, _), mine, theirs, count in zip(asked, ours["list_cost"], told, meters, strict=True)
        if not equal(mine, theirs, count)
    ]
    return different, len(asked), set(entries)


@pytest.mark.slow
def test_every_model_costs_what_litellm_says_but_for_the_listed_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the installed map, not the newest of the network
    different, pairs, models = compared()
    with LIST.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert all(row["reason"] for row in listed)
    found = {(row["model"], row["usage"]): (row["ours"], row["litellm"]) for row in different}
    known = {(row["model"], row["usage"]): (row["ours"], row["litellm"]) for row in listed if row["model"] in models}
    assert found.keys() - known.keys() == set(), "differences nobody explained"
    assert known.keys() - found.keys() == set(), "explained, but no longer different"
    assert [key for key in found if found[key][0] != known[key][0]] == []
    assert pairs > 30_000 / STEP
    assert 1 - Decimal(len(found)) / pairs >= ENOUGH, f"{len(found)} of {pairs} differ"


if __name__ == "__main__":
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    rows, count, _ = compared()
    LIST.parent.mkdir(parents=True, exist_ok=True)
    with LIST.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["model", "usage", "ours", "litellm", "reason"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["reason"], row["model"], row["usage"])))
    print(f"{len(rows)} of {count} differ, {sum(not row['reason'] for row in rows)} without a reason")
