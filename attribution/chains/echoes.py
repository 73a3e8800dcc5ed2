"""Echoes: calls that repeat the call below them, the outer of two nested instrumentations of one request. (CA-2b)

An outer call is an echo only if model and usage agree with the next call below it and no agent or tool lies between: an agent that calls a
model through a tool of its own makes two requests. Everything else is a call.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from attribution import factorize
from attribution.chains.attempts import model_signatures, prompt_readings
from attribution.chains.calls import is_wrapper, reports_usage
from attribution.chains.forest import NONE, Flags, Forest, Index, nearest_ancestor, next_ancestor


def mark_echoes(calls: pl.DataFrame, nodes: pl.DataFrame, forest: Forest) -> pl.DataFrame:
    """Adds `is_echo`: whether a call repeats the next call below it, or all of the next calls below it together.

    `calls` has `node`, its row in the forest and in `nodes`. A call with another id of its request than the inner one is no echo.
    """
    container = forest.container
    reports = calls.select(reports_usage() & ~is_wrapper()).to_series().to_numpy()
    call_nodes = calls["node"].to_numpy()
    encloses = np.zeros(len(container), dtype=bool)
    encloses[container[container != np.arange(len(container), dtype=np.int32)]] = True
    is_reporting = np.zeros(len(container), dtype=bool)
    is_reporting[call_nodes[reports]] = True
    is_outer = is_reporting & encloses
    no_echo = calls.with_columns(is_echo=pl.lit(value=False))
    if not is_outer.any():
        return no_echo
    stops = is_outer | _starts_other_work(nodes, container, is_reporting)
    inner_rows = np.flatnonzero(reports)
    outer_nodes = next_ancestor(container, nearest_ancestor(container, stops), call_nodes[inner_rows])
    has_outer = (outer_nodes != NONE) & is_outer[outer_nodes]
    if not has_outer.any():
        return no_echo
    inner = _figures(calls[inner_rows[has_outer]]).with_columns(over=pl.Series(outer_nodes[has_outer], dtype=pl.Int32))
    outer_rows = np.flatnonzero(reports & is_outer[call_nodes])
    outer = _figures(calls[outer_rows]).with_columns(over=calls["node"].gather(outer_rows), row=pl.Series(outer_rows))
    pairs = inner.join(outer, on="over", suffix="_outer")
    echoes = pl.concat([pairs.filter(_agrees()).select("row"), _sums(pairs)])["row"].unique()
    is_echo = np.zeros(calls.height, dtype=bool)
    is_echo[echoes.to_numpy()] = True
    return calls.with_columns(is_echo=pl.Series(is_echo))


def _starts_other_work(nodes: pl.DataFrame, container: Index, is_reporting: Flags) -> Flags:
    """Spans of a tool or of an invoked agent, and those that name another agent than the nearest one above them that names any."""
    # A call without a span, of which only a gateway's row is known, is neither agent nor tool: there the column is null.
    has_kinds = "is_agent_or_tool" in nodes.columns
    starts = (
        nodes["is_agent_or_tool"].fill_null(value=False).to_numpy().copy() if has_kinds else np.zeros(nodes.height, dtype=bool)
    )
    agents = nodes.select(agent=pl.coalesce("agent_name", "agent_id"))["agent"]
    named_rows = np.flatnonzero(agents.is_not_null().to_numpy()).astype(np.int32)
    if len(named_rows):
        is_named = np.zeros(nodes.height, dtype=bool)
        is_named[named_rows] = True
        above = next_ancestor(container, nearest_ancestor(container, is_named), named_rows)
        codes = factorize.encode(agents).code
        starts[named_rows[(above == NONE) | (codes[above] != codes[named_rows])]] = True
    starts &= ~is_reporting
    return starts


def _figures(calls: pl.DataFrame) -> pl.DataFrame:
    """What is compared of a call: model, possible sizes of prompt and output, ids of the request, emitter."""
    output = pl.col("output_tokens")
    whole_output = output + pl.col("reasoning_tokens").fill_null(0)
    is_inside = pl.col("output_includes_reasoning")
    outputs = pl.concat_list(
        pl.when(is_inside.ne_missing(other=False)).then(output), pl.when(is_inside.ne_missing(other=True)).then(whole_output)
    )
    return calls.select(
        "emitter",
        id=pl.coalesce("provider_request_id", "gateway_call_id"),
        is_request=pl.col("usage_scope").eq_missing("leaf"),
        model=model_signatures(calls),
        prompts=prompt_readings(calls),
        outputs=pl.when(output.is_not_null()).then(outputs.list.drop_nulls().list.unique().list.sort()),
    )


def _agrees() -> pl.Expr:
    """Whether the outer call of a pair agrees with the inner one in model and usage.

    What only one of them reports is no contradiction. An outer call of another instrumentation may estimate the prompt: there an equal output
    is enough.
    """
    equal, comparable = _compared("prompts"), pl.col("prompts").is_not_null() & pl.col("prompts_outer").is_not_null()
    output_equal = _compared("outputs")
    output_comparable = pl.col("outputs").is_not_null() & pl.col("outputs_outer").is_not_null()
    has_output = (pl.col("outputs").list.max() > 0).fill_null(value=False)
    same_usage = (equal | ~comparable) & (output_equal | ~output_comparable) & (equal | (output_equal & has_output))
    is_estimate = (pl.col("emitter") != pl.col("emitter_outer")).fill_null(value=False) & output_equal & has_output
    return _is_same_request() & (same_usage | is_estimate)


def _is_same_request() -> pl.Expr:
    """Whether neither the models nor the ids of a pair contradict each other."""
    same_model = (pl.col("model") == pl.col("model_outer")).fill_null(value=True)
    same_id = (pl.col("id") == pl.col("id_outer")).fill_null(value=True)
    return same_model & (same_id | ~pl.col("is_request_outer"))


def _compared(figure: str) -> pl.Expr:
    """Whether a reading of the inner call is one of the outer's, too."""
    return (pl.col(figure).list.set_intersection(pl.col(f"{figure}_outer")).list.len() > 0).fill_null(value=False)


def _sums(pairs: pl.DataFrame) -> pl.DataFrame:
    """Outer calls whose prompt and output are exactly the sums of the several calls below them: rows (row)."""
    sums = [
        pl.col(figure).list.get(place).sum().alias(f"{figure}_{place}") for figure in ("prompts", "outputs") for place in (0, -1)
    ]
    groups = (
        pairs.filter(pl.len().over("row") > 1)
        .with_columns(fits=_is_same_request() & pl.col("prompts").is_not_null() & pl.col("outputs").is_not_null())
        .group_by("row")
        .agg(*sums, pl.col("fits").all(), *(pl.col(f"{figure}_outer").first() for figure in ("prompts", "outputs")))
    )

    def is_sum(figure: str) -> pl.Expr:
        return pl.any_horizontal(pl.col(f"{figure}_outer").list.contains(pl.col(f"{figure}_{place}")) for place in (0, -1))

    return groups.filter(pl.col("fits") & is_sum("prompts") & is_sum("outputs") & (pl.col("prompts_0") > 0)).select("row")
