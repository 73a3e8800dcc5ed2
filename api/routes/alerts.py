"""Routes of alerts: incidents, messages about them, receivers, answers and mutes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from api import alert_responses, queries
from api.access.gates import AlertChanges, BudgetChanges, BudgetRows, WholeAlerts
from api.etags import reads
from api.models import (
    AlertChannelRow,
    AlertDeliveryRow,
    AlertDetail,
    AlertResponse,
    AlertRow,
    MuteRow,
    NewMute,
    Page,
)
from api.queries import alert_rows as alert_queries
from api.routes.answers import ROWS, AnyPage, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger import db

AlertKey = Annotated[str, Path(max_length=40, description="Id of the alert.")]


def reading() -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get(
        "/alerts",
        response_model=Page[AlertRow],
        summary="Alerts, newest first",
        responses=ROWS,
        dependencies=reads(db.Alert, db.Owner),
    )
    def list_alerts(
        books: BudgetRows,
        answer: AnyPage,
        state: Annotated[
            Literal["open", "acknowledged", "resolved", "withdrawn"] | None, Query(description="Only in this state.")
        ] = None,
        kind: Annotated[str | None, Query(max_length=32, description="Only of this kind.")] = None,
    ) -> Response:
        """One cause raises one alert."""
        return answer(books, alert_queries.alerts(books, state=state, kind=kind), "alerts")

    @routes.get("/alerts/{alert_id}", summary="An alert with its history and messages")
    def one_alert(books: BudgetRows, alert_id: AlertKey) -> AlertDetail:
        """What happened to it, who was told, and what they answered."""
        return alert_queries.alert(books, alert_id)

    @routes.get(
        "/alert-deliveries", response_model=Page[AlertDeliveryRow], summary="Messages about alerts, newest first", responses=ROWS
    )
    def list_deliveries(
        books: BudgetRows,
        answer: AnyPage,
        state: Annotated[
            Literal["pending", "sending", "sent", "dead", "dropped"] | None,
            Query(description="Only in this state; dead: given up."),
        ] = None,
    ) -> Response:
        """Each has the id under which it is delivered at least once."""
        return answer(books, alert_queries.deliveries(books, state=state), "alert-deliveries")

    @routes.get("/alert-channels", response_model=Page[AlertChannelRow], summary="Receivers of alerts", responses=ROWS)
    def list_channels(books: WholeAlerts, answer: AnyRows) -> Response:
        """Those of the settings, and how they do."""
        rows = alert_queries.channels(books)
        return answer.whole(queries.ModelListing(AlertChannelRow, rows, ["name"]), "alert-channels")

    @routes.get("/alert-mutes", response_model=Page[MuteRow], summary="Mutes in force", responses=ROWS)
    def list_mutes(books: BudgetRows, answer: AnyRows) -> Response:
        """The one that ends first on top."""
        return answer.whole(queries.ModelListing(MuteRow, alert_queries.mutes(books), ["expires_at", "id"]), "alert-mutes")

    return routes


def writing() -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post("/alerts/{alert_id}/responses", summary="Answer an alert", dependencies=[Depends(is_json)])
    def respond(books: BudgetChanges, alert_id: AlertKey, response: AlertResponse) -> AlertDetail:
        """Acknowledge, snooze, comment or resolve it, or send messages again that were given up."""
        return alert_responses.respond(books, alert_id, response)

    @routes.post("/alert-channels/{name}/test", status_code=202, summary="Test a receiver")
    def try_channel(
        books: AlertChanges, name: Annotated[str, Path(max_length=64, description="Name of the channel.")]
    ) -> AlertRow:
        """Raises an alert for it alone; the alert tells how the delivery went."""
        return alert_responses.try_channel(books, name)

    @routes.post("/alert-mutes", status_code=201, summary="Mute alerts", dependencies=[Depends(is_json)])
    def add_mute(books: BudgetChanges, terms: NewMute) -> MuteRow:
        """They are raised and shown, and nobody is told, until it ends."""
        return alert_responses.add_mute(books, terms)

    @routes.delete("/alert-mutes/{number}", status_code=204, summary="End a mute")
    def end_mute(
        books: BudgetChanges, number: Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the mute.")]
    ) -> None:
        """Now; what is raised from now on is told."""
        alert_responses.end_mute(books, number)

    return routes
