"""Models of evidence: what a month's money stands on, how emitters count, and findings with their money."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.models.base import Basis, Money, ResponseModel, describe
from ledger.tables import COUNT_EVIDENCE, PROBLEMS

EvidenceClass = Literal["evidence", "table", "inference", "nothing"]
"""evidence: a record or a bill proves it; table: the emitter table, the price list or a rule of yours says it; inference: it follows from other
records; nothing: nobody is known who caused it, or what it costs."""
EvidenceSection = Literal["figure", "emitters", "findings"]


class EvidenceSums(ResponseModel):
    """Money that stands on one thing."""

    evidence: EvidenceClass = Field(
        description="evidence: a record or the bill proves it; table: the emitter table, the price list or a rule of yours says it; inference: "
        "it follows from other records; nothing: nobody is known who caused it, or what it costs."
    )
    currency: str = Field(description="Currency of the costs.")
    cost: Money = Field(description="The money, in the cost column asked for.")
    cost_billed: Money = Field(description="Its part from bills.")
    cost_estimated: Money = Field(description="Its part that no bill covers yet.")
    rows: int = Field(description="Rows of costs, and parts of rows.")
    rows_without_cost: int = Field(description="Those whose cost is not known; they are in no sum.")
    calls_without_cost: int = Field(
        description="Calls whose money is not known: unpriced ones, and those that a bill covers and does not name."
    )


class EvidencePart(EvidenceSums):
    """One of the four parts of a month's money; they sum to its total."""

    percent: Money | None = Field(description="Share of the total, in percent.")


class EvidenceRow(EvidenceSums):
    """What decides a part of the money's evidence: a value of a column of costs, or how counts are read."""

    column: str = Field(description="cost_class, basis, method, reason, or reading: how the counts were read.")
    value: str = Field(description="The value that decides.")
    emitter: str | None = Field(description="Of reading: the emitter.")
    emitter_version: str | None = Field(description="Of reading: version of its instrumentation scope.")
    meaning: str = Field(description="What that means, in a sentence.")
    remedy: str = Field(description="What would make it stronger.")


class EmitterRow(ResponseModel):
    """How an emitter counts: calls of one emitter, version, source, provider and model."""

    emitter: str | None = Field(description=describe(COUNT_EVIDENCE, "emitter"))
    emitter_version: str | None = Field(description=describe(COUNT_EVIDENCE, "emitter_version"))
    source: str | None = Field(description=describe(COUNT_EVIDENCE, "source"))
    provider: str | None = Field(description=describe(COUNT_EVIDENCE, "provider"))
    model: str | None = Field(description=describe(COUNT_EVIDENCE, "model"))
    calls: int = Field(description=describe(COUNT_EVIDENCE, "calls"))
    tokens: int | None = Field(description=describe(COUNT_EVIDENCE, "tokens"))
    list_cost: Money | None = Field(description=describe(COUNT_EVIDENCE, "list_cost"))
    table_calls: int | None = Field(description=describe(COUNT_EVIDENCE, "table_calls"))
    assumed_calls: int = Field(description=describe(COUNT_EVIDENCE, "assumed_calls"))
    assumed_cost: Money | None = Field(description=describe(COUNT_EVIDENCE, "assumed_cost"))
    contradicted_calls: int = Field(description=describe(COUNT_EVIDENCE, "contradicted_calls"))
    contradicted_cost: Money | None = Field(description=describe(COUNT_EVIDENCE, "contradicted_cost"))
    total_calls: int | None = Field(description=describe(COUNT_EVIDENCE, "total_calls"))
    agreeing_total_calls: int | None = Field(description=describe(COUNT_EVIDENCE, "agreeing_total_calls"))
    compared_calls: int = Field(description=describe(COUNT_EVIDENCE, "compared_calls"))
    compared_cost: Money | None = Field(description=describe(COUNT_EVIDENCE, "compared_cost"))
    reported_cost: Money | None = Field(description=describe(COUNT_EVIDENCE, "reported_cost"))
    echo_spans: int | None = Field(default=None, description=describe(COUNT_EVIDENCE, "echo_spans"))
    echo_cost: Money | None = Field(default=None, description=describe(COUNT_EVIDENCE, "echo_cost"))
    wrapper_spans: int | None = Field(default=None, description=describe(COUNT_EVIDENCE, "wrapper_spans"))
    wrapper_cost: Money | None = Field(default=None, description=describe(COUNT_EVIDENCE, "wrapper_cost"))
    wrapper_excess_spans: int | None = Field(default=None, description=describe(COUNT_EVIDENCE, "wrapper_excess_spans"))
    wrapper_excess_cost: Money | None = Field(default=None, description=describe(COUNT_EVIDENCE, "wrapper_excess_cost"))


class FindingRow(ResponseModel):
    """Something that a run or an import noticed, with its money and what to do."""

    finding: str = Field(description="Its name: count_contradiction, reported_cost_differs, provider_inferred, …")
    place: str = Field(description=describe(PROBLEMS, "place"))
    description: str = Field(description=describe(PROBLEMS, "reason"))
    remedy: str = Field(description=describe(PROBLEMS, "remedy"))
    severity: str = Field(description=describe(PROBLEMS, "severity"))
    rows: int = Field(description=describe(PROBLEMS, "rows"))
    cost: Money | None = Field(description=describe(PROBLEMS, "cost"))
    currency: str | None = Field(description=describe(PROBLEMS, "currency"))
    month: str | None = Field(description="Invoice month of the run that noticed it; null: noticed on import.")
    source: str = Field(description=describe(PROBLEMS, "source"))


class Evidence(ResponseModel):
    """What a month's money stands on. The parts of a currency sum to its total, which is that of `/v1/costs`."""

    months: list[str] = Field(description="Published months, oldest first.")
    month: str | None = Field(description="The invoice month, or all; null where nothing is published.")
    basis: Basis = Field(description="FOCUS cost column that is summed.")
    timezone: str = Field(description="Reporting timezone.")
    totals: dict[str, Money] = Field(description="Cost by currency.")
    parts: list[EvidencePart] = Field(description="Evidence, table, inference and nothing, of each currency.")
    rows: list[EvidenceRow] = Field(description="The parts by what decides them.")
    emitters: list[EmitterRow] = Field(
        description="How each emitter counts; calls of the same months in UTC, money at list prices."
    )
    findings: list[FindingRow] = Field(description="What was noticed, dearest first.")
