"""The verbs of the client about alerts."""

from __future__ import annotations

from api import models
from api.client_connection import Connection, segment
from api.models import Page


class Alerts(Connection):
    """Alerts, messages about them, receivers and mutes."""

    def alerts(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        limit: int = 100,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[models.AlertRow]:
        """Alerts, newest first."""
        conditions = {"state": state, "kind": kind, "limit": limit, "offset": offset, "cursor": cursor}
        return self._get(Page[models.AlertRow], "/v1/alerts", conditions)

    def alert(self, alert_id: str) -> models.AlertDetail:
        """An alert with its history and messages."""
        return self._get(models.AlertDetail, f"/v1/alerts/{segment(alert_id)}")

    def respond_to_alert(self, alert_id: str, response: models.AlertResponse) -> models.AlertDetail:
        """Acknowledges, snoozes, comments or resolves an alert, or sends messages again that were given up."""
        return self._put(models.AlertDetail, "POST", f"/v1/alerts/{segment(alert_id)}/responses", response)

    def alert_deliveries(
        self, *, state: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[models.AlertDeliveryRow]:
        """Messages about alerts, newest first; `state` dead: given up."""
        conditions = {"state": state, "limit": limit, "cursor": cursor}
        return self._get(Page[models.AlertDeliveryRow], "/v1/alert-deliveries", conditions)

    def alert_channels(self) -> Page[models.AlertChannelRow]:
        """Receivers of alerts, and how they do."""
        return self._get(Page[models.AlertChannelRow], "/v1/alert-channels")

    def try_alert_channel(self, name: str) -> models.AlertRow:
        """Raises an alert for one receiver alone."""
        return self._put(models.AlertRow, "POST", f"/v1/alert-channels/{segment(name)}/test", None)

    def alert_mutes(self) -> Page[models.MuteRow]:
        """Mutes in force."""
        return self._get(Page[models.MuteRow], "/v1/alert-mutes")

    def mute_alerts(self, terms: models.NewMute) -> models.MuteRow:
        """Mutes alerts until a time."""
        return self._put(models.MuteRow, "POST", "/v1/alert-mutes", terms)

    def end_mute(self, number: int) -> None:
        """Ends a mute now."""
        self._send("DELETE", f"/v1/alert-mutes/{number}")
