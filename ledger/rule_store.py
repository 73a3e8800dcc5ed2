"""Shared-cost rules that are set in the ledger, beside those of the settings file: a rule is in one of the two. (RA-4)

    settings_in_force(books)   the settings with the rules of both: of equal priority those of the file are tried first

What the file says is changed in the file; a rule of the ledger over the API or by `rootcost rules`. A change adds a revision and an audit entry in
one transaction, and nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.audit import record
from ledger.books import Books
from ledger.db import StoredRule
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now
from ledger.settings import Settings, SharedRule

MAX_RULES = 1000
"""Rules that can be set in the ledger at a time."""

Check = Callable[[Session, StoredRule | None], None]
"""Raises where the revision in force, None if there is none, is not the one that a change was made from."""


class RuleExistsError(UsageError):
    """A rule of that name is in force already."""


@dataclass(frozen=True, slots=True)
class LedgerRule:
    """A rule of the ledger, and its revision."""

    rule: SharedRule
    revision: int


def _accept_any(_session: Session, _current: StoredRule | None) -> None:
    """For changes of whatever is in force."""


def stored_rules(books: Books) -> list[LedgerRule]:
    """The rules of the ledger in force, in the order in which they were added."""
    with books.database.session() as session:
        return [LedgerRule(_rule(row), row.revision) for row in _in_force(session)]


def settings_in_force(books: Books) -> Settings:
    """The settings, with the rules of the ledger after those of the file."""
    ledger_rules = [one_rule.rule for one_rule in stored_rules(books)]
    if not ledger_rules:
        return books.settings
    attribution = books.settings.attribution
    all_rules = attribution.model_copy(update={"shared": [*attribution.shared, *ledger_rules]})
    return books.settings.model_copy(update={"attribution": all_rules})


def add_rule(books: Books, rule: SharedRule, *, actor: str) -> None:
    """Adds a rule. Raises `RuleExistsError` if one of that name is in force, in the ledger or in the settings file."""

    def add(session: Session) -> None:
        previous = _newest(session, rule.name)
        if previous is not None and not previous.deleted:
            raise RuleExistsError("a rule of that name is in force", where=rule.name, remedy="change it, or choose another name")
        _revise(books, session, rule, previous, actor)

    books.database.change(add)


def put_rules(books: Books, rules: Sequence[SharedRule], *, actor: str, check: Check = _accept_any) -> list[bool]:
    """Changes rules of the ledger, or adds those that there are not, all or none; returns of each whether that changed anything.

    Raises `RuleExistsError` for one of the settings file.
    """
    names = [rule.name for rule in rules]
    doubled_name = next((name for name in names if names.count(name) > 1), None)
    if doubled_name is not None:
        raise UsageError("a rule of the ledger has one set of terms", where=doubled_name, remedy="give the other another name")

    def put(session: Session) -> list[bool]:
        return [_put(books, session, rule, actor, check) for rule in rules]

    return books.database.change(put)


def _put(books: Books, session: Session, rule: SharedRule, actor: str, check: Check) -> bool:
    previous = _newest(session, rule.name)
    current = None if previous is None or previous.deleted else previous
    check(session, current)
    if current is not None and _rule(current) == rule:
        return False
    _revise(books, session, rule, previous, actor)
    session.flush()
    return True


def remove_rule(books: Books, name: str, *, actor: str, check: Check = _accept_any) -> None:
    """Removes a rule of the ledger; its revisions stay. Raises `ObjectMissingError` if there is none."""

    def remove(session: Session) -> None:
        row = _newest(session, name)
        if row is None or row.deleted:
            _require_not_of_file(books, name)
            raise ObjectMissingError("no rule of the ledger has that name", where=name, remedy="`rootcost rules list` shows them")
        check(session, row)
        revision = row.revision + 1
        session.add(StoredRule(name=name, revision=revision, terms=row.terms, recorded_at=now(), deleted=True))
        record(session, actor, "rule.remove", name, before=terms_of(row))

    books.database.change(remove)


def revision_terms(session: Session, name: str, revisions: frozenset[int]) -> dict[str, Any] | None:
    """The newest of these revisions of a rule; None if none of them was ever in force."""
    is_one = (StoredRule.name == name, StoredRule.revision.in_(revisions), ~StoredRule.deleted)
    row = session.scalars(sa.select(StoredRule).where(*is_one).order_by(StoredRule.revision.desc()).limit(1)).first()
    return None if row is None else terms_of(row)


def terms_of(row: StoredRule) -> dict[str, Any]:
    """A revision in the keys of [[attribution.shared]], without defaults."""
    return {**_rule(row).model_dump(mode="json", exclude_defaults=True), "revision": row.revision}


def _revise(books: Books, session: Session, rule: SharedRule, previous: StoredRule | None, actor: str) -> None:
    is_change = previous is not None and not previous.deleted
    if not is_change:
        _require_not_of_file(books, rule.name)
        if len(_in_force(session)) >= MAX_RULES:
            raise UsageError(f"the ledger has {MAX_RULES:,} rules", where=rule.name, remedy="remove some")
    row = StoredRule(
        name=rule.name,
        revision=1 if previous is None else previous.revision + 1,
        terms=rule.model_dump(mode="json"),
        recorded_at=now(),
        deleted=False,
    )
    session.add(row)
    before = terms_of(previous) if previous is not None and is_change else None
    record(session, actor, "rule.change" if is_change else "rule.add", rule.name, before=before, after=terms_of(row))


def _require_not_of_file(books: Books, name: str) -> None:
    """Raises `RuleExistsError` for a rule that the settings file has: two places would say what it is."""
    if any(rule.name == name for rule in books.settings.attribution.shared):
        raise RuleExistsError(
            "this rule is written in the settings file, [[attribution.shared]]",
            where=name,
            remedy="change it there, or take it out there first; or choose another name",
        )


def _rule(row: StoredRule) -> SharedRule:
    return SharedRule.model_validate(row.terms)


def _newest(session: Session, name: str) -> StoredRule | None:
    by_name = sa.select(StoredRule).where(StoredRule.name == name)
    return session.scalars(by_name.order_by(StoredRule.revision.desc()).limit(1)).first()


def _in_force(session: Session) -> list[StoredRule]:
    newest = sa.select(sa.func.max(StoredRule.id), sa.func.min(StoredRule.id)).group_by(StoredRule.name).subquery()
    last_id, first_id = newest.columns
    rows = sa.select(StoredRule).join(newest, StoredRule.id == last_id).where(~StoredRule.deleted).order_by(first_id)
    return list(session.scalars(rows))
