"""Models of what people enter: exchange rates, and owners of names."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from api.models.base import Money, RequestModel, ResponseModel, describe
from api.models.state import AgentRow, ProblemRow
from ledger.tables import EXCHANGE_RATES

_TEXT = r"^[^\x00-\x1f\x7f;]+$"
_Name = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_TEXT)]
_Team = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_TEXT)]
_Instant = Annotated[str, StringConstraints(min_length=4, max_length=40)]


class ExchangeRate(ResponseModel):
    """The rate of a pair of currencies on a day. It applies until the next one, for 31 days at most."""

    from_currency: str = Field(description=describe(EXCHANGE_RATES, "from_currency"))
    to_currency: str = Field(description=describe(EXCHANGE_RATES, "to_currency"))
    day: date = Field(description="Day of the rate.")
    rate: Money = Field(description=describe(EXCHANGE_RATES, "rate"))
    source: str = Field(description=describe(EXCHANGE_RATES, "source"))


class RatesImported(ResponseModel):
    """Result of an import of exchange rates, or what it would be."""

    preview: bool = Field(description="Whether nothing was written.")
    added: int = Field(description="Number of new rates.")
    changed: int = Field(description="Number of these that replace a rate of the same pair and day.")
    unchanged: int = Field(description="Number of rates that are in force already.")
    problems: list[ProblemRow] = Field(description="Lines that were left out.")


class AgentEntry(RequestModel):
    """An agent with its team and its other names, in force from an instant on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"agent": "support-bot", "team": "Growth", "valid_from": "2026-12-01", "services": ["support-api"]}]
        }
    )

    agent: _Name = Field(description="Name of the agent.")
    team: _Team = Field(description="The team that owns it.")
    valid_from: _Instant | None = Field(default=None, description="First day or instant of it; none: always.")
    valid_to: _Instant | None = Field(default=None, description="First day or instant after it; none: until further notice.")
    aliases: list[_Name] = Field(default_factory=list, max_length=1000, description="Other names of the agent.")
    credentials: list[_Name] = Field(default_factory=list, max_length=1000, description="Its API keys, as logs name them.")
    principals: list[_Name] = Field(default_factory=list, max_length=1000, description="Its principals on bills.")
    services: list[_Name] = Field(default_factory=list, max_length=1000, description="Its services, as spans name them.")
    resources: list[_Name] = Field(default_factory=list, max_length=1000, description="Its resources on bills.")
    account: _Team | None = Field(default=None, description="Usage account of the agent.")
    region: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_TEXT)] | None = Field(
        default=None, description="Region of the agent."
    )


class OwnerRecord(AgentRow):
    """The owner of a name as it was recorded. Of records that overlap the later recorded one holds."""

    recorded_at: datetime = Field(description="When it was recorded.")
