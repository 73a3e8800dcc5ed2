"""Models of statements: what a month books to a team, and why."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.models.base import Money, RequestModel, ResponseModel, describe
from api.models.comparisons import Effect
from ledger.tables import COSTS


class StatementTotal(ResponseModel):
    """The total in one currency. `booked` is the sum of the lines; `exact` the sum of the ledger; the change since the month before is exact."""

    currency: str = Field(description="Billing currency.")
    booked: Money = Field(description="What is booked, in the smallest unit of the currency.")
    exact: Money = Field(description="The same to the last digit, FOCUS BilledCost.")
    rounding: Money = Field(description="Booked minus exact.")
    adjustments: Money = Field(description="The part of `booked` that adjusts what was booked at the close.")
    effective: Money = Field(description="FOCUS EffectiveCost of the month, estimates included.")
    estimated: Money = Field(description="The part of `effective` that is estimated: it is on no bill, and not booked.")
    previous: Money | None = Field(description="`exact` of the month before; null where nothing is known of it.")
    change: Money | None = Field(description="`exact` minus `previous`.")


class StatementLine(ResponseModel):
    """What one document books of one invoice and class."""

    document: str = Field(description="Number of the document; of a month that is not closed, its own.")
    kind: Literal["actual", "adjustment", "provisional"] = Field(description="Kind of the document.")
    adjusts: str | None = Field(description="The document that it adjusts.")
    cause: str = Field(description="`close`, or what changed since.")
    currency: str = Field(description=describe(COSTS, "currency"))
    provider: str = Field(description=describe(COSTS, "provider"))
    invoice_id: str = Field(description=describe(COSTS, "invoice_id"))
    cost_class: str = Field(description=describe(COSTS, "cost_class"))
    booked: Money = Field(description="What is booked.")
    exact: Money = Field(description="The exact amount.")
    rounding: Money = Field(description="Booked minus exact.")


class StatementChange(ResponseModel):
    """What one effect changed the total by since the month before; all of them sum to `change`."""

    currency: str = Field(description="Currency of the amount.")
    effect: Effect = Field(description="volume, mix, tokens_per_call, price, retries, new or gone.")
    exact: Money = Field(description="What it changed the total by.")


class StatementPool(ResponseModel):
    """The own share of a cost that several teams share."""

    currency: str = Field(description="Currency of the amounts.")
    provider: str = Field(description=describe(COSTS, "provider"))
    service: str = Field(description=describe(COSTS, "service"))
    rule: str = Field(description="The rule that divides it.")
    pool: Money = Field(description="What is divided among all teams.")
    own: Money = Field(description="The share of this team.")


class StatementAgent(ResponseModel):
    """What an agent's chains cost; the sum of all rows is `exact`."""

    agent: str = Field(description="The agent that started the work; empty: of no agent.")
    currency: str = Field(description="Currency of the amounts.")
    exact: Money = Field(description="Its billed cost.")
    calls: int = Field(description="Provider requests that it was billed for.")
    per_call: Money | None = Field(description="Metered cost per call, to 12 places; null without calls.")


class StatementTerms(ResponseModel):
    """What a statement was made from: with the ledger and the version, these give the same bytes again."""

    team: str = Field(description="The team it is of; empty: what no team has.")
    month: str = Field(description="Invoice month.")
    runs: dict[str, str] = Field(description="The run of each month that was read.")
    documents: list[str] = Field(description="Numbers of the documents it sums.")
    lines: int = Field(description="Number of lines.")
    version: str = Field(description="Version of RootCost.")


class Statement(ResponseModel):
    """What a month books to a team. Every amount is exact but `booked`, which is in cents and ties to the invoices."""

    number: str = Field(description="Number of the newest document, and the team.")
    revision: int = Field(description="How many documents it sums; 0: the month is not closed.")
    kind: Literal["showback", "chargeback"] = Field(description="chargeback: a cost center is charged.")
    state: Literal["provisional", "closed"] = Field(description="provisional: figures may still change.")
    company: str = Field(description="Who issues it.")
    team: str = Field(description="Who receives it; empty: what no team has.")
    cost_center: str | None = Field(description="Cost center it is charged to.")
    journals: list[str] = Field(description="Journals it is booked with.")
    month: str = Field(description="Invoice month.")
    period_start: date = Field(description="First day.")
    period_end: date = Field(description="Last day.")
    made_at: datetime = Field(description="When its newest document was booked, or its run published.")
    made_by: str = Field(description="Who closed the month; empty while it is not closed.")
    contact: str = Field(description="Whom to write to about it.")
    dispute_until: date | None = Field(description="Last day for that; null while it is provisional.")
    totals: list[StatementTotal] = Field(description="One for each currency.")
    lines: list[StatementLine] = Field(description="What is booked.")
    changes: list[StatementChange] = Field(description="Why it differs from the month before.")
    pools: list[StatementPool] = Field(description="Shared cost, with the own share.")
    agents: list[StatementAgent] = Field(description="By agent, highest first.")
    terms: StatementTerms = Field(description="What it was made from.")
    sha256: str = Field(default="", description="SHA-256 over the canonical JSON (RFC 8785) of all other fields.")


class StatementControl(ResponseModel):
    """Whether the statements of a month, with that of what no team has, come to the bill and the invoices."""

    currency: str = Field(description="Currency of the amounts.")
    provider: str = Field(description="Provider on the bill.")
    exact: Money = Field(description="Sum of all statements, to the last digit.")
    charges_in: Money = Field(description="Sum of the charges, from the balance of the run.")
    difference: Money = Field(description="`exact` minus `charges_in`; 0.")
    booked: Money = Field(description="Sum of what all statements book.")
    invoices: Money = Field(description="Sum of the invoices, each in the smallest unit of the currency; it equals `booked`.")


class NewStatementAnswer(RequestModel):
    """A team's answer to its statement."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"team": "Care", "month": "2026-10", "answer": "accepted", "sha256": ""}]}
    )

    team: Annotated[str, Field(max_length=256)] = Field(description="The team; empty: what no team has.")
    month: Annotated[str, Field(max_length=7)] = Field(description="Invoice month, YYYY-MM.")
    answer: Literal["accepted", "disputed"] = Field(description="accepted, or disputed with a note.")
    sha256: Annotated[str, Field(max_length=64)] = Field(
        default="",
        description="Of the statement that was read; if it has changed since, the answer is refused. Empty: whatever it is now.",
    )
    note: Annotated[str, Field(max_length=2000)] = Field(default="", description="Why; a dispute needs one.")


class StatementRow(ResponseModel):
    """One of the statements of a month."""

    team: str = Field(description="The team; empty: what no team has.")
    number: str = Field(description="Its number.")
    state: Literal["provisional", "closed"] = Field(description="provisional: figures may still change.")
    currency: str = Field(description="Currency of the amounts.")
    booked: Money = Field(description="What is booked.")
    exact: Money = Field(description="The exact amount.")
    answer: Literal["", "accepted", "disputed"] = Field(
        default="", description="The team's newest answer, if it was about these amounts; empty: it has not answered."
    )
    answered_by: str = Field(default="", description="Who answered.")
    answered_at: datetime | None = Field(default=None, description="When.")
    note: str = Field(default="", description="Why.")
