"""Models of reservations: money held of budgets for calls under way."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from api.models.base import Money, RequestModel, ResponseModel
from ledger.budgets.gateways import MAX_LEVELS

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


class GatewayLevel(RequestModel):
    """What one budget's window comes to in a gateway's store, in the budget's currency."""

    budget_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,40}$")] = Field(description="Id of the budget.")
    window_start: AwareDatetime = Field(strict=False, description="First instant of the window, as the answer before said.")
    chain_id: Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")] = Field(
        default="", description="Of a budget of chains: the chain."
    )
    committed: Money = Field(description="All that the store has committed in its life.")
    open: Money = Field(description="What calls under way and leases hold.")
    uncertain: Money = Field(description="What is held by calls that ended without anybody knowing what they cost.")


class GatewayReport(RequestModel):
    """What a gateway's store holds and has committed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"epoch": "8d2c", "levels": []}]})

    epoch: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="Life of the store: one that lost its data begins another."
    )
    levels: list[GatewayLevel] = Field(default_factory=list, max_length=MAX_LEVELS, description="Levels that changed.")


class GatewayLimit(ResponseModel):
    """A budget as a gateway enforces it."""

    budget_id: str = Field(description="Its id, which survives renames.")
    name: str = Field(description="Its name.")
    revision: int = Field(description="The revision in force.")
    scopes: dict[str, str] = Field(description="What it is about: dimensions and names.")
    period: str = Field(description="hour to year, range, or chain.")
    window_start: datetime = Field(description="First instant of the window.")
    window_end: datetime = Field(description="First instant of the next window.")
    limit: Money = Field(description="The limit in force.")
    elsewhere: Money = Field(
        description="What is spent or held in the window and not by this store: it lowers what the store may grant."
    )
    currency: str = Field(description="Currency of the amounts.")
    usd_rate: Money | None = Field(default=None, description="One US dollar in that currency today; null where no rate is known.")
    enforcement: str = Field(description="hard or advisory.")
    on_outage: str = Field(description="closed: refuse while nobody can say what is left; open: admit.")
    owner: str = Field(default="", description="Who answers for it, and can raise it.")


class GatewayLimits(ResponseModel):
    """What a gateway enforces, outermost budget first."""

    budgets: list[GatewayLimit] = Field(description="Budgets in force.")
