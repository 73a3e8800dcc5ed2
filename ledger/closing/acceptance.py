"""Answers of teams to their statements: accepted, or disputed with a reason. They are entries of the audit log, and the newest one counts.

An answer is about what was booked then: once the statement books another amount, it waits for an answer again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.audit import Audit, record

Answer = Literal["accepted", "disputed"]
_ACTIONS: Final[Mapping[str, Answer]] = {"statement.accept": "accepted", "statement.dispute": "disputed"}


@dataclass(frozen=True, slots=True)
class StatementAnswer:
    """Who answered what, when, and why; `booked` is what the statement booked then, by currency."""

    answer: Answer
    answered_by: str
    answered_at: datetime
    note: str
    booked: Mapping[str, str]


def answer_statement(
    session: Session, number: str, answer: Answer, *, actor: str, amounts: Mapping[str, str], sha256: str, note: str
) -> None:
    """Notes an answer to the statement with this number and content."""
    action = next(name for name, value in _ACTIONS.items() if value == answer)
    record(session, actor, action, number, after={"booked": dict(amounts), "sha256": sha256, "note": note})


def answers(session: Session, numbers: Collection[str]) -> dict[str, StatementAnswer]:
    """The newest answer to each of these statements."""
    query = sa.select(Audit).where(Audit.action.in_(_ACTIONS), Audit.subject.in_(numbers)).order_by(Audit.sequence)
    newest = {}
    for entry in session.scalars(query):
        after: dict[str, Any] = entry.after or {}
        newest[entry.subject] = StatementAnswer(
            _ACTIONS[entry.action], entry.actor, entry.at, str(after.get("note") or ""), dict(after.get("booked") or {})
        )
    return newest
