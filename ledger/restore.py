"""Restore: a home with what a backup holds, each file held against its SHA-256 while it is copied.

The new home is marked until everything is in it: it cannot be opened before, and a restore that was cut off is done again by the same
command. Tables and database go to where the settings in force put those of the new home, by default into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger import audit
from ledger import settings as ledger_settings
from ledger.backup import Progress
from ledger.backup_manifest import Manifest, content_path, find_manifest
from ledger.backup_source import DATABASE, SETTINGS, TABLES_FOLDER
from ledger.books import Books
from ledger.database_copy import load_from_file, require_empty, sqlite_path
from ledger.db import Database
from ledger.errors import LedgerDamagedError, LedgerVersionError, ObjectMissingError, UsageError
from ledger.filesystem import make_folder, sync_folder
from ledger.locations import DigestDiffersError, FolderLocation, Location, fixed, location
from ledger.private import UNFINISHED, make_private
from ledger.scratch import PART_PREFIX
from ledger.settings import Settings
from ledger.upgrade import revisions

AUDIT_ACTION: Final = "restore"
_OWN_STORES: Final = f"{UNFINISHED}.stores"
"""A file beside the mark: tables and database, wherever they are, were empty when this restore began."""
_THREADS: Final = 8
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, and to where."""

    backup_id: str
    made_at: str
    home: str
    tables: str
    database: str
    files: int
    size_bytes: int
    settings_left_out: tuple[str, ...]
    damaged: tuple[str, ...]
    repairs: tuple[str, ...]


def restore(
    address: str,
    home: Path,
    *,
    actor: str,
    backup_id: str | None = None,
    options: Mapping[str, str] | None = None,
    progress: Progress = lambda *_: None,
) -> RestoreReport:
    """Restores the backup of that id, by default the newest, into a folder that is empty or not there.

    Raises `LedgerDamagedError` that names the damaged files of a backup. Such a home stays marked as unfinished.
    """
    source = location(address, options)
    manifest = find_manifest(source, backup_id)
    if manifest.schema not in revisions():
        raise LedgerVersionError(
            f"the backup {manifest.backup_id} was made by RootCost {manifest.version} (schema {manifest.schema}); this version knows up to "
            f"{revisions()[-1]}",
            where=address,
            remedy="restore it with that version or a newer one",
        )
    _begin(home, manifest)
    settings = _restored_settings(source, manifest, home)
    tables = location(settings.tables_uri, settings.store.options)
    _require_empty_stores(settings, tables, home)
    # Tables in the home are files of it, so that no link leads out of it.
    targets: dict[str, Location] = {"": FolderLocation(home)} | ({TABLES_FOLDER: tables} if settings.store.uri else {})
    _copy_all(source, manifest, targets, progress)
    _place_database(home, settings.database_url)
    _finish(home)
    with Books(settings) as books:
        with books.database.session() as session:
            audit.record(session, actor, AUDIT_ACTION, address, after={"backup": manifest.backup_id, "made_at": manifest.made_at})
        return RestoreReport(
            manifest.backup_id, manifest.made_at, str(home), tables.address, books.database.engine.url.render_as_string(),
            len(manifest.files), manifest.size_bytes, manifest.settings_left_out, manifest.damaged,
            tuple(f"{repair.uri}: {repair.reason} — {repair.remedy}" for repair in books.repairs),
        )  # fmt: skip


def _begin(home: Path, manifest: Manifest) -> None:
    """Marks the new home. Raises `UsageError` if it holds anything but an unfinished restore of the same backup."""
    if home.exists() and not home.is_dir():
        raise UsageError(
            "is a file, not a folder", where=str(home), remedy="--home names a folder that is empty or not there yet"
        )
    marker = home / UNFINISHED
    if home.exists() and any(home.iterdir()):
        begun_id = marker.read_text("utf-8").strip() if marker.is_file() and not marker.is_symlink() else None
        if begun_id is None:
            remedy = "restore into a folder that is empty or not there yet, and move it when you have looked at it"
            raise UsageError("is not empty, and nothing in it is overwritten", where=str(home), remedy=remedy)
        if begun_id != manifest.backup_id:
            remedy = f"finish it with --at {begun_id}, or empty the folder"
            raise UsageError(f"holds an unfinished restore of the backup {begun_id}", where=str(home), remedy=remedy)
    make_private(home)
    with marker.open("w", encoding="utf-8") as file:
        file.write(f"{manifest.backup_id}\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(home)


def _restored_settings(source: Location, manifest: Manifest, home: Path) -> Settings:
    """Restores the settings, and reads those in force for the new home: the environment may name other stores."""
    if SETTINGS in manifest.files:
        digest = manifest.files[SETTINGS].digest
        with _damage_of(SETTINGS, source, digest):
            FolderLocation(home).write(fixed(SETTINGS), source.read(content_path(digest)), digest=digest)
    settings = ledger_settings.load(home)
    return settings.model_copy(update={"home": home})


def _require_empty_stores(settings: Settings, tables: Location, home: Path) -> None:
    """Raises `UsageError` if tables or database, where they are not in the new home, hold another ledger."""
    own_stores = home / _OWN_STORES
    if own_stores.exists():
        return
    if not (isinstance(tables, FolderLocation) and tables.folder.is_relative_to(home.absolute())) and tables.sizes():
        remedy = "name an empty folder or prefix (ROOTCOST_STORE__URI), or none: then they are in the new home"
        raise UsageError("holds tables of another ledger", where=tables.address, remedy=remedy)
    database_path = sqlite_path(settings.database_url)
    if database_path is None:
        with closing(Database(settings.database_url)) as database:
            require_empty(database)
    elif not database_path.absolute().is_relative_to(home.absolute()) and database_path.exists():
        remedy = "name a file that is not there yet (ROOTCOST_STORE__DATABASE_URL), or none: then it is in the new home"
        raise UsageError("holds the database of another ledger", where=str(database_path), remedy=remedy)
    own_stores.touch()


def _copy_all(source: Location, manifest: Manifest, targets: Mapping[str, Location], progress: Progress) -> None:
    """Copies every file to the tables or the home. Raises `LedgerDamagedError` that names those that are damaged or missing."""
    damaged_paths: list[str] = []

    def copy(path: str, digest: str) -> None:
        top, _, below = path.partition("/")
        target, target_path = (targets[top], below) if below and top in targets else (targets[""], path)
        with _damage_of(path, source, digest):
            target.write(fixed(target_path), source.read(content_path(digest)), digest=digest)

    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="restore")
    try:
        copies = {pool.submit(copy, path, file.digest): path for path, file in manifest.files.items() if path != SETTINGS}
        for number, copy_task in enumerate(as_completed(copies), 1):
            progress(copies[copy_task], number, len(copies))
            error = copy_task.exception()
            if isinstance(error, LedgerDamagedError):
                damaged_paths.append(f"{copies[copy_task]} ({error.where})")
            elif error is not None:
                raise error
    finally:
        pool.shutdown(cancel_futures=True)
    if damaged_paths:
        more = f" and {len(damaged_paths) - _NAMED} more" if len(damaged_paths) > _NAMED else ""
        raise LedgerDamagedError(
            f"is damaged in {len(damaged_paths)} files: {', '.join(sorted(damaged_paths)[:_NAMED])}{more}",
            where=f"backup {manifest.backup_id}",
            remedy="restore another one with --at, into another folder; rootcost backup verify tells which are whole",
        )
    for target in targets.values():
        target.sync()


@contextmanager
def _damage_of(path: str, source: Location, digest: str) -> Iterator[None]:
    """A missing or different content of a backup as damage of the file that it is in a home."""
    try:
        yield
    except (DigestDiffersError, ObjectMissingError) as error:
        content_address = f"{source.address}/{content_path(digest)}"
        raise LedgerDamagedError(
            f"{path} is damaged: {error.what}", where=content_address, remedy="restore another backup with --at"
        ) from error


def _place_database(home: Path, url: str) -> None:
    """Moves the restored SQLite file to its place, or loads its rows into the database of the settings."""
    restored_path, target_path = home / DATABASE, sqlite_path(url)
    if target_path is None:
        load_from_file(restored_path, url)
    elif target_path.absolute() != restored_path.absolute():
        make_folder(target_path.parent)
        FolderLocation(target_path.parent).write(fixed(target_path.name), FolderLocation(home).read(DATABASE))
        sync_folder(target_path.parent)
    else:
        return
    for suffix in ("", "-wal", "-shm", ".upgrade.lock"):
        Path(f"{restored_path}{suffix}").unlink(missing_ok=True)


def _finish(home: Path) -> None:
    """Removes what a restore leaves beside the ledger, and last the mark that it is unfinished."""
    for part in home.glob(f"{PART_PREFIX}*"):
        part.unlink()
    (home / _OWN_STORES).unlink(missing_ok=True)
    (home / UNFINISHED).unlink()
    sync_folder(home)
