"""Backups that `rootcost serve` makes by itself: at each tick of backup.cron, and at once where one was missed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from ledger.errors import RootCostError, SettingsError, UsageError
from ledger.periods import now
from rootcost.operations.cron import trigger

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from ledger.books import Books

JOB: Final = "backup"
POLL_SECONDS: Final = 60.0
"""How often it is looked at whether a backup is due."""
_RETRY: Final = timedelta(hours=1)
"""How long after a backup that failed it is tried again."""


class BackupBrokenOffError(RootCostError):
    """The service stops while a backup is made. What was copied is used by the next one."""


class ScheduledBackups:
    """Makes the backups that are due. Raises `SettingsError` if backup.cron cannot be read."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._settings = books.settings.backup
        self._stop = threading.Event()
        self._retry_at: datetime | None = None
        try:
            self._ticks: BaseTrigger | None = trigger(self._settings.cron) if self._settings.address else None
        except UsageError as error:
            raise SettingsError(
                error.what, where="backup.cron", remedy='write five fields, e.g. "15 2 * * *", or @daily'
            ) from error

    def make_if_due(self) -> Mapping[str, Any]:
        """Makes a backup if one is due; returns what it holds. One that fails raises an alert once a day, and is tried again in an hour."""
        if self._ticks is None or not self._is_due(self._ticks):
            return {}
        from ledger.backup import make_backup

        try:
            report = make_backup(
                self._books, self._settings.address, actor="schedule", keep=self._settings.keep, progress=self._go_on
            )
            if report.damaged:
                self._alert(
                    f"{len(report.damaged)} files of the ledger are damaged, the first is {report.damaged[0]}: see rootcost verify"
                )
            if report.unreadable:
                self._alert(f"no old backup was removed: {report.unreadable[0]}")
        except BackupBrokenOffError:
            raise
        except Exception as error:
            self._retry_at = now() + _RETRY
            self._alert(str(error))
            raise
        self._retry_at = None
        if not report.damaged and not report.unreadable:
            self._resolve()
        return {"backup": report.backup_id, "files": report.files, "new_files": report.new_files, "new_bytes": report.new_bytes}

    def stop(self) -> None:
        """Breaks off the backup that is being made."""
        self._stop.set()

    def _is_due(self, ticks: BaseTrigger) -> bool:
        from ledger.db import JobRun

        at = now()
        if self._retry_at is not None:
            return at >= self._retry_at
        whole = (JobRun.job == JOB) & (JobRun.status == "done")
        with self._books.database.session() as session:
            last_at = session.scalars(sa.select(JobRun.started_at).where(whole).order_by(JobRun.id.desc()).limit(1)).first()
        return last_at is None or bool(ticks.get_next_fire_time(None, last_at + timedelta(microseconds=1)) <= at)

    def _go_on(self, *_: object) -> None:
        if self._stop.is_set():
            raise BackupBrokenOffError(
                "the service stops", where=self._settings.address, remedy="the next backup goes on where it was"
            )

    def _resolve(self) -> None:
        from ledger.alerts import OPEN_STATES, close
        from ledger.db import Alert

        is_of_backup = (Alert.kind == "backup_failed") & (Alert.subject == self._settings.address) & Alert.state.in_(OPEN_STATES)
        with self._books.database.session() as session:
            for alert in session.scalars(sa.select(Alert).where(is_of_backup)).all():
                close(session, alert, "resolved", text="A whole backup was made.")

    def _alert(self, reason: str) -> None:
        from ledger.alerts import add_new, alert_id
        from ledger.db import Alert

        at = now()
        alert = Alert(
            alert_id=alert_id(f"backup|{self._settings.address}|{at:%Y-%m-%d}|{reason}"),
            kind="backup_failed",
            severity="warning",
            subject=self._settings.address,
            text=f"The backup to {self._settings.address} has failed or is not whole: {reason}",
            address="",
            payload={"reason": reason},
            figure="no whole backup",
            limit_text=f"one at each tick of {self._settings.cron}",
            next_step="rootcost backup: it says what is wrong",
            created_at=at,
            attempts=0,
        )
        with self._books.database.session() as session:
            add_new(session, [alert])
