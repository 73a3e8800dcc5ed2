"""The pass over spans: signals → calls → chains → owners → meters → hourly quantities. It runs once per span.

Its results (`calls`, `chains`, `usage_hourly`) are all that bills and prices need: a restated bill never rereads spans. A result depends
only on the spans given, so a partition that holds whole chains can be built on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import polars as pl

from attribution.as_of import index_owners
from attribution.chains.ancestry import find_paths, resolve_ancestry
from attribution.chains.calls import merge_signals
from attribution.chains.chain_rows import build_chain_rows
from attribution.chains.echoes import mark_echoes
from attribution.chains.forest import build_forest
from attribution.chains.identity import drop_conflicting_claims, resolve_owners, span_agents
from attribution.chains.nodes import build_nodes, place_calls
from attribution.chains.span_index import index_spans
from attribution.chains.wrappers import keep_residuals
from attribution.pricing import PriceBook, add_list_cost
from attribution.usage.call_rows import build_call_rows, first_paths
from attribution.usage.dimensions import call_dimensions
from attribution.usage.evidence import count_evidence
from attribution.usage.flags import call_reasons
from attribution.usage.hourly import assign_cells, sum_cells
from attribution.usage.metering import flag_unpriced, meter_calls
from attribution.usage.reading_rows import drop_native_readings, read_quantities
from attribution.usage.resource_time import resource_hours
from attribution.usage.rollup_rows import RollupRows, finish_rows
from attribution.usage.set_aside import add_set_aside
from attribution.usage.spans import are_unique_spans, read_spans, select_signals
from ledger import periods
from ledger.settings import Settings

STEPS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("spans", read_spans),
    ("as_of", index_owners),
    ("span_index", index_spans),
    ("spans_are_unique", are_unique_spans),
    ("signals", select_signals),
    ("signals", drop_conflicting_claims),
    ("calls", merge_signals),
    ("nodes, node_index, node_of_call", build_nodes),
    ("forest", build_forest),
    ("calls", place_calls),
    ("calls", mark_echoes),
    ("calls", meter_calls),
    ("calls", drop_native_readings),
    ("calls, set_aside", keep_residuals),
    ("calls", add_list_cost),
    ("calls", flag_unpriced),
    ("agents", span_agents),
    ("context", resolve_ancestry),
    ("paths", find_paths),
    ("paths, owners", resolve_owners),
    ("dimensions", call_dimensions),
    ("reasons", call_reasons),
    ("cells", assign_cells),
    ("first_path", first_paths),
    ("chain_rows, chain_of_call", build_chain_rows),
    ("call_rows", build_call_rows),
    ("token_usage", sum_cells),
    ("resource_usage", resource_hours),
    ("evidence", count_evidence),
    ("evidence", add_set_aside),
    ("readings", read_quantities),
    ("rollup", finish_rows),
)
"""The pass, in order: the names of the results of each step, and the step. The parameters of a step name the results it reads.

`calls` and `signals` are refined by several steps; each reads the latest."""


def build_rollup(
    window: pl.LazyFrame, month: str | None, timeline: pl.DataFrame, book: PriceBook, settings: Settings, *, rollup_id: str
) -> RollupRows:
    """Calls, chains and hourly usage of the calls that started in `month` (UTC), from a frame of spans.

    Without a month all calls are kept, each in the UTC month of its own start. `timeline` is a `ledger.registry.timeline`.
    """
    results: dict[str, Any] = {
        "window": window,
        "timeline": timeline,
        "book": book,
        "settings": settings,
        "trusted_sources": settings.ingest.trusted_sources,
        "period": None if month is None else (periods.month_start(month), periods.month_end(month)),
        "rollup_id": rollup_id,
    }
    for names, step in STEPS:
        result = step(**{name: results[name] for name in signature(step).parameters})
        if "," in names:
            results.update(zip(names.split(", "), result, strict=True))
        else:
            results[names] = result
    rollup: RollupRows = results["rollup"]
    return rollup
