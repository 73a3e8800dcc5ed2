"""The files of a home that name a person: fetched bills, copies of the database, logs, and what users keep there."""

from __future__ import annotations

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ledger.books import Books
from ledger.identifiers import Identifiers
from ledger.periods import now

_CHUNK_BYTES: Final = 8 << 20
_OVERLAP_CHARACTERS: Final = 1_024
"""Longer than an identifier: one that two chunks share is found in the second."""
_ROWS: Final = 10_000
_UNREADABLE: Final = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
_COMPUTED_AGAIN: Final = "cache"
_COPIES: Final = "raw"
_REMOVED: Final = (_COPIES, "backups", "spool/damaged")
"""Folders of copies: of fetched bills, of the database before an upgrade, of deliveries that could not be read."""
_LOGS: Final = ("rootcost.log", "rootcost.log.1", "dashboard.log")


@dataclass(slots=True)
class FileErasure:
    """Files that were removed, or would be; logs in which it was blotted; and files that go on naming the person."""

    removed: list[str] = field(default_factory=list)
    blotted: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


def erase_files(books: Books, person: Identifiers, *, own_names: frozenset[str], dry_run: bool) -> FileErasure:
    """Removes copies that name the person, and blots the logs. `own_names` are names of files in the home that are erased in another way."""
    result = FileErasure()
    for path in _other_files(books, own_names):
        if not (person.is_in(path.name) or any(person.is_in(text) for text in _texts(path))):
            continue
        name = path.relative_to(books.home).as_posix()
        if name.startswith(tuple(f"{folder}/" for folder in _REMOVED)):
            result.removed.append(name)
            if not dry_run:
                path.unlink(missing_ok=True)
        elif name in _LOGS:
            result.blotted.append(name)
            if not dry_run:
                _blot(path, person)
        else:
            result.remaining.append(str(path))
    if not dry_run:
        shutil.rmtree(books.home / _COMPUTED_AGAIN, ignore_errors=True)
    return result


def copies_of(books: Books, raw_ids: Collection[str]) -> list[str]:
    """The copies of fetched files with these hashes, by their names in the home."""
    paths = sorted((books.home / _COPIES).glob("*/*"))
    return [path.relative_to(books.home).as_posix() for path in paths if path.name.partition("-")[0] in raw_ids]


def copies_older_than(books: Books, age: timedelta) -> list[str]:
    """The copies of files that were fetched longer ago, by their names in the home."""
    before = now().timestamp() - age.total_seconds()
    paths = sorted(path for path in (books.home / _COPIES).glob("*/*") if path.is_file() and path.stat().st_mtime < before)
    return [path.relative_to(books.home).as_posix() for path in paths]


def remove_copies(books: Books, names: Iterable[str]) -> None:
    """Removes copies of fetched files."""
    for name in names:
        (books.home / name).unlink(missing_ok=True)


def forget_cached(books: Books, days: Iterable[str], months: Iterable[str]) -> None:
    """Removes what was computed from spans of these days, and for these months."""
    cache = books.home / _COMPUTED_AGAIN
    for day in days:
        for path in (*cache.glob(f"*/{day}-*"), *cache.glob(f"*/day-{day}-*")):
            path.unlink(missing_ok=True)
    for month in months:
        shutil.rmtree(cache / "stretches" / month, ignore_errors=True)


def _other_files(books: Books, own_names: frozenset[str]) -> Iterator[Path]:
    """The files of the home but for tables, database, cache, locks, and deliveries that wait in the spool."""
    home, tables_root = books.home, Path(books.store.root)
    left_out = {home / name for name in (*own_names, _COMPUTED_AGAIN)}
    for path in sorted(home.rglob("*")):
        is_elsewhere = path.is_relative_to(tables_root) or bool(left_out & {path, *path.parents})
        is_database = path.parent == home and path.name.startswith("rootcost.db")
        is_waiting = path.suffix in (".lock", ".spool") and path.parent.name != "damaged"
        if path.is_file() and not (is_elsewhere or is_database or is_waiting or path.is_symlink()):
            yield path


def _texts(path: Path) -> Iterator[str]:
    """The content of a file as text, as it is and unpacked; what cannot be unpacked is left at that."""
    try:
        with path.open("rb") as file:
            yield from _decoded(file)
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(_ROWS):
                yield pl.DataFrame(pa.Table.from_batches([batch])).write_ndjson()
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    with archive.open(member) as file:
                        yield from _decoded(file)
        elif path.suffix in (".gz", ".zst", ".bz2", ".lz4"):
            with pa.input_stream(str(path), compression="detect") as stream:
                yield from _decoded(stream)
    except _UNREADABLE:
        return


def _decoded(file: IO[bytes]) -> Iterator[str]:
    tail = ""
    while chunk := file.read(_CHUNK_BYTES):
        text = tail + chunk.decode("utf-8", "replace")
        yield text
        tail = text[-_OVERLAP_CHARACTERS:]


def _blot(path: Path, person: Identifiers) -> None:
    """Overwrites it in place, byte for byte: a process may be writing to the end of the file."""
    content = path.read_bytes()
    text = content.decode("utf-8", "surrogateescape")
    new_text = person.blotted(text).encode("utf-8", "surrogateescape")
    with path.open("r+b") as file:
        file.write(new_text[: len(content)])
