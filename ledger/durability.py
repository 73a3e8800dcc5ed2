"""Durable before said: what a statement rests on is on disk before the statement is made.

deltalake writes data files and commits and syncs none of them, so for about half a minute a power cut takes them away. `seal` syncs what the
commits of a table added since it was last called: data files, commit files, checkpoints, folders. It is called (`ledger.store.Store.sync`)
before a transaction of the database is committed that may say so (a month is published, a checkpoint moved), before received
deliveries leave the spool, and before a command ends. On the way it notes the checksum of every file in the table's `_checksums.jsonl`,
by which `rootcost verify` finds a flipped bit. A commit that is listed there is on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger import disk, table_log
from ledger.errors import StoreUnreachable
from ledger.filesystem import sync_folder

CHECKSUMS: Final = "_checksums.jsonl"
"""Name of the list of checksums in a table's folder. Readers of Delta tables pass over names that begin with an underscore."""

_WRITTEN_BACK_SECONDS: Final = 3600
"""Commits older than this are on disk without being asked for: the kernel writes dirty pages back within a minute."""
_THREADS: Final = 8
_TAIL_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Checksums:
    """The list of a table: SHA-256 by path below the table's folder, the last sealed version, and lines that are damaged."""

    version: int | None
    files: Mapping[str, str]
    damaged_lines: tuple[int, ...] = ()


class TableSync:
    """The tables below a root that were written here and not synced since."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def note(self, name: str) -> None:
        """A table was written, or found to be as it should be: by a process that may have been killed before it synced."""
        self._names.add(name)

    def sync(self) -> None:
        """Returns when all commits of these tables are on disk. Raises `StoreUnreachable` if the disk refuses; a repetition tries again."""
        if "://" in self._root:
            return
        with self._lock:
            while self._names:
                name = self._names.pop()
                try:
                    seal(Path(self._root) / name)
                except (OSError, table_log.TornCommitError) as error:
                    self._names.add(name)
                    if disk.is_full(error):
                        raise disk.disk_full(f"{self._root}/{name}") from error
                    remedy = "check that the disk has room and can be written"
                    raise StoreUnreachable(str(error), where=f"{self._root}/{name}", remedy=remedy) from error


def seal_all(root: Path) -> None:
    """Seals every table below a folder."""
    for log_folder in sorted(root.glob(f"*/{table_log.LOG}")):
        seal(log_folder.parent)


def seal(folder: Path) -> None:
    """Syncs the commits of a table that are not sealed yet, and notes their checksums."""
    last_version = sealed_version(folder)
    versions = table_log.versions(folder)
    if not versions:
        return
    if last_version is None:
        recent = _disk_seconds(folder) - _WRITTEN_BACK_SECONDS
        new_versions = [v for v in versions if table_log.commit_path(folder, v).stat().st_mtime > recent]
    else:
        new_versions = [v for v in versions if v > last_version]
    if not new_versions:
        return
    log_names = [table_log.commit_path(folder, version).name for version in new_versions]
    new_checkpoints = [name for name, version in table_log.checkpoints(folder).items() if version >= new_versions[0]]
    if new_checkpoints:
        log_names += [*new_checkpoints, table_log.LAST_CHECKPOINT]
    data_paths = {file.path for version in new_versions for file in table_log.read_commit(folder, version).files}
    paths = [*(f"{table_log.LOG}/{name}" for name in log_names), *sorted(data_paths)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sync") as pool:  # syncs at once share one commit of the disk's journal
        digests = dict(zip(paths, pool.map(lambda path: _sync_file(folder / path), paths), strict=True))
        list(pool.map(sync_folder, _folders(folder, paths)))
    _append(folder, new_versions[-1], {path: digest for path, digest in digests.items() if digest is not None})


def _disk_seconds(folder: Path) -> float:
    """What time it is by the clock that gives files their times: another one than this process's where that was set, or on another host's disk."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def note_version(folder: Path, version: int) -> None:
    """Notes that commits after `version` were rolled back."""
    _append(folder, version, {})


def sealed_version(folder: Path) -> int | None:
    """The last commit that is known to be on disk; None for a table that has no list yet."""
    try:
        with (folder / CHECKSUMS).open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - _TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None
    for line in reversed(tail.splitlines()):
        version = _parse(line)
        if version is not None:
            return version[0]
    return _all_lines(folder).version  # a line longer than the tail


def read_checksums(folder: Path) -> Checksums:
    """The whole list of a table; empty where there is none."""
    return _all_lines(folder) if (folder / CHECKSUMS).exists() else Checksums(None, {})


def forget_removed_files(folder: Path) -> None:
    """Writes the list of checksums anew without files that are gone, once it is mostly about those. The caller holds the write lock."""
    checksums = read_checksums(folder)
    files = {path: digest for path, digest in checksums.files.items() if (folder / path).exists()}
    if checksums.version is None or checksums.damaged_lines or len(files) > len(checksums.files) // 2:
        return
    content = json.dumps({"version": checksums.version, "files": files}, separators=(",", ":")).encode()
    new_list = folder / f"{CHECKSUMS}.new"
    with new_list.open("wb") as file:
        file.write(_crc(content) + b" " + content + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new_list.replace(folder / CHECKSUMS)
    sync_folder(folder)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _all_lines(folder: Path) -> Checksums:
    version, files, damaged_lines = None, dict[str, str](), list[int]()
    lines = (folder / CHECKSUMS).read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        if entry is None:
            damaged_lines.append(number)
            continue
        version = entry[0]
        files.update(entry[1])
    return Checksums(version, files, tuple(damaged_lines))


def _parse(line: bytes) -> tuple[int, dict[str, str]] | None:
    """Version and files of a line, or None if it is cut off or damaged."""
    checksum, _, content = line.partition(b" ")
    if checksum != _crc(content):
        return None
    entry = json.loads(content)
    return int(entry["version"]), dict(entry["files"])


def _crc(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def _append(folder: Path, version: int, digests: Mapping[str, str]) -> None:
    content = json.dumps({"version": version, "files": digests}, separators=(",", ":")).encode()
    path = folder / CHECKSUMS
    is_new = not path.exists()
    with path.open("ab", buffering=0) as file:
        # A line that a power cut tore must not swallow the next one.
        file.write(b"\n" * (not is_new and not _ends_with_newline(path)) + _crc(content) + b" " + content + b"\n")
        os.fsync(file.fileno())
    if is_new:
        sync_folder(folder)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _sync_file(path: Path) -> str | None:
    """Syncs a file and returns its checksum; None if it is gone: a later commit replaced it, and it was vacuumed."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _folders(folder: Path, paths: Iterable[str]) -> list[Path]:
    """The folders of these files, up to the table's own and the one it lies in."""
    folders = {folder.parent, folder}
    for path in paths:
        folders.update(parent for parent in (folder / path).parents if parent.is_relative_to(folder) and parent.exists())
    return sorted(folders)
