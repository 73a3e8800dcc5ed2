"""Backups of the service: at each tick, at once where one was missed, told where one fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger.backup import list_backups
from ledger.books import Books
from ledger.db import Alert, JobRun
from ledger.errors import SettingsError
from ledger.settings import BackupSettings
from ledger.spool import Spool
from rootcost.service import backups
from rootcost.service import schedule as schedule_module
from rootcost.service.backups import BackupBrokenOffError, ScheduledBackups
from rootcost.service.schedule import Schedule


def with_backups(books: Books, uri: Path, **options: int | str) -> Books:
    books.settings = books.settings.model_copy(update={"backup": BackupSettings(address=str(uri), **options)})
    return books


def test_a_backup_is_made_at_each_tick_and_old_ones_go(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "backups"
    schedule = Schedule(with_backups(books, target, cron="15 2 * * *", keep=2), Spool(books.home / "spool"))
    made_files = []
    for at in ("10-05T12:00", "10-05T23:00", "10-06T02:14", "10-06T02:16", "10-09T01:00", "10-09T02:16"):
        for module in (backups, schedule_module):
            monkeypatch.setattr(module, "now", lambda at=at: datetime.fromisoformat(f"2026-{at}").replace(tzinfo=UTC))
        made_files.append(bool(schedule.run("backup", schedule.backups.make_if_due)))
    # One at once, since there is none; then at the next tick; then for the ticks that were missed, and at the next one.
    assert made_files == [True, False, False, True, True, True]
    assert len(list_backups(str(target))[0]) == 2
    with books.database.session() as session:
        assert session.scalars(sa.select(JobRun.job)).all() == ["backup"] * 4


def test_a_backup_that_fails_raises_an_alert_and_is_tried_again(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backups"
    target.write_text("a file")
    schedule = Schedule(with_backups(books, target), Spool(books.home / "spool"))
    at = datetime(2026, 10, 5, tzinfo=UTC)
    for minutes in (0, 30, 61):
        monkeypatch.setattr(backups, "now", lambda minutes=minutes: at + timedelta(minutes=minutes))
        assert schedule.run("backup", schedule.backups.make_if_due) == {}
    with books.database.session() as session:
        [alert] = session.scalars(sa.select(Alert)).all()
        assert session.scalars(sa.select(JobRun.status)).all() == ["failed", "failed"]  # not at 30 minutes
    assert (alert.kind, alert.subject) == ("backup_failed", str(target))
    assert "name a folder that can be written" in alert.text
    target.unlink()
    monkeypatch.setattr(backups, "now", lambda: at + timedelta(hours=3))
    assert schedule.run("backup", schedule.backups.make_if_due)


def test_a_service_that_stops_breaks_its_backup_off(books: Books, tmp_path: Path) -> None:
    daily_backups = ScheduledBackups(with_backups(books, tmp_path / "backups"))
    daily_backups.stop()
    with pytest.raises(BackupBrokenOffError):
        daily_backups.make_if_due()
    assert list_backups(str(tmp_path / "backups")) == ([], [])


def test_nothing_is_due_without_an_address_and_an_odd_schedule_is_refused(books: Books, tmp_path: Path) -> None:
    assert ScheduledBackups(books).make_if_due() == {}
    with pytest.raises(SettingsError, match=r"backup\.cron: .* has 2 fields"):
        ScheduledBackups(with_backups(books, tmp_path, cron="every day"))
