"""Models of forecasts."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.models.base import Basis, Money, ResponseModel, View

ForecastMethod = Literal["pool", "run rate", "actual", "unknown"]


class ForecastRow(BaseModel):
    """What a group will have cost at the end of the month, with one further text field for each dimension in `by`."""

    model_config = ConfigDict(extra="allow")

    currency: str = Field(description="Currency of the amounts.")
    period_start: date = Field(description="First day of the month, in the reporting timezone.")
    period_end: date = Field(description="First day after it.")
    known_until: date = Field(description="First day whose cost is not known yet.")
    actual: Money = Field(description="Cost of the days of the month that are known.")
    billed: Money = Field(description="The part of `actual` that bills tell.")
    estimated: Money = Field(description="The part of `actual` that is estimated, since no bill covers it yet.")
    forecast: Money | None = Field(description="Cost of the whole month, to 6 places; null where too little is known.")
    low: Money | None = Field(description="Lower end of the interval that holds the cost of the month four times in five.")
    high: Money | None = Field(description="Upper end of it; both are null where the past is too short to say.")
    method: ForecastMethod = Field(
        description="pool: learned from the own past; run rate: the known days go on; actual: the month is over; unknown: too little is known."
    )
    history_days: int = Field(description="Days since the first cost of the group that the forecast could learn from.")


class ForecastTable(ResponseModel):
    """Forecasts by dimensions. The intervals of rows are no interval of their sum: ask with fewer dimensions."""

    by: list[str] = Field(description="Dimensions of the rows.")
    view: View = Field(description="Whether `agent` and `team` are the initiator's or the executor's.")
    basis: Basis = Field(description="Cost column that was summed.")
    timezone: str = Field(description="Timezone of days and months.")
    as_of: datetime = Field(description="When it was forecast.")
    rows: list[ForecastRow] = Field(description="The groups, by forecast cost, highest first.")
