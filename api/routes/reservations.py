"""Routes of reservations: reserve before a call, commit or release after it. (BU-1)"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response as AnyResponse

from api.access.gates import BudgetRows, Reserving
from api.errors import RequestError, described_responses
from api.models import Commitment, GatewayLimit, GatewayLimits, GatewayReport, NewReservation, Page, ReservationRow
from api.queries.gate import ScopedBooks
from api.queries.listing import ModelListing
from api.routes.answers import ROWS, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger.budgets import gateways, reservations
from ledger.errors import DeniedError
from ledger.reservation_tables import Reservation

ReservationPath = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9._:-]+$", description="Id of the reservation.")]
GatewayPath = Annotated[
    str, Path(max_length=20, pattern=r"^[A-Za-z0-9-]+$", description="Name of the gateway: replicas that share a store share it.")
]
_SCOPES = ("team", "agent", "workflow", "tenant", "environment", "provider", "model")


def reading() -> APIRouter:
    """The list."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/reservations", response_model=Page[ReservationRow], summary="Money that is held", responses=ROWS)
    def unfinished(books: BudgetRows, answer: AnyRows) -> AnyResponse:
        """Open and uncertain reservations, the oldest deadline first."""
        rows = [_row(reservation) for reservation in reservations.unfinished(books.whole, books.teams)]
        return answer.whole(ModelListing(ReservationRow, rows, ["deadline", "reservation_id"]), "reservations")

    return routes


def writing() -> APIRouter:
    """The changes."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)
    refusal = described_responses({402: "A hard budget has less left than is asked for"})

    @routes.post("/reservations", status_code=201, summary="Reserve", dependencies=[Depends(is_json)], responses=refusal)
    def reserve(books: Reserving, wish: NewReservation) -> ReservationRow:
        """Holds the amount at every budget that the call counts against, or at none. Do it before the call."""
        request = reservations.Request(
            scopes=_scopes(books, wish),
            amount=wish.amount,
            currency=wish.currency,
            seconds=wish.seconds,
            reservation_id=wish.reservation_id or "",
            chain_id=wish.chain_id or "",
        )
        try:
            reservation = reservations.reserve(books.whole, request, books.principal.id)
        except reservations.BudgetRefusedError as error:
            raise RequestError(402, "budget-exceeded", error.what, where=error.where, remedy=error.remedy) from error
        _need(books, reservation)
        return _row(reservation)

    @routes.post("/reservations/{reservation_id}/commit", summary="Commit", dependencies=[Depends(is_json)])
    def commit(books: Reserving, reservation_id: ReservationPath, commitment: Commitment) -> ReservationRow:
        """Books what the call cost. Also settles an uncertain reservation. The first commit is final."""
        _need(books, reservations.reservation(books.whole, reservation_id))
        return _row(reservations.commit(books.whole, reservation_id, commitment.cost))

    @routes.post("/reservations/{reservation_id}/release", summary="Release")
    def release(books: Reserving, reservation_id: ReservationPath) -> ReservationRow:
        """Gives an open reservation back: the call cost nothing. An uncertain one stays."""
        _need(books, reservations.reservation(books.whole, reservation_id))
        return _row(reservations.release(books.whole, reservation_id))

    @routes.post("/gateways/{gateway}/budgets", summary="Report and refresh", dependencies=[Depends(is_json)])
    def report(books: Reserving, gateway: GatewayPath, sums: GatewayReport) -> GatewayLimits:
        """For a gateway that decides by itself: takes over what its store holds, and answers with the budgets it enforces and what each has left for it."""
        store = gateways.GatewayStore(gateway, sums.epoch)
        levels = [gateways.GatewaySums(**level.model_dump()) for level in sums.levels]
        gateways.report(books.whole, store, levels, books.principal.id, books.teams)
        return GatewayLimits(budgets=[_limit(row) for row in gateways.limits(books.whole, store, books.teams)])

    return routes


def _limit(row: gateways.GatewayLimit) -> GatewayLimit:
    terms = row.terms
    return GatewayLimit(
        budget_id=row.budget_id,
        name=terms.name,
        revision=row.revision,
        scopes=dict(terms.scopes),
        period=terms.period,
        window_start=row.window.start,
        window_end=row.window.end,
        limit=row.limit,
        elsewhere=row.elsewhere,
        currency=terms.currency,
        usd_rate=row.usd_rate,
        enforcement=terms.enforcement,
        on_outage=terms.on_outage,
        owner=terms.owner,
    )


def _scopes(books: ScopedBooks, wish: NewReservation) -> dict[str, str]:
    """What the call counts against. The team is one of the principal's, whatever the request says."""
    scopes = {name: value for name in _SCOPES if (value := getattr(wish, name)) is not None}
    if books.teams is not None:
        if "team" not in scopes and len(books.teams) == 1:
            scopes["team"] = next(iter(books.teams))
        if scopes.get("team") not in books.teams:
            raise DeniedError(
                f"{books.principal.name} may reserve for {', '.join(sorted(books.teams))} only",
                where="team",
                remedy="name one of these teams, or ask an administrator",
            )
    return scopes


def _need(books: ScopedBooks, reservation: Reservation) -> None:
    """Raises `DeniedError` unless the reservation is of a team of the principal's."""
    if books.teams is not None and reservation.team not in books.teams:
        raise DeniedError("it is another team's", where=reservation.reservation_id, remedy="ask an administrator")


def _row(reservation: Reservation) -> ReservationRow:
    return ReservationRow.model_validate(reservation, from_attributes=True)
