"""Alerts: an id that is derived from the cause, and an insert that skips alerts that were raised before."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.db import Alert


def alert_id(cause: str) -> str:
    """Id of the alert that `cause` raises: the same cause always has the same id, so it is delivered once.

    >>> alert_id("budget|search|1|2026-10|1") == alert_id("budget|search|1|2026-10|1"), len(alert_id("budget|search|1|2026-10|1"))
    (True, 32)
    """
    return blake2b(cause.encode(), digest_size=16).hexdigest()


def add_new(session: Session, alerts: Sequence[Alert]) -> list[Alert]:
    """Inserts the alerts whose id the table does not hold yet and returns them; the others were raised before."""
    if not alerts:
        return []
    stored_ids = set(session.scalars(sa.select(Alert.alert_id).where(Alert.alert_id.in_([a.alert_id for a in alerts]))))
    new_alerts = [a for a in alerts if a.alert_id not in stored_ids]
    session.add_all(new_alerts)
    return new_alerts
