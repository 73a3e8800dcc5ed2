"""Models of an explanation: how a figure was computed, step by step, each with the rule it follows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.models.base import Basis, Money, ResponseModel, View


class Link(ResponseModel):
    """A reference to another figure that can be explained."""

    kind: Literal["chain", "call", "charge", "cell"] = Field(description="Kind of figure.")
    ref: str = Field(description="Id of the figure; of a cell: the query of its report, as for `GET /v1/costs`.")
    address: str = Field(description="Path of the GET request that explains it.")


class Part(ResponseModel):
    """One line of a step."""

    sentence: str = Field(description="The line in words.")
    cost: Money | None = Field(default=None, description="Its part of the figure; null where it has no amount.")
    currency: str | None = Field(default=None, description="Currency of `cost`.")
    facts: dict[str, Any] = Field(default_factory=dict, description="The values behind the sentence.")
    link: Link | None = Field(default=None, description="Reference to its own explanation.")


class Remainder(ResponseModel):
    """Lines of a step that are counted and summed but not listed."""

    count: int | None = Field(default=None, description="Number of lines; null where they were not counted.")
    cost: dict[str, Money] = Field(default_factory=dict, description="Their sum by currency.")


class Step(ResponseModel):
    """One step of an explanation."""

    step: str = Field(
        description="charge, estimate, pool, rate, usage, call, span, executor, initiator, owner, class, run, balance …"
    )
    rule: str = Field(description="Ids of the rules it follows: RA-1, CA-1, …; for shared cost, the rule of the settings.")
    sentence: str = Field(description="The step in words.")
    facts: dict[str, Any] = Field(default_factory=dict, description="The values behind the sentence.")
    parts: list[Part] = Field(default_factory=list, description="Its lines by cost, highest first, at most `most` of them.")
    rest: Remainder | None = Field(default=None, description="The lines that are not listed.")
    sum: dict[str, Money] = Field(
        default_factory=dict,
        description="Sum of parts and rest by currency, where they add up to the figure; `charge` and `estimate` add up to it together.",
    )
    links: list[Link] = Field(default_factory=list, description="References to related figures.")


class Explanation(ResponseModel):
    """A figure with its derivation: charge → pool → rate → call → span → executor → initiator → owner → rule → run."""

    ref: str = Field(description="Id of the explained figure.")
    kind: Literal["chain", "call", "charge", "cell"] = Field(description="Kind of figure.")
    view: View = Field(default="initiator", description="Whether a cell is the cost of initiators or of executors.")
    basis: Basis = Field(default="effective", description="FOCUS cost column of the figure.")
    cost: dict[str, Money] = Field(description="The figure by currency.")
    billed: dict[str, Money] = Field(description="Part of the figure that bills cover, by currency.")
    estimated: dict[str, Money] = Field(
        description="Part of the figure that no bill covers yet, priced from the price book, by currency."
    )
    steps: list[Step] = Field(description="The steps, in order.")
