"""Identity: which agent, which team, at that instant. (ID-1, ID-2, CH-4, CH-5, CH-7)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from attribution.chains import NONE, Forest, Index, nearest, topmost

UNKNOWN = "unknown"
"""The initiator of a call that nothing identifies; the reason beside it says why. (CH-4)"""


def owner_at(frame: pl.DataFrame, timeline: pl.DataFrame, *, name: str, at: str, kinds: Sequence[str]) -> pl.DataFrame:
    """Who owned each name when: `agent`, `team`, `account`, `region` of the registry row of one of `kinds` that held at `at`.

    Parallel to `frame`; nulls where nothing is registered. Of several kinds the first in `kinds` wins.
    """
    wanted = frame.select(
        pl.col(name).alias("name"), pl.col(at).alias("at"), pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
    )
    out = pl.DataFrame(
        {c: pl.Series([None], dtype=pl.String).extend_constant(None, max(frame.height - 1, 0)).head(frame.height) for c in _OWNED}
    )
    known = timeline.filter(pl.col("kind").is_in(list(kinds)))
    if not known.height or not frame.height:
        return out
    rank = {kind: place for place, kind in enumerate(kinds)}
    asked = wanted.drop_nulls("name").join(known.select("name").unique(), on="name", how="semi")
    held = (
        asked.join(known, on="name")
        .filter((pl.col("valid_from") <= pl.col("at")) & (pl.col("valid_to").is_null() | (pl.col("at") < pl.col("valid_to"))))
        .sort("row", pl.col("kind").replace_strict(rank, return_dtype=pl.Int32))
        .unique("row", keep="first", maintain_order=True)
    )
    return wanted.select("row").join(held.select("row", *_OWNED), on="row", how="left", maintain_order="left").drop("row")


_OWNED = ("agent", "team", "account", "region")


def span_agents(nodes: pl.DataFrame, timeline: pl.DataFrame) -> pl.Series:
    """The agent a span itself names: registered under its id or its name, else the name as it stands. (ID-2)"""
    spoken = (
        nodes.select("agent_id", "agent_name", "start_time", pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"))
        .filter(pl.col("agent_id").is_not_null() | pl.col("agent_name").is_not_null())
        .with_columns(pl.col("agent_id", "agent_name").cast(pl.String))
    )
    by_id = owner_at(spoken, timeline, name="agent_id", at="start_time", kinds=("agent", "alias"))["agent"]
    by_name = owner_at(spoken, timeline, name="agent_name", at="start_time", kinds=("agent", "alias"))["agent"]
    found = spoken.select("row", agent=pl.coalesce(by_id, by_name, pl.col("agent_name"), pl.col("agent_id")))
    return nodes.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")).join(
        found, on="row", how="left", maintain_order="left"
    )["agent"]


def refuse_conflicting_claims(signals: pl.DataFrame, timeline: pl.DataFrame, trusted: Sequence[str]) -> pl.DataFrame:
    """Drops an agent that a gateway's client names for itself where the key it authenticated with belongs to another team. (CH-7)

    Adds `claim_conflict`, which rows lost theirs, and `claim_source`, whose word a claimed root agent is.
    """
    signals = signals.with_columns(
        claim_source=pl.when(pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()).then("source"),
        claim_conflict=pl.lit(value=False),
    )
    spoke = pl.coalesce("agent_id", "agent_name")
    rows = signals.select(
        (pl.col("channel").str.starts_with("litellm") & spoke.is_not_null() & ~pl.col("source").is_in(list(trusted))).arg_true()
    ).to_series()
    if not rows.len():
        return signals
    asked = signals[rows].select("start_time", "credential", "agent_id", "agent_name")
    key_team = owner_at(asked, timeline, name="credential", at="start_time", kinds=("credential",))["team"]
    asked = asked.with_columns(agent=span_agents(asked, timeline))
    agent_team = owner_at(asked, timeline, name="agent", at="start_time", kinds=("agent",))["team"]
    lost = (
        pl.DataFrame({"key": key_team, "agent": agent_team})
        .select(pl.col("key").is_not_null() & pl.col("key").ne_missing(pl.col("agent")))
        .to_series()
    )
    conflict = pl.Series("claim_conflict", [False]).new_from_index(0, signals.height).scatter(rows.filter(lost), True)
    return signals.with_columns(conflict, *(pl.when(~conflict).then(pl.col(c)).alias(c) for c in ("agent_id", "agent_name")))


def attribute(
    calls: pl.DataFrame, nodes: pl.DataFrame, forest: Forest, timeline: pl.DataFrame, trusted: Sequence[str]
) -> pl.DataFrame:
    """Initiator and executor of every call, with team, method and reason.

    `calls` carries `node`, the row of its span in `nodes`. Adds initiator_agent, initiator_team, executor_agent, executor_team,
    method and identity_reason.
    """
    agent = nodes["agent"]
    at = calls["node"].to_numpy()
    has_agent = agent.is_not_null().to_numpy()
    top, near = topmost(forest, has_agent)[at], nearest(forest, has_agent)[at]
    claimed = nodes["claimed_agent"].is_not_null()
    trusts = nodes["claim_source"].cast(pl.String).is_in(list(trusted)).fill_null(value=False)
    believed, doubted = claimed & trusts, (claimed & ~trusts).to_numpy()
    claimed_by = nearest(forest, believed.to_numpy())[at]
    root = forest.root[at]
    frame = calls.with_columns(
        __path=_take(agent, top),
        __near=_take(agent, near),
        __claim=_take(nodes["claimed_agent"], claimed_by),
        __claim_team=_take(nodes["claimed_team"], claimed_by),
        __doubted=pl.Series(nearest(forest, doubted)[at] != NONE),
        __broken=pl.Series(forest.missing_parent[root]),
        __root_service=_take(nodes["service_name"], root),
    )
    frame = frame.with_columns(__conversation=_conversation_owner(frame, nodes, forest, has_agent))
    # The root agent may be claimed by any of its names. (ID-1)
    known_as = owner_at(frame, timeline, name="__claim", at="start_time", kinds=("agent", "alias"))["agent"]
    frame = frame.with_columns(__claim=pl.coalesce(known_as, pl.col("__claim")))
    mapped = [
        owner_at(frame, timeline, name=column, at="start_time", kinds=(kind,)).select(
            pl.col("agent").alias(f"__{kind}{n}_agent"), pl.col("team").alias(f"__{kind}{n}_team")
        )
        for n, (column, kind) in enumerate(_MAPPINGS)
    ]
    frame = pl.concat([frame, *mapped], how="horizontal")
    found_agent, found_team, found_by = _initiator()
    frame = frame.with_columns(initiator_agent=found_agent, __mapped_team=found_team, method=found_by).with_columns(
        executor_agent=pl.coalesce("__near", "initiator_agent")
    )
    team = owner_at(frame, timeline, name="initiator_agent", at="start_time", kinds=("agent", "alias"))["team"]
    executor_team = owner_at(frame, timeline, name="executor_agent", at="start_time", kinds=("agent", "alias"))["team"]
    alone = pl.col("initiator_agent").eq_missing(pl.col("executor_agent"))
    return frame.with_columns(
        initiator_team=pl.coalesce(
            pl.when(pl.col("method").is_in(["credential", "principal", "service"])).then(pl.col("__mapped_team")),
            team,
            pl.col("__claim_team"),
            pl.when(alone).then(pl.col("credential_team")),
        ),
        executor_team=pl.coalesce(executor_team, pl.col("credential_team")),
        identity_reason=pl.when(pl.col("__broken"))
        .then(pl.lit("missing_parent"))
        .when((pl.col("method") == "unknown") & pl.col("__doubted"))
        .then(pl.lit("untrusted_claim"))
        .when(pl.col("method") == "unknown")
        .then(pl.lit("no_identity")),
    ).drop(pl.selectors.starts_with("__"))


_MAPPINGS = (
    ("credential", "credential"),
    ("principal", "principal"),
    ("__root_service", "service"),
    ("service_name", "service"),
)


def _initiator() -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Agent, team (where the finding names one) and method, in the order of CH-4: the first that holds."""
    none = pl.lit(None, dtype=pl.String)
    claim, claim_team = pl.col("__claim"), pl.col("__claim_team")
    ladder = [
        (pl.col("__broken") & claim.is_not_null(), claim, claim_team, "claim"),
        (pl.col("__path").is_not_null(), pl.col("__path"), none, "path"),
        (claim.is_not_null(), claim, claim_team, "claim"),
        (pl.col("__conversation").is_not_null(), pl.col("__conversation"), none, "conversation"),
    ]
    for n, (_, kind) in enumerate(_MAPPINGS):
        agent, team = pl.col(f"__{kind}{n}_agent"), pl.col(f"__{kind}{n}_team")
        ladder.append((agent.is_not_null() | team.is_not_null(), agent, team, kind))
    ladder.append((pl.col("credential_team").is_not_null(), none, pl.col("credential_team"), "credential"))
    found_agent, found_team, found_by = pl.lit(UNKNOWN), none, pl.lit("unknown")
    for holds, agent, team, kind in reversed(ladder):
        found_agent = pl.when(holds).then(agent).otherwise(found_agent)
        found_team = pl.when(holds).then(team).otherwise(found_team)
        found_by = pl.when(holds).then(pl.lit(kind)).otherwise(found_by)
    return found_agent, found_team, found_by


def _conversation_owner(
    calls: pl.DataFrame, nodes: pl.DataFrame, forest: Forest, has_agent: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> pl.Series:
    """The one agent that started every identified chain of the call's conversation; null where there are none or several."""
    top = topmost(forest, has_agent)
    spoken = nodes["conversation_id"].is_not_null().arg_true()
    seen = (
        pl.DataFrame(
            {
                "conversation_id": nodes["conversation_id"].gather(spoken).cast(pl.String),
                "agent": _take(nodes["agent"], top[spoken.to_numpy()]),
            }
        )
        .drop_nulls()
        .unique()
    )
    owners = (
        seen.group_by("conversation_id")
        .agg(pl.col("agent").first(), pl.len().alias("n"))
        .filter(pl.col("n") == 1)
        .select("conversation_id", "agent")
    )
    return calls.select("conversation_id").join(owners, on="conversation_id", how="left", maintain_order="left")["agent"]


def _take(values: pl.Series, rows: Index) -> pl.Series:
    """Values at rows; null at NONE."""
    picked = pl.Series(rows, dtype=pl.Int64)
    return values.gather(picked.set(picked < 0, None)).cast(pl.String)
