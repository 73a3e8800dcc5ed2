"""The porch: what receivers accepted, safe on disk before the sender hears "thank you", and not yet in the ledger.

A delivery is one file, written aside, synced, then renamed: it is there whole or not at all. Its name carries the digest of
its bytes. `drain` merges what lies there and deletes it afterwards; a crash in between makes it merge again, which changes
nothing (CA-3). A file whose bytes are not what its name says is moved to ``damaged/`` and told of as a problem.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from ledger import problems as _problems
from ledger.errors import SpoolFull, StoreUnreachable, TableError
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import PROBLEMS, SPANS, Table

DEFAULT_LIMIT_BYTES: Final = 1 << 30
"""Most bytes that may wait. At that size a night's outage of the store still fits."""

_BATCH_BYTES: Final = 128 << 20
_STALE_SECONDS: Final = 3600
_KINDS: Final[dict[str, tuple[Table, str]]] = {"spans": (SPANS, "rank"), "problems": (PROBLEMS, "seen_at")}


class Spool:
    """A folder of deliveries. Any number of threads append; one drains."""

    def __init__(self, folder: Path | str, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self._count = itertools.count()
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as fault:
            raise self._unreachable(fault) from fault
        self._waiting_bytes = self.size_bytes()

    def append(self, rows: pl.DataFrame, problems: Sequence[Problem] = ()) -> None:
        """Writes a delivery down; when this returns it survives a power cut.

        `rows` fits the `spans` table. Raises `SpoolFull` if it would exceed the limit, `StoreUnreachable` if the disk refuses.
        """
        deliveries = [("problems", _problems.to_frame(problems))] if problems else []
        if rows.height:
            deliveries.append(("spans", SPANS.conform(rows)))
        encoded = [(kind, _encode(frame)) for kind, frame in deliveries]
        size = sum(len(content) for _, content in encoded)
        self._reserve(size)
        try:
            for kind, content in encoded:
                self._write(kind, content)
            if encoded:
                _sync_folder(self.folder)
        except OSError as fault:
            with self._lock:
                self._waiting_bytes -= size
            raise self._unreachable(fault) from fault

    def pending(self) -> list[Path]:
        """Deliveries that wait, oldest first."""
        try:
            return sorted(self.folder.glob("*.arrow"), key=lambda p: p.name)
        except OSError as fault:
            raise self._unreachable(fault) from fault

    def size_bytes(self) -> int:
        """Bytes that wait."""
        return sum(_size(path) for path in self.pending())

    def drain(self, store: Store) -> int:
        """Moves everything that waits into the ledger; returns how many rows of `spans` that added or filled up.

        Deliveries are merged together, in batches that fit memory, and each batch is deleted once it is in. Those that arrive
        meanwhile wait for the next time. Where the store does not answer, `StoreUnreachable` passes and nothing is lost.
        """
        changed = 0
        for batch in _batches(self.pending()):
            changed += self._drain(batch, store)
        with self._lock:
            self._waiting_bytes = self.size_bytes()
        return changed

    def _drain(self, batch: Sequence[Path], store: Store) -> int:
        frames: dict[str, list[pl.DataFrame]] = {"problems": [], "spans": []}
        damaged: list[Path] = []
        for path in batch:
            kind = path.name.split("-")[0]
            frame = _decode(path, kind)
            if frame is None:
                damaged.append(path)
            else:
                frames[kind].append(frame)
        if damaged:
            frames["problems"].append(_problems.to_frame(_damage(path) for path in damaged))
        changed = 0
        for kind, parts in frames.items():
            table, prefer = _KINDS[kind]
            if parts:
                merged = store.merge(table, pl.concat(parts), prefer=prefer, note=f"spool: {len(parts)} deliveries")
                changed += merged if kind == "spans" else 0
        # Only now that the ledger holds them (or says why not) may the files go.
        for path in damaged:
            (self.folder / "damaged").mkdir(exist_ok=True)
            path.replace(self.folder / "damaged" / path.name)
        for path in batch:
            path.unlink(missing_ok=True)
        _sync_folder(self.folder)
        return changed

    def _reserve(self, size: int) -> None:
        with self._lock:
            if self._waiting_bytes + size > self.limit_bytes:
                self._waiting_bytes = self.size_bytes()  # another process may have drained
            if self._waiting_bytes + size > self.limit_bytes:
                raise SpoolFull(
                    f"{self._waiting_bytes} bytes wait and {self.limit_bytes} are allowed",
                    where=str(self.folder),
                    remedy="try again later; is the scheduler running and does the store answer?",
                )
            self._waiting_bytes += size

    def _write(self, kind: str, content: bytes) -> None:
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{kind}-{time.time_ns():020d}-{os.getpid()}-{next(self._count)}-{digest}"
        aside = self.folder / f"{name}.part"
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.folder / f"{name}.arrow")
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Removes what a crash left half-written; nobody was thanked for it."""
        before = time.time() - _STALE_SECONDS
        for path in self.folder.glob("*.part"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _unreachable(self, fault: OSError) -> StoreUnreachable:
        return StoreUnreachable(
            fault.strerror or str(fault), where=str(self.folder), remedy="check that the disk has room and can be written"
        )


def _encode(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def _decode(path: Path, kind: str) -> pl.DataFrame | None:
    """The rows of a delivery, or None if its bytes are not what its name promises."""
    content = path.read_bytes()
    if kind not in _KINDS or hashlib.blake2b(content, digest_size=8).hexdigest() != path.stem.rsplit("-", 1)[-1]:
        return None
    try:
        return _KINDS[kind][0].conform(pl.read_ipc(io.BytesIO(content)))
    except (pl.exceptions.PolarsError, TableError):
        return None


def _damage(path: Path) -> Problem:
    return Problem(
        source="spool",
        uri=path.name,
        place="file",
        field="",
        reason="a received delivery is damaged on disk and cannot be read",
        remedy="it was moved to spool/damaged; check the disk, and send the telemetry of that time again",
    )


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += _size(path)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # drained meanwhile
        return 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
