"""What people say of an anomaly: planned, false or fixed. Each is an event of its incident and an entry of the audit log.

    planned   it was meant; until a time, if one is named, which is then when it is expected to end
    false     it is no anomaly: nobody is told of one of this series that is not larger, for four weeks
    fixed     its cause was removed

An anomaly that was never told gets its incident by the answer, which nobody is told of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alert_tables import Alert, AlertEvent
from ledger.alerting.anomalies import KIND, alert_of
from ledger.alerts import OPEN_STATES, close, note
from ledger.audit import record
from ledger.errors import UsageError
from ledger.periods import now

PLANNED, FALSE, FIXED = "planned", "false", "fixed"
ANSWERS: Final = (PLANNED, FALSE, FIXED)
_WORDS: Final = {PLANNED: "It was planned:", FALSE: "It is no anomaly:", FIXED: "It is fixed:"}
FALSE_DAYS: Final = 28
"""How long an answer `false` holds for others of its series."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The newest answer to an anomaly."""

    answer: str
    at: datetime
    actor: str
    reason: str
    until: datetime | None


def add_answer(
    session: Session,
    row: Mapping[str, Any],
    actor: str,
    answer: str,
    *,
    reason: str,
    name: str = "",
    until: datetime | None = None,
) -> None:
    """Answers the anomaly of this row of `anomalies`, and ends its incident."""
    if not reason.strip():
        raise UsageError("an answer needs a reason", where="reason", remedy="say what others should know")
    if until is not None and answer != PLANNED:
        raise UsageError("only what is planned has an end that is known", where="until", remedy="leave it out, or answer planned")
    if until is not None and until <= now():
        raise UsageError(f"{until:%Y-%m-%d %H:%M} is past", where="until", remedy="name a time to come")
    alert = session.get(Alert, row["anomaly_id"])
    if alert is None:
        alert = alert_of(row)
        alert.state = "resolved"
        session.add(alert)
        session.flush()
    end_text = None if until is None else until.isoformat()
    record(session, actor, "anomaly.answer", alert.alert_id, after={"answer": answer, "reason": reason, "until": end_text})
    event = note(session, alert, answer, actor=name or actor, text=reason)
    event.incident = {**event.incident, "until": end_text, "series": _series_of(row), "impact": str(abs(row["excess"]))}
    if alert.state in OPEN_STATES:
        close(session, alert, "resolved", actor=name or actor, text=f"{_WORDS[answer]} {reason}")


def newest_answers(session: Session) -> dict[str, Answer]:
    """Anomaly → the answer that was given last."""
    answers = {}
    for event in _events(session):
        until = event.incident.get("until")
        end = None if until is None else datetime.fromisoformat(until)
        answers[event.alert_id] = Answer(event.step, event.at, event.actor, event.text, end)
    return answers


def false_heights(session: Session) -> dict[str, Decimal]:
    """Series → the height up to which somebody has lately said that it is no anomaly."""
    heights: dict[str, Decimal] = {}
    newest = {event.alert_id: event for event in _events(session)}
    for event in newest.values():
        if event.step == FALSE and event.at > now() - timedelta(days=FALSE_DAYS):
            series = str(event.incident.get("series"))
            heights[series] = max(heights.get(series, Decimal(0)), Decimal(event.incident.get("impact", "0")))
    return heights


def is_answered_false(row: Mapping[str, Any], heights: Mapping[str, Decimal]) -> bool:
    """Whether an anomaly is not larger than one of its series that was answered `false`."""
    excess: Decimal = row["excess"]
    return abs(excess) <= heights.get(_series_of(row), Decimal(0))


def _series_of(row: Mapping[str, Any]) -> str:
    return "|".join([row["scope"], row["scope_name"], row["currency"], "up" if row["excess"] > 0 else "down"])


def _events(session: Session) -> list[AlertEvent]:
    is_answer = AlertEvent.step.in_(ANSWERS)
    query = sa.select(AlertEvent).join(Alert, Alert.alert_id == AlertEvent.alert_id).where(Alert.kind == KIND, is_answer)
    return list(session.scalars(query.order_by(AlertEvent.id)))
