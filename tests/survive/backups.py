"""Backups and restores that are killed."""

from __future__ import annotations

from pathlib import Path

from ledger.backup import list_backups, make_backup, verify_backups
from ledger.books import Books
from ledger.restore import restore
from tests.support.kills import kill_self_at


def back_up(home: Path, target: Path, kill_at: int | None = None) -> None:
    """Makes a backup, and is killed at an operation; one that is whole must be as it was written."""
    if kill_at is not None:
        kill_self_at(kill_at)
    with Books.open(home) as books:
        make_backup(books, str(target), actor="test")
    if kill_at is None:
        manifests, errors = list_backups(str(target))
        assert not errors
        assert not verify_backups(str(target), manifests)


def restore_newest(target: Path, home: Path, kill_at: int | None = None) -> None:
    """Restores the newest backup, and is killed at an operation."""
    if kill_at is not None:
        kill_self_at(kill_at)
    restore(str(target), home, actor="test")


def listed_backups(target: Path) -> list[Path]:
    """The manifests that there are."""
    return sorted((target / "backups").glob("*.json"))
