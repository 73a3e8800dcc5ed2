"""Shared-cost rules: those in force, their versions, changes of those of the ledger, and what others would change."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from api import queries
from api.models import RuleEffect, RuleRow, RulesDraft, RulesEffect, RuleVersionRow
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries.gate import WholeBooks
from api.queries.state import unstored_problem_rows
from ledger import registry, rule_store
from ledger.errors import ObjectMissingError, UsageError
from ledger.locks import attribution_lock
from ledger.settings import SharedRule

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl
    from sqlalchemy.orm import Session

    from ledger.db import StoredRule
    from ledger.problems import Problem

_OUTSIDE_TERMS = {"name", "priority", "valid_from", "valid_to"}
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,200}")
_PATHS = ("preview", "versions")
"""Names that paths of the API have beside those of rules."""


def in_force(books: WholeBooks) -> list[RuleRow]:
    """The rules of the settings and of the ledger, in the order in which they are tried."""
    from attribution.costs.shared_costs import by_priority
    from attribution.costs.shared_rules import rule_versions

    first_used = {f"{v.name}@{v.version}": v.recorded_at for v in reversed(rule_versions(books.whole))}
    ledger_rules = rule_store.stored_rules(books.whole)
    revisions = {id(row.rule): row.revision for row in ledger_rules}
    rules = by_priority([*books.settings.attribution.shared, *(row.rule for row in ledger_rules)])
    return [_row(rule, revisions.get(id(rule)), first_used.get(rule.label)) for rule in rules]


def rule(books: WholeBooks, name: str) -> RuleRow:
    """The rule of that name; of several in the settings file the first. Raises `ObjectMissingError` if none is in force."""
    row = next((row for row in in_force(books) if row.name == name), None)
    if row is None:
        raise ObjectMissingError("no rule has that name", where=name, remedy="GET /v1/rules lists them")
    return row


def add(books: WholeBooks, terms: Mapping[str, Any]) -> RuleRow:
    """Adds a rule to the ledger. Raises `RuleExistsError` if one of that name is in force, `UsageError` that names the key that cannot be."""
    new_rule = _named(_rule(terms))
    rule_store.add_rule(books.whole, new_rule, actor=books.principal.id)
    return rule(books, new_rule.name)


def change(books: WholeBooks, name: str, terms: Mapping[str, Any], precondition: Precondition = NOTHING_EXPECTED) -> RuleRow:
    """Changes a rule of the ledger, or adds it. Raises `RevisionError` if another version than expected is in force."""
    if terms.get("name", name) != name:
        raise UsageError("a rule keeps its name", where="name", remedy="leave it out; or add a rule and remove this one")
    changed_rule = _named(_rule({**terms, "name": name}))
    rule_store.put_rules(books.whole, [changed_rule], actor=books.principal.id, check=_check(name, precondition))
    return rule(books, name)


def put(books: WholeBooks, rules: Sequence[SharedRule]) -> list[bool]:
    """Changes rules of the ledger, or adds those that there are not, all or none; returns of each whether that changed anything."""
    return rule_store.put_rules(books.whole, [_named(new_rule) for new_rule in rules], actor=books.principal.id)


def remove(books: WholeBooks, name: str, precondition: Precondition = NOTHING_EXPECTED) -> None:
    """Removes a rule of the ledger. Raises as `change` does, and `ObjectMissingError` if there is none."""
    rule_store.remove_rule(books.whole, name, actor=books.principal.id, check=_check(name, precondition))


def _named(new_rule: SharedRule) -> SharedRule:
    """The rule, if it has a name by which it can be asked for. Raises `UsageError` for one that has not."""
    if not _NAME.fullmatch(new_rule.name) or new_rule.name in _PATHS:
        raise UsageError(
            f"{new_rule.name!r} cannot be the name of a rule of the ledger",
            where="name",
            remedy=f"printable characters without '/', and none of: {', '.join(_PATHS)}",
        )
    return new_rule


def _check(name: str, precondition: Precondition) -> rule_store.Check:
    """Raises `RevisionError`, with both versions, unless the rule in force is the expected one."""

    def check(session: Session, current: StoredRule | None) -> None:
        if precondition.holds(None if current is None else current.revision):
            return
        expected_version = rule_store.revision_terms(session, name, precondition.revisions)
        current_version = None if current is None else rule_store.terms_of(current)
        raise RevisionError(name, expected_version=expected_version, current_version=current_version)

    return check


def _row(rule: SharedRule, revision: int | None, used_since: datetime | None) -> RuleRow:
    return RuleRow(
        rule=rule.label,
        name=rule.name,
        version=rule.version,
        priority=rule.priority,
        terms=rule.model_dump(mode="json", exclude_defaults=True, exclude=_OUTSIDE_TERMS),
        valid_from=rule.valid_from,
        valid_to=rule.valid_to,
        used_since=used_since,
        origin="settings" if revision is None else "ledger",
        revision=revision,
    )


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

    settings = rule_store.settings_in_force(books.whole).attribution
    proposed_settings = settings if rules is None else settings.model_copy(update={"shared": list(rules)})
    proposed_costs = computed(books.whole, month, proposed_settings)
    current_costs = _published(books, month) if rules is None else computed(books.whole, month, settings)
    found_problems = problems(books, proposed_settings.shared, uri=uri, month=month)
    return Comparison(compare_costs(current_costs, proposed_costs), found_problems)


def preview(books: WholeBooks, draft: RulesDraft) -> RulesEffect:
    """What other rules would change of a month. Raises `UsageError` that names the rule and the field that cannot be."""
    rules = _proposed_rules(books, draft)
    with attribution_lock(books.whole):
        comparison = compare(books, draft.month, rules, uri="rules")
    return RulesEffect(
        rows=[RuleEffect.model_validate(row) for row in comparison.frame.iter_rows(named=True)],
        problems=unstored_problem_rows(comparison.problems),
    )


def with_changes(books: WholeBooks, new_terms: Sequence[SharedRule], removed_names: Sequence[str]) -> list[SharedRule]:
    """The rules in force, as they would be after changes. Raises `UsageError` for a removed name that none has."""
    rules = list(rule_store.settings_in_force(books.whole).attribution.shared)
    names = {rule.name for rule in rules}
    for number, name in enumerate(removed_names):
        if name not in names:
            raise UsageError("no rule in force has that name", where=f"removed.{number}", remedy="GET /v1/rules lists them")
    places = {rule.name: place for place, rule in reversed(list(enumerate(rules)))}
    new_rules = [rule for rule in new_terms if rule.name not in places]
    for rule in new_terms:
        if rule.name in places:
            rules[places[rule.name]] = rule
    return [rule for rule in rules if rule.name not in removed_names] + new_rules


def _proposed_rules(books: WholeBooks, draft: RulesDraft) -> list[SharedRule] | None:
    if draft.rules is not None:
        if draft.changed or draft.removed:
            raise UsageError("goes without `changed` and `removed`", where="rules", remedy="send one or the other")
        return _rules("rules", draft.rules)
    if not draft.changed and not draft.removed:
        return None
    return with_changes(books, _rules("changed", draft.changed), draft.removed)


def _rules(field: str, drafts: Sequence[dict[str, Any]]) -> list[SharedRule]:
    return [_rule(terms, field, str(number)) for number, terms in enumerate(drafts)]


def _rule(terms: Mapping[str, Any], *place: str) -> SharedRule:
    try:
        return SharedRule.model_validate_json(json.dumps(terms), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            first["msg"].removeprefix("Value error, "),
            where=".".join([*place, *map(str, first["loc"])]),
            remedy="docs/configuration.md lists the keys of [[attribution.shared]]",
        ) from error


def _published(books: WholeBooks, month: str) -> pl.DataFrame:
    from ledger.tables import COSTS

    runs = {m.month: m.run_id for m in queries.published(books)}
    return books.whole.store.scan(COSTS, {"month": [month], "run_id": [runs.get(month, "")]}).collect()
