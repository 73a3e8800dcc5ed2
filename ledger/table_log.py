"""The log of a Delta table in a folder, file by file: what the recovery and the checksums of the ledger look at.

Everything else reads tables through deltalake. It cannot open a table whose last commit a power cut left empty, and says nothing of a
file's content; here a commit is looked at as files on disk.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

LOG: Final = "_delta_log"
LAST_CHECKPOINT: Final = "_last_checkpoint"
_COMMIT_NAME: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT_NAME: Final = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
_PARQUET_MAGIC: Final = b"PAR1"


class TornCommitError(Exception):
    """A commit file that is empty, cut off or no JSON."""


@dataclass(frozen=True, slots=True)
class AddedFile:
    """A data file that a commit adds: its path below the table's folder, and its size."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: when it was made, and the files it adds."""

    version: int
    made_at: datetime
    files: tuple[AddedFile, ...]


def commit_path(folder: Path, version: int) -> Path:
    """The file of a commit."""
    return folder / LOG / f"{version:020d}.json"


def versions(folder: Path) -> list[int]:
    """The commits that have a file, in order. Commits before a checkpoint may have none any more."""
    return sorted(int(match[1]) for name in _names(folder) if (match := _COMMIT_NAME.fullmatch(name)))


def checkpoints(folder: Path) -> dict[str, int]:
    """The checkpoint files of the log: name to version."""
    return {name: int(match[1]) for name in _names(folder) if (match := _CHECKPOINT_NAME.fullmatch(name))}


def version_of(name: str) -> int | None:
    """The version that a file of the log belongs to, by its name; None for another file.

    >>> version_of("00000000000000000007.json"), version_of("00000000000000000010.checkpoint.parquet"), version_of("_last_checkpoint")
    (7, 10, None)
    """
    match = _COMMIT_NAME.fullmatch(name) or _CHECKPOINT_NAME.fullmatch(name)
    return int(match[1]) if match else None


def read_commit(folder: Path, version: int) -> Commit:
    """Reads a commit file; raises `TornCommitError` if it is not whole."""
    path = commit_path(folder, version)
    try:
        actions = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise TornCommitError(f"{path.name} is missing") from None
    except ValueError:
        raise TornCommitError(f"{path.name} is cut off") from None
    if not actions or not all(isinstance(action, dict) for action in actions):
        raise TornCommitError(f"{path.name} is empty")
    header: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    files = tuple(AddedFile(unquote(a["add"]["path"]), int(a["add"]["size"])) for a in actions if "add" in a)
    stated_count = (header.get("operationMetrics") or {}).get("num_added_files")
    if isinstance(stated_count, int) and stated_count != len(files):
        raise TornCommitError(f"{path.name} is cut off")
    return Commit(version, datetime.fromtimestamp(header.get("timestamp", 0) / 1000, UTC), files)


def damage(folder: Path, version: int, *, may_be_vacuumed: bool = False) -> str | None:
    """What is wrong with a commit on disk, or None: its own file, and presence, size and end of the files it adds.

    `may_be_vacuumed` allows files that are gone: a later commit may have replaced them.
    """
    try:
        commit = read_commit(folder, version)
    except TornCommitError as error:
        return str(error)
    for file in commit.files:
        path = folder / file.path
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            if may_be_vacuumed:
                continue
            return f"{file.path} is missing"
        if size_bytes != file.size_bytes:
            return f"{file.path} has {size_bytes} of {file.size_bytes} bytes"
        if not ends_as_parquet(path):
            return f"{file.path} is cut off"
    return None


def ends_as_parquet(path: Path) -> bool:
    """Whether a file ends as a whole Parquet file does."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < 2 * len(_PARQUET_MAGIC):
            return False
        file.seek(-len(_PARQUET_MAGIC), os.SEEK_END)
        return file.read() == _PARQUET_MAGIC


def torn_checkpoints(folder: Path) -> list[str]:
    """Checkpoint files that are cut off, and the pointer to the last one if it leads to none of the whole ones."""
    sizes_and_ends = {name: ends_as_parquet(folder / LOG / name) for name in checkpoints(folder)}
    torn_names = [name for name, is_whole in sizes_and_ends.items() if not is_whole]
    pointer = folder / LOG / LAST_CHECKPOINT
    if pointer.exists():
        whole_versions = {version for name, version in checkpoints(folder).items() if name not in torn_names}
        try:
            is_valid = json.loads(pointer.read_text("utf-8"))["version"] in whole_versions
        except (ValueError, KeyError, TypeError):
            is_valid = False
        torn_names += [] if is_valid else [LAST_CHECKPOINT]
    return torn_names


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder / LOG)
    except (FileNotFoundError, NotADirectoryError):
        return []
