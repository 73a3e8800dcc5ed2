"""Shared-cost rules: those of the settings, their versions, and what others would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from api import queries
from api.models import RuleEffect, RuleRow, RulesDraft, RulesEffect, RuleVersionRow
from api.queries.gate import WholeBooks
from api.queries.state import unstored_problem_rows
from ledger import registry
from ledger.errors import UsageError
from ledger.locks import attribution_lock
from ledger.settings import SharedRule

if TYPE_CHECKING:
    import polars as pl

    from ledger.problems import Problem

_OUTSIDE_TERMS = {"name", "priority", "valid_from", "valid_to"}


def in_force(books: WholeBooks) -> list[RuleRow]:
    """The rules of the settings, in the order in which they are tried."""
    from attribution.costs.shared_costs import by_priority
    from attribution.costs.shared_rules import rule_versions

    first_used = {f"{v.name}@{v.version}": v.recorded_at for v in reversed(rule_versions(books.whole))}
    return [
        RuleRow(
            rule=rule.label,
            name=rule.name,
            version=rule.version,
            priority=rule.priority,
            terms=rule.model_dump(mode="json", exclude_defaults=True, exclude=_OUTSIDE_TERMS),
            valid_from=rule.valid_from,
            valid_to=rule.valid_to,
            used_since=first_used.get(rule.label),
        )
        for rule in by_priority(books.settings.attribution.shared)
    ]


def versions(books: WholeBooks) -> list[RuleVersionRow]:
    """Every version that a run ever used, oldest first."""
    from attribution.costs.shared_rules import rule_versions

    return [
        RuleVersionRow(rule=f"{v.name}@{v.version}", recorded_at=v.recorded_at, terms=v.definition)
        for v in rule_versions(books.whole)
    ]


def problems(books: WholeBooks, rules: Sequence[SharedRule], *, uri: str, month: str | None = None) -> list[Problem]:
    """What is wrong with rules: those of a month, or all."""
    from attribution.costs.shared_costs import by_priority
    from attribution.costs.shared_rules import check, known_teams

    spending = queries.costs(books, queries.CostQuery(by=("initiator_team", "cost_class")))
    timeline = registry.timeline(registry.rows(books.whole))
    registered_teams = timeline["team"].drop_nulls().unique()
    ordered_rules = by_priority(list(rules))
    return check(ordered_rules, known_teams(timeline, spending), uri=uri, month=month, registered_teams=registered_teams)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each team pays now and would pay, and what is wrong with the rules."""

    frame: pl.DataFrame
    problems: list[Problem]


def compare(books: WholeBooks, month: str, rules: Sequence[SharedRule] | None, *, uri: str) -> Comparison:
    """A month under other rules; without any, under those in force against what is published. Nothing is published.

    The caller holds the attribution lock.
    """
    from attribution.costs.shared_rules import compare_costs
    from attribution.run import preview as computed

    settings = books.settings.attribution
    proposed_settings = settings if rules is None else settings.model_copy(update={"shared": list(rules)})
    proposed_costs = computed(books.whole, month, proposed_settings)
    current_costs = _published(books, month) if rules is None else computed(books.whole, month, settings)
    found_problems = problems(books, proposed_settings.shared, uri=uri, month=month)
    return Comparison(compare_costs(current_costs, proposed_costs), found_problems)


def preview(books: WholeBooks, draft: RulesDraft) -> RulesEffect:
    """What other rules would change of a month. Raises `UsageError` that names the rule and the field that cannot be."""
    rules = None if draft.rules is None else [_rule(number, terms) for number, terms in enumerate(draft.rules)]
    with attribution_lock(books.whole):
        comparison = compare(books, draft.month, rules, uri="rules")
    return RulesEffect(
        rows=[RuleEffect.model_validate(row) for row in comparison.frame.iter_rows(named=True)],
        problems=unstored_problem_rows(comparison.problems),
    )


def _rule(number: int, terms: dict[str, Any]) -> SharedRule:
    try:
        return SharedRule.model_validate(terms)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            first["msg"].removeprefix("Value error, "),
            where=".".join(["rules", str(number), *map(str, first["loc"])]),
            remedy="docs/configuration.md lists the keys of [[attribution.shared]]",
        ) from error


def _published(books: WholeBooks, month: str) -> pl.DataFrame:
    from ledger.tables import COSTS

    runs = {m.month: m.run_id for m in queries.published(books)}
    return books.whole.store.scan(COSTS, {"month": [month], "run_id": [runs.get(month, "")]}).collect()
