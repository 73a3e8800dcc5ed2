"""Rows of `build_chain_rows`: one a root under which there is a call."""

from __future__ import annotations

import numpy as np
import polars as pl

from attribution import factorize
from attribution.chains.forest import Forest, Index
from attribution.chains.identity import Owners
from ledger.tables import TOKEN_METERS

_LAST = np.iinfo(np.int64).max


def chain_ids(nodes: pl.DataFrame, roots: Index) -> pl.Series:
    """The ids of chains: trace id and span id of their roots."""
    ids = nodes.select(pl.col("trace_id", "span_id").gather(roots).fill_null("?"))
    return ids.select(pl.concat_str("trace_id", "span_id", separator=":").alias("chain_id")).to_series()


def build_chain_rows(
    nodes: pl.DataFrame, forest: Forest, calls: pl.DataFrame, owners: Owners, owner: Index
) -> tuple[pl.DataFrame, Index]:
    """One row a chain that holds a call, without its rollup; and for each call, which row is its chain.

    `calls` has `node`, `list_cost` and the meters; `owner` is the row of `owners` that each is shown under.
    """
    root = forest.root[calls["node"].to_numpy()]
    number = np.full(nodes.height, factorize.NONE, dtype=np.int32)
    number[root] = 0
    roots = np.flatnonzero(number == 0).astype(np.int32)
    number[roots] = np.arange(len(roots), dtype=np.int32)
    chain_of, of = number[root], number[forest.root]
    frame = pl.DataFrame(
        [
            chain_ids(nodes, roots),
            nodes["name"].gather(roots).cast(pl.String).alias("root_name"),
            *_time_bounds(nodes, of, len(roots)),
            _reasons(forest, number, roots),
            *_usage_totals(calls, chain_of, len(roots), owners, owner),
            _trace_ids(nodes, forest, of, roots),
        ]
    )
    return frame, chain_of


def _time_bounds(nodes: pl.DataFrame, of: Index, size: int) -> list[pl.Series]:
    """Start, end and number of spans of each chain; `of` is the chain each span is in, if it is in one."""
    inside = of != factorize.NONE
    everything = bool(inside.all())
    of = of if everything else of[inside]

    def bound(column: str, worst: int, best: np.ufunc) -> pl.Series:
        at = nodes[column].to_physical().fill_null(worst).to_numpy()
        found = np.full(size, worst, dtype=np.int64)
        best.at(found, of, at if everything else at[inside])
        told = pl.Series(column, found)
        return told.set(told == worst, None).cast(nodes.schema[column])

    return [
        bound("start_time", _LAST, np.minimum),
        bound("end_time", -_LAST, np.maximum),
        pl.Series("spans", np.bincount(of, minlength=size).astype(np.int64)),
    ]


def _reasons(forest: Forest, number: Index, roots: Index) -> pl.Series:
    """What is odd about each chain."""
    cut = np.zeros(len(roots), dtype=bool)
    inside = number[forest.root[np.flatnonzero(forest.cycle)]]
    cut[inside[inside != factorize.NONE]] = True
    fans = np.zeros(len(number), dtype=bool)
    fans[list(forest.fans)] = True
    flags = {"missing_parent": forest.missing_parent[roots], "cycle": cut, "fan_in": fans[roots]}
    if not any(flag.any() for flag in flags.values()):
        return pl.repeat(None, len(roots), dtype=pl.String, eager=True).alias("reason")
    told = pl.concat_str(
        [pl.when(pl.Series(flag)).then(pl.lit(name)) for name, flag in flags.items()], separator=",", ignore_nulls=True
    )
    return pl.select(reason=told).to_series().replace("", None)


def _usage_totals(calls: pl.DataFrame, chain_of: Index, size: int, owners: Owners, owner: Index) -> list[pl.Series]:
    """Calls, tokens and list cost of each chain, and whose most of it is."""
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
    """The starter of each chain's dearest call; most chains have but one starter."""
    least, most = np.full(size, np.iinfo(np.int32).max, dtype=np.int32), np.full(size, -1, dtype=np.int32)
    np.minimum.at(least, chain_of, starter)
    np.maximum.at(most, chain_of, starter)
    mixed = (least != most)[chain_of]
    if mixed.any():
        open_ = calls.select("list_cost", "start_time", "span_key").filter(pl.Series(mixed))
        open_ = open_.with_columns(chain=pl.Series(chain_of[mixed]), starter=pl.Series(starter[mixed]))
        dearest = open_.sort(pl.col("list_cost").fill_null(0), "start_time", "span_key", descending=[True, False, False]).unique(
            "chain", keep="first", maintain_order=True
        )
        most[dearest["chain"].to_numpy()] = dearest["starter"].to_numpy()
    return most


def _trace_ids(nodes: pl.DataFrame, forest: Forest, of: Index, roots: Index) -> pl.Series:
    """The traces each chain runs through: nearly always that of its root; only links lead out of it."""
    own = nodes["trace_id"].gather(roots)
    listed = own.reshape((len(own), 1)).arr.to_list().alias("trace_ids")
    if own.null_count():
        listed = listed.list.drop_nulls()
    crossing = np.unique(of[np.flatnonzero(forest.linked)])
    crossing = crossing[crossing != factorize.NONE]
    if not len(crossing):
        return listed
    among = np.zeros(len(roots) + 1, dtype=bool)
    among[crossing] = True
    rows = np.flatnonzero(among[of])
    traces = (
        pl.DataFrame({"chain": of[rows], "trace_key": nodes["trace_key"].gather(rows), "row": rows})
        .group_by("chain", "trace_key")
        .agg(pl.col("row").min())
        .sort("chain", "trace_key")
    )
    several = (
        traces.with_columns(trace_id=nodes["trace_id"].gather(traces["row"]))
        .group_by("chain", maintain_order=True)
        .agg(trace_ids=pl.col("trace_id").drop_nulls())
    )
    whole = pl.DataFrame({"chain": np.arange(len(roots), dtype=np.int64), "trace_ids": listed})
    return whole.update(several.with_columns(pl.col("chain").cast(pl.Int64)), on="chain")["trace_ids"]
