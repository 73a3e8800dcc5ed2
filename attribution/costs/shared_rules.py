"""Shared-cost rules: checked against each other, recorded by version, and previewed before they are in force. (RA-4)"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import combinations

import polars as pl
import sqlalchemy as sa

from attribution.costs.shared_costs import IDLE_REASONS, by_priority
from ledger import periods
from ledger.audit import record
from ledger.books import Books
from ledger.db import Audit
from ledger.names import RegisteredNames
from ledger.problems import Problem
from ledger.settings import AttributionSettings, SharedRule

SOURCE = "attribution"
RECORDED = "rule.recorded"
"""Audit action that records a version of a rule."""

SETTINGS = "settings.recorded"
"""Audit action that records the settings that costs are allocated by, by their fingerprint, so that runs can be compared."""

_BILL_SETTINGS = {"tolerance", "owner_tags", "owner_agent_tags", "shared", "skus"}
"""Settings that only decide how charges are allocated: changing them does not reread spans."""
_OPERATIONAL_SETTINGS = {"slice_spans", "workers", "drift_tolerance"}
"""Settings that change the speed of a run or what it reports of itself, but no cost."""
_MAX_PROBLEMS = 50
_SCOPE = ("provider", "account", "service", "sku", "charge_category", "reason")


def usage_settings(settings: AttributionSettings) -> str:
    """The settings that spans are read by, as JSON."""
    return settings.model_dump_json(exclude=_BILL_SETTINGS | (_OPERATIONAL_SETTINGS & set(type(settings).model_fields)))


def cost_settings(settings: AttributionSettings) -> str:
    """The settings that charges are allocated by, as JSON."""
    return settings.model_dump_json(include=_BILL_SETTINGS)


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def known_teams(timeline: pl.DataFrame, costs: pl.DataFrame) -> set[str]:
    """Teams that are registered, or that have costs; `costs` are costs or sums of them by cost_class and initiator_team."""
    is_shared = (pl.col("cost_class") == "shared").fill_null(value=False)
    spending = costs.filter(~is_shared)["initiator_team"].drop_nulls().unique()
    return {*timeline["team"].drop_nulls().unique(), *spending}


def check(
    rules: Sequence[SharedRule],
    teams: Collection[str],
    *,
    uri: str,
    month: str | None = None,
    registered_teams: Iterable[str] = (),
) -> list[Problem]:
    """Problems of the rules, each by name; of those in force in `month`, or of all. At most 50 are listed one by one.

    `teams` are those that exist; of them, `registered_teams` are found in another spelling, too. (ID-3)

    ``unreachable_rule`` never applies; ``rules_contradict`` apply to the same charges on the same days and only the order in which they are
    written decides; ``same_name`` gives two sets of terms one name on the same days; ``unknown_team`` names a team that does not exist;
    ``target_is_source`` would return a cost to its source, which is left out; ``ignored_setting`` has no effect in this method.
    """
    rules_in_force = [r for r in by_priority(list(rules)) if month is None or _in_force(r, month)]
    team_names = RegisteredNames.of(registered_teams)
    problems = [problem for rule in rules_in_force for problem in _check_rule(rule, teams, team_names, uri)]
    unreachable_rules = _unreachable_rules(rules_in_force, uri)
    problems += unreachable_rules
    unreachable_places = {problem.place for problem in unreachable_rules}
    for first, second in combinations(rules_in_force, 2):
        problems += _check_pair(first, second, uri, is_unreachable=f"rule {second.name}" in unreachable_places)
    if len(problems) > _MAX_PROBLEMS:
        more_count = len(problems) - _MAX_PROBLEMS
        reason = f"and {more_count:,} more problems of rules"
        summary = Problem(SOURCE, uri, "rules", "shared", reason, "fix the first ones", more_count, "warning")
        return [*problems[:_MAX_PROBLEMS], summary]
    return problems


def _unreachable_rules(rules: Sequence[SharedRule], uri: str) -> list[Problem]:
    """One problem for each rule that never applies, because rules before it apply to all its charges on all its days."""
    problems = []
    for at, later in enumerate(rules):
        earlier_rules = [r for r in rules[:at] if _contains(r, later)]
        if earlier_rules and _covers(earlier_rules, later):
            reason = f"unreachable_rule: {_rule_names(earlier_rules)} applies to everything it would apply to"
            remedy = "give it a higher priority, narrow the other, or remove it"
            problems.append(_problem(uri, later, "priority", reason, remedy))
    return problems


def _check_pair(first: SharedRule, second: SharedRule, uri: str, *, is_unreachable: bool) -> list[Problem]:
    """Problems of two rules together, of which `first` applies before `second`, which may be unreachable."""
    if not _share_a_day(first, second):
        return []
    problems = []
    if first.name == second.name and first.version != second.version:
        problems.append(
            _problem(
                uri,
                second,
                "name",
                "same_name: another rule of this name has other terms on the same days",
                "end one where the other begins (valid_to, valid_from), or rename it",
            )
        )
    if is_unreachable or first.priority != second.priority or first.version == second.version:
        return problems
    is_nested = _contains(second, first) and not _contains(first, second)
    if _overlap(first, second) and not is_nested:
        problems.append(
            _problem(
                uri,
                second,
                "priority",
                f"rules_contradict: {first.name} applies to some of the same charges on the same days, "
                "and comes first only by its place in the list",
                "give one of them a higher priority, or narrow their scope or dates",
            )
        )
    return problems


def _check_rule(rule: SharedRule, teams: Collection[str], team_names: RegisteredNames, uri: str) -> list[Problem]:
    targets = list(rule.shares) if rule.method == "fixed" else rule.teams
    problems = []
    unknown = sorted({t for t in (*targets, rule.source_team) if t and team_names.find(t) not in teams})
    if unknown:
        team_list = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        problems.append(
            _problem(
                uri,
                rule,
                "teams",
                f"unknown_team: {team_list}: not in the registry and without cost",
                "check the spelling, or register an agent of it",
            )
        )
    if rule.source_team and rule.source_team in targets:
        has_other_targets = len(targets) > 1
        problems.append(
            _problem(
                uri,
                rule,
                "teams",
                f"target_is_source: {rule.source_team} shares its own cost and gets no share of it"
                + ("" if has_other_targets else "; there is no other team, so the rule has no effect"),
                "take it out of the rule's teams",
            )
        )
    if (rule.method == "fixed" and rule.teams) or (rule.method != "fixed" and rule.shares):
        ignored_field = "teams" if rule.method == "fixed" else "shares"
        problems.append(
            _problem(
                uri,
                rule,
                ignored_field,
                f"ignored_setting: method {rule.method} does not use `{ignored_field}`",
                f"remove `{ignored_field}`",
            )
        )
    return problems


def _problem(uri: str, rule: SharedRule, field: str, reason: str, remedy: str) -> Problem:
    return Problem(SOURCE, uri, f"rule {rule.name}", f"attribution.shared.{field}", reason, remedy, severity="warning")


def _rule_names(rules: Sequence[SharedRule]) -> str:
    return " and ".join(r.name for r in rules[:3]) + (" and others" if len(rules) > 3 else "")


def _in_force(rule: SharedRule, month: str) -> bool:
    start, end = periods.month_start(month).date(), periods.month_end(month).date()
    return rule.valid_from < end and (rule.valid_to is None or rule.valid_to > start)


def _share_a_day(a: SharedRule, b: SharedRule) -> bool:
    """Whether there is a day on which both are in force."""
    return a.valid_from < (b.valid_to or date.max) and b.valid_from < (a.valid_to or date.max)


def _covers(earlier_rules: Sequence[SharedRule], rule: SharedRule) -> bool:
    """Whether on every day on which the rule is in force one of `earlier_rules` is too."""
    covered_until = rule.valid_from
    for other in sorted(earlier_rules, key=lambda r: r.valid_from):
        if other.valid_from > covered_until:
            return False
        covered_until = max(covered_until, other.valid_to or date.max)
        if covered_until >= (rule.valid_to or date.max):
            return True
    return False


def _contains(a: SharedRule, b: SharedRule) -> bool:
    """Whether `a` applies to every charge that `b` applies to."""
    if a.source_team != b.source_team or (b.reason in IDLE_REASONS and a.reason != b.reason):
        return False
    words = all(not getattr(a, c) or getattr(a, c) == getattr(b, c) for c in _SCOPE)
    return words and a.tags.items() <= b.tags.items()


def _overlap(a: SharedRule, b: SharedRule) -> bool:
    """Whether both could apply to one charge."""
    if a.source_team != b.source_team or ({a.reason, b.reason} & set(IDLE_REASONS) and a.reason != b.reason):
        return False
    words = all(not getattr(a, c) or not getattr(b, c) or getattr(a, c) == getattr(b, c) for c in _SCOPE)
    return words and all(b.tags.get(key, value) == value for key, value in a.tags.items())


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One version of a rule as it was first used."""

    name: str
    version: str
    recorded_at: datetime
    definition: dict[str, object]


def record_versions(books: Books, settings: AttributionSettings, digest: str, *, actor: str = "attribution") -> int:
    """Records every rule version that is not in the audit trail yet, with its whole definition; returns how many were new.

    Costs name a rule as name@version; the definition of that version can be read here for as long as the books exist. The other settings that
    decide about allocation are recorded by `digest`, the fingerprint that runs note.
    """
    rules_by_key = {(r.label, r.model_dump_json(exclude_defaults=True)): r for r in settings.shared}
    with books.database.session() as session:
        if session.scalars(sa.select(Audit.sequence).where(Audit.action == SETTINGS, Audit.subject == digest)).first() is None:
            record(session, actor, SETTINGS, digest, after={"deciding": cost_settings(settings)})
        if not rules_by_key:
            return 0
        stored_rows = session.execute(sa.select(Audit.subject, Audit.after).where(Audit.action == RECORDED)).all()
        stored_keys = {(subject, str((after or {}).get("definition"))) for subject, after in stored_rows}
        new = [(key, rule) for key, rule in rules_by_key.items() if key not in stored_keys]
        for (label, definition), rule in new:
            after = {"name": rule.name, "version": rule.version, "definition": definition}
            record(session, actor, RECORDED, label[:512], after=after)
    return len(new)


def rule_versions(books: Books) -> list[RuleVersion]:
    """Every version that was ever used, oldest first."""
    import json

    with books.database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.action == RECORDED).order_by(Audit.sequence)).all()
        return [
            RuleVersion(str(row.after["name"]), str(row.after["version"]), row.at, json.loads(row.after["definition"]))
            for row in rows
            if row.after is not None
        ]


# ── preview ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_CHANGE_KEYS = ("initiator_team", "cost_class", "currency")


def compare_costs(current_costs: pl.DataFrame, proposed_costs: pl.DataFrame) -> pl.DataFrame:
    """What each team pays in `current_costs` and in `proposed_costs`, two frames of costs of one month: team, class, currency, now, then, change.

    Only rows that differ; the changes of a currency sum to 0 where both come from the same facts. By effective cost.
    """
    sides = [
        frame.group_by(_CHANGE_KEYS).agg(pl.col("effective_cost").sum().alias(name))
        for frame, name in ((current_costs, "now"), (proposed_costs, "then"))
    ]
    zero = pl.lit(Decimal(0)).cast(current_costs.schema["effective_cost"])
    comparison = sides[0].join(sides[1], on=_CHANGE_KEYS, how="full", coalesce=True, nulls_equal=True)
    comparison = comparison.with_columns(pl.col("now", "then").fill_null(zero)).with_columns(
        change=pl.col("then") - pl.col("now")
    )
    comparison = comparison.filter(pl.col("change") != 0).rename({"initiator_team": "team"})
    return comparison.sort(pl.col("change").abs(), "team", "cost_class", "currency", descending=[True, False, False, False])
