"""Secrets in the addresses of sources, stored aside: a file for its owner only, from which they come when a source is read.

The database, the audit log, messages and backups have addresses without them. An address may name a variable of the environment instead, as
``${NAME}``: then no file has the secret.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ledger.addresses import holds_secret, lacks_secret, masked
from ledger.errors import UsageError
from ledger.filesystem import make_folder, sync_folder

FOLDER: Final = "secrets"
"""The folder of the home that holds a file for each source whose address has a secret."""

_REFERENCE: Final = re.compile(r"\$\{(\w+)\}")


def store_secrets(home: Path, name: str, uris: Sequence[str]) -> bool:
    """Stores the secrets in the addresses of a source in its file, durably; returns whether they are others than before.

    An address whose secret is replaced (`masked`) keeps the one that it has; those of addresses that are no longer there go.
    """
    known_secrets = _read(home, name)
    new_secrets = {masked(uri): uri for uri in uris if holds_secret(uri)}
    secret_uris = {uri: known_secrets[uri] for uri in uris if uri in known_secrets} | new_secrets
    if secret_uris == known_secrets:
        return False
    if not secret_uris:
        forget_secrets(home, name)
        return True
    make_folder(home / FOLDER)
    new_file = home / FOLDER / f"{name}.new"
    with os.fdopen(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(secret_uris, file)
        file.flush()
        os.fsync(file.fileno())
    new_file.replace(_path(home, name))
    sync_folder(home / FOLDER)
    return True


def forget_secrets(home: Path, name: str) -> None:
    """Removes the file of a source, if it has one."""
    _path(home, name).unlink(missing_ok=True)


def addresses_to_read(home: Path, name: str, uris: Sequence[str]) -> list[str]:
    """The addresses of a source with their secrets. Raises `UsageError` for a secret that is not on this machine."""
    secret_uris = _read(home, name)
    for uri in uris:
        if uri not in secret_uris and lacks_secret(uri):
            raise UsageError(
                "the secret of its address is not on this machine: backups do not hold it, and each server has its own",
                where=name,
                remedy=f"copy HOME/{FOLDER}/{name}.json from where it was added; or rootcost sources remove {name}, and add it again",
            )
    return [_expanded(secret_uris.get(uri, uri), name) for uri in uris]


def sources_with_secrets(home: Path) -> list[str]:
    """The names of the sources that have a file."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.json"))


def _expanded(uri: str, name: str) -> str:
    """The address with the values of the variables that it names."""
    for variable in _REFERENCE.findall(uri):
        if not os.environ.get(variable):
            raise UsageError(
                f"its address names the variable {variable}, which is not set",
                where=name,
                remedy=f"set {variable} in the environment of the process that reads it, rootcost serve as well",
            )
    return _REFERENCE.sub(lambda match: os.environ[match[1]], uri)


def _read(home: Path, name: str) -> dict[str, str]:
    """The addresses of a source with a secret, by how they are shown."""
    path = _path(home, name)
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _path(home: Path, name: str) -> Path:
    return home / FOLDER / f"{name}.json"
