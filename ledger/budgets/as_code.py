"""Budgets as code: a file says which budgets there are, `plan` what would change, `apply` changes it, all or nothing.

Budgets that no file has made are left alone. One that a file has made and no longer names is ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import yaml
from sqlalchemy.orm import Session

from ledger import money
from ledger.books import Books
from ledger.budget_tables import Budget, BudgetRevision
from ledger.budgets import nesting, revisions
from ledger.budgets.revisions import FROM_FILE, Change
from ledger.budgets.spend import require_rate
from ledger.budgets.status import budgets_in_force
from ledger.budgets.terms import TERM_COLUMNS, Terms, parse_terms, terms_of
from ledger.errors import FormatError, ObjectMissingError, RootCostError, UsageError
from ledger.exchange_rates import Exchange
from ledger.periods import now

_LINE: Final = "line of the file"
FIELDS: Final = ("id", "parent", *(column for column in TERM_COLUMNS if column != "parent_id"))
"""Keys of a budget in the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A budget of the file: its terms (without parent), its parent's name, its id if it says one, and where it stands."""

    terms: Terms
    parent: str
    budget_id: str
    where: str


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with one budget: its name now, what differs (field, old, new), and who has changed it outside of the file since."""

    kind: Literal["add", "change", "end", "same"]
    name: str
    differences: Sequence[tuple[str, str, str]] = ()
    drift: str = ""
    entry: Entry | None = field(default=None, repr=False)
    budget_id: str = ""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose decimal numbers are exact, and whose mappings know their line."""


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    text = str(loader.construct_scalar(node)).replace("_", "")
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    repeated_key = next((key for key in keys if keys.count(key) > 1), None)
    if repeated_key is not None:
        raise yaml.constructor.ConstructorError(None, None, f"{repeated_key} stands twice", node.start_mark)
    return {**loader.construct_mapping(node, deep=True), _LINE: node.start_mark.line + 1}


_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_file(path: Path, timezone: str) -> list[Entry]:
    """The budgets of a file. Raises `FormatError` or `UsageError` that names file, line, field and remedy."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader
    except FileNotFoundError as error:
        raise ObjectMissingError("no such file", where=str(path), remedy="rootcost budgets export writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot be read: {error}", where=str(path), remedy="save it as YAML in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise FormatError(
            f"not valid YAML: {getattr(error, 'problem', error)}", where=place, remedy="see docs/budgets.md"
        ) from error
    rows = document.get("budgets") if isinstance(document, dict) else None
    unknown = sorted(str(key) for key in document if key not in ("budgets", _LINE)) if isinstance(document, dict) else []
    if not isinstance(rows, list) or unknown:
        error_text = f"{unknown[0]!r} means nothing here" if unknown else "has no list `budgets`"
        raise FormatError(error_text, where=str(path), remedy="write `budgets:` and under it `- name: …` for each")
    entries = [_entry(row, number, path, timezone) for number, row in enumerate(rows, 1)]
    names = [entry.terms.name for entry in entries]
    for entry in entries:
        if names.count(entry.terms.name) > 1:
            raise FormatError(f"{entry.terms.name} stands twice", where=entry.where, remedy="keep one of them")
    return entries


def _entry(row: object, number: int, path: Path, timezone: str) -> Entry:
    if not isinstance(row, dict):
        raise FormatError("is no budget", where=f"{path}, budget {number}", remedy="write `- name: …` and its terms below")
    place = f"{path}, line {row.pop(_LINE)}"
    parent, budget_id = str(row.pop("parent", None) or ""), str(row.pop("id", None) or "")
    if isinstance(row.get("scopes"), dict):
        row["scopes"].pop(_LINE, None)
    for bound in ("range_start", "range_end"):
        if bound in row:
            row[bound] = _bound(row[bound], timezone)
    if isinstance(row.get("thresholds"), list):
        row["thresholds"] = [str(value) if isinstance(value, int | Decimal) else value for value in row["thresholds"]]
    if "parent_id" in row:
        raise UsageError("parent_id means nothing here", where=place, remedy="write `parent:` and the name of the budget")
    return Entry(parse_terms(row, place=place), parent, budget_id, place)


def _bound(value: object, timezone: str) -> object:
    """A day is its first instant in the reporting timezone; so is an instant without an offset."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(timezone))
    return datetime.combine(value, time(), ZoneInfo(timezone)) if isinstance(value, date) else value


# ── plan ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan(books: Books, entries: Sequence[Entry]) -> list[Step]:
    """What `apply` would do, and which budgets were changed outside of the file since it was applied."""
    with books.database.session() as session:
        return _steps(books, session, entries)


def _steps(books: Books, session: Session, entries: Sequence[Entry]) -> list[Step]:
    candidates = budgets_in_force(books)
    by_id = {candidate.budget.budget_id: candidate for candidate in candidates}
    by_name = {candidate.budget.name: candidate for candidate in candidates}
    names_by_id = {budget_id: candidate.budget.name for budget_id, candidate in by_id.items()}
    steps, kept_ids = [], set()
    for entry in entries:
        candidate = by_id.get(entry.budget_id) if entry.budget_id else by_name.get(entry.terms.name)
        if candidate is None and entry.budget_id:
            raise UsageError(
                f"no budget in force has the id {entry.budget_id}", where=entry.where, remedy="leave `id` out of a new one"
            )
        if candidate is None:
            steps.append(Step("add", entry.terms.name, _differences(entry, None, names_by_id), entry=entry))
            continue
        kept_ids.add(candidate.budget.budget_id)
        differences = _differences(entry, candidate.newest, names_by_id)
        steps.append(
            Step(
                "change" if differences else "same",
                candidate.budget.name,
                differences,
                _drift(candidate.revisions) if differences else "",
                entry,
                candidate.budget.budget_id,
            )
        )
    for budget_id, candidate in by_id.items():
        if budget_id not in kept_ids and any(revision.origin == FROM_FILE for revision in candidate.revisions):
            steps.append(Step("end", candidate.budget.name, drift=_drift(candidate.revisions), budget_id=budget_id))
    return steps


def _differences(entry: Entry, revision: BudgetRevision | None, names_by_id: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Fields that differ, with the old and the new value as text. The amount is the one without a raise, which ends by itself."""
    file_values = _document(entry.terms, entry.parent)
    current = {} if revision is None else _document(terms_of(revision), names_by_id.get(revision.parent_id or "", ""))
    return [
        (name, _shown(current.get(name)), _shown(file_values.get(name)))
        for name in FIELDS
        if name in file_values.keys() | current.keys() and _comparable(current.get(name)) != _comparable(file_values.get(name))
    ]


def _comparable(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {name}" for key, name in value.items())
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else value.isoformat()
        if isinstance(value, datetime)
        else str(value)
    )


def _drift(revision_list: Sequence[BudgetRevision]) -> str:
    """Who has changed a budget of the file without the file since it was applied; empty: nobody."""
    newest = revision_list[-1]
    was_applied = any(revision.origin == FROM_FILE for revision in revision_list)
    if not was_applied or newest.origin == FROM_FILE:
        return ""
    reason_text = f": {newest.reason}" if newest.reason else ""
    return (
        f"changed outside of the file by {newest.recorded_by or 'somebody'} on {newest.recorded_at:%Y-%m-%d %H:%M}{reason_text}"
    )


# ── apply ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def apply(books: Books, entries: Sequence[Entry], *, actor: str, reason: str = "") -> list[Step]:
    """Makes the budgets what the file says, all of them or none; returns what was done."""
    for entry in entries:
        require_rate(books, entry.terms)
    change = Change(actor, reason, origin=FROM_FILE)
    exchange, team_of = Exchange.of(books), nesting.team_of(books)
    with books.database.session() as session:
        steps = _steps(books, session, entries)
        for step in steps:
            if step.kind == "end":
                revisions.end(session, _budget(session, step.budget_id), change)
        budget_ids: dict[str, str] = {}
        for step in _parents_first(steps):
            budget_ids[step.budget_id or step.name] = _make(session, step, change)
        nodes = nesting.tree(session)
        orphans = [n.budget_id for n in nodes.values() if n.terms.parent_id is not None and n.terms.parent_id not in nodes]
        for budget_id in (*budget_ids.values(), *orphans):
            nesting.require_fit(nodes, budget_id, exchange, team_of)
    return steps


def _budget(session: Session, budget_id: str) -> Budget:
    budget = session.get(Budget, budget_id)
    if budget is None:
        raise revisions.missing(budget_id)
    return budget


def _make(session: Session, step: Step, change: Change) -> str:
    """Carries out one step; returns the id of its budget."""
    if step.entry is None or step.kind == "same":
        return step.budget_id
    parent_id = _parent_id(session, step.entry)
    terms = step.entry.terms.model_copy(update={"parent_id": parent_id})
    if step.kind == "add":
        return revisions.add(session, terms, change).budget_id
    return revisions.revise(session, _budget(session, step.budget_id), terms, change).budget_id


def _parent_id(session: Session, entry: Entry) -> str | None:
    if not entry.parent:
        return None
    try:
        return revisions.require(session, entry.parent).budget_id
    except ObjectMissingError as error:
        raise UsageError(
            f"its parent {entry.parent} is no budget",
            where=f"{entry.where}: parent",
            remedy="name one of the file or one in force",
        ) from error


def _parents_first(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps of the file's budgets, each after that of its parent."""
    waiting = [step for step in steps if step.entry is not None]
    own_names = {step.entry.terms.name for step in waiting if step.entry is not None}
    made_names: set[str] = set()
    while waiting:
        ready = [s for s in waiting if s.entry is not None and (s.entry.parent not in own_names or s.entry.parent in made_names)]
        if not ready:
            circle = ", ".join(step.name for step in waiting)
            raise UsageError(
                f"budgets are parts of each other: {circle}", where="parent", remedy="one of them must have no parent"
            )
        for step in ready:
            yield step
            made_names.add(step.entry.terms.name if step.entry is not None else "")
        waiting = [step for step in waiting if step not in ready]


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def export(books: Books) -> str:
    """Every budget in force as a file that `plan` finds no difference to."""
    candidates = budgets_in_force(books)
    names_by_id = {candidate.budget.budget_id: candidate.budget.name for candidate in candidates}
    rows = [
        {"name": candidate.budget.name, "id": candidate.budget.budget_id}
        | _document(terms_of(candidate.newest), names_by_id.get(candidate.newest.parent_id or "", ""))
        for candidate in candidates
    ]
    text: str = yaml.safe_dump({"budgets": rows}, sort_keys=False, allow_unicode=True, width=120)
    return f"# Budgets on {now():%Y-%m-%d}: rootcost budgets plan FILE shows what differs, apply makes it so.\n{text}"


def _document(terms: Terms, parent: str) -> dict[str, Any]:
    """Terms as they stand in a file: what is usual is left out."""
    values: dict[str, Any] = {
        "name": terms.name,
        "scopes": dict(terms.scopes),
        "amount": money.text(terms.amount),
        "currency": terms.currency,
    }
    usual = {name: info.get_default(call_default_factory=True) for name, info in Terms.model_fields.items() if name not in values}
    for name, default in usual.items():
        value = getattr(terms, name)
        if name != "parent_id" and value != default:
            values[name] = [money.text(share) for share in value] if name == "thresholds" else value
    return values | ({"parent": parent} if parent else {})


class PlanError(RootCostError):
    """A file of budgets that cannot be planned or applied: exit 1, since 2 says that there are changes."""


def as_plan_error(error: RootCostError) -> PlanError:
    """The same error with the exit code of `plan`."""
    return PlanError(error.what, where=error.where, remedy=error.remedy)
