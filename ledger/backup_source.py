"""What a backup of a ledger consists of, at one moment.

The database, the tables at one version each with the earlier versions that are still there, the spool, the settings, and the other files of
the home. Files that never change under their name are copied later, from where they lie; the lock `BACKUP` keeps the vacuum from them meanwhile.
What changes is put aside at once.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ledger import durability, source_secrets, table_log
from ledger import settings as ledger_settings
from ledger.books import Books
from ledger.database_copy import copy_to_file, sqlite_path
from ledger.durability import Checksums
from ledger.locations import FolderLocation, Location, location
from ledger.scratch import PART_PREFIX, PREFIX
from ledger.tables import TABLES, Table

DATABASE: Final = "rootcost.db"
SETTINGS: Final = "rootcost.toml"
TABLES_FOLDER: Final = "tables"
_SPOOL: Final = "spool"
_LEFT_OUT: Final = frozenset(
    {_SPOOL, SETTINGS, "token", source_secrets.FOLDER, "cache", "backups", "rootcost.log", "rootcost.log.1", "dashboard.log"}
    | {f"{DATABASE}{suffix}" for suffix in ("", "-wal", "-shm")}
)
"""Of the home: what is copied in another way, the token, secrets of addresses, what is computed again, and logs."""
_SETTINGS_LEFT_OUT: Final = (
    ("store",),
    ("backup",),
    ("alerts", "webhook_url"),
    ("alerts", "channels"),
    ("alerts", "routes"),
    ("alerts", "digests"),
    ("access", "providers", "client_secret"),
)
"""Settings that name other places or hold secrets: a restored ledger must not write to the stores of the one it is a copy of."""
_RAW_NAME: Final = re.compile(r"([0-9a-f]{64})-.*")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be copied: its path in a home, where it lies, and its SHA-256 where that is known.

    `is_fixed`: its content never changes under this path.
    """

    path: str
    location: Location
    source_path: str
    size_bytes: int
    digest: str | None = None
    is_fixed: bool = False


@dataclass(slots=True)
class BackupSource:
    """All files of a backup, the versions of the tables, and what is left out: settings, and symbolic links."""

    files: list[SourceFile] = field(default_factory=list)
    tables: dict[str, int] = field(default_factory=dict)
    settings_left_out: list[str] = field(default_factory=list)
    links_left_out: list[str] = field(default_factory=list)


def freeze(books: Books, scratch: Path) -> BackupSource:
    """Pins the ledger as it is now. `scratch` gets what may change, and is needed until everything is copied.

    The caller holds the locks for backups, for attributing and for writing. The database comes first: all that it says is in the tables then.
    """
    source = BackupSource()
    (scratch / "home").mkdir()
    copy_to_file(books.database, scratch / "home" / DATABASE)
    source.settings_left_out = _put_settings_aside(books.home, scratch / "home" / SETTINGS)
    source.settings_left_out += [f"the secret of the source {name}" for name in source_secrets.sources_with_secrets(books.home)]
    _put_spool_aside(books.home / _SPOOL, scratch / "home" / _SPOOL)
    if "://" not in books.store.root:
        durability.seal_all(Path(books.store.root))
    for table in TABLES.values():
        version = books.store.version(table)
        if version is not None:
            source.tables[table.name] = version
            source.files += _table_files(books, table, version, scratch / "home" / TABLES_FOLDER / table.name)
    source.files += _home_files(books, source.links_left_out)
    put_aside = FolderLocation(scratch / "home")
    source.files += [SourceFile(path, put_aside, path, size) for path, size in put_aside.sizes().items()]
    return source


def _table_files(books: Books, table: Table, version: int, aside: Path) -> Iterator[SourceFile]:
    """The files of a table up to a version. What changes in place is copied to `aside`."""
    folder = location(books.store.uri(table), books.store.storage_options)
    is_local = isinstance(folder, FolderLocation)
    checksums = durability.read_checksums(folder.folder) if isinstance(folder, FolderLocation) else Checksums(None, {})
    for path, size_bytes in folder.sizes().items():
        if path in (durability.CHECKSUMS, f"{table_log.LOG}/{table_log.LAST_CHECKPOINT}"):
            _put_aside(folder, path, aside / path)
            continue
        is_log = path.startswith(f"{table_log.LOG}/")
        if is_log:
            file_version = table_log.version_of(PurePosixPath(path).name)
            if file_version is None or file_version > version:
                continue
        elif any(part.startswith(("_", ".")) for part in PurePosixPath(path).parts):
            continue
        digest = checksums.files.get(path) if is_local else None
        yield SourceFile(f"{TABLES_FOLDER}/{table.name}/{path}", folder, path, size_bytes, digest, is_fixed=True)


def _home_files(books: Books, links_left_out: list[str]) -> Iterator[SourceFile]:
    """The other files in the home: fetched bills, and what users keep there."""
    home = books.home
    database_path = sqlite_path(books.settings.database_url)
    excluded_paths = {home / name for name in _LEFT_OUT} | {Path(books.store.root)}
    if database_path is not None:
        excluded_paths |= {Path(f"{database_path}{suffix}") for suffix in ("", "-wal", "-shm")}
    below_home = FolderLocation(home)
    for folder, folder_names, file_names in os.walk(home):
        folder_names[:] = [name for name in folder_names if _is_kept(Path(folder, name), excluded_paths, links_left_out)]
        for name in file_names:
            path = Path(folder, name)
            if path.suffix != ".lock" and _is_kept(path, excluded_paths, links_left_out):
                relative_path, match = path.relative_to(home).as_posix(), _RAW_NAME.fullmatch(name)
                digest = match[1] if match and relative_path.startswith("raw/") else None
                size_bytes = path.lstat().st_size
                yield SourceFile(relative_path, below_home, relative_path, size_bytes, digest, is_fixed=digest is not None)


def _is_kept(path: Path, excluded_paths: set[Path], links_left_out: list[str]) -> bool:
    if path in excluded_paths or path.name.startswith((PREFIX, PART_PREFIX)):
        return False
    if path.is_symlink():
        links_left_out.append(str(path))
        return False
    return True


def _put_spool_aside(spool: Path, aside: Path) -> None:
    """Links the deliveries that are not booked yet: they are removed once they are."""
    for path in [*spool.glob("*.spool"), *spool.glob("damaged/*")]:
        if path.is_symlink() or not path.is_file():
            continue
        target = aside / path.relative_to(spool)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(path)
        except OSError:  # another disk
            shutil.copyfile(path, target)


def _put_aside(folder: Location, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.writelines(folder.read(path))


def _put_settings_aside(home: Path, target: Path) -> list[str]:
    """Writes the settings in force without those of `_SETTINGS_LEFT_OUT`; returns the names of those that were set."""
    path = ledger_settings.config_path(home)
    if path is None:
        return []
    import tomlkit

    text = path.read_text(encoding="utf-8")
    values, document, names = tomllib.loads(text), tomlkit.parse(text), list[str]()
    for path_of_key in _SETTINGS_LEFT_OUT:
        if _take_out(values, path_of_key) and _take_out(document, path_of_key):
            names.append(".".join(path_of_key))
    text = tomlkit.dumps(document)
    if tomllib.loads(text) != values:  # a layout that cannot be edited
        return [*names, f"all others of {path}"]
    target.write_text(text, encoding="utf-8")
    return names


def _take_out(section: Any, path: Sequence[str]) -> bool:
    """Takes a key out of nested sections, and out of each of a list of tables; returns whether it was there."""
    key, *inner_path = path
    if not inner_path:
        return section.pop(key, None) is not None
    inner = section.get(key) or {}
    return sum(_take_out(table, inner_path) for table in (inner if isinstance(inner, list) else [inner])) > 0
