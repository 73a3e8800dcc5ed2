"""Routes of anomalies: listed, one, and answered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response

from api import queries
from api.access.gates import BudgetChanges, BudgetRows
from api.anomaly_answers import answer_anomaly, mute_anomaly, unmute_anomaly
from api.etags import reads
from api.models import AnomalyAnswer, AnomalyMute, AnomalyRow, AnomalyState, MuteRow, Page
from api.queries.publication import one_publication
from api.routes.answers import ROWS, AnyPage
from api.routes.parameters import MONTH, shape
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger import db
from ledger.alert_tables import AlertEvent, AlertMute
from ledger.tables import ANOMALIES

AnomalyKey = Annotated[str, Path(max_length=40, description="Id of the anomaly.")]


def reading() -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get(
        "/anomalies",
        response_model=Page[AnomalyRow],
        summary="Anomalies: spend that is unlike its own past, and why",
        responses=ROWS,
        dependencies=reads(ANOMALIES, db.Alert, AlertEvent, AlertMute, db.Owner),
    )
    def anomalies(
        books: BudgetRows,
        answer: AnyPage,
        month: Annotated[
            str | None,
            Query(description="Only those that began in this month.", examples=["2026-10"], json_schema_extra=shape(MONTH)),
        ] = None,
        scope: Annotated[
            str | None, Query(max_length=64, description="Only those of agents, teams, …", examples=["agent"])
        ] = None,
        kind: Annotated[str | None, Query(max_length=64, description="Only those of this kind.", examples=["spike"])] = None,
        is_open: Annotated[
            bool | None, Query(alias="open", description="Only those that the newest figures still belong to, or do not.")
        ] = None,
        state: Annotated[AnomalyState | None, Query(description="Only in this state.")] = None,
        team: Annotated[str | None, Query(max_length=256, description="Only of this owner.")] = None,
        anomaly: Annotated[str | None, Query(max_length=256, description="Only the one with this id.")] = None,
    ) -> Response:
        """Newest first."""

        @one_publication
        def whole_answer() -> Response:
            rows = queries.anomalies(
                books, month=month, scope=scope, kind=kind, is_open=is_open, state=state, team=team, anomaly_id=anomaly
            )
            return answer(books, rows, "anomalies")

        return whole_answer()

    @routes.get("/anomalies/{anomaly_id}", summary="An anomaly, and what was said of it")
    def one_anomaly(books: BudgetRows, anomaly_id: AnomalyKey) -> AnomalyRow:
        """Drivers sum to `excess`."""
        return queries.anomaly(books, anomaly_id)

    return routes


def writing() -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post("/anomalies/{anomaly_id}/answers", summary="Answer an anomaly", dependencies=[Depends(is_json)])
    def answer(books: BudgetChanges, anomaly_id: AnomalyKey, response: AnomalyAnswer) -> AnomalyRow:
        """It was planned, is none, or its cause was removed. Its incident ends."""
        return answer_anomaly(books, anomaly_id, response)

    @routes.post(
        "/anomalies/{anomaly_id}/mutes", status_code=201, summary="Mute an anomaly's scope", dependencies=[Depends(is_json)]
    )
    def mute(books: BudgetChanges, anomaly_id: AnomalyKey, terms: AnomalyMute) -> MuteRow:
        """Anomalies of the same agent, team or other scope are found and shown, and nobody is told, until it ends."""
        return mute_anomaly(books, anomaly_id, terms)

    @routes.delete("/anomalies/{anomaly_id}/mutes", status_code=204, summary="End the mutes of an anomaly's scope")
    def unmute(books: BudgetChanges, anomaly_id: AnomalyKey) -> None:
        """Now; what is raised from now on is told."""
        unmute_anomaly(books, anomaly_id)

    return routes
