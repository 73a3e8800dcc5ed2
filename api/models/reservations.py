"""Models of reservations: money held of budgets for calls under way."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from api.models.base import Money, RequestModel, ResponseModel

ReservationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
_Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]


class NewReservation(RequestModel):
    """What a call, or a run, may cost at most, and what it counts against."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"team": "Care", "agent": "support-bot", "amount": "0.15", "currency": "USD", "seconds": 600}]
        }
    )

    reservation_id: ReservationId | None = Field(
        default=None,
        description="An id of one's own: sent again, it is answered as before and changes nothing. By default a new one.",
    )
    team: _Name | None = Field(default=None, description="The team; by default the one that the key is for.")
    agent: _Name | None = Field(default=None, description="The agent.")
    workflow: _Name | None = Field(default=None, description="The workflow.")
    tenant: _Name | None = Field(default=None, description="The tenant.")
    environment: _Name | None = Field(default=None, description="The environment.")
    provider: _Name | None = Field(default=None, description="The provider that is called.")
    model: _Name | None = Field(default=None, description="The model that is called.")
    chain_id: Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = Field(
        default=None, description="The chain, for budgets of each chain."
    )
    amount: Money = Field(description="The most that it can cost.")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(default="USD", description="Its currency.")
    seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=600, description="How long it may take; after that the reservation is uncertain, and goes on counting."
    )


class Commitment(RequestModel):
    """What a reserved call cost."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cost": "0.10"}]})

    cost: Money = Field(description="In the currency of the reservation. More than was held is booked, too.")


class ReservationRow(ResponseModel):
    """A reservation."""

    reservation_id: str = Field(description="Its id.")
    state: str = Field(description="open, committed, released or uncertain (past its deadline: nobody has said what it cost).")
    scopes: dict[str, str] = Field(description="What it counts against: dimensions and names.")
    chain_id: str = Field(default="", description="The chain.")
    amount: Money = Field(description="What it holds at most.")
    currency: str = Field(description="Currency of amount and cost.")
    cost: Money | None = Field(default=None, description="What it cost, once that is committed.")
    created_at: datetime = Field(description="When it was made.")
    deadline: datetime = Field(description="When it becomes uncertain.")
    finished_at: datetime | None = Field(default=None, description="When it was committed or released.")
