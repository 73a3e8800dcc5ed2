"""Models of budgets: terms, how a budget stands, revisions, and raises that await a second person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema

from api.models.base import Basis, Money, RequestModel, ResponseModel, View
from ledger.budgets.terms import DIMENSIONS, PERIODS, Dimension, Enforcement, Outage, Period

BUDGET_DIMENSIONS = DIMENSIONS
"""What a budget can be about."""
BUDGET_PERIODS = PERIODS
"""Periods that it can have."""

BudgetName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+$")]
_ScopeName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Instant = Annotated[datetime, Field(strict=False)]
_POSITIVE_AMOUNT = {"type": "string", "pattern": r"^[0-9]{0,9}[1-9][0-9]{0,9}(\.[0-9]{1,12})?$", "examples": ["1500.00"]}
"""In the description only: what does not match is refused with a sentence, and more than it says is accepted."""
_SCOPE_TEXT = "Dimensions and names, each compared whole; a registered team or agent in any case and spacing (ID-3)."


class BudgetChange(RequestModel):
    """New terms of a budget. What is left out stays as it is; of a new budget it is what is usual."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"scope": "team", "scope_name": "Care", "amount": "1500.00", "currency": "USD", "view": "initiator"}]
        }
    )

    scope: Literal["team", "agent"] | None = Field(
        default=None, description="team or agent; with `scope_name`, in place of `scopes`."
    )
    scope_name: _ScopeName | None = Field(default=None, description="Name of the team or agent.")
    scopes: dict[Dimension, _ScopeName] | None = Field(
        default=None,
        description=_SCOPE_TEXT + " The organisation is the whole ledger.",
        examples=[{"team": "Care", "model": "gpt-4o"}],
    )
    amount: Annotated[Money, Field(gt=0), WithJsonSchema(_POSITIVE_AMOUNT)] | None = Field(
        default=None, description="Limit of a period, as a decimal string."
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = Field(default=None, description="ISO 4217 code.")
    view: View | None = Field(default=None, description="Whether caused (initiator) or burned (executor) cost counts.")
    period: Period | None = Field(default=None, description="month, unless said; a chain budget limits each chain by itself.")
    range_start: _Instant | None = Field(default=None, description="First instant of a range.")
    range_end: _Instant | None = Field(default=None, description="First instant after a range.")
    basis: Basis | None = Field(default=None, description="FOCUS cost column that counts: effective, unless said.")
    infrastructure: bool | None = Field(
        default=None, description="Whether cost that is of no model counts, too: runtimes, gateways, seats."
    )
    shared: bool | None = Field(default=None, description="Whether shared cost counts, too.")
    owner: str | None = Field(default=None, max_length=256, description="Who answers for it.")
    enforcement: Enforcement | None = Field(
        default=None, description="hard: calls are refused; advisory: senders are warned; none."
    )
    on_outage: Outage | None = Field(
        default=None, description="Of a hard budget whose store does not answer: open admits, closed refuses."
    )
    parent: str | None = Field(default=None, description='Name or id of the budget that it is a part of; "": of none.')
    exceeds_parent: bool | None = Field(default=None, description="Whether it may have more than its parent leaves.")
    thresholds: list[Money] | None = Field(
        default=None, max_length=20, description="Shares of the amount that raise an alert; empty: those of `alerts.thresholds`."
    )
    recipients: list[Annotated[str, StringConstraints(min_length=1, max_length=512)]] | None = Field(
        default=None, max_length=100, description="Who is told, beside those that every alert goes to."
    )
    valid_from: _Instant | None = Field(default=None, description="From when the change holds; by default from now on.")
    raised_until: _Instant | None = Field(default=None, description="Until when `amount` is the limit; then it is what it was.")
    reason: str | None = Field(default=None, max_length=2000, description="Why it is changed.")
    rename: BudgetName | None = Field(default=None, description="Another name for it; its id and its revisions stay.")


class NewBudget(BudgetChange):
    """A budget to set up."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "care-october", "scope": "team", "scope_name": "Care", "amount": "1500.00", "currency": "USD"},
                {
                    "name": "care-gpt",
                    "scopes": {"team": "Care", "model": "gpt-4o"},
                    "amount": "50",
                    "currency": "USD",
                    "period": "week",
                },
            ]
        }
    )

    name: BudgetName = Field(description="Unique name, without a slash.")
    amount: Annotated[Money, Field(gt=0), WithJsonSchema(_POSITIVE_AMOUNT)] = Field(
        description="Limit of a period, as a decimal string."
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(description="ISO 4217 code.")


class BudgetRequestRow(ResponseModel):
    """A raise that awaits a second person, or about which one has decided."""

    request_id: str = Field(description="Its id.")
    budget: str = Field(description="Name of the budget.")
    amount: Money = Field(description="The limit that is asked for.")
    current_amount: Money = Field(description="The limit that was in force when it was asked for.")
    currency: str = Field(description="Currency of the amounts.")
    raised_until: datetime | None = Field(default=None, description="Until when; null: for good.")
    asked_by: str = Field(description="Who asks.")
    asked_at: datetime = Field(description="When.")
    reason: str = Field(default="", description="Why.")
    expires_at: datetime = Field(description="When the request lapses.")
    state: str = Field(description="waiting, approved, refused or expired.")
    decided_by: str = Field(default="", description="Who decided.")
    decided_at: datetime | None = Field(default=None, description="When.")


class Decision(RequestModel):
    """What somebody decides about a raise."""

    approve: bool = Field(description="Whether the raise is made.")
    reason: str = Field(default="", max_length=2000, description="Why.")


class Budget(ResponseModel):
    """A budget in force, and how it stands in a period."""

    name: str = Field(description="Name of the budget.")
    budget_id: str = Field(default="", description="Id, which survives renames.")
    scope: str = Field(description="The narrowest dimension it is about: team, agent, …")
    scope_name: str = Field(description="Name of that team or agent.")
    scopes: dict[str, str] = Field(default_factory=dict, description=_SCOPE_TEXT)
    view: str = Field(description="initiator or executor")
    period: str = Field(default="month", description="Length of the budget period.")
    amount: Money = Field(description="The limit in force in the period.")
    currency: str = Field(description="Currency of amount and spend.")
    revision: int = Field(description="Revision number, from 1.")
    recorded_at: datetime = Field(description="When this revision was recorded.")
    month: str | None = Field(default=None, description="Month in which the period begins, in the reporting timezone.")
    period_start: datetime | None = Field(default=None, description="First instant of the period.")
    period_end: datetime | None = Field(default=None, description="First instant after the period.")
    billed: Money | None = Field(default=None, description="Spend in the period, from bills.")
    estimated: Money | None = Field(default=None, description="Spend in the period that no bill covers yet.")
    encumbered: Money | None = Field(default=None, description="Held for calls under way.")
    spent: Money | None = Field(default=None, description="billed plus estimated.")
    left: Money | None = Field(default=None, description="amount minus spent and encumbered; negative when exceeded.")
    used_percent: Money | None = Field(default=None, description="spent, in percent of the amount.")
    forecast: Money | None = Field(
        default=None, description="What will be spent by the end of the period; null: too little is known."
    )
    low: Money | None = Field(default=None, description="Lower bound of the forecast.")
    high: Money | None = Field(default=None, description="Upper bound; four in five sums lie between the two.")
    exhausted_at: datetime | None = Field(
        default=None, description="When the limit was reached, or will be if it goes on like this."
    )
    state: str | None = Field(default=None, description="ok, warning, exceeded, no data, or no rate.")
    data_until: datetime | None = Field(default=None, description="Newest instant that any cost of the ledger is known of.")
    notes: list[str] = Field(
        default_factory=list, description="What is not counted, unknown names, and budgets about the same cost."
    )
    basis: str = Field(default="effective", description="FOCUS cost column that counts.")
    infrastructure: bool = Field(default=True, description="Whether cost that is of no model counts, too.")
    shared: bool = Field(default=True, description="Whether shared cost counts, too.")
    owner: str = Field(default="", description="Who answers for it.")
    enforcement: str = Field(default="none", description="hard, advisory or none.")
    on_outage: str = Field(
        default="open", description="Of a hard budget whose store does not answer: open admits, closed refuses."
    )
    parent: str | None = Field(default=None, description="Name of the budget that it is a part of.")
    exceeds_parent: bool = Field(default=False, description="Whether it may have more than its parent leaves.")
    thresholds: list[Money] = Field(
        default_factory=list, description="Shares of the amount that raise an alert; empty: the usual ones."
    )
    recipients: list[str] = Field(default_factory=list, description="Who is told, beside those that every alert goes to.")
    base_amount: Money | None = Field(default=None, description="The limit without the raise that is in force.")
    raised_until: datetime | None = Field(default=None, description="When that raise ends.")
    pending: BudgetRequestRow | None = Field(default=None, description="A raise that awaits a second person.")


class BudgetRevisionRow(ResponseModel):
    """A revision of a budget."""

    revision: int = Field(description="Its number.")
    name: str = Field(description="Name of the budget then.")
    amount: Money = Field(description="Limit of a period.")
    currency: str = Field(description="Its currency.")
    terms: dict[str, Any] = Field(description="All terms.")
    valid_from: datetime | None = Field(default=None, description="From when it holds; null: always.")
    recorded_at: datetime = Field(description="When it was recorded.")
    recorded_by: str = Field(default="", description="By whom; empty: a version of RootCost that told it to the audit log only.")
    reason: str = Field(default="", description="Why.")
    ended: bool = Field(default=False, description="Whether the budget ended with it.")


class BudgetNames(ResponseModel):
    """Names that a budget can be about: those that are registered or have spent."""

    names: dict[str, list[str]] = Field(description="Dimension to names, sorted.")
