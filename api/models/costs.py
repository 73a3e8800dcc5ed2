"""Money by dimension, the balance, and a month at a glance."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from api.models.base import Basis, Granularity, Money, ResponseModel, View, describe
from api.models.state import AlertRow
from ledger.tables import BALANCE, COSTS


class CostRow(BaseModel):
    """Money of one group. Beside these fields it has one text field for each dimension asked for with `by`."""

    model_config = ConfigDict(extra="allow")

    period_start: str | None = Field(
        default=None, description="Start of the hour, day or month, ISO 8601 with offset; null for `total`."
    )
    cost_class: str = Field(description=describe(COSTS, "cost_class"))
    reason: str | None = Field(default=None, description=describe(COSTS, "reason"))
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money | None = Field(default=None, description="Sum of the cost column; null where nothing in the group is priced.")

    def get(self, dimension: str) -> str | None:
        """Value of a dimension of `by`, e.g. ``row.get("team")``; None where it is unknown."""
        value = getattr(self, dimension, None)
        return None if value is None else str(value)


class RateUsed(ResponseModel):
    """An exchange rate that figures of another currency were made with."""

    day: date = Field(description="Day whose amounts it was applied to.")
    source: str = Field(description="Currency on the bill.")
    target: str = Field(description="Currency asked for.")
    rate: str = Field(
        description="The rate, the day it was published for, and by whom; two, where a third currency lies between."
    )


class CostTable(ResponseModel):
    """Costs grouped as asked. Rows of different currencies are never summed."""

    by: list[str] = Field(description="Dimensions of the rows.")
    view: View = Field(description="What `agent` and `team` stand for.")
    basis: Basis = Field(description="Cost column that was summed.")
    granularity: Granularity = Field(description="How time was cut.")
    timezone: str = Field(description="Timezone of days and months.")
    start: datetime | None = Field(default=None, description="First instant counted.")
    end: datetime | None = Field(default=None, description="First instant not counted.")
    runs: dict[str, str] = Field(description="Month to the published run its figures come from.")
    totals: dict[str, Money] = Field(description="Sum of the rows, for each currency.")
    rows: list[CostRow] = Field(description="The groups, by time, then by cost.")
    rates: list[RateUsed] = Field(
        default_factory=list,
        description="Exchange rates applied, one for each currency and day; only where `currency` was asked for.",
    )


class BalanceRow(ResponseModel):
    """Control totals: charges in = metered + owner + shared + idle + unallocated; `difference` is 0. (MO-2)"""

    currency: str = Field(description=describe(BALANCE, "currency"))
    invoice_month: str = Field(description=describe(BALANCE, "invoice_month"))
    provider: str = Field(description=describe(BALANCE, "provider"))
    cost_column: str = Field(description=describe(BALANCE, "cost_column"))
    charges_in: Money = Field(description=describe(BALANCE, "charges_in"))
    metered: Money = Field(description=describe(BALANCE, "metered"))
    owner: Money = Field(description=describe(BALANCE, "owner"))
    shared: Money = Field(description=describe(BALANCE, "shared"))
    idle: Money = Field(description=describe(BALANCE, "idle"))
    unallocated: Money = Field(description=describe(BALANCE, "unallocated"))
    difference: Money = Field(description=describe(BALANCE, "difference"))
    rounding: Money = Field(description=describe(BALANCE, "rounding"))


class ClassTotal(ResponseModel):
    """A month's money in one class."""

    currency: str = Field(description=describe(COSTS, "currency"))
    cost_class: str = Field(description=describe(COSTS, "cost_class"))
    basis: str = Field(description=describe(COSTS, "basis"))
    cost: Money = Field(description="Its sum.")


class Spender(ResponseModel):
    """A team or agent of a month, next to the month before."""

    name: str | None = Field(default=None, description="Team or agent; null: nobody known.")
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Cost in the month.")
    previous: Money = Field(description="Cost in the month before.")
    change: Money = Field(description="cost minus previous.")
    share_percent: Money | None = Field(
        default=None, description="Percent of the month's total in this currency; null where that is 0."
    )


class ReasonTotal(ResponseModel):
    """Unallocated money of a month, by why."""

    reason: str | None = Field(default=None, description=describe(COSTS, "reason"))
    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Its sum.")


class MonthTotal(ResponseModel):
    """A month's whole money in one currency, next to the month before."""

    currency: str = Field(description=describe(COSTS, "currency"))
    cost: Money = Field(description="Everything, allocated or not.")
    previous: Money = Field(description="The same in the month before.")
    change: Money = Field(description="cost minus previous.")
    billed: Money = Field(description="What bills cover.")
    estimated: Money = Field(description="What no bill covers yet.")
    unallocated: Money = Field(description="What nobody is known to have caused.")
    unallocated_percent: Money | None = Field(default=None, description="The same in percent; null where the total is 0.")


class Overview(ResponseModel):
    """A month at a glance."""

    month: str | None = Field(default=None, description="The month, in the reporting timezone; null while nothing is published.")
    months: list[str] = Field(description="Months with published figures, oldest first.")
    timezone: str = Field(description="The reporting timezone.")
    view: View = Field(description="Whose cost teams and agents are shown with.")
    basis: Basis = Field(description="Cost column shown.")
    totals: list[MonthTotal] = Field(description="One row a currency.")
    classes: list[ClassTotal] = Field(description="By cost class and basis.")
    teams: list[Spender] = Field(description="Teams, dearest first.")
    agents: list[Spender] = Field(description="Agents, dearest first.")
    unallocated: list[ReasonTotal] = Field(description="Unallocated cost by reason, dearest first.")
    unpriced_agents: list[str] = Field(
        default_factory=list, description="Agents with calls no price is known for: what those cost is missing from all figures."
    )
    alerts: list[AlertRow] = Field(description="Newest alerts.")
    problems: int = Field(description="Rows in `problems`.")
