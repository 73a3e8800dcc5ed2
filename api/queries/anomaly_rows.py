"""Queries of anomalies, with what people said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl
import sqlalchemy as sa

from api.models import AnomalyRow
from api.queries.costs import parse_month
from api.queries.gate import ScopedBooks
from api.queries.listing import FrameListing, Listing, Order
from api.queries.own_names import OwnNames
from ledger.alert_tables import Alert, AlertMute
from ledger.alerting.anomalies import KIND
from ledger.alerting.anomaly_answers import newest_answers
from ledger.errors import ObjectMissingError
from ledger.periods import now
from ledger.tables import ANOMALIES

_ANSWERS: Final[dict[str, Any]] = {
    "anomaly_id": pl.String,
    "answer": pl.String,
    "answer_reason": pl.String,
    "answered_by": pl.String,
    "answered_at": pl.Datetime("us", "UTC"),
    "planned_until": pl.Datetime("us", "UTC"),
}
_MUTES: Final[dict[str, Any]] = {
    "subject": pl.String,
    "muted_team": pl.String,
    "muted_until": pl.Datetime("us", "UTC"),
    "mute_reason": pl.String,
}


def anomalies(
    books: ScopedBooks,
    *,
    month: str | None = None,
    scope: str | None = None,
    kind: str | None = None,
    is_open: bool | None = None,
    state: str | None = None,
    team: str | None = None,
    anomaly_id: str | None = None,
) -> Listing[AnomalyRow]:
    """Anomalies, newest first; the conditions that are given select. Rows of older versions, which have no kind, are spikes."""
    frame = _with_answers(books, _visible(books))
    conditions = (
        (pl.col("scope"), scope),
        (pl.col("kind").fill_null("spike"), kind),
        (pl.col("is_open").fill_null(value=False), is_open),
        (pl.col("state"), state),
        (pl.col("team"), team),
        (pl.col("anomaly_id"), anomaly_id),
    )
    frame = frame.filter(*(column == value for column, value in conditions if value is not None))
    if month is not None:
        parse_month(month)
        frame = frame.filter(pl.col("day").dt.strftime("%Y-%m") == month)
    newest = (Order("day", descending=True), Order("score_approx", descending=True))
    order = (*newest, Order("scope"), Order("scope_name"), Order("currency"), Order("anomaly_id"))
    return FrameListing(AnomalyRow, frame, order, sums=("actual", "expected", "excess"), is_of_runs=True)


def anomaly(books: ScopedBooks, anomaly_id: str) -> AnomalyRow:
    """One anomaly. Raises `ObjectMissingError` for one that is not there, or not the principal's."""
    row = _one(_with_answers(books, _visible(books)), anomaly_id)
    return AnomalyRow(**{name: row[name] for name in AnomalyRow.model_fields})


def ledger_row(books: ScopedBooks, anomaly_id: str) -> dict[str, Any]:
    """The row of the table of an anomaly that the principal sees."""
    return _one(_visible(books), anomaly_id)


def _one(frame: pl.LazyFrame, anomaly_id: str) -> dict[str, Any]:
    rows = frame.filter(pl.col("anomaly_id") == anomaly_id).collect()
    if rows.is_empty():
        raise ObjectMissingError("no such anomaly", where=anomaly_id, remedy="GET /v1/anomalies lists them")
    return rows.row(0, named=True)


def _visible(books: ScopedBooks) -> pl.LazyFrame:
    """Those that the principal sees. What is part of one that he does not see stands alone."""
    frame = books.whole.store.scan(ANOMALIES).with_columns(pl.col("drivers").fill_null("{}"), pl.col("chains").fill_null("[]"))
    if books.sees_all:
        return frame
    frame = frame.filter(OwnNames.of(books).is_held())
    return frame.with_columns(pl.when(pl.col("part_of").is_in(pl.col("anomaly_id").implode())).then("part_of").alias("part_of"))


def _with_answers(books: ScopedBooks, frame: pl.LazyFrame) -> pl.LazyFrame:
    with books.whole.database.session() as session:
        answers = newest_answers(session)
        alerts = session.execute(sa.select(Alert.alert_id, Alert.state).where(Alert.kind == KIND)).all()
        mutes = session.scalars(sa.select(AlertMute).where(AlertMute.kind == KIND, AlertMute.expires_at > now())).all()
    rows = [(key, one.answer, one.reason, one.actor, one.at, one.until) for key, one in answers.items()]
    answer_frame = pl.LazyFrame(rows, schema=_ANSWERS, orient="row")
    alert_frame = pl.LazyFrame(
        [tuple(row) for row in alerts], schema={"anomaly_id": pl.String, "alert_state": pl.String}, orient="row"
    )
    told_state = pl.coalesce("answer", "alert_state", pl.lit("untold"))
    return (
        frame.join(answer_frame, on="anomaly_id", how="left")
        .join(alert_frame, on="anomaly_id", how="left")
        .with_columns(
            expected_end=pl.coalesce("planned_until", "expected_end"),
            state=pl.when(pl.col("part_of").is_null()).then(told_state).otherwise(pl.lit("part")),
            subject=pl.concat_str("scope", pl.lit(" "), "scope_name"),
            muted_team=pl.col("team").fill_null(""),
        )
        .join(_muted(mutes), on=["subject", "muted_team"], how="left")
        .join(_muted([mute for mute in mutes if not mute.team]).drop("muted_team"), on="subject", how="left", suffix="_all")
        .with_columns(
            muted_until=pl.coalesce("muted_until", "muted_until_all"), mute_reason=pl.coalesce("mute_reason", "mute_reason_all")
        )
    )


def _muted(mutes: Sequence[AlertMute]) -> pl.LazyFrame:
    """Subject and team → the mute that ends last."""
    rows = [(mute.subject, mute.team, mute.expires_at, mute.reason) for mute in sorted(mutes, key=lambda mute: mute.expires_at)]
    return pl.LazyFrame(rows, schema=_MUTES, orient="row").unique(["subject", "muted_team"], keep="last", maintain_order=True)
