"""Manifests of backups: what each backup holds, file by file, with checksums.

A location of backups holds ``files/ab/abcd…``, every content once under its SHA-256, and ``backups/ID.json``, the manifests. A backup exists
when its manifest does, which is written last. What no manifest names belongs to nobody: to a backup that was cut off, and the next one uses it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from ledger.errors import LedgerDamagedError, LedgerVersionError, ObjectMissingError
from ledger.locations import Location, fixed

FORMAT: Final = 1
CONTENTS: Final = "files"
_MANIFESTS: Final = "backups"
_NEWER: Final = "use the version of RootCost that made it, or a newer one"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of a backup: SHA-256 and size."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. `files` by their path in a home; `tables` is the version of each table; `damaged` are files that were damaged before."""

    backup_id: str
    ledger_id: str
    made_at: str
    version: str
    schema: str
    home: str
    database: str
    tables: Mapping[str, int]
    settings_left_out: tuple[str, ...]
    damaged: tuple[str, ...]
    files: Mapping[str, ManifestFile]

    @property
    def size_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.size_bytes for file in self.files.values())


def content_path(digest: str) -> str:
    """Where a content lies.

    >>> content_path("ab12")
    'files/ab/ab12'
    """
    return f"{CONTENTS}/{digest[:2]}/{digest}"


def write_manifest(target: Location, manifest: Manifest) -> None:
    """Writes a manifest: from then on the backup exists."""
    fields = asdict(manifest) | {"files": {path: [file.digest, file.size_bytes] for path, file in manifest.files.items()}}
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    document = f'{{"format":{FORMAT},"sha256":"{_sha256(body)}","backup":{body}}}\n'
    target.write(fixed(_path(manifest.backup_id)), [document.encode()])


def remove_manifest(target: Location, backup_id: str) -> None:
    """Removes a manifest: from then on the backup does not exist."""
    target.remove(_path(backup_id))


def manifest_ids(target: Location) -> list[str]:
    """The ids of all backups at a location, oldest first."""
    return sorted(PurePosixPath(path).stem for path in target.sizes(_MANIFESTS) if path.endswith(".json"))


def read_manifest(target: Location, backup_id: str) -> Manifest:
    """Reads a manifest. Raises `LedgerDamagedError` if it is not as it was written."""
    address = f"{target.address}/{_path(backup_id)}"
    content = b"".join(target.read(_path(backup_id)))
    try:
        document: dict[str, Any] = json.loads(content)
        if document["format"] != FORMAT:
            raise LedgerVersionError(f"has the format {document['format']}", where=address, remedy=_NEWER)
        fields = document["backup"]
        if _sha256(json.dumps(fields, sort_keys=True, separators=(",", ":"))) != document["sha256"]:
            raise ValueError("its checksum differs")
        files = {
            _checked_path(path): ManifestFile(str(digest), int(size)) for path, (digest, size) in fields.pop("files").items()
        }
        fields |= {name: tuple(fields[name]) for name in ("settings_left_out", "damaged")}
        return Manifest(**fields | {"files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "the other backups are not affected; restore one of them with --at"
        raise LedgerDamagedError(f"the manifest is damaged: {error}", where=address, remedy=remedy) from error


def find_manifest(target: Location, backup_id: str | None) -> Manifest:
    """The backup of that id, by default the newest. Raises `ObjectMissingError` that names those there are."""
    backup_ids = manifest_ids(target)
    if not backup_ids:
        raise ObjectMissingError(
            "holds no backup", where=target.address, remedy="name the folder or prefix that rootcost backup wrote to"
        )
    if backup_id is not None and backup_id not in backup_ids:
        raise ObjectMissingError(
            f"holds no backup {backup_id!r}", where=target.address, remedy=f"there are {', '.join(backup_ids[-5:])}"
        )
    return read_manifest(target, backup_id or backup_ids[-1])


def needed_contents(manifests: Iterable[Manifest]) -> set[str]:
    """The paths of all contents that these backups consist of."""
    return {content_path(file.digest) for manifest in manifests for file in manifest.files.values()}


def _path(backup_id: str) -> str:
    return f"{_MANIFESTS}/{backup_id}.json"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checked_path(path: str) -> str:
    """A path that stays below the folder it is written to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} is no path below a folder")
    return path
