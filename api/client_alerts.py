"""The verbs of the client about alerts and anomalies."""

from __future__ import annotations

from api import models
from api.client_connection import Connection, segment
from api.models import Page


class Alerts(Connection):
    """Alerts, messages about them, receivers and mutes; anomalies."""

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

    def anomalies(
        self,
        *,
        month: str | None = None,
        scope: str | None = None,
        kind: str | None = None,
        is_open: bool | None = None,
        state: models.AnomalyState | None = None,
        team: str | None = None,
        anomaly_id: str | None = None,
        limit: int = 100,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[models.AnomalyRow]:
        """Anomalies, newest first; the conditions that are given select: `is_open` those that go on, `anomaly_id` one."""
        conditions = {
            "month": month, "scope": scope, "kind": kind, "open": is_open, "state": state, "team": team, "anomaly": anomaly_id,
        }  # fmt: skip
        return self._get(
            Page[models.AnomalyRow], "/v1/anomalies", {**conditions, "limit": limit, "offset": offset, "cursor": cursor}
        )

    def anomaly(self, anomaly_id: str) -> models.AnomalyRow:
        """An anomaly, and what was said of it."""
        return self._get(models.AnomalyRow, f"/v1/anomalies/{segment(anomaly_id)}")

    def answer_anomaly(self, anomaly_id: str, answer: models.AnomalyAnswer) -> models.AnomalyRow:
        """Says of an anomaly that it was planned, is none, or was fixed."""
        return self._put(models.AnomalyRow, "POST", f"/v1/anomalies/{segment(anomaly_id)}/answers", answer)

    def mute_anomaly(self, anomaly_id: str, terms: models.AnomalyMute) -> models.MuteRow:
        """Nobody is told of anomalies of its scope, until it ends."""
        return self._put(models.MuteRow, "POST", f"/v1/anomalies/{segment(anomaly_id)}/mutes", terms)

    def unmute_anomaly(self, anomaly_id: str) -> None:
        """Ends the mutes of an anomaly's scope."""
        self._send("DELETE", f"/v1/anomalies/{segment(anomaly_id)}/mutes")

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
