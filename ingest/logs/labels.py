"""Labels that a caller sets on its requests: what they claim about agent and team, and who or what the request is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingest.logs.json_fields import text
from ingest.logs.rows import Row
from ledger.settings import IngestSettings

MAX_LENGTH = 256
"""Characters of the longest value that is kept."""
_MAX_NAME = 64
_MAX_LABELS = 256
_CONVERSATIONS = (
    "session_id",
    "sessionId",
    "session.id",
    "conversation_id",
    "conversation.id",
    "gen_ai.conversation.id",
    "Helicone-Session-Id",
)


def labels_of(value: object) -> dict[str, str]:
    """The labels of an object whose values are names; longer ones and what is no name are left out.

    >>> labels_of({"team": " Care ", "prompt": "x" * 300, "n": 7, "more": {"a": 1}})
    {'team': 'Care', 'n': '7'}
    """
    if not isinstance(value, Mapping):
        return {}
    pairs = ((str(name)[:_MAX_NAME], text(raw)) for name, raw in list(value.items())[:_MAX_LABELS])
    return {name: label for name, label in pairs if label and len(label) <= MAX_LENGTH}


def claims(labels: Mapping[str, str], settings: IngestSettings) -> Row:
    """The columns of a row that labels fill. Agent and team are claims: they count where the source is trusted. (CH-7)"""

    def first(names: Sequence[str]) -> str | None:
        return next((labels[name] for name in names if name in labels), None)

    return {
        "claimed_agent": first(settings.agent_tags),
        "claimed_team": first(settings.team_tags),
        "conversation_id": first(_CONVERSATIONS),
        "environment": first(("environment", "env")),
        "tenant": first(("tenant", "customer")),
        "workflow": first(("workflow",)),
    }
