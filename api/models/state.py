"""Budgets, alerts, anomalies, problems, runs, the registry, and how recent and how well everything is."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.models.base import Money, RequestModel, ResponseModel, View, describe
from ledger.tables import ANOMALIES, BUDGET_STATUS, PROBLEMS

BudgetName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$")]


class BudgetChange(RequestModel):
    """What a budget shall be from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"scope": "team", "scope_name": "Care", "amount": "1500.00", "currency": "USD", "view": "initiator"}]
        }
    )

    scope: Literal["team", "agent"] = Field(description=describe(BUDGET_STATUS, "scope"))
    scope_name: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description=describe(BUDGET_STATUS, "scope_name")
    )
    amount: Annotated[Money, Field(gt=0)] = Field(description="Monthly limit, as a decimal string.")
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(description="ISO 4217 code.")
    view: View = Field(default="initiator", description=describe(BUDGET_STATUS, "view"))


class NewBudget(BudgetChange):
    """A budget to set up."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "care-october", "scope": "team", "scope_name": "Care", "amount": "1500.00", "currency": "USD"}]
        }
    )

    name: BudgetName = Field(description="Its name, by which it is addressed; no slash.")


class Budget(ResponseModel):
    """A budget in force, and how it stands in its newest month."""

    name: str = Field(description=describe(BUDGET_STATUS, "budget"))
    scope: str = Field(description=describe(BUDGET_STATUS, "scope"))
    scope_name: str = Field(description=describe(BUDGET_STATUS, "scope_name"))
    view: str = Field(description=describe(BUDGET_STATUS, "view"))
    period: str = Field(default="month", description="Length of its window.")
    amount: Money = Field(description=describe(BUDGET_STATUS, "amount"))
    currency: str = Field(description=describe(BUDGET_STATUS, "currency"))
    revision: int = Field(description="Counts its changes, from 1.")
    recorded_at: datetime = Field(description="When this revision was made.")
    month: str | None = Field(default=None, description=describe(BUDGET_STATUS, "month"))
    billed: Money | None = Field(default=None, description=describe(BUDGET_STATUS, "billed"))
    estimated: Money | None = Field(default=None, description=describe(BUDGET_STATUS, "estimated"))
    spent: Money | None = Field(default=None, description="billed plus estimated; null until the budget was first evaluated.")
    left: Money | None = Field(default=None, description="amount minus spent; negative when exceeded.")
    used_percent: Money | None = Field(default=None, description="spent, in percent of the amount.")
    state: str | None = Field(default=None, description=describe(BUDGET_STATUS, "state"))


class AlertRow(ResponseModel):
    """Something a person should know."""

    alert_id: str = Field(description="Hash of its cause: the same cause rings once.")
    kind: str = Field(description="budget, anomaly, unpriced, …")
    severity: str = Field(description="info, warning or critical.")
    subject: str = Field(description="What it is about.")
    text: str = Field(description="The message.")
    address: str = Field(default="", description="Path of the page or query that shows it.")
    payload: dict[str, Any] = Field(default_factory=dict, description="The figures behind it.")
    created_at: datetime = Field(description="When it was raised.")
    delivered_at: datetime | None = Field(default=None, description="When the webhook took it.")
    attempts: int = Field(description="Deliveries tried.")
    last_error: str | None = Field(default=None, description="Why the last one failed.")


class AnomalyRow(ResponseModel):
    """A day unlike its own past."""

    scope: str = Field(description=describe(ANOMALIES, "scope"))
    scope_name: str = Field(description=describe(ANOMALIES, "scope_name"))
    day: date = Field(description=describe(ANOMALIES, "day"))
    currency: str = Field(description=describe(ANOMALIES, "currency"))
    actual: Money = Field(description=describe(ANOMALIES, "actual"))
    expected: Money = Field(description=describe(ANOMALIES, "expected"))
    excess: Money = Field(description=describe(ANOMALIES, "excess"))
    score_approx: float = Field(description=describe(ANOMALIES, "score_approx"))


class ProblemRow(ResponseModel):
    """One thing that was wrong with the input."""

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


class RunRow(ResponseModel):
    """One attribution run."""

    run_id: str = Field(description="Its id, carried by every figure it drew.")
    started_at: datetime = Field(description="When it began.")
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    status: str = Field(description="running, published, unpublished or failed.")
    months: list[str] = Field(description="Months it covered.")
    published_months: list[str] = Field(description="Months whose figures it is the source of now.")
    cause: str = Field(default="", description="Why it ran.")
    error: str | None = Field(default=None, description="Why it was not published.")
    inputs: dict[str, Any] = Field(default_factory=dict, description="What it was drawn from: versions of the facts.")


class AgentRow(ResponseModel):
    """Who a name belonged to in ``[valid_from, valid_to)``. (ID-1)"""

    kind: str = Field(description="What the name is: agent, alias, credential, principal, service, resource, conversation.")
    name: str = Field(description="The name itself.")
    agent: str | None = Field(default=None, description="The agent it stands for.")
    team: str | None = Field(default=None, description="The owning team.")
    account: str | None = Field(default=None, description="Usage account it works in.")
    region: str | None = Field(default=None, description="Region it works in.")
    valid_from: datetime = Field(description="First instant it holds.")
    valid_to: datetime | None = Field(default=None, description="First instant it no longer holds; null: still holds.")


class UnregisteredAgent(ResponseModel):
    """An agent that spends without a row in the registry. (ID-2)"""

    agent: str = Field(description="The name it goes by.")
    first_seen: datetime = Field(description="Start of the first period with cost.")
    last_seen: datetime = Field(description="Start of the last.")
    caused: dict[str, Money] = Field(description="Currency to effective cost of chains it started.")
    burned: dict[str, Money] = Field(description="Currency to effective cost of calls it made itself.")


class Agents(ResponseModel):
    """The registry, and who is missing from it."""

    registered: list[AgentRow] = Field(description="Every registered name with its owners in time.")
    unregistered: list[UnregisteredAgent] = Field(description="Agents seen in costs but not in the registry, dearest first.")


class RegistryImported(ResponseModel):
    """What an import of the registry did."""

    agents: int = Field(description="Rows read.")
    names: int = Field(description="Names added or changed.")
    unchanged: int = Field(description="Names that were known already.")
    problems: list[ProblemRow] = Field(description="Lines that could not be used.")


class SourceFreshness(ResponseModel):
    """How recent the facts of one source are."""

    kind: Literal["charges", "calls"] = Field(description="charges: a bill; calls: a log.")
    source: str = Field(description="The ingestor.")
    newest: datetime = Field(description="End of the latest charge period that is over, or start of the latest call.")
    age_seconds: int = Field(description="Seconds from then to now.")
    stale_after_seconds: int | None = Field(
        default=None,
        description="How old it may be, where the ingestor is a configured source; of several, the most patient one.",
    )
    stale: bool = Field(default=False, description="Whether a configured source of this ingestor is stale.")


class Freshness(ResponseModel):
    """How recent everything is."""

    now: datetime = Field(description="When this was asked.")
    sources: list[SourceFreshness] = Field(description="Newest fact of each source.")
    published_at: datetime | None = Field(default=None, description="When a run was last published.")
    published_months: list[str] = Field(description="Months with published figures.")
    spool_files: int = Field(description="Deliveries received but not yet in the ledger.")
    spool_bytes: int = Field(description="Their size.")


class Health(ResponseModel):
    """Whether the process answers, and whether it can do its work."""

    status: Literal["ok", "unavailable"] = Field(description="ok, or unavailable.")
    checks: dict[str, str] = Field(default_factory=dict, description="Each check: ok, or what failed.")
    version: str = Field(default="", description="Version of RootCost.")


class Accepted(ResponseModel):
    """What a receiver took."""

    accepted: int = Field(description="Rows written down durably.")
    rejected: int = Field(description="Items refused; each is a row in `problems`.")
    reasons: list[str] = Field(default_factory=list, description="What was wrong with the items: the first 5 different reasons.")
