"""Models of alerts, anomalies, problems, runs, the registry, freshness and health."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from api.models.alerts import Instant, Reason
from api.models.base import Money, RequestModel, ResponseModel, describe
from ledger.tables import ANOMALIES, PROBLEMS

AnomalyState = Literal["open", "acknowledged", "planned", "false", "fixed", "resolved", "withdrawn", "part", "untold"]


class AnomalyRow(ResponseModel):
    """Spend, or a chain, that is unlike its own past, and why."""

    scope: str = Field(description=describe(ANOMALIES, "scope"))
    scope_name: str = Field(description=describe(ANOMALIES, "scope_name"))
    day: date = Field(description=describe(ANOMALIES, "day"))
    currency: str = Field(description=describe(ANOMALIES, "currency"))
    actual: Money = Field(description=describe(ANOMALIES, "actual"))
    expected: Money = Field(description=describe(ANOMALIES, "expected"))
    excess: Money = Field(description=describe(ANOMALIES, "excess"))
    score_approx: float = Field(description=describe(ANOMALIES, "score_approx"))
    kind: str | None = Field(default=None, description=describe(ANOMALIES, "kind"))
    grain: str | None = Field(default=None, description=describe(ANOMALIES, "grain"))
    start_time: datetime | None = Field(default=None, description=describe(ANOMALIES, "start_time"))
    end_time: datetime | None = Field(default=None, description=describe(ANOMALIES, "end_time"))
    is_open: bool | None = Field(default=None, description=describe(ANOMALIES, "is_open"))
    expected_end: datetime | None = Field(default=None, description=describe(ANOMALIES, "expected_end"))
    drivers: dict[str, Money] = Field(default_factory=dict, description="Why, by driver; the amounts sum to `excess`.")
    chains: list[str] = Field(default_factory=list, description="Ids of the dearest chains of this time.")
    chain_note: str | None = Field(default=None, description=describe(ANOMALIES, "chain_note"))
    team: str | None = Field(default=None, description=describe(ANOMALIES, "team"))
    anomaly_id: str | None = Field(default=None, description="Id of the anomaly, and of its alert if it raised one.")
    part_of: str | None = Field(default=None, description=describe(ANOMALIES, "part_of"))

    state: AnomalyState = Field(
        default="untold",
        description="What was answered last: planned, false or fixed; without an answer the state of its alert; part: the anomaly in `part_of` "
        "is answered in its place; untold: it raised no alert.",
    )
    answer_reason: str | None = Field(default=None, description="Why it was answered so.")
    answered_by: str | None = Field(default=None, description="Who answered.")
    answered_at: datetime | None = Field(default=None, description="When.")
    muted_until: datetime | None = Field(default=None, description="Nobody is told of anomalies of its scope until then.")
    mute_reason: str | None = Field(default=None, description="Why nobody is.")

    @field_validator("drivers", "chains", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """The table has them as JSON."""
        return json.loads(value) if isinstance(value, str) else value


class AnomalyAnswer(RequestModel):
    """What somebody says of an anomaly."""

    answer: Literal["planned", "false", "fixed"] = Field(
        description="planned: it was meant; false: it is none, and one of its series that is not larger is not told for four weeks; "
        "fixed: its cause was removed."
    )
    reason: Reason = Field(description="What others should know.")
    until: Instant | None = Field(default=None, description="When something planned is expected to end.")


class AnomalyMute(RequestModel):
    """Nobody is told of anomalies of the same scope."""

    reason: Reason = Field(description="Why nobody is to be told.")
    until: Instant = Field(description="When it ends.")


class ProblemRow(ResponseModel):
    """One problem with the input."""

    problem_id: str = Field(description=describe(PROBLEMS, "problem_id"))
    file: str = Field(description=describe(PROBLEMS, "uri"))
    line: str = Field(description=describe(PROBLEMS, "place"))
    field: str = Field(description=describe(PROBLEMS, "field"))
    reason: str = Field(description=describe(PROBLEMS, "reason"))
    remedy: str = Field(description=describe(PROBLEMS, "remedy"))
    severity: str = Field(description=describe(PROBLEMS, "severity"))
    rows: int = Field(description=describe(PROBLEMS, "rows"))
    source: str = Field(description=describe(PROBLEMS, "source"))
    seen_at: datetime = Field(description=describe(PROBLEMS, "seen_at"))
    cost: Money | None = Field(default=None, description=describe(PROBLEMS, "cost"))
    currency: str | None = Field(default=None, description=describe(PROBLEMS, "currency"))


class RunRow(ResponseModel):
    """One attribution run."""

    run_id: str = Field(description="Id of the run; every figure it computed carries it.")
    started_at: datetime = Field(description="Start of the run.")
    finished_at: datetime | None = Field(default=None, description="End of the run.")
    status: str = Field(description="running, published, refused (see error), or cut off: the process ended.")
    months: list[str] = Field(description="Months the run covers.")
    published_months: list[str] = Field(description="Months for which it is the published run.")
    cause: str = Field(default="", description="What started the run.")
    error: str | None = Field(default=None, description="Why it was not published.")
    inputs: dict[str, Any] = Field(
        default_factory=dict, description="Versions of the facts and of the code it was computed from."
    )


class AgentRow(ResponseModel):
    """The owner of a name in ``[valid_from, valid_to)``. (ID-1)"""

    kind: str = Field(description="Kind of name: agent, alias, credential, principal, service, resource, conversation.")
    name: str = Field(description="The name.")
    agent: str | None = Field(default=None, description="Agent the name belongs to.")
    team: str | None = Field(default=None, description="The owning team.")
    account: str | None = Field(default=None, description="Usage account of the agent.")
    region: str | None = Field(default=None, description="Region of the agent.")
    valid_from: datetime = Field(description="First instant of the ownership.")
    valid_to: datetime | None = Field(default=None, description="First instant after the ownership; null: current.")


class UnregisteredAgent(ResponseModel):
    """An agent with cost that is not in the registry. (ID-2)"""

    agent: str = Field(description="Name of the agent.")
    first_seen: datetime = Field(description="Start of the first period with cost.")
    last_seen: datetime = Field(description="Start of the last period with cost.")
    caused: dict[str, Money] = Field(description="Effective cost of chains it started, by currency.")
    burned: dict[str, Money] = Field(description="Effective cost of calls it made itself, by currency.")


class Agents(ResponseModel):
    """The registry, and agents that are missing from it."""

    registered: list[AgentRow] = Field(description="Every registered name with its owners over time.")
    unregistered: list[UnregisteredAgent] = Field(
        description="Agents with cost that are not in the registry, by cost, highest first."
    )


class OwnerChangeRow(ResponseModel):
    """A name that gets an owner."""

    kind: str = Field(description="Kind of name: agent, alias, credential, …")
    name: str = Field(description="The name.")
    agent: str | None = Field(default=None, description="Agent the name belongs to.")
    team: str | None = Field(default=None, description="The owning team from `valid_from` on.")
    earlier_team: str | None = Field(default=None, description="The team that had that instant before; null: none.")
    valid_from: datetime = Field(description="First instant of the ownership.")
    valid_to: datetime | None = Field(default=None, description="First instant after the ownership; null: open.")


class RegistryImported(ResponseModel):
    """Result of a registry import, or what it would be."""

    preview: bool = Field(default=False, description="Whether nothing was written.")

    agents: int = Field(description="Number of rows read.")
    names: int = Field(description="Number of names added or changed.")
    unchanged: int = Field(description="Number of names that did not change.")
    changes: list[OwnerChangeRow] = Field(default_factory=list, description="The first 1,000 names added or changed.")
    problems: list[ProblemRow] = Field(description="Lines that were left out.")


class SourceFreshness(ResponseModel):
    """Freshness of the facts of one source."""

    kind: Literal["charges", "calls"] = Field(description="charges: a bill; calls: a log.")
    source: str = Field(description="The ingestor.")
    newest: datetime = Field(description="End of the latest charge period that is over, or start of the latest call.")
    age_seconds: int = Field(description="Seconds since the newest fact.")
    stale_after_seconds: int | None = Field(
        default=None,
        description="Maximum age before it is stale, if the ingestor is a configured source; of several, the highest.",
    )
    stale: bool = Field(default=False, description="Whether a configured source of this ingestor is stale.")


class Freshness(ResponseModel):
    """Freshness of facts and published figures."""

    now: datetime = Field(description="Time of the response.")
    sources: list[SourceFreshness] = Field(description="Freshness of each source.")
    published_at: datetime | None = Field(default=None, description="When a run was last published.")
    published_months: list[str] = Field(description="Months with published figures.")
    settled_months: dict[str, str] = Field(
        default_factory=dict,
        description="Months whose facts were removed, and when by what: their costs stay, and are not computed again.",
    )
    spool_files: int = Field(description="Number of spool files that are not in the ledger yet.")
    spool_bytes: int = Field(description="Size of these files.")
    warnings: list[str] = Field(
        default_factory=list, description="What keeps the service from its work, such as a full disk; a sentence each."
    )


class Health(ResponseModel):
    """Health of the process."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="ok; degraded: the process answers and cannot do all of its work, see `checks`; or unavailable."
    )
    checks: dict[str, str] = Field(default_factory=dict, description="Result of each check: ok, or the error.")
    version: str = Field(default="", description="Version of RootCost.")


class Accepted(ResponseModel):
    """Result of a delivery to a receiver."""

    accepted: int = Field(description="Number of items stored durably.")
    rejected: int = Field(description="Number of items refused; each is a row in `problems`.")
    reasons: list[str] = Field(default_factory=list, description="Why items were refused: the first 5 different reasons.")
