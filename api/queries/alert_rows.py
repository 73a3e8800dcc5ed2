"""Queries of alerts, of messages about them, of receivers and mutes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa

from api.models import AlertChannelRow, AlertDeliveryRow, AlertDetail, AlertEventRow, AlertRow, MuteRow
from api.queries.gate import ScopedBooks, WholeBooks
from api.queries.listing import Listing, Order, SqlListing
from api.queries.own_names import OwnNames
from ledger import alert_tables as tables
from ledger.errors import ObjectMissingError
from ledger.periods import now

_HIDDEN_STATE = "watchdog"


def alerts(books: ScopedBooks, *, state: str | None = None, kind: str | None = None) -> Listing[AlertRow]:
    """Alerts, newest first; `state` and `kind` select some."""
    own_names = OwnNames.of(books)
    select = sa.select(tables.Alert).where(tables.Alert.state != _HIDDEN_STATE)
    if state is not None:
        select = select.where(tables.Alert.state == state)
    if kind is not None:
        select = select.where(tables.Alert.kind == kind)
    return SqlListing(
        books.whole.database,
        AlertRow,
        select,
        {Order("created_at", descending=True): tables.Alert.created_at, Order("alert_id"): tables.Alert.alert_id},
        _row,
        is_seen=None if books.sees_all else lambda alert: own_names.holds_alert(alert.payload, alert.team),
    )


def _row(alert: tables.Alert) -> AlertRow:
    return AlertRow(**{name: getattr(alert, name) for name in AlertRow.model_fields})


def alert(books: ScopedBooks, alert_id: str) -> AlertDetail:
    """One alert, with its history and messages. Raises `ObjectMissingError` for one that is not there, or not the principal's."""
    with books.whole.database.session() as session:
        row = visible_alert(books, session, alert_id)
        is_of_it = tables.AlertEvent.alert_id == row.alert_id
        events = session.scalars(sa.select(tables.AlertEvent).where(is_of_it).order_by(tables.AlertEvent.id)).all()
        deliveries = session.scalars(
            sa.select(tables.AlertDelivery)
            .where(tables.AlertDelivery.alert_id == row.alert_id)
            .order_by(tables.AlertDelivery.event_id, tables.AlertDelivery.channel)
        ).all()
        return AlertDetail(
            **_row(row).model_dump(),
            events=[AlertEventRow(**{name: getattr(event, name) for name in AlertEventRow.model_fields}) for event in events],
            deliveries=[_delivery(delivery) for delivery in deliveries],
        )


def visible_alert(books: ScopedBooks, session: Any, alert_id: str) -> tables.Alert:
    """The row of an alert. Raises `ObjectMissingError` for one that is not there, or not the principal's."""
    own_names = OwnNames.of(books)  # before the row is looked for: what is not there takes as long as what is others'
    row: tables.Alert | None = session.get(tables.Alert, alert_id)
    if row is None or not own_names.holds_alert(row.payload, row.team):
        raise ObjectMissingError("no such alert", where=alert_id, remedy="GET /v1/alerts lists them")
    return row


def deliveries(books: ScopedBooks, *, state: str | None = None) -> Listing[AlertDeliveryRow]:
    """Messages about alerts, newest first; `state` selects some, such as dead letters."""
    own_names = OwnNames.of(books)
    select = sa.select(tables.AlertDelivery).where(tables.AlertDelivery.step != "beat")
    if state is not None:
        select = select.where(tables.AlertDelivery.state == state)
    columns = tables.AlertDelivery
    return SqlListing(
        books.whole.database,
        AlertDeliveryRow,
        select,
        {Order("created_at", descending=True): columns.created_at, Order("delivery_id"): columns.delivery_id},
        _delivery,
        is_seen=None
        if books.sees_all
        else lambda row: own_names.holds_alert(row.message.get("payload") or {}, row.message.get("team")),
    )


def _delivery(row: tables.AlertDelivery) -> AlertDeliveryRow:
    return AlertDeliveryRow(**{name: getattr(row, name) for name in AlertDeliveryRow.model_fields})


def channels(books: WholeBooks) -> list[AlertChannelRow]:
    """The receivers that the settings name, and how they do. Addresses and keys are secrets, and not shown."""
    with books.whole.database.session() as session:
        known_channels = {row.name: row for row in session.scalars(sa.select(tables.AlertChannel))}
        counts: Counter[tuple[str, str]] = Counter()
        query = sa.select(tables.AlertDelivery.channel, tables.AlertDelivery.state, sa.func.count()).group_by(
            tables.AlertDelivery.channel, tables.AlertDelivery.state
        )
        for name, state, count in session.execute(query):
            counts[name, state] = count
    rows = []
    for channel in books.settings.alerts.receivers():
        known_channel = known_channels.get(channel.name)
        rows.append(
            AlertChannelRow(
                name=channel.name,
                kind=channel.kind,
                teams=channel.teams,
                state=_state(known_channel),
                succeeded_at=known_channel and known_channel.succeeded_at,
                failed_at=known_channel and known_channel.failed_at,
                error=known_channel and known_channel.error,
                waiting=counts[channel.name, "pending"] + counts[channel.name, "sending"],
                dead=counts[channel.name, "dead"],
            )
        )
    return rows


def _state(channel: tables.AlertChannel | None) -> str:
    if channel is None:
        return "unused"
    return "gone" if channel.disabled_at is not None else "failing" if channel.error else "ok"


def mutes(books: ScopedBooks) -> list[MuteRow]:
    """Mutes in force, the one that ends first on top. A team sees those of its own."""
    select = sa.select(tables.AlertMute).where(tables.AlertMute.expires_at > now()).order_by(tables.AlertMute.expires_at)
    with books.whole.database.session() as session:
        rows = session.scalars(select).all()
    return [
        MuteRow(**{name: getattr(row, name) for name in MuteRow.model_fields}) for row in rows if books.owns(row.team or None)
    ]
