"""ID-1, ID-2, CH-4 to CH-7: whose name a span bears, and who owns that name when."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.oracle.chains import Key, Node, Path, Row

UNKNOWN = "unknown"
GATEWAYS = ("litellm", "litellm-callback", "litellm-spend-logs")


class Registry:
    """Rows of the registry as recorded: kind, name, agent, team, [valid_from, valid_to), recorded_at."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = list(rows)
        self.agent_names = {row["name"]: row["agent"] for row in self.rows if row["kind"] in ("agent", "alias")}
        self.team_names = {row["team"]: row["team"] for row in self.rows if row["team"]}

    def with_own_names(self, span: Row) -> Row:
        """A span whose agents are spelled as in the registry. (ID-3)"""
        agent_names = {c: spelled(span[c], self.agent_names) for c in ("agent_id", "agent_name", "claimed_agent") if span.get(c)}
        return {**span, **agent_names}

    def holder(self, kind: str, name: str | None, at: datetime) -> Mapping[str, Any] | None:
        """The row that holds for a name at an instant; of several the one recorded last, then the one valid from later. (ID-1)"""
        holding = [
            row
            for row in self.rows
            if row["kind"] == kind
            and row["name"] == name
            and row["valid_from"] <= at
            and (row["valid_to"] is None or at < row["valid_to"])
        ]
        return max(holding, key=lambda row: (row["recorded_at"], row["valid_from"]), default=None)

    def agent(self, name: str, at: datetime) -> str:
        """The agent a name stands for: registered, an alias of one, or its own, unregistered. (ID-2)"""
        if self.holder("agent", name, at):
            return name
        alias = self.holder("alias", name, at)
        return str(alias["agent"]) if alias else name

    def team(self, agent: str | None, at: datetime) -> str | None:
        """The team that owns an agent at an instant. (ID-1)"""
        row = self.holder("agent", agent, at)
        return row["team"] if row else None


def spelled(name: str | None, owner_of: Mapping[str, str]) -> str | None:
    """A name as the registry has it, whatever its case and space; as written, but trimmed, where it has none or several. (ID-3)

    `owner_of` says what each name of the registry stands for. A word for nothing is no name.
    """
    bare_name = unicodedata.normalize("NFC", name or "").strip()
    if bare_name.lower() in ("", "-", "n/a", "null", "none"):
        return None
    if bare_name in owner_of:
        return bare_name
    alike = [other for other in sorted(owner_of) if _bare(other) == _bare(bare_name)]
    return alike[0] if len({owner_of[other] for other in alike}) == 1 else bare_name


def _bare(name: str) -> str:
    return "".join(name.split()).casefold()


@dataclass(frozen=True)
class Owner:
    """Who pays, in both views, and how that was found."""

    initiator: str | None
    initiator_team: str | None
    executor: str | None
    executor_team: str | None
    method: str | None
    flags: frozenset[str] = frozenset()


def agent_on(node: Node, registry: Registry, at: datetime) -> str | None:
    """The agent a span says it is: by its id, or else by its name.

    Reading: names are looked up as of the call, like their owners, though the span that bears the name may be older.
    """
    for column in ("agent_id", "agent_name"):
        for signal in sorted(node.witnesses, key=lambda s: s["channel"] != "otlp"):
            if signal.get(column):
                return registry.agent(signal[column], at)
    return None


def claim_of(path: Path, trusted_sources: Sequence[str]) -> str | None:
    """The root agent named by baggage, a header or a request tag, from a trusted source. (CH-7)

    Reading: it is handed down from the root, so what arrives nearest to the call is what counts.
    """
    claims = [s for node in path.nodes for s in node.witnesses if s.get("claimed_agent")]
    return next((s["claimed_agent"] for s in claims if s["source"] in trusted_sources), None)


def topmost(path: Path, registry: Registry, at: datetime) -> str | None:
    """The agent nearest to the root. (CH-4)"""
    path_agents = [agent for node in path.nodes if (agent := agent_on(node, registry, at))]
    return path_agents[-1] if path_agents else None


def nearest(path: Path, registry: Registry, at: datetime) -> str | None:
    """The agent nearest to the call. (CH-5)"""
    return next((agent for node in path.nodes if (agent := agent_on(node, registry, at))), None)


def is_client_word(signal: Row, trusted_sources: Sequence[str]) -> bool:
    """Whether trace, conversation and metadata of a row are only what a gateway's client sent. (CH-7a)"""
    return signal["channel"] in GATEWAYS and signal["source"] not in trusted_sources


def key_team(signals: Sequence[Row], registry: Registry, at: datetime) -> tuple[str | None, str | None]:
    """The team of the key that a gateway authenticated: the registry's, and the gateway's own. (CH-7a)"""
    key = _told(signals, "credential")
    row = registry.holder("credential", key, at) if key else None
    return (row["team"] if row else None), _told(signals, "credential_team")


def _told(signals: Sequence[Row], column: str) -> str | None:
    """What the first signal says that says anything: signals come with the most complete first. (CA-1)"""
    return next((str(s[column]) for s in signals if s.get(column)), None)


def without_conflict(row: Row, registry: Registry, trusted_sources: Sequence[str]) -> Row:
    """A row without the agent that its client names, if that is another team's than the key's. (CH-7a)

    Reading: a key of the registry bounds its client to agents of its team; where only the gateway knows the team, an agent that nobody
    owns may be its.
    """
    at = row["start_time"]
    if not is_client_word(row, trusted_sources) or not (row.get("agent_id") or row.get("agent_name")):
        return row
    team = registry.team(agent_on(Node((0, 0), [row]), registry, at), at)
    registry_team, gateway_team = key_team([row], registry, at)
    if team != registry_team if registry_team else team is not None and gateway_team is not None and team != gateway_team:
        return row | {"agent_id": None, "agent_name": None}
    return row


def shared_conversations(calls: Iterable[Sequence[Row]], registry: Registry, trusted_sources: Sequence[str]) -> set[str]:
    """Conversation ids that clients with keys of several teams use: they join nothing. (CH-7a)"""
    teams: dict[str, set[str]] = {}
    for signals in calls:
        if all(is_client_word(s, trusted_sources) for s in signals):
            team = next((t for t in key_team(signals, registry, signals[0]["start_time"]) if t), None)
            for signal in signals:
                if team and signal.get("conversation_id"):
                    teams.setdefault(signal["conversation_id"], set()).add(team)
    return {conversation for conversation, team_names_of_id in teams.items() if len(team_names_of_id) > 1}


def owner_of(
    signals: Sequence[Row],
    path: Path,
    conversations: Mapping[str, str],
    registry: Registry,
    trusted_sources: Sequence[str],
    shared_ids: AbstractSet[str] = frozenset(),
) -> Owner:
    """Who started the chain of a call along one path, and who worked on it nearest to the call. (CH-4, CH-5)

    Of a call that only a gateway's client tells of, path and conversation count as long as they stay with the team of its key. (CH-7a)
    Reading: a path leads to the team of the agent nearest to the call, who holds the key and may work for a chain of another team.
    """
    at = path.nodes[0].told["start_time"]
    broken = "missing_parent" in path.flags
    claim_agent = claim_of(path, trusted_sources)
    if claim_agent is not None:
        claim_agent = registry.agent(claim_agent, at)
    top = topmost(path, registry, at)
    conversation = conversations.get(_told(signals, "conversation_id") or "")
    executor = nearest(path, registry, at)
    root_service = path.root.told.get("service_name")
    registry_team, gateway_team = key_team(signals, registry, at)
    bound = registry_team or gateway_team
    if bound and all(is_client_word(s, trusted_sources) for s in signals):
        if any(s.get("conversation_id") in shared_ids for s in signals):
            conversation = None
        if registry.team(executor, at) not in (None, bound):
            broken, top, executor, root_service = False, None, None, None
        if registry.team(conversation, at) not in (None, bound):
            conversation = None

    agent: str | None
    team: str | None = None
    if broken and claim_agent:
        agent, method = claim_agent, "claim"
    elif top:
        agent, method = top, "path"
    elif claim_agent:
        agent, method = claim_agent, "claim"
    elif conversation:
        agent, method = conversation, "conversation"
    else:
        agent, team, method = _mapped(signals, root_service, registry, at)
    team = registry.team(agent, at) or team or (gateway_team if executor in (None, agent) else None)
    flags = path.flags | ({"no_identity"} if method == UNKNOWN else set())
    if executor is None:
        # Reading: where no span names an agent, the one who started the work is the only one known to have done it.
        return Owner(agent, team, agent, team, method, frozenset(flags))
    return Owner(agent, team, executor, registry.team(executor, at) or gateway_team, method, frozenset(flags))


def _mapped(
    signals: Sequence[Row], root_service: str | None, registry: Registry, at: datetime
) -> tuple[str | None, str | None, str]:
    """The key, principal or service mapping of the registry, in this order; then the gateway's team of the key; then unknown. (CH-4)

    Reading: of services, the root's comes first, since it started the chain; then the call's own.
    """
    lookups = [("credential", _told(signals, "credential")), ("principal", _told(signals, "principal"))]
    lookups += [("service", root_service), ("service", _told(signals, "service_name"))]
    for kind, name in lookups:
        row = registry.holder(kind, name, at) if name else None
        if row:
            return row["agent"], row["team"], kind
    gateway_team = _told(signals, "credential_team")
    return (None, gateway_team, "credential") if gateway_team else (UNKNOWN, None, UNKNOWN)


def conversation_owners(ways: Mapping[Key, list[Path]], registry: Registry) -> dict[str, str]:
    """The one agent that started every identified chain of a conversation. (CH-4)

    Reading: a chain is identified by an agent on the path of any span of the conversation; two agents are no answer.
    """
    owners: dict[str, set[str]] = {}
    for around in ways.values():
        for signal in around[0].nodes[0].witnesses:
            if signal.get("conversation_id"):
                tops = {topmost(path, registry, signal["start_time"]) for path in around} - {None}
                owners.setdefault(signal["conversation_id"], set()).update(top for top in tops if top)
    return {conversation: agents.pop() for conversation, agents in owners.items() if len(agents) == 1}
