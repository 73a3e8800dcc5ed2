"""Models of comparisons of two periods."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.models.base import Basis, Calendar, Money, ResponseModel, View

Effect = Literal["volume", "tokens_per_call", "price", "mix", "retries", "new", "gone"]


class ComparisonRow(BaseModel):
    """What one effect changed a group's cost by, with one further text field for each dimension in `by`."""

    model_config = ConfigDict(extra="allow")

    currency: str = Field(description="Currency of the amount.")
    effect: Effect = Field(
        description="volume: more or fewer calls in all; mix: a larger or smaller share of them; tokens_per_call; price: of a token, an hour, and "
        "amounts without a quantity; retries: repeated attempts; new: only in the later period; gone: only in the earlier one."
    )
    cost: Money = Field(description="What it changed the cost by.")

    def get(self, dimension: str) -> str | None:
        """Value of a dimension of `by`; None where it is unknown."""
        value = getattr(self, dimension, None)
        return None if value is None else str(value)


class ComparisonTable(ResponseModel):
    """Two periods compared. The rows of a group sum to the change of its cost, and all rows of a currency to `totals_change`."""

    by: list[str] = Field(description="Dimensions of the groups.")
    view: View = Field(description="Whether `agent` and `team` are the initiator's or the executor's.")
    basis: Basis = Field(description="Cost column that was summed.")
    calendar: Calendar = Field(description="Whether the periods are months of invoices or times of use.")
    timezone: str = Field(description="Timezone of days and months.")
    before_start: datetime = Field(description="First instant of the earlier period.")
    before_end: datetime = Field(description="First instant after it.")
    after_start: datetime = Field(description="First instant of the later period.")
    after_end: datetime = Field(description="First instant after it.")
    runs: dict[str, str] = Field(description="Published run of each month.")
    totals_before: dict[str, Money] = Field(description="Cost of the earlier period, for each currency.")
    totals_after: dict[str, Money] = Field(description="Cost of the later period.")
    totals_change: dict[str, Money] = Field(description="The later minus the earlier.")
    rows: list[ComparisonRow] = Field(description="Effects that are not 0; groups that changed most come first.")
