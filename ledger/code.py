"""The code that concludes, as an input of a run: a digest that changes when this version may conclude otherwise than another. (TI-2)

The digest is taken over the bytes of every `.py` and `.csv` file of `attribution`, and of `ledger`, on whose money, keys, tables and periods
attribution rests; and over the version of polars, whose hashes tell rows apart and are its own. It is wide on purpose. A rebuild that was not
needed costs minutes once an upgrade; one that was needed and did not happen leaves old money in the books, and nobody sees it.

Bytes, and not the syntax tree: a comment that changes does rebuild the months, but `ast.dump` writes the same source otherwise in another
version of Python, and takes half a second where bytes take milliseconds. The same files give the same digest on every machine: they are
read by their path within the package, in order, and the ends of lines do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

import polars as pl

HASHED_PACKAGES = ("attribution", "ledger")
"""The packages that the conclusions of a month come from. Ingestion is not among them: what it writes is a fact, and facts are inputs."""

EXCLUDED_MODULES = frozenset({"anomalies", "budgets", "migrations", "spool"})
"""Modules and folders of these packages that conclude no cost: alarms, the schema of the application state, deliveries not yet booked."""

SUFFIXES = (".py", ".csv")
"""Code, and classification data."""


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
    """The files of a package that conclude, each with its path."""
    for entry in folder.iterdir():
        if entry.name.partition(".")[0] in EXCLUDED_MODULES:
            continue
        inner = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from sources(entry, inner)
        elif entry.name.endswith(SUFFIXES):
            yield inner, entry
