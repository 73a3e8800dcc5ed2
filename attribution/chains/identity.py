"""Initiator and executor of each call: agent and team at the time of the call. (ID-1, ID-2, CH-4, CH-5, CH-7)

Millions of calls have few distinct combinations of the inputs: agents on the path, claim, credential, and the interval in which no owner
changes. Combinations are integer codes, and each distinct one is resolved once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import factorize
from attribution.as_of import AsOfIndex, owner_at
from attribution.chains.ancestry import Paths, SpanContext, merge_by_owner
from attribution.chains.attempts import GATEWAYS
from attribution.factorize import Codes

UNKNOWN = "unknown"
"""The initiator of a call that nothing identifies; `identity_reason` says why. (CH-4)"""

NONE = -1
Index = NDArray[np.int32]


def span_agents(nodes: pl.DataFrame, as_of: AsOfIndex) -> tuple[Index, pl.Series]:
    """The agent that each span names itself, as a code or NONE, and the names: the registered agent of its id or name, else the name as sent. (ID-2)"""
    agent = np.full(nodes.height, NONE, dtype=np.int32)
    agent_rows = nodes.select((pl.col("agent_id").is_not_null() | pl.col("agent_name").is_not_null()).arg_true()).to_series()
    if not len(agent_rows):
        return agent, pl.Series([], dtype=pl.String)
    named_nodes = nodes.select(pl.col("agent_id", "agent_name", "start_time").gather(agent_rows))
    code, first = factorize.combine(
        named_nodes.height,
        [*factorize.encode_columns(named_nodes, ("agent_id", "agent_name")), as_of.interval_codes(named_nodes["start_time"])],
    )
    distinct_nodes = named_nodes[first]
    by_id, by_name = (
        owner_at(distinct_nodes, as_of.timeline, name=name, at="start_time", kinds=("agent", "alias"))["agent"]
        for name in ("agent_id", "agent_name")
    )
    agent_code, distinct = factorize.distinct_rows(
        distinct_nodes.select(agent=pl.coalesce(by_id, by_name, "agent_name", "agent_id"))
    )
    agent[agent_rows.to_numpy()] = agent_code[code]
    return agent, distinct["agent"]


def drop_conflicting_claims(signals: pl.DataFrame, as_of: AsOfIndex, trusted_sources: Sequence[str]) -> pl.DataFrame:
    """Drops the agent that a gateway's client names where the key it authenticated with belongs to another team. (CH-7, CH-7a)

    The team of a key is the registry's, else the one that the gateway names.

    Adds `claim_conflict`: the rows whose agent was dropped.
    """
    signals = signals.with_columns(claim_conflict=pl.lit(value=False))
    named_agent = pl.coalesce("agent_id", "agent_name")
    rows = signals.select((is_client_word(trusted_sources) & named_agent.is_not_null()).arg_true()).to_series()
    if not rows.len():
        return signals
    named_signals = signals[rows].select("start_time", "credential", "credential_team", "agent_id", "agent_name")
    key_team = owner_at(named_signals, as_of.timeline, name="credential", at="start_time", kinds=("credential",))["team"]
    gateway_team = named_signals["credential_team"]
    agent, names = span_agents(named_signals, as_of)
    named_signals = named_signals.with_columns(agent=gather_or_null(names, agent))
    agent_team = owner_at(named_signals, as_of.timeline, name="agent", at="start_time", kinds=("agent",))["team"]
    # A key of the registry bounds its client to registered agents; the team that only the gateway names, to agents of no other team.
    conflicts = (
        pl.DataFrame({"key": key_team, "gateway": gateway_team, "agent": agent_team})
        .select(
            pl.when(pl.col("key").is_not_null())
            .then(pl.col("key").ne_missing(pl.col("agent")))
            .otherwise(pl.col("gateway") != pl.col("agent"))
            .fill_null(value=False)
        )
        .to_series()
    )
    conflict = pl.Series("claim_conflict", [False]).new_from_index(0, signals.height).scatter(rows.filter(conflicts), True)
    return signals.with_columns(conflict, *(pl.when(~conflict).then(pl.col(c)).alias(c) for c in ("agent_id", "agent_name")))


@dataclass(frozen=True, slots=True)
class Owners:
    """The owners of each path, as a row number of `table`: initiator_agent, initiator_team, executor_agent, executor_team, method,
    identity_reason, path_conflict (its path or conversation led to another team and was dropped).
    """

    code: Index
    table: pl.DataFrame


_CALLER = ("credential", "credential_team", "principal", "service_name")
"""The columns of a call that identify its caller independently of the path."""


def resolve_owners(
    calls: pl.DataFrame, paths: Paths, context: SpanContext, as_of: AsOfIndex, trusted_sources: Sequence[str] = ()
) -> tuple[Paths, Owners]:
    """Initiator and executor of every call on each of its paths; paths of one call with the same owners are merged. (CH-4, CH-5)

    `calls` has start_time, conversation_id, channel, source and the caller's columns; `paths` lead from its rows through the spans of
    `context`. Of a call that only a gateway reports, trace and conversation are its client's word: outside of `trusted_sources` they choose an
    agent within the key's team. (CH-7a)
    """
    is_bounded = calls.select(is_client_word(trusted_sources)).to_series()
    mapped_kinds = [kind for kind in ("credential", "principal", "service") if kind in as_of.kinds]
    caller = [c for c in _CALLER if c == "credential_team" or c.removesuffix("_name") in mapped_kinds]
    by_call = [
        factorize.encode_flags(is_bounded.to_numpy()),
        *factorize.encode_columns(calls, caller),
        as_of.interval_codes(calls["start_time"]),
    ]
    conversation = _conversation_owner(calls, context, is_bounded, as_of)
    parts = [
        factorize.encode_rows(context.agent_at(paths.top), len(context.names)),
        factorize.encode_rows(context.agent_at(paths.near), len(context.names)),
        factorize.encode_rows(context.claim_at(paths.claim), context.claims.height),
        factorize.encode_flags(paths.has_untrusted_claim),
        factorize.encode_flags(context.forest.missing_parent[paths.end]),
        *([Codes(context.services.code[paths.end], context.services.size)] if context.services.size > 1 else []),
        *(paths.by_path(part) for part in by_call),
        *([] if conversation is None else [paths.by_path(factorize.encode_rows(conversation, len(context.names)))]),
    ]
    question, first = factorize.combine(len(paths.call), parts)
    row = paths.call[first]
    claim = context.claim_at(paths.claim[first])
    questions = calls.select(pl.col(c).gather(row) for c in _CALLER).with_columns(
        as_of.interval_starts(calls["start_time"].gather(row)).alias("start_time"),
        gather_or_null(context.names, context.agent_at(paths.top[first])).alias("__path"),
        gather_or_null(context.names, context.agent_at(paths.near[first])).alias("__near"),
        gather_or_null(context.claims["claimed_agent"], claim).alias("__claim"),
        gather_or_null(context.claims["claimed_team"], claim).alias("__claim_team"),
        pl.Series("__untrusted", paths.has_untrusted_claim[first]),
        pl.Series("__broken", context.forest.missing_parent[paths.end[first]]),
        is_bounded.gather(row).alias("__bounded"),
        context.nodes["service_name"].gather(paths.end[first]).cast(pl.String).alias("__root_service"),
        gather_or_null(context.names, np.full(len(row), NONE) if conversation is None else conversation[row]).alias(
            "__conversation"
        ),
    )
    number, table = factorize.distinct_rows(_owner_table(questions, as_of.timeline))
    paths, owner_code = merge_by_owner(paths, number[question])
    return paths, Owners(owner_code, table)


def is_client_word(trusted_sources: Sequence[str]) -> pl.Expr:
    """Whether trace, conversation and metadata of a row are the word of a gateway's client, from a source that is not trusted."""
    return pl.col("channel").is_in(GATEWAYS) & ~pl.col("source").is_in(list(trusted_sources))


def _bound_by_key(questions: pl.DataFrame, timeline: pl.DataFrame) -> pl.DataFrame:
    """Drops path and conversation of bounded calls where they lead to another team than the one that the gateway authenticated.

    The nearest agent of a path decides: the one that used the key may work for a chain of another team. Adds `path_conflict`.
    """
    questions = questions.with_columns(path_conflict=pl.lit(value=False))
    if not questions["__bounded"].any():
        return questions
    teams = {
        column: owner_at(questions, timeline, name=column, at="start_time", kinds=("agent", "alias"))["team"]
        for column in ("__near", "__conversation")
    }
    key_team = owner_at(questions, timeline, name="credential", at="start_time", kinds=("credential",))["team"]
    authenticated_team = pl.coalesce(key_team, "credential_team")
    leads_away = {
        column: pl.col("__bounded") & (pl.lit(team) != authenticated_team).fill_null(value=False)
        for column, team in teams.items()
    }
    no_name = pl.lit(None, dtype=pl.String)
    return questions.with_columns(
        *(pl.when(leads_away["__near"]).then(no_name).otherwise(c).alias(c) for c in ("__path", "__near", "__root_service")),
        pl.when(leads_away["__conversation"]).then(no_name).otherwise("__conversation").alias("__conversation"),
        pl.when(leads_away["__near"]).then(pl.lit(value=False)).otherwise("__broken").alias("__broken"),
        path_conflict=leads_away["__near"] | (leads_away["__conversation"] & (pl.col("__path").is_null() | leads_away["__near"])),
    )


def _owner_table(questions: pl.DataFrame, timeline: pl.DataFrame) -> pl.DataFrame:
    """Owners, method and reason of each distinct combination."""
    questions = _bound_by_key(questions, timeline)
    # The root agent may be claimed by any of its names. (ID-1)
    claimed_agent = owner_at(questions, timeline, name="__claim", at="start_time", kinds=("agent", "alias"))["agent"]
    frame = questions.with_columns(__claim=pl.coalesce(claimed_agent, pl.col("__claim")))
    mapped_owners = [
        owner_at(frame, timeline, name=column, at="start_time", kinds=(kind,)).select(
            pl.col("agent").alias(f"__{kind}{n}_agent"), pl.col("team").alias(f"__{kind}{n}_team")
        )
        for n, (column, kind) in enumerate(_MAPPINGS)
    ]
    initiator_agent, mapped_team, method = _initiator_cascade()
    frame = pl.concat([frame, *mapped_owners], how="horizontal").with_columns(
        initiator_agent=initiator_agent, __mapped_team=mapped_team, method=method
    )
    initiators, executors = (
        owner_at(frame, timeline, name=name, at="start_time", kinds=("agent", "alias"))["team"]
        for name in ("initiator_agent", "__near")
    )
    is_own_executor = pl.col("initiator_agent").eq_missing(pl.coalesce("__near", "initiator_agent"))
    frame = frame.with_columns(
        # The agent's owner at that time comes before the team that its key or service was once registered with. (ID-1)
        initiator_team=pl.coalesce(
            initiators,
            pl.when(pl.col("method").is_in(["credential", "principal", "service"])).then(pl.col("__mapped_team")),
            pl.col("__claim_team"),
            pl.when(is_own_executor).then(pl.col("credential_team")),
        )
    )
    # Where no span names an agent, the initiator is the only known executor.
    return frame.select(
        "initiator_agent",
        "initiator_team",
        executor_agent=pl.coalesce("__near", "initiator_agent"),
        executor_team=pl.when(pl.col("__near").is_null())
        .then(pl.coalesce("initiator_team", "credential_team"))
        .otherwise(pl.coalesce(executors, "credential_team")),
        method="method",
        path_conflict="path_conflict",
        identity_reason=pl.when("__broken")
        .then(pl.lit("missing_parent"))
        .when((pl.col("method") == "unknown") & pl.col("__untrusted"))
        .then(pl.lit("untrusted_claim"))
        .when(pl.col("method") == "unknown")
        .then(pl.lit("no_identity")),
    )


_MAPPINGS = (
    ("credential", "credential"),
    ("principal", "principal"),
    ("__root_service", "service"),
    ("service_name", "service"),
)


def _initiator_cascade() -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Agent, team (where the evidence names one) and method of the first condition that holds, in the order of CH-4."""
    none = pl.lit(None, dtype=pl.String)
    claim, claim_team = pl.col("__claim"), pl.col("__claim_team")
    cascade = [
        (pl.col("__broken") & claim.is_not_null(), claim, claim_team, "claim"),
        (pl.col("__path").is_not_null(), pl.col("__path"), none, "path"),
        (claim.is_not_null(), claim, claim_team, "claim"),
        (pl.col("__conversation").is_not_null(), pl.col("__conversation"), none, "conversation"),
    ]
    for n, (_, kind) in enumerate(_MAPPINGS):
        agent, team = pl.col(f"__{kind}{n}_agent"), pl.col(f"__{kind}{n}_team")
        cascade.append((agent.is_not_null() | team.is_not_null(), agent, team, kind))
    cascade.append((pl.col("credential_team").is_not_null(), none, pl.col("credential_team"), "credential"))
    initiator_agent, initiator_team, method = pl.lit(UNKNOWN), none, pl.lit("unknown")
    for condition, agent, team, kind in reversed(cascade):
        initiator_agent = pl.when(condition).then(agent).otherwise(initiator_agent)
        initiator_team = pl.when(condition).then(team).otherwise(initiator_team)
        method = pl.when(condition).then(pl.lit(kind)).otherwise(method)
    return initiator_agent, initiator_team, method


def _conversation_owner(calls: pl.DataFrame, context: SpanContext, is_bounded: pl.Series, as_of: AsOfIndex) -> Index | None:
    """The code of the only agent that started identified chains of a call's conversation; NONE where there is none or more than one.

    A conversation id that clients with keys of several teams use ("default", "1") joins none of their calls. (CH-7a)
    """
    if not factorize.non_null_columns(calls, ["conversation_id"]):
        return None
    conversation_rows = context.nodes["conversation_id"].is_not_null().arg_true().to_numpy().astype(np.int32)
    paths = context.paths(conversation_rows)
    conversation_agents = pl.DataFrame(
        {
            "conversation_id": context.nodes["conversation_id"].gather(conversation_rows[paths.call]),
            "agent": context.agent_at(paths.top),
        }
    )
    owners = (
        conversation_agents.filter(pl.col("agent") != NONE)
        .group_by("conversation_id")
        .agg(pl.col("agent").min(), last=pl.col("agent").max())
        .filter(pl.col("agent") == pl.col("last"))
    )
    agents = calls.select("conversation_id").join(owners, on="conversation_id", how="left", maintain_order="left")["agent"]
    return agents.fill_null(NONE).to_numpy() if not is_bounded.any() else _without_shared(agents, calls, is_bounded, as_of)


def _without_shared(agents: pl.Series, calls: pl.DataFrame, is_bounded: pl.Series, as_of: AsOfIndex) -> Index:
    """The conversation's agents, NONE for calls of gateway clients whose conversation id keys of several teams share."""
    key_team = owner_at(calls, as_of.timeline, name="credential", at="start_time", kinds=("credential",))["team"]
    callers = calls.select("conversation_id", team=pl.coalesce(key_team, "credential_team"), bounded=is_bounded, agent=agents)
    teams = pl.col("team").filter(pl.col("bounded")).drop_nulls().n_unique().over("conversation_id")
    is_shared = pl.col("bounded") & (teams > 1) & pl.col("conversation_id").is_not_null()
    return (
        callers.select(pl.when(is_shared).then(NONE).otherwise(pl.col("agent").fill_null(NONE)).cast(pl.Int32))
        .to_series()
        .to_numpy()
    )


def gather_or_null(values: pl.Series, rows: NDArray[np.integer]) -> pl.Series:
    """The values at these rows; null for NONE."""
    row_numbers = pl.Series(rows, dtype=pl.Int64)
    return values.gather(row_numbers.set(row_numbers < 0, None)).cast(pl.String)
