"""Models of periods: months with their state, what is left to do before one is closed, and what was booked of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.models.base import Money, RequestModel, ResponseModel, describe
from ledger.tables import COSTS

PeriodState = Literal["open", "provisional", "final", "closed"]
_Reason = Annotated[str, Field(max_length=500, description="The reason, for the audit log.")]


class PeriodCheck(ResponseModel):
    """One item of the checklist before a close."""

    item: str = Field(description="Short name, as `waive` takes it.")
    passed: bool = Field(description="Whether it is as it should be.")
    blocks: bool = Field(description="Whether the month cannot be closed before it is, or is waived.")
    waivable: bool = Field(description="Whether it can be waived, with a reason.")
    figure: str = Field(description="What was found, with its money.")
    remedy: str = Field(default="", description="What to do; empty where it passed.")


class PeriodDocumentRow(ResponseModel):
    """What was booked of a month at once. All documents of a month sum to the run that the newest one names."""

    number: str = Field(description="Its number.")
    month: str = Field(description="Invoice month, YYYY-MM.")
    kind: Literal["actual", "adjustment"] = Field(description="`actual`: the first close; `adjustment`: what changed since.")
    run_id: str = Field(description="The run up to which it books.")
    adjusts: str | None = Field(default=None, description="The document before it, which it adjusts.")
    made_by: str = Field(description="Id of the principal that closed, or attribution.")
    made_at: datetime = Field(description="When it was booked.")


class PeriodLineRow(ResponseModel):
    """An exact amount of a document."""

    number: str = Field(description="Number of the document.")
    cause: str = Field(description="`close`, or what changed: restated charge, new usage, rule, price, registry, setting, code.")
    team: str | None = Field(description="The team that started the work; null: nobody's.")
    provider: str | None = Field(description=describe(COSTS, "provider"))
    invoice_id: str | None = Field(description=describe(COSTS, "invoice_id"))
    cost_class: str = Field(description=describe(COSTS, "cost_class"))
    basis: str = Field(description=describe(COSTS, "basis"))
    currency: str = Field(description=describe(COSTS, "currency"))
    billed_cost: Money | None = Field(description="FOCUS BilledCost; null where nothing was billed.")
    effective_cost: Money | None = Field(description="FOCUS EffectiveCost; null where it is unknown.")


class PeriodRow(ResponseModel):
    """A month in the books."""

    month: str = Field(description="Invoice month, YYYY-MM.")
    state: PeriodState = Field(
        description="`open`: it is running, or not attributed; `provisional`: something of the checklist blocks; `final`: it can be "
        "closed; `closed`."
    )
    revision: int = Field(description="Version, which a change sends as `If-Match`.")
    run_id: str | None = Field(description="The run in force.")
    closed_by: str | None = Field(default=None, description="Id of who closed it.")
    closed_at: datetime | None = Field(default=None, description="When it was closed.")
    asked_by: str | None = Field(default=None, description="Id of who has asked to open it again; a second person decides.")
    asked_reason: str | None = Field(default=None, description="Why.")
    documents: list[PeriodDocumentRow] = Field(default_factory=list, description="What was booked of it, oldest first.")
    blocking: list[str] = Field(default_factory=list, description="Items of the checklist that block.")


class PeriodClose(RequestModel):
    """How a month is closed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "books of October"}]})

    reason: _Reason = ""
    waive: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=20, description="Items of the checklist that are not waited for; needs a reason."
    )


class PeriodReopening(RequestModel):
    """Why a closed month is to be opened again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "an invoice was missing"}]})

    reason: Annotated[str, Field(min_length=1, max_length=500, description="The reason, for the audit log and who decides.")]


class PeriodDecision(RequestModel):
    """What a second person decides about opening a month again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"approve": True}]})

    approve: bool = Field(description="Open it, or leave it closed.")
    reason: _Reason = ""
