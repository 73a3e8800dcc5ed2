"""Generates large tables for benchmarks: request trees and a matching bill, written directly without a file format in between.

Everything is vectorised; ten million spans take about a minute and a gigabyte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ledger import periods
from ledger.hashing import GOLDEN_GAMMA, splitmix64
from ledger.money import MONEY, from_units
from ledger.tables import CHARGES, SPANS, TIME
from rootcost.demo.pricebook import installed_price_map

CHUNK_SPANS = 1_000_000
AGENTS = 200
MODELS = 40
RECENT_TREES = 500
_PLACE = 10**12
_PAID_PER_THOUSAND = 880
"""Price paid for list prices of 1,000."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFiles:
    """The generated tables: Parquet files with the columns of `spans` and `charges`, and the expected result.

    `expected` holds, by initiating agent, the effective cost of its logged calls, exact but for the splits' last digit.
    """

    spans: tuple[Path, ...]
    charges: Path
    registry: Path
    expected: Path
    month: str
    calls: int


def generate_ledger(out: Path, spans: int, seed: int = 7, month: str = "2026-10") -> LedgerFiles:
    """Writes about `spans` spans in trees of lognormal size, and their bill.

    One tree in twenty continues the trace of one of the last few hundred through a link. A leaf of a tree is a model call. An agent keeps
    to three models and three helpers, as agents do. Forty models are billed by the hour; 3 % of the pools hold usage that nobody logged.
    """
    out.mkdir(parents=True, exist_ok=True)
    rates = _rates()
    start_us = int(periods.month_start(month).timestamp()) * 1_000_000
    # The last hour stays free: a tree that starts late must end inside the month.
    length_us = int(periods.month_end(month).timestamp() - 3600) * 1_000_000 - start_us
    files: list[Path] = []
    pools: list[pl.DataFrame] = []
    owed: list[pl.DataFrame] = []
    spans_total = calls = 0
    for number, size in enumerate(_chunks(spans)):
        rng = np.random.default_rng([seed, number])
        # Each chunk is a slice of the month, so that files are in order of time.
        window = (start_us + length_us * spans_total // spans, length_us * size // spans)
        frame, pool, cost = _chunk(rng, number, size, window, rates)
        path = out / f"spans-{number:04d}.parquet"
        SPANS.conform(frame).write_parquet(path, compression="lz4")
        files.append(path)
        pools.append(pool)
        owed.append(cost)
        spans_total += size
        calls += int(frame["output_tokens"].is_not_null().sum())
    charges = out / "charges.parquet"
    logged_usage = pl.concat(pools).group_by("hour", "model").agg(pl.col("input").sum(), pl.col("output").sum())
    _charges(logged_usage, rates, month, seed).write_parquet(charges)
    expected_path = out / "expected.parquet"
    agent_dues = pl.concat(owed).group_by("agent").agg(pl.col("units").sum()).sort("agent")
    agent_dues.select(pl.col("agent"), from_units(pl.col("units").cast(pl.Int128)).alias("effective_cost")).write_parquet(
        expected_path
    )
    registry = out / "registry.csv"
    rows = ["agent,team", *(f"agent-{n:03d},team-{n % 20:02d}" for n in range(AGENTS))]
    registry.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return LedgerFiles(spans=tuple(files), charges=charges, registry=registry, expected=expected_path, month=month, calls=calls)


def _chunks(spans: int) -> Iterator[int]:
    while spans > 0:
        yield min(spans, CHUNK_SPANS)
        spans -= CHUNK_SPANS


def _rates() -> dict[str, tuple[int, int]]:
    """Forty real models of one provider with (input, output) price of a token in units of 10^-12 USD."""
    rates = {}
    for name, entry in sorted(installed_price_map().items()):
        prices = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
        is_variant = re.search(r"-\d{4}|/|:|latest|preview|audio|realtime|search|image", name)
        is_chat_model = entry.get("litellm_provider") == "openai" and entry.get("mode") in ("chat", "responses")
        if is_chat_model and not is_variant and all(prices):
            rates[name] = tuple(int(Decimal(p or 0) * _PLACE) for p in prices)
    names = list(rates)[:MODELS]
    return {name: (rates[name][0], rates[name][1]) for name in names}


def _sizes(rng: np.random.Generator, spans: int) -> Ints:
    tree_sizes = np.clip(np.round(rng.lognormal(2.1, 0.9, spans // 4 + 8)), 2, 400).astype(np.int64)
    size_ends = np.cumsum(tree_sizes)
    count = int(np.searchsorted(size_ends, spans))
    sizes = tree_sizes[: count + 1].copy()
    sizes[-1] -= int(size_ends[count]) - spans
    return sizes if sizes[-1] > 0 else sizes[:-1]


def _chunk(
    rng: np.random.Generator, number: int, spans: int, window: tuple[int, int], rates: dict[str, tuple[int, int]]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    sizes = _sizes(rng, spans)
    trees, first = len(sizes), np.concatenate(([0], np.cumsum(sizes)[:-1]))
    tree = np.repeat(np.arange(trees), sizes)
    place = np.arange(spans) - first[tree]
    # A parent is any earlier span of the tree, more likely a late one.
    above = np.floor(np.sqrt(rng.random(spans)) * place).astype(np.int64)
    parent = np.where(place > 0, first[tree] + np.minimum(above, place - 1), -1)
    is_leaf = np.ones(spans, dtype=bool)
    is_leaf[parent[parent >= 0]] = False
    span_key, trace_key = _keys(number * CHUNK_SPANS + np.arange(spans), 1), _keys(number * CHUNK_SPANS + np.arange(trees), 2)
    is_linked = (rng.random(trees) < 0.05) & (np.arange(trees) > 0)
    earlier = np.maximum(np.arange(trees) - 1 - rng.integers(0, RECENT_TREES, trees), 0)
    target = first[earlier] + np.floor(rng.random(trees) * sizes[earlier]).astype(np.int64)
    agent = rng.zipf(1.5, trees) % AGENTS
    habits = np.random.default_rng(AGENTS)
    models, helpers = habits.integers(0, len(rates), (AGENTS, 3)), habits.integers(0, AGENTS, (AGENTS, 3))
    start_seconds = np.sort(rng.integers(0, window[1], trees)) + window[0]
    start = start_seconds[tree] + place * 1_500_000
    names = list(rates)
    model = models[agent[tree], rng.integers(0, 3, spans)]
    used_in = np.where(is_leaf, np.clip(rng.lognormal(7.6, 1.2, spans), 8, 180_000), 0).astype(np.int64)
    used_out = np.where(is_leaf, np.clip(rng.lognormal(5.2, 0.9, spans), 1, 8_000), 0).astype(np.int64)
    inner = (place > 0) & ~is_leaf & (rng.random(spans) < 0.2)
    speaks = (place == 0) | inner
    agent_ids = np.where(place == 0, agent[tree], helpers[agent[tree], rng.integers(0, 3, spans)])
    book = pl.Series([f"agent-{n:03d}" for n in range(AGENTS)])
    frame = pl.DataFrame(
        {
            "start": start,
            "trace_key": trace_key[tree],
            "span_key": span_key,
            "parent": np.where(parent >= 0, span_key[parent], 0),
            "is_root": place == 0,
            "linked": is_linked[tree] & (place == 0),
            "link_trace_key": trace_key[tree[target]][tree],
            "link_span_key": span_key[target][tree],
            "speaks": speaks,
            "leaf": is_leaf,
            "used_in": used_in,
            "used_out": used_out,
        }
    ).with_columns(
        agent=book.gather(agent_ids),
        model=pl.Series(names).gather(model),
        trace_id=_hex(trace_key).gather(tree),
        span_id=_hex(span_key),
    )
    initiator = _root_agents(agent, is_linked, tree[target])[tree]
    return _as_spans(frame), _pools(frame), _owed(frame, initiator, model, list(rates.values()))


def _root_agents(agent: Ints, is_linked: NDArray[np.bool_], target_tree: Ints) -> Ints:
    """The agent at the root of each tree's chain; links only point to earlier trees, so following them ends."""
    root = np.where(is_linked, target_tree, np.arange(len(agent)))
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return np.asarray(agent[root])
        root = further


def _as_spans(frame: pl.DataFrame) -> pl.DataFrame:
    leaf, root = pl.col("leaf"), pl.col("is_root")
    at = pl.from_epoch("start", time_unit="us").dt.replace_time_zone("UTC").cast(TIME)
    return frame.select(
        date=at.dt.date(),
        channel=pl.lit("otlp"),
        source=pl.lit("otlp"),
        raw_id=pl.lit("bench"),
        trace_key="trace_key",
        span_key="span_key",
        parent_key=pl.when(~root).then("parent"),
        link_trace_key=pl.when("linked").then("link_trace_key"),
        link_span_key=pl.when("linked").then("link_span_key"),
        trace_id=pl.lit("0000000000000001") + pl.col("trace_id"),
        span_id="span_id",
        start_time=at,
        end_time=at + pl.duration(seconds=1),
        service_name=pl.when(root).then(pl.lit("front")).otherwise(pl.lit("worker")),
        name=pl.when(leaf).then(pl.lit("chat")).otherwise(pl.lit("invoke_agent")),
        operation=pl.when(leaf).then(pl.lit("chat")).otherwise(pl.lit("invoke_agent")),
        emitter=pl.lit("otel"),
        usage_scope=pl.when(leaf).then(pl.lit("leaf")),
        status=pl.lit("ok"),
        agent_name=pl.when("speaks").then("agent"),
        provider=pl.when(leaf).then(pl.lit("openai")),
        request_model=pl.when(leaf).then("model"),
        response_model=pl.when(leaf).then("model"),
        input_tokens=pl.when(leaf).then("used_in"),
        input_includes_cache=pl.when(leaf).then(statement=True),
        output_tokens=pl.when(leaf).then("used_out"),
        output_includes_reasoning=pl.when(leaf).then(statement=True),
        rank=pl.lit(20, dtype=pl.Int32),
    )


def _pools(frame: pl.DataFrame) -> pl.DataFrame:
    hour = pl.col("start") // 3_600_000_000
    leaves = frame.filter("leaf")
    return leaves.group_by(hour.alias("hour"), "model").agg(input=pl.col("used_in").sum(), output=pl.col("used_out").sum())


def _owed(frame: pl.DataFrame, initiator: Ints, model: Ints, rates: list[tuple[int, int]]) -> pl.DataFrame:
    price = np.array(rates, dtype=np.int64)
    list_cost = frame["used_in"].to_numpy() * price[model, 0] + frame["used_out"].to_numpy() * price[model, 1]
    units = list_cost // 1000 * _PAID_PER_THOUSAND
    return (
        pl.DataFrame({"agent": initiator, "units": units})
        .group_by("agent")
        .agg(pl.col("units").sum())
        .with_columns(agent=pl.format("agent-{}", pl.col("agent").cast(pl.String).str.zfill(3)))
    )


def _charges(logged_usage: pl.DataFrame, rates: dict[str, tuple[int, int]], month: str, seed: int) -> pl.DataFrame:
    """The bill of the pools: one row per hour, model and meter; in some, 10 % of the usage is not logged."""
    price = pl.DataFrame(
        {"model": list(rates), "p_input": [r[0] for r in rates.values()], "p_output": [r[1] for r in rates.values()]}
    )
    pools = logged_usage.sort("hour", "model").join(price, on="model", how="left", maintain_order="left")
    hidden = pl.Series(np.random.default_rng([seed, 99]).random(pools.height) < 0.03)
    parts = []
    for meter in ("input", "output"):
        tokens = pl.col(meter) + pl.when(hidden).then(pl.col(meter) // 10).otherwise(0)
        parts.append(pools.select("hour", "model", tokens=tokens, price=pl.col(f"p_{meter}"), meter=pl.lit(f"{meter}_tokens")))
    at = pl.from_epoch(pl.col("hour") * 3600, time_unit="s").dt.replace_time_zone("UTC").cast(TIME)
    list_cost = pl.col("tokens").cast(pl.Int128) * pl.col("price")
    paid = list_cost // 1000 * _PAID_PER_THOUSAND
    item = pl.col("model") + ", " + pl.col("meter")
    rows = pl.concat(parts).sort("hour", "model", "meter")
    return CHARGES.conform(
        rows.select(
            charge_id=pl.format("bench-{}", pl.int_range(pl.len())),
            source=pl.lit("focus"),
            scope=pl.lit("bench"),
            raw_id=pl.lit("bench"),
            line=pl.int_range(pl.len(), dtype=pl.Int64) + 1,
            billing_month=pl.lit(month),
            final=pl.lit(value=True),
            billing_currency=pl.lit("USD"),
            billed_cost=from_units(paid),
            effective_cost=from_units(paid),
            list_cost=from_units(list_cost),
            contracted_cost=from_units(paid),
            charge_period_start=at,
            charge_period_end=at + pl.duration(hours=1),
            charge_category=pl.lit("Usage"),
            provider_name=pl.lit("OpenAI"),
            service_name=pl.lit("OpenAI API"),
            sku_meter=item,
            consumed_quantity=pl.col("tokens").cast(MONEY),
            consumed_unit=pl.lit("Tokens"),
        )
    )


def _keys(numbers: Ints, salt: int) -> Ints:
    """Distinct, evenly spread 64-bit keys of distinct numbers (splitmix64, which is a bijection)."""
    return splitmix64((numbers.astype(np.uint64) + np.uint64(salt << 40)) * GOLDEN_GAMMA).view(np.int64)


def _hex(keys: Ints) -> pl.Series:
    text = keys.astype(">i8").tobytes().hex()
    return pl.Series([text[n : n + 16] for n in range(0, len(text), 16)])
