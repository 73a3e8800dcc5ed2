"""ID-1, ID-2, CH-4 to CH-7: whose name a span bears, and who owns that name when."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.oracle.chains import Key, Node, Path, Row

UNKNOWN = "unknown"


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
        for signal in sorted(node.signals, key=lambda s: s["channel"] != "otlp"):
            if signal.get(column):
                return registry.agent(signal[column], at)
    return None


def claim_of(path: Path, trusted: Sequence[str]) -> str | None:
    """The root agent named by baggage, a header or a request tag, from a trusted source. (CH-7)

    Reading: it is handed down from the root, so what arrives nearest to the call is what counts.
    """
    said = [s for node in path.nodes for s in node.signals if s.get("claimed_agent")]
    return next((s["claimed_agent"] for s in said if s["source"] in trusted), None)


def topmost(path: Path, registry: Registry, at: datetime) -> str | None:
    """The agent nearest to the root. (CH-4)"""
    named = [agent for node in path.nodes if (agent := agent_on(node, registry, at))]
    return named[-1] if named else None


def nearest(path: Path, registry: Registry, at: datetime) -> str | None:
    """The agent nearest to the call. (CH-5)"""
    return next((agent for node in path.nodes if (agent := agent_on(node, registry, at))), None)


def owner_of(
    signals: Sequence[Row], path: Path, conversations: Mapping[str, str], registry: Registry, trusted: Sequence[str]
) -> Owner:
    """Who started the chain of a call along one path, and who worked on it nearest to the call. (CH-4, CH-5)"""
    at = path.nodes[0].told["start_time"]
    broken = "missing_parent" in path.flags
    claimed = claim_of(path, trusted)
    if claimed is not None:
        claimed = registry.agent(claimed, at)
    top = topmost(path, registry, at)
    conversation = next((conversations[s["conversation_id"]] for s in signals if s.get("conversation_id") in conversations), None)

    agent: str | None
    team: str | None = None
    if broken and claimed:
        agent, method = claimed, "claim"
    elif top:
        agent, method = top, "path"
    elif claimed:
        agent, method = claimed, "claim"
    elif conversation:
        agent, method = conversation, "conversation"
    else:
        agent, team, method = _mapped(signals, path, registry, at)
    team = registry.team(agent, at) or team
    flags = path.flags | ({"no_identity"} if method == UNKNOWN else set())
    executor = nearest(path, registry, at)
    if executor is None:
        # Reading: where no span names an agent, the one who started the work is the only one known to have done it.
        return Owner(agent, team, agent, team, method, frozenset(flags))
    return Owner(agent, team, executor, registry.team(executor, at), method, frozenset(flags))


def _mapped(signals: Sequence[Row], path: Path, registry: Registry, at: datetime) -> tuple[str, str | None, str]:
    """The key, principal or service mapping of the registry, in this order; then unknown. (CH-4)

    Reading: of services, the root's comes first, since it started the chain; then the call's own.
    """
    asked = [("credential", s.get("credential")) for s in signals]
    asked += [("principal", s.get("principal")) for s in signals]
    asked += [("service", path.root.told.get("service_name")), *(("service", s.get("service_name")) for s in signals)]
    for kind, name in asked:
        row = registry.holder(kind, name, at) if name else None
        if row:
            return row["agent"], row["team"], kind
    return UNKNOWN, None, UNKNOWN


def conversation_owners(ways: Mapping[Key, list[Path]], registry: Registry) -> dict[str, str]:
    """The one agent that started every identified chain of a conversation. (CH-4)

    Reading: a chain is identified by an agent on the path of any span of the conversation; two agents are no answer.
    """
    owners: dict[str, set[str]] = {}
    for around in ways.values():
        for signal in around[0].nodes[0].signals:
            if signal.get("conversation_id"):
                tops = {topmost(path, registry, signal["start_time"]) for path in around} - {None}
                owners.setdefault(signal["conversation_id"], set()).update(top for top in tops if top)
    return {conversation: agents.pop() for conversation, agents in owners.items() if len(agents) == 1}
