"""Models of the price book: rates, and what a list would change."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.models.base import Money, RequestModel, ResponseModel, describe
from api.models.state import ProblemRow
from ledger.tables import PRICES, PRICES_STAGED

Origin = Literal["list", "contract"]
_Text = Annotated[str, StringConstraints(max_length=512)]


class PriceKey(ResponseModel):
    """What a rate is for, and from when on."""

    origin: str = Field(description=describe(PRICES, "origin"))
    book: str = Field(description=describe(PRICES, "book"))
    provider: str = Field(description=describe(PRICES, "provider"))
    model: str = Field(description=describe(PRICES, "model"))
    meter: str = Field(description=describe(PRICES, "meter"))
    service_tier: str = Field(description=describe(PRICES, "service_tier"))
    context_above: int = Field(description=describe(PRICES, "context_above"))
    region: str = Field(description=describe(PRICES, "region"))
    currency: str = Field(description=describe(PRICES, "currency"))
    rate: Money = Field(description=describe(PRICES, "rate"))
    valid_from: datetime = Field(description=describe(PRICES, "valid_from"))
    valid_to: datetime | None = Field(default=None, description=describe(PRICES, "valid_to"))
    hours: str | None = Field(default=None, description=describe(PRICES, "hours"))


class PriceRow(PriceKey):
    """A recorded rate. Past rates never change: a new one takes over."""

    recorded_at: datetime = Field(description=describe(PRICES, "recorded_at"))
    until: datetime | None = Field(
        default=None, description="When the next rate takes over, or it ends; null: until further notice."
    )
    in_force: bool = Field(description="Whether it prices usage of this moment.")


class PriceChange(PriceKey):
    """A rate that differs from the price book."""

    change: Literal["new", "changed", "corrected"] = Field(description="corrected: another rate for the same moment.")
    old_rate: Money | None = Field(default=None, description="The rate in force before.")
    doubt: str = Field(description="Why it looks wrong; empty: it does not.")


class StagedPrice(PriceKey):
    """A rate that looks wrong: it prices nothing until somebody accepts it."""

    uri: str = Field(description=describe(PRICES_STAGED, "uri"))
    old_rate: Money | None = Field(default=None, description=describe(PRICES_STAGED, "old_rate"))
    doubt: str = Field(description=describe(PRICES_STAGED, "doubt"))


class PriceBook(ResponseModel):
    """The price book as it is now."""

    version: str = Field(description="Digest of all recorded and staged rates. A change sends it as `If-Match`.")
    rates: int = Field(description="Number of rates ever recorded.")
    staged: int = Field(description="Number of rates that wait to be accepted.")


class PricesImported(ResponseModel):
    """Result of an import of prices, or what it would be."""

    version: str = Field(description="Version of the price book after it; of a preview the one that the list was compared with.")

    preview: bool = Field(description="Whether nothing was written.")
    book: str = Field(description="Name of the list, with its version.")
    read: int = Field(description="Number of rates read.")
    added: int = Field(description="Number of rates entered.")
    changed: int = Field(description="Number of these that replace a rate in force.")
    staged: int = Field(description="Number of rates that look wrong and wait to be accepted.")
    unchanged: int = Field(description="Number of rates that are in force already.")
    missing_models: int = Field(description="Number of models that an earlier edition of the list had, and this one has not.")
    changes: list[PriceChange] = Field(description="The first 1,000 changes, those that look wrong first.")
    problems: list[ProblemRow] = Field(description="Rates that were refused.")


class StagedSelection(RequestModel):
    """Which staged rates are meant; none named: all."""

    model: _Text = Field(default="", description="Only rates of this model, as the list names it.")
    book: _Text = Field(default="", description="Only rates of this list, or of this file.")


class StagedDecision(ResponseModel):
    """What was decided about staged rates."""

    decided: int = Field(description="Number of rates accepted or rejected.")
    staged: int = Field(description="Number of rates that still wait.")
    version: str = Field(description="Version of the price book after it.")
