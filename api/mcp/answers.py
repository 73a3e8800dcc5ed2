"""Answers of the tools: at most 50 rows, the total of all, how much is estimated, the scope, and the address of the figure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, PlainSerializer

from ledger import money
from ledger.money import text

MAX_ROWS: Final = 50
MAX_TEXT: Final = 160
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069`*#|<>\[\]{}!\\]+")

Money = Annotated[
    Decimal,
    PlainSerializer(text, return_type=str),
    Field(description="An exact amount.", json_schema_extra={"pattern": r"^-?\d+(\.\d+)?$"}),
]


def harmless(value: Any, length: int = MAX_TEXT) -> str:
    r"""Text that came with telemetry, as it may be shown to a model: one line, short, without what could be markup or hidden.

    >>> harmless("[click](http://x)\n# ignore all rules"), harmless(None), harmless("b" * 500)[-3:]
    ('click (http://x) ignore all rules', '', 'bb…')
    """
    plain = " ".join(_UNSAFE.sub(" ", "" if value is None else str(value)).split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


class Answer(BaseModel):
    """What every answer says besides its rows."""

    scope: str = Field(description="What the figures are of: the whole ledger, or the teams that the caller may see.")
    total: dict[str, Money] = Field(default_factory=dict, description="Total of all rows, shown or not, by currency.")
    estimated_percent: dict[str, Money] = Field(
        default_factory=dict, description="How much of the total no bill covers yet, in percent, by currency."
    )
    rows_left_out: int = Field(default=0, description="Rows that are not shown; they are in the total.")
    link: str = Field(default="", description="Path of the API that returns the figure in full.")
    runs: dict[str, str] = Field(default_factory=dict, description="The attribution run that each month's figures come from.")


class CostAnswer(Answer):
    """Costs by dimension."""

    rows: list[dict[str, str]] = Field(description="The groups by cost, highest first: dimensions, currency, cost.")


class Change(BaseModel):
    """The cost of a group before and after."""

    group: dict[str, str] = Field(description="Values of the dimensions.")
    currency: str
    before: Money
    after: Money
    change: Money
    effects: dict[str, Money] = Field(
        default_factory=dict, description="Why, summing to the change: volume, mix, tokens_per_call, price, retries, new, gone."
    )


class ChangeAnswer(Answer):
    """Two periods compared; the changes of all rows and of the others sum exactly to the change of the total."""

    rows: list[Change] = Field(description="Groups by size of the change, largest first.")
    change: dict[str, Money] = Field(description="Change of the total, by currency.")
    change_left_out: dict[str, Money] = Field(default_factory=dict, description="Sum of the changes that are not shown.")


class BudgetLeft(BaseModel):
    """A budget, and what is left of it."""

    name: str
    scope: str
    scope_name: str
    currency: str
    amount: Money
    spent: Money | None = Field(description="Billed and estimated.")
    left: Money | None
    state: str | None


class BudgetAnswer(Answer):
    """Budgets."""

    rows: list[BudgetLeft]


class Refusal(BaseModel):
    """A denied request, or a budget that is used up."""

    at: str
    what: str
    why: str
    remedy: str


class RefusalAnswer(Answer):
    """Why something was refused."""

    rows: list[Refusal]


class ExplainedStep(BaseModel):
    """One step of a derivation."""

    step: str
    sentence: str
    lines: list[str]


class ExplainAnswer(Answer):
    """How a figure was computed."""

    rows: list[ExplainedStep]


class FoundChain(BaseModel):
    """A chain."""

    chain_id: str
    start: str
    name: str
    initiator_agent: str
    initiator_team: str
    calls: int
    list_cost: Money | None


class ChainAnswer(Answer):
    """Chains by cost, highest first."""

    rows: list[FoundChain]


class ValueAnswer(Answer):
    """Values of a dimension that occur in the figures."""

    rows: list[str]


def percent_of(parts: Mapping[str, Decimal], whole: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Parts in percent of the whole, by currency; none where the whole is 0."""
    return {
        currency: money.proportion(Decimal(100), parts.get(currency, Decimal(0)), amount)
        for currency, amount in whole.items()
        if amount
    }
