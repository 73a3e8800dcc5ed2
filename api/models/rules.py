"""Models of shared-cost rules: those in force, their versions, and what others would change."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema

from api.models.base import Money, RequestModel, ResponseModel
from api.models.state import ProblemRow
from ledger.settings import SharedRule


class RuleRow(ResponseModel):
    """A shared-cost rule. Rules are tried in this order."""

    rule: str = Field(description="Label of the rule on every cost it makes: name@version.")
    name: str = Field(description="Name of the rule.")
    version: str = Field(description="Digest of its terms: another one, other terms.")
    priority: int = Field(description="Rules of higher priority are tried first.")
    terms: dict[str, Any] = Field(description="Its conditions and its split, as docs/configuration.md lists them.")
    valid_from: date = Field(description="First charge day it holds for.")
    valid_to: date | None = Field(default=None, description="First charge day it no longer holds for; null: open.")
    used_since: datetime | None = Field(default=None, description="When a run first used this version; null: none has.")
    origin: Literal["settings", "ledger"] = Field(
        default="settings",
        description="settings: written in rootcost.toml, and changed there; ledger: changed over the API or by command.",
    )
    revision: int | None = Field(default=None, description="Revision of a rule of the ledger; a change of it names it.")


class RuleVersionRow(ResponseModel):
    """A version of a rule as a run first used it."""

    rule: str = Field(description="Label of the rule: name@version.")
    recorded_at: datetime = Field(description="When a run first used it.")
    terms: dict[str, Any] = Field(description="Its whole definition.")


def _terms_schema(*names: str) -> dict[str, Any]:
    schema = SharedRule.model_json_schema()
    return {**schema, "required": list(names), "examples": [{"name": "support", "service": "AWS Support", "method": "even"}]}


NewRule = Annotated[dict[str, Any], WithJsonSchema(_terms_schema("name"))]
"""A rule with the keys of [[attribution.shared]]. What cannot be is refused with a sentence that names the key."""
RuleTerms = Annotated[dict[str, Any], WithJsonSchema(_terms_schema())]
"""The same of a rule whose name is in the path."""


class RulesDraft(RequestModel):
    """Rules to try on a month: other ones than those in force (`rules`), or those in force with some changed or removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"month": "2026-10", "rules": [{"name": "support", "service": "AWS Support", "method": "even"}]}]
        }
    )

    month: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}$")] = Field(description="Invoice month to try them on.")
    rules: list[dict[str, Any]] | None = Field(
        default=None,
        max_length=1000,
        description="The rules instead of those in force, with the keys of [[attribution.shared]]; none: those in force, against what is published.",
    )
    changed: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=1000,
        description="Rules that come to those in force; one of the same name takes the place of the one in force.",
    )
    removed: list[str] = Field(default_factory=list, max_length=1000, description="Names of rules in force that are left out.")


class RuleEffect(ResponseModel):
    """What a team pays of a class of costs now, and would pay."""

    team: str | None = Field(default=None, description="The team; null: nobody.")
    cost_class: str = Field(description="Class of the cost.")
    currency: str = Field(description="Currency.")
    now: Money = Field(description="Effective cost now.")
    then: Money = Field(description="Effective cost by the rules that are tried.")
    change: Money = Field(description="Then minus now. Of a currency they sum to 0, if rules are given.")


class RulesEffect(ResponseModel):
    """What rules would change. Nothing is published."""

    rows: list[RuleEffect] = Field(description="Only what differs, the largest change first.")
    problems: list[ProblemRow] = Field(description="What is wrong with the rules.")
