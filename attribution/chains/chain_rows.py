"""Rows of the table `chains`: one for each root that has a call below it."""

from __future__ import annotations

import numpy as np
import polars as pl

from attribution import factorize
from attribution.chains.forest import Forest, Index
from attribution.chains.identity import Owners
from ledger.tables import TOKEN_METERS

_LAST = np.iinfo(np.int64).max


def chain_ids(nodes: pl.DataFrame, roots: Index) -> pl.Series:
    """The ids of chains: trace id and span id of each root, joined by a colon."""
    ids = nodes.select(pl.col("trace_id", "span_id").gather(roots).fill_null("?"))
    return ids.select(pl.concat_str("trace_id", "span_id", separator=":").alias("chain_id")).to_series()


def build_chain_rows(
    nodes: pl.DataFrame, forest: Forest, calls: pl.DataFrame, owners: Owners, first_path: Index
) -> tuple[pl.DataFrame, Index]:
    """One row for each chain that holds a call, without its rollup; and for each call, the row of its chain.

    `calls` has `node`, `list_cost` and the meters; `first_path` is the path whose owner each call is shown under.
    """
    root = forest.root[calls["node"].to_numpy()]
    chain_of_root = np.full(nodes.height, factorize.NONE, dtype=np.int32)
    chain_of_root[root] = 0
    roots = np.flatnonzero(chain_of_root == 0).astype(np.int32)
    chain_of_root[roots] = np.arange(len(roots), dtype=np.int32)
    chain_of, chain_of_node = chain_of_root[root], chain_of_root[forest.root]
    frame = pl.DataFrame(
        [
            chain_ids(nodes, roots),
            nodes["name"].gather(roots).cast(pl.String).alias("root_name"),
            *_time_bounds(nodes, chain_of_node, len(roots)),
            _reasons(forest, chain_of_root, roots),
            *_usage_totals(calls, chain_of, len(roots), owners, owners.code[first_path]),
            _trace_ids(nodes, forest, chain_of_node, roots),
        ]
    )
    return frame, chain_of


def _time_bounds(nodes: pl.DataFrame, chain_of_node: Index, size: int) -> list[pl.Series]:
    """Start, end and number of spans of each chain; `chain_of_node` is the chain of each span, or NONE."""
    in_chain = chain_of_node != factorize.NONE
    all_in_chains = bool(in_chain.all())
    chain_of_node = chain_of_node if all_in_chains else chain_of_node[in_chain]

    def bound(column: str, worst: int, reduce: np.ufunc) -> pl.Series:
        instants = nodes[column].to_physical().fill_null(worst).to_numpy()
        bounds = np.full(size, worst, dtype=np.int64)
        reduce.at(bounds, chain_of_node, instants if all_in_chains else instants[in_chain])
        column_bounds = pl.Series(column, bounds)
        return column_bounds.set(column_bounds == worst, None).cast(nodes.schema[column])

    return [
        bound("start_time", _LAST, np.minimum),
        bound("end_time", -_LAST, np.maximum),
        pl.Series("spans", np.bincount(chain_of_node, minlength=size).astype(np.int64)),
    ]


def _reasons(forest: Forest, chain_of_root: Index, roots: Index) -> pl.Series:
    """The reasons of each chain, comma-separated: missing_parent, cycle, fan_in."""
    has_cycle = np.zeros(len(roots), dtype=bool)
    chain_of_cycle = chain_of_root[forest.root[np.flatnonzero(forest.cycle)]]
    has_cycle[chain_of_cycle[chain_of_cycle != factorize.NONE]] = True
    is_fan_in = np.zeros(len(chain_of_root), dtype=bool)
    is_fan_in[list(forest.fans)] = True
    flags = {"missing_parent": forest.missing_parent[roots], "cycle": has_cycle, "fan_in": is_fan_in[roots]}
    if not any(flag.any() for flag in flags.values()):
        return pl.repeat(None, len(roots), dtype=pl.String, eager=True).alias("reason")
    reason = pl.concat_str(
        [pl.when(pl.Series(flag)).then(pl.lit(name)) for name, flag in flags.items()], separator=",", ignore_nulls=True
    )
    return pl.select(reason=reason).to_series().replace("", None)


def _usage_totals(calls: pl.DataFrame, chain_of: Index, size: int, owners: Owners, owner: Index) -> list[pl.Series]:
    """Main initiator, calls, tokens and list cost of each chain."""
    tokens = np.zeros(size, dtype=np.int64)
    for meter in factorize.non_null_columns(calls, TOKEN_METERS):
        np.add.at(tokens, chain_of, calls[meter].fill_null(0).to_numpy())
    cost = pl.DataFrame({"chain": chain_of, "cost": calls["list_cost"]})
    if cost["cost"].null_count() == calls.height:
        list_cost = pl.repeat(None, size, dtype=calls.schema["list_cost"], eager=True)
    else:
        sums = cost.drop_nulls().group_by("chain").agg(pl.col("cost").sum())
        list_cost = pl.repeat(None, size, dtype=calls.schema["list_cost"], eager=True).scatter(sums["chain"], sums["cost"])
    starters, distinct = factorize.distinct_rows(owners.table.select("initiator_agent", "initiator_team", "method"))
    main = _main_initiator(calls, chain_of, size, starters[owner])
    return [
        *(distinct[c].gather(main) for c in distinct.columns),
        pl.Series("calls", np.bincount(chain_of, minlength=size).astype(np.int64)),
        pl.Series("tokens", tokens),
        list_cost.alias("list_cost"),
    ]


def _main_initiator(calls: pl.DataFrame, chain_of: Index, size: int, starter: Index) -> Index:
    """The initiator of each chain's most expensive call; most chains have only one initiator."""
    smallest, largest = np.full(size, np.iinfo(np.int32).max, dtype=np.int32), np.full(size, -1, dtype=np.int32)
    np.minimum.at(smallest, chain_of, starter)
    np.maximum.at(largest, chain_of, starter)
    has_several_starters = (smallest != largest)[chain_of]
    if has_several_starters.any():
        candidates = calls.select("list_cost", "start_time", "span_key").filter(pl.Series(has_several_starters))
        candidates = candidates.with_columns(
            chain=pl.Series(chain_of[has_several_starters]), starter=pl.Series(starter[has_several_starters])
        )
        dearest = candidates.sort(
            pl.col("list_cost").fill_null(0), "start_time", "span_key", descending=[True, False, False]
        ).unique("chain", keep="first", maintain_order=True)
        largest[dearest["chain"].to_numpy()] = dearest["starter"].to_numpy()
    return largest


def _trace_ids(nodes: pl.DataFrame, forest: Forest, chain_of_node: Index, roots: Index) -> pl.Series:
    """The trace ids of each chain: nearly always that of its root alone, since only links cross traces."""
    root_traces = nodes["trace_id"].gather(roots)
    root_trace_lists = root_traces.reshape((len(root_traces), 1)).arr.to_list().alias("trace_ids")
    if root_traces.null_count():
        root_trace_lists = root_trace_lists.list.drop_nulls()
    crossing = np.unique(chain_of_node[np.flatnonzero(forest.linked)])
    crossing = crossing[crossing != factorize.NONE]
    if not len(crossing):
        return root_trace_lists
    is_crossing = np.zeros(len(roots) + 1, dtype=bool)
    is_crossing[crossing] = True
    rows = np.flatnonzero(is_crossing[chain_of_node])
    traces = (
        pl.DataFrame({"chain": chain_of_node[rows], "trace_key": nodes["trace_key"].gather(rows), "row": rows})
        .group_by("chain", "trace_key")
        .agg(pl.col("row").min())
        .sort("chain", "trace_key")
    )
    crossing_lists = (
        traces.with_columns(trace_id=nodes["trace_id"].gather(traces["row"]))
        .group_by("chain", maintain_order=True)
        .agg(trace_ids=pl.col("trace_id").drop_nulls())
    )
    whole = pl.DataFrame({"chain": np.arange(len(roots), dtype=np.int64), "trace_ids": root_trace_lists})
    return whole.update(crossing_lists.with_columns(pl.col("chain").cast(pl.Int64)), on="chain")["trace_ids"]
