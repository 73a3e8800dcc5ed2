"""Models of costs by dimension, of the balance and of the month overview."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from api.models.alerts import AlertRow
from api.models.base import Basis, Calendar, Granularity, Money, ResponseModel, View, describe
from ledger.tables import BALANCE, COSTS


class CostRow(BaseModel):
    """Cost of one group, with one further text field for each dimension in `by`."""

    model_config = ConfigDict(extra="allow")

    period_start: str | None = Field(
        default=None, description="Start of the hour, day or month, ISO 8601 with offset; null for `total`."
    )
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money | None = Field(default=None, description="Sum of the cost column; null where it is unknown for the whole group.")
    cost_billed: Money | None = Field(default=None, description="The part of `cost` that bills tell.")
    cost_estimated: Money | None = Field(
        default=None, description="The part of `cost` that is estimated, since no bill covers it yet."
    )
    omitted_rows: int = Field(
        default=0, description="Rows of `costs` that `cost` leaves out, since their cost column is unknown."
    )
    omitted_cost: Money | None = Field(
        default=None, description="What those rows cost in another cost column, as far as it is known."
    )

    def get(self, dimension: str) -> str | None:
        """Value of a dimension of `by`, e.g. ``row.get("team")``; None where it is unknown."""
        value = getattr(self, dimension, None)
        return None if value is None else str(value)


class RateUsed(ResponseModel):
    """An exchange rate that amounts were converted with."""

    day: date = Field(description="Day of the amounts it was applied to.")
    source: str = Field(description="Currency on the bill.")
    target: str = Field(description="Requested currency.")
    rate: str = Field(
        description="The rate with its day and publisher; two rates where the conversion goes through a third currency."
    )


class CostTable(ResponseModel):
    """Costs grouped by dimensions. Rows of different currencies are never summed."""

    by: list[str] = Field(description="Dimensions of the rows.")
    view: View = Field(description="Whether `agent` and `team` are the initiator's or the executor's.")
    basis: Basis = Field(description="Cost column that was summed.")
    granularity: Granularity = Field(description="Time granularity of the rows.")
    calendar: Calendar = Field(
        default="usage",
        description="Whether months are those of invoices, which tie out with the bill, or times are those of use.",
    )
    timezone: str = Field(description="Timezone of days and months.")
    start: datetime | None = Field(default=None, description="First instant included.")
    end: datetime | None = Field(default=None, description="First instant excluded.")
    runs: dict[str, str] = Field(description="Published run of each month.")
    totals: dict[str, Money] = Field(description="Sum of the rows, for each currency.")
    totals_billed: dict[str, Money] = Field(default_factory=dict, description="The part of `totals` that bills tell.")
    totals_estimated: dict[str, Money] = Field(default_factory=dict, description="The part of `totals` that is estimated.")
    totals_omitted: dict[str, Money] = Field(
        default_factory=dict, description="What is missing from `totals`, since its cost column is unknown, in another column."
    )
    rows: list[CostRow] = Field(description="The groups, ordered by time, then by cost.")
    rates: list[RateUsed] = Field(
        default_factory=list,
        description="Exchange rates applied, one for each currency and day; only if `currency` was requested.",
    )


class BalanceRow(ResponseModel):
    """Control totals: charges in = metered + owner + shared + idle + unallocated; `difference` is 0. (MO-2)"""

    currency: str = Field(description=describe(BALANCE, "currency"))
    invoice_month: str = Field(description=describe(BALANCE, "invoice_month"))
    provider: str = Field(description=describe(BALANCE, "provider"))
    cost_column: str = Field(description=describe(BALANCE, "cost_column"))
    charges_in: Money | None = Field(default=None, description=describe(BALANCE, "charges_in"))
    metered: Money | None = Field(default=None, description=describe(BALANCE, "metered"))
    owner: Money | None = Field(default=None, description=describe(BALANCE, "owner"))
    shared: Money | None = Field(default=None, description=describe(BALANCE, "shared"))
    idle: Money | None = Field(default=None, description=describe(BALANCE, "idle"))
    unallocated: Money | None = Field(default=None, description=describe(BALANCE, "unallocated"))
    difference: Money = Field(description=describe(BALANCE, "difference"))
    rounding: Money = Field(description=describe(BALANCE, "rounding"))


class ClassTotal(ResponseModel):
    """Cost of a month in one cost class."""

    currency: str = Field(description=describe(COSTS, "currency"))
    cost_class: str = Field(description=describe(COSTS, "cost_class"))
    basis: str = Field(description=describe(COSTS, "basis"))
    cost: Money = Field(description="Sum of the cost column.")


class Spender(ResponseModel):
    """A team's or agent's cost in a month, compared with the month before."""

    name: str | None = Field(default=None, description="Team or agent; null: unknown.")
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Cost in the month.")
    previous: Money = Field(description="Cost in the month before.")
    change: Money = Field(description="cost minus previous.")
    share_percent: Money | None = Field(
        default=None, description="Percent of the month's total in this currency; null where that is 0."
    )


class ReasonTotal(ResponseModel):
    """Cost of a month without a team, by class and reason. (LA-1)"""

    cost_class: str = Field(default="unallocated", description=describe(COSTS, "cost_class"))
    reason: str | None = Field(default=None, description=describe(COSTS, "reason"))
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Sum of the cost column.")


class MonthTotal(ResponseModel):
    """Total cost of a month in one currency, compared with the month before."""

    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Total cost, allocated or not.")
    previous: Money = Field(description="Total cost in the month before.")
    change: Money = Field(description="cost minus previous.")
    billed: Money = Field(description="Cost from bills.")
    estimated: Money = Field(description="Estimated cost of usage that no bill covers yet.")
    unallocated: Money = Field(description="Cost without a team, whatever its class.")
    unallocated_percent: Money | None = Field(
        default=None, description="Cost without a team in percent of the total; null where the total is 0."
    )


class Overview(ResponseModel):
    """Overview of a month."""

    month: str | None = Field(default=None, description="The invoice month; null while nothing is published.")
    months: list[str] = Field(description="Months with published figures, oldest first.")
    timezone: str = Field(description="The reporting timezone.")
    view: View = Field(description="Whether cost is shown by initiator or by executor.")
    basis: Basis = Field(description="Cost column shown.")
    totals: list[MonthTotal] = Field(description="Totals, one row for each currency.")
    classes: list[ClassTotal] = Field(description="Cost by cost class and basis.")
    teams: list[Spender] = Field(description="Teams by cost, highest first.")
    agents: list[Spender] = Field(description="Agents by cost, highest first.")
    unallocated: list[ReasonTotal] = Field(description="Cost without a team by class and reason, highest first.")
    unpriced_agents: list[str] = Field(
        default_factory=list, description="Agents with unpriced calls, whose cost is missing from all figures."
    )
    alerts: list[AlertRow] = Field(description="The newest alerts.")
    problems: int = Field(description="Number of rows in `problems`.")
