"""The verbs of the client about reservations: reserve before a call, commit or release after it."""

from __future__ import annotations

from api import models
from api.client_connection import Connection, segment
from api.models import Page


class Reservations(Connection):
    """Money that is held for calls under way."""

    def reservations(self) -> Page[models.ReservationRow]:
        """Open and uncertain reservations, the oldest deadline first."""
        return self._get(Page[models.ReservationRow], "/v1/reservations")

    def reserve(self, wish: models.NewReservation) -> models.ReservationRow:
        """Holds an amount at every budget that a call counts against, or at none: then it raises `ApiProblem` with status 402."""
        return self._put(models.ReservationRow, "POST", "/v1/reservations", wish)

    def commit_reservation(self, reservation_id: str, commitment: models.Commitment) -> models.ReservationRow:
        """Books what a call cost; settles one that is uncertain, too."""
        return self._put(models.ReservationRow, "POST", f"/v1/reservations/{segment(reservation_id)}/commit", commitment)

    def release_reservation(self, reservation_id: str) -> models.ReservationRow:
        """Gives an open one back: the call cost nothing."""
        return self._put(models.ReservationRow, "POST", f"/v1/reservations/{segment(reservation_id)}/release", None)

    def report_gateway(self, gateway: str, report: models.GatewayReport) -> models.GatewayLimits:
        """Tells what a gateway's store holds, and what it may still grant."""
        return self._put(models.GatewayLimits, "POST", f"/v1/gateways/{segment(gateway)}/budgets", report)
