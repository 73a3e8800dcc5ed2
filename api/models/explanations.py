"""Why a figure is what it is: the way of its dollars, step by step, each with the rule it follows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.models.base import Basis, Money, ResponseModel, View


class Link(ResponseModel):
    """Another figure that can be asked about in the same way."""

    kind: Literal["chain", "call", "charge", "cell"] = Field(description="What it is.")
    ref: str = Field(description="Its id; of a cell: the query of its report, as `GET /v1/costs` takes it.")
    address: str = Field(description="The GET that explains it.")


class Part(ResponseModel):
    """One line of a step."""

    sentence: str = Field(description="What it is, in words.")
    cost: Money | None = Field(default=None, description="Its part of the figure; null where it has none of its own.")
    currency: str | None = Field(default=None, description="Currency of `cost`.")
    facts: dict[str, Any] = Field(default_factory=dict, description="The row it is told from.")
    link: Link | None = Field(default=None, description="Where it is explained itself.")


class Remainder(ResponseModel):
    """Lines of a step that are counted but not listed."""

    count: int | None = Field(default=None, description="How many; null where counting them would mean reading all of them.")
    cost: dict[str, Money] = Field(default_factory=dict, description="Currency to what they come to.")


class Step(ResponseModel):
    """One step on the way of a dollar."""

    step: str = Field(
        description="charge, estimate, pool, rate, usage, call, span, executor, initiator, owner, class, run, balance …"
    )
    rule: str = Field(description="The rules it follows, by name: RA-1, CA-1 …; of shared cost, the rule of the settings.")
    sentence: str = Field(description="What happened, in words.")
    facts: dict[str, Any] = Field(default_factory=dict, description="What the sentence is told from.")
    parts: list[Part] = Field(default_factory=list, description="Its lines, dearest first, at most as many as were asked for.")
    rest: Remainder | None = Field(default=None, description="The lines beyond those.")
    sum: dict[str, Money] = Field(
        default_factory=dict,
        description="Currency to the sum of parts and rest, where they divide the figure; `charge` and `estimate` divide it between them.",
    )
    links: list[Link] = Field(default_factory=list, description="Where the step leads.")


class Explanation(ResponseModel):
    """A figure and the way of its dollars: charge → pool → rate → call → span → executor → initiator → owner → rule → run."""

    ref: str = Field(description="What was asked about.")
    kind: Literal["chain", "call", "charge", "cell"] = Field(description="What it is.")
    view: View = Field(default="initiator", description="Whose cost a cell is about: its starter's or its runner's.")
    basis: Basis = Field(default="effective", description="The FOCUS cost column explained.")
    cost: dict[str, Money] = Field(description="Currency to the figure.")
    billed: dict[str, Money] = Field(description="The part of it that a bill covers.")
    estimated: dict[str, Money] = Field(description="The part no bill covers yet, priced from the price book.")
    steps: list[Step] = Field(description="The way, in order.")
