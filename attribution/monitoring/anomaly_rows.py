"""Rows of `anomalies`, where several detectors write: each replaces those of its own kinds, and leaves the others alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ledger.alerts import alert_id
from ledger.books import Books
from ledger.tables import ANOMALIES


def anomaly_id(scope: str, name: str, currency: str, start: datetime | str, kind: str = "") -> str:
    """Id of an anomaly, and of its alert: of one cause it is the same in every run.

    A kind is part of the id only where it never becomes another. A spike that stays becomes a level shift, and is the same anomaly.
    """
    at = start if isinstance(start, str) else start.isoformat()
    return alert_id("|".join(["anomaly", scope, name, currency, at, *([kind] if kind else [])]))


def replace(books: Books, month: str, kinds: Collection[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the anomalies of these kinds that began in a month, in one commit. The caller holds the attribution lock.

    Nothing is written where the rows are as they were. Rows of older versions have no kind, and go.
    """
    stored_rows = books.store.scan(ANOMALIES, {"month": [month]}).collect()
    is_other = pl.col("kind").is_not_null() & ~pl.col("kind").is_in(list(kinds))
    frame = pl.concat([stored_rows.filter(is_other), pl.DataFrame(list(rows), schema=ANOMALIES.schema)]).sort("anomaly_id")
    if not frame.equals(stored_rows.sort("anomaly_id")):
        books.store.replace(ANOMALIES, frame, {"month": month})
