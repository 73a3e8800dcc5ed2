"""Digest of the attribution code, as an input of a run: it changes when another version may compute different costs. (TI-2)

The digest is taken over the bytes of every `.py` and `.csv` file of `attribution`, and of `ledger`, whose money, keys, tables and periods
attribution uses; and over the version of polars, whose hashes identify rows and depend on its version. It is wide on purpose: an unnecessary
rebuild costs minutes once per upgrade, a missing one leaves outdated costs in the ledger unnoticed.

It covers bytes, not the syntax tree: a changed comment rebuilds the months, but the output of `ast.dump` depends on the version of Python
and takes half a second where bytes take milliseconds. The same files give the same digest on every machine: they are read in the order of
their path within the package, and line endings are normalised.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

import polars as pl

HASHED_PACKAGES = ("attribution", "ledger")
"""The packages that compute the conclusions of a month. Ingestion is not one of them: it writes facts, which are inputs of a run."""

EXCLUDED_MODULES = frozenset(
    {
        "access",
        "alert_settings",
        "alert_tables",
        "alerting",
        "alerts",
        "anomalies",
        "anomaly_causes",
        "anomaly_detection",
        "anomaly_rows",
        "anomaly_series",
        "anomaly_tables",
        "budget_tables",
        "budgets",
        "closing",
        "cost_drivers",
        "detector",
        "durability",
        "filesystem",
        "late_facts",
        "migrations",
        "recount",
        "recovery",
        "removal",
        "reservation_tables",
        "retention",
        "spool",
        "table_log",
        "table_repair",
        "upgrade",
        "version",
        "verify",
    }
)
"""Modules and folders of these packages that compute no cost: monitoring, upgrades of the database, the spool, what keeps files whole."""

SUFFIXES = (".py", ".csv")
"""Suffixes of code and of classification data."""


@cache
def digest() -> str:
    """The digest of the code and classification data of this process, computed once."""
    return digest_of({package: files(package) for package in HASHED_PACKAGES}, pl.__version__)


def digest_of(packages: dict[str, Traversable], polars: str) -> str:
    """The digest of the sources in these folders, with this version of polars."""
    hasher = blake2b(polars.encode(), digest_size=16)
    for path, file in sorted(
        (source for name, folder in packages.items() for source in sources(folder, name)), key=lambda f: f[0]
    ):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        hasher.update(f"\n{path} {len(content)}\n".encode() + content)
    return hasher.hexdigest()


def sources(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """The files of a package that the digest covers, each with its path."""
    for entry in folder.iterdir():
        if entry.name.partition(".")[0] in EXCLUDED_MODULES:
            continue
        inner = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from sources(entry, inner)
        elif entry.name.endswith(SUFFIXES):
            yield inner, entry
