"""Backups: made while the ledger is in use, incremental, listed when they are whole and not before.

A content that a location holds already is not stored_copy again: it lies there under its SHA-256, and files of tables never change. Their SHA-256 is
known from the tables' own lists, or from the backup before, so that they are not even read.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from typing import Final

import sqlalchemy as sa

from ledger import audit, locks
from ledger.audit import Audit
from ledger.backup_manifest import (
    CONTENTS,
    Manifest,
    ManifestFile,
    content_path,
    manifest_ids,
    needed_contents,
    read_manifest,
    remove_manifest,
    write_manifest,
)
from ledger.backup_source import BackupSource, SourceFile, freeze
from ledger.books import Books
from ledger.errors import ObjectMissingError, RootCostError, UsageError
from ledger.locations import DigestDiffersError, FolderLocation, Location, location
from ledger.locks import FileLock
from ledger.periods import now
from ledger.scratch import scratch_folder
from ledger.upgrade import revisions

AUDIT_ACTION: Final = "backup"
_LOCK_FILE: Final = ".rootcost-backup.lock"
_THREADS: Final = 8

Progress = Callable[[str, int, int], None]
"""Called with the current file, the number of files done, and of all files."""


@dataclass(slots=True)
class BackupReport:
    """What a backup holds, what of it was new, what was left out or was damaged before, and what was removed of older backups."""

    backup_id: str
    address: str
    files: int = 0
    size_bytes: int = 0
    new_files: int = 0
    new_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Manifests that cannot be read. While there are any, nothing is removed."""
    links_left_out: list[str] = field(default_factory=list)
    settings_left_out: list[str] = field(default_factory=list)
    removed_backups: list[str] = field(default_factory=list)
    removed_files: int = 0


@dataclass(frozen=True, slots=True)
class DamagedContent:
    """A content of backups that is missing or not as it was written: what is wrong, what it is in a home, and in which backups."""

    path: str
    reason: str
    home_paths: tuple[str, ...]
    backup_ids: tuple[str, ...]


def make_backup(
    books: Books,
    address: str,
    *,
    actor: str,
    keep: int | None = None,
    progress: Progress = lambda *_: None,
    on_wait: Callable[[], None] | None = None,
) -> BackupReport:
    """Backs the ledger up to a folder or ``s3://bucket/prefix``; then keeps only the newest `keep` backups of this ledger there.

    Other processes go on, but for the moment in which the ledger is pinned; what they write from then on is not in the backup.
    """
    target = _target(books, address)
    with _writing(target), locks.backup_lock(books, on_wait=on_wait), scratch_folder("backup", books.home) as scratch:
        manifests, errors = _manifests(target)
        with locks.attribution_lock(books, on_wait=on_wait), locks.write_lock(books, on_wait=on_wait):
            made_at = now()
            backup_id = f"{made_at:%Y%m%dT%H%M%S%f}Z-{uuid.uuid4().hex[:4]}"
            ledger_id = _announce(books, target.address, backup_id, actor)
            source = freeze(books, scratch)
        own_manifests = [manifest for manifest in manifests if manifest.ledger_id == ledger_id]
        report = BackupReport(backup_id, target.address, settings_left_out=source.settings_left_out)
        report.links_left_out, report.unreadable = source.links_left_out, [str(error) for error in errors]
        files = _copy_all(target, source, own_manifests[-1].files if own_manifests else {}, report, progress)
        target.sync()
        manifest = Manifest(
            backup_id=backup_id,
            ledger_id=ledger_id,
            made_at=made_at.isoformat(),
            version=version_of("rootcost"),
            schema=revisions()[-1],
            home=str(books.home.absolute()),
            database=books.database.engine.dialect.name,
            tables=source.tables,
            settings_left_out=tuple(source.settings_left_out),
            damaged=tuple(report.damaged),
            files=files,
        )
        write_manifest(target, manifest)
        target.sync()
        report.files, report.size_bytes = len(files), manifest.size_bytes
        if keep is not None and not errors:
            _remove_old(target, [*manifests, manifest], manifest, keep, report)
    return report


def list_backups(address: str, options: Mapping[str, str] | None = None) -> tuple[list[Manifest], list[RootCostError]]:
    """The backups at a location, oldest first, and what is wrong with manifests that cannot be read."""
    return _manifests(location(address, options))


def _manifests(target: Location) -> tuple[list[Manifest], list[RootCostError]]:
    manifests, errors = list[Manifest](), list[RootCostError]()
    for backup_id in manifest_ids(target):
        try:
            manifests.append(read_manifest(target, backup_id))
        except RootCostError as error:
            errors.append(error)
    return manifests, errors


def verify_backups(
    address: str, manifests: Sequence[Manifest], options: Mapping[str, str] | None = None, progress: Progress = lambda *_: None
) -> list[DamagedContent]:
    """Reads every content that these backups consist of, and compares it with its SHA-256; returns those that differ or are missing."""
    target = location(address, options)
    uses: dict[str, list[tuple[str, str]]] = {}
    for manifest in manifests:
        for home_path, file in manifest.files.items():
            uses.setdefault(file.digest, []).append((home_path, manifest.backup_id))
    reasons: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        checks = {pool.submit(_content_damage, target, digest): digest for digest in uses}
        for number, check in enumerate(as_completed(checks), 1):
            digest = checks[check]
            progress(uses[digest][0][0], number, len(uses))
            if (reason := check.result()) is not None:
                reasons[digest] = reason
    return [
        DamagedContent(
            content_path(digest),
            reason,
            tuple(sorted({path for path, _ in uses[digest]})),
            tuple(sorted({backup_id for _, backup_id in uses[digest]})),
        )
        for digest, reason in sorted(reasons.items())
    ]


def addresses_in_use(books: Books) -> dict[str, list[str]]:
    """Where backups of this ledger were made to, and their ids, oldest first. Those that were removed since are among them."""
    with books.database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.action == AUDIT_ACTION).order_by(Audit.sequence)).all()
    by_address: dict[str, list[str]] = {}
    for row in rows:
        by_address.setdefault(row.subject, []).append(str((row.after or {})["backup"]))
    return by_address


def _target(books: Books, address: str) -> Location:
    """The location to write to. Raises `UsageError` if it lies within the ledger: a disk that fails would take both."""
    target = location(address, books.settings.backup.s3_options)
    if isinstance(target, FolderLocation):
        for folder in books.folders:
            if target.folder.resolve().is_relative_to(folder.resolve()):
                remedy = "name a folder on another disk, or s3://bucket/prefix"
                raise UsageError("lies in the folder that is backed up", where=target.address, remedy=remedy)
    elif target.address == books.store.root:
        raise UsageError("holds the tables", where=target.address, remedy="name another prefix")
    return target


@contextmanager
def _writing(target: Location) -> Iterator[None]:
    """Holds the lock of a folder of backups, and clears what a process left there that is gone. A bucket has no locks."""
    if not isinstance(target, FolderLocation):
        yield
        return
    lock = FileLock(target.folder / _LOCK_FILE)
    try:
        is_acquired = lock.acquire()
    except OSError as error:
        remedy = "name a folder that can be written"
        raise UsageError(f"cannot be written: {error.strerror}", where=target.address, remedy=remedy) from error
    if not is_acquired:
        raise UsageError("another backup is being made there", where=target.address, remedy="repeat it when that one has ended")
    try:
        target.remove_parts()
        yield
    finally:
        lock.release()


def _announce(books: Books, address: str, backup_id: str, actor: str) -> str:
    """Notes in the audit trail that a backup is begun, and returns the ledger's id: the trail has it from its first backup on."""
    with books.database.session() as session:
        first = session.scalars(sa.select(Audit).where(Audit.action == AUDIT_ACTION).order_by(Audit.sequence).limit(1)).first()
        ledger_id = str((first.after or {})["ledger"]) if first is not None else uuid.uuid4().hex
        audit.record(session, actor, AUDIT_ACTION, address, after={"backup": backup_id, "ledger": ledger_id})
    return ledger_id


def _copy_all(
    target: Location, source: BackupSource, earlier_files: Mapping[str, ManifestFile], report: BackupReport, progress: Progress
) -> dict[str, ManifestFile]:
    """Copies what the target does not hold yet; returns all files of the backup."""
    stored_sizes = target.sizes(CONTENTS)
    files, new_files = dict[str, ManifestFile](), set[ManifestFile]()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="backup")
    try:
        copies = {pool.submit(_copied, target, file, stored_sizes, earlier_files.get(file.path)): file for file in source.files}
        for number, copy in enumerate(as_completed(copies), 1):
            file, stored_copy = copies[copy], copy.result()
            progress(file.path, number, len(copies))
            if stored_copy.file is not None:
                files[file.path] = stored_copy.file
            if stored_copy.file is not None and stored_copy.is_new:
                new_files.add(stored_copy.file)
            if stored_copy.is_damaged:
                report.damaged.append(file.path)
    finally:
        pool.shutdown(cancel_futures=True)
    report.damaged.sort()
    report.new_files, report.new_bytes = len(new_files), sum(file.size_bytes for file in new_files)
    return dict(sorted(files.items()))


@dataclass(frozen=True, slots=True)
class _Copied:
    """A file that the target holds now, None if it is gone; whether it was stored_copy now, and whether it was damaged before."""

    file: ManifestFile | None
    is_new: bool = False
    is_damaged: bool = False


def _copied(target: Location, file: SourceFile, stored_sizes: Mapping[str, int], earlier: ManifestFile | None) -> _Copied:
    digest = file.digest
    if digest is None and file.is_fixed and earlier is not None and earlier.size_bytes == file.size_bytes:
        digest = earlier.digest
    if digest is not None and stored_sizes.get(content_path(digest)) == file.size_bytes:
        return _Copied(ManifestFile(digest, file.size_bytes))
    try:
        try:
            return _written(target, file, stored_sizes, digest or "")
        except DigestDiffersError:
            # The file was damaged before. It is kept as it is: the rest of the backup is worth having.
            return _Copied(_written(target, file, stored_sizes, "").file, is_new=True, is_damaged=True)
    except ObjectMissingError:
        return _Copied(None, is_damaged=file.is_fixed)


def _written(target: Location, file: SourceFile, stored_sizes: Mapping[str, int], digest: str) -> _Copied:
    content = target.write(content_path, file.location.read(file.source_path), digest=digest)
    return _Copied(ManifestFile(content.digest, content.size_bytes), is_new=content_path(content.digest) not in stored_sizes)


def _remove_old(target: Location, manifests: Sequence[Manifest], newest: Manifest, keep: int, report: BackupReport) -> None:
    """Removes this ledger's oldest backups, and then the contents that no backup needs, of whatever ledger."""
    own = sorted((m for m in manifests if m.ledger_id == newest.ledger_id and m is not newest), key=lambda m: m.made_at)
    old_manifests = own[: max(0, len(own) + 1 - max(1, keep))]
    for manifest in old_manifests:
        remove_manifest(target, manifest.backup_id)
        report.removed_backups.append(manifest.backup_id)
    target.sync()
    needed_paths = needed_contents(manifest for manifest in manifests if manifest not in old_manifests)
    for path in target.sizes(CONTENTS).keys() - needed_paths:
        target.remove(path)
        report.removed_files += 1
    target.sync()


def _content_damage(target: Location, digest: str) -> str | None:
    running_digest = hashlib.sha256()
    try:
        for chunk in target.read(content_path(digest)):
            running_digest.update(chunk)
    except ObjectMissingError:
        return "is missing"
    return None if running_digest.hexdigest() == digest else "is not as it was written: its SHA-256 differs"
