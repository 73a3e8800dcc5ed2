"""Write-ahead spool: a received delivery is fsynced to disk before it is acknowledged, and merged into the ledger later.

Deliveries that arrive together are written to one temporary file, synced once and renamed, so each is stored whole or not at all. Every
part of a file carries the digest of its bytes. `drain` merges the files and deletes them afterwards; after a crash in between they are
merged again, which changes nothing (CA-3). A part whose bytes do not match its digest is reported as a problem, the other parts are
merged, and the file is moved to ``damaged/``.

A part holds rows (of `spans`, `problems`, `metric_points`) or a request body as received; the reader turns bodies into rows at `drain`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import polars as pl
import pyarrow as pa

from ledger import disk
from ledger import problems as _problems
from ledger.errors import SpoolFull, StoreUnreachable, TableError
from ledger.filesystem import make_folder, sync_folder
from ledger.plurals import counted
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import METRIC_POINTS, PROBLEMS, SPANS, Table

DEFAULT_LIMIT_BYTES: Final = 1 << 30
"""Most bytes the spool may hold: enough for a night's outage of the store."""

_GROUP_BYTES: Final = 8 << 20
"""Most bytes of deliveries written to one file."""
_BATCH_ROWS: Final = 100_000
_BATCH_BYTES: Final = 32 << 20
"""Most bytes of bodies decoded together, and most rows merged together; bounds memory."""
_STALE_SECONDS: Final = 3600
_TABLES: Final[dict[str, tuple[Table, str]]] = {
    "spans": (SPANS, "rank"),
    "problems": (PROBLEMS, "seen_at"),
    "metric_points": (METRIC_POINTS, "quantity"),
}
_SUFFIX: Final = ".spool"


class Body(NamedTuple):
    """A request body that is decoded at `drain`; `kind` names its format for the reader."""

    kind: str
    content: bytes


class BodyReader(Protocol):
    """Decodes bodies into rows of `spans` and problems. A pure function."""

    def __call__(self, bodies: Sequence[Body], /) -> tuple[pl.DataFrame, Sequence[Problem]]:
        """Returns the rows and the problems of all these bodies."""
        ...


@dataclass(slots=True)
class _Delivery:
    """A delivery being written (group commit). Its thread waits for `wakeup`, or as the leader writes all queued deliveries."""

    parts: list[Body]
    size_bytes: int
    wakeup: threading.Event = field(default_factory=threading.Event)
    is_leader: bool = False
    error: OSError | None = None


class Spool:
    """A folder of deliveries. Any number of threads may append; one thread drains."""

    def __init__(self, folder: Path | str, *, limit_bytes: int = DEFAULT_LIMIT_BYTES, reader: BodyReader | None = None) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self._read = reader
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._queue: list[_Delivery] = []
        self._has_leader = False
        try:
            make_folder(self.folder)
            self._remove_partial_files()
        except OSError as error:
            raise self._unreachable(error) from error
        self._spooled_bytes = self.size_bytes()

    def append(
        self,
        rows: pl.DataFrame | None = None,
        problems: Sequence[Problem] = (),
        *,
        points: pl.DataFrame | None = None,
        bodies: Sequence[Body] = (),
    ) -> None:
        """Stores a delivery durably: when this returns, it survives a power cut.

        `rows` fit the `spans` table, `points` the `metric_points` table. Raises `SpoolFull` if it would exceed the limit,
        `DiskFull` if the disk has no room, `StoreUnreachable` if it refuses.
        """
        parts = [Body("problems", _encode(_problems.to_frame(problems)))] if problems else []
        if rows is not None and rows.height:
            parts.append(Body("spans", _encode(SPANS.conform(rows))))
        if points is not None and points.height:
            parts.append(Body("metric_points", _encode(METRIC_POINTS.conform(points))))
        parts += [Body(body.kind, pa.compress(body.content, codec="zstd", asbytes=True)) for body in bodies]
        if not parts:
            return
        size_bytes = sum(len(part.content) for part in parts)
        self._reserve(size_bytes)
        is_committed = False
        try:
            self._commit(_Delivery(parts, size_bytes))
            is_committed = True
        except OSError as error:
            raise self._unreachable(error) from error
        finally:
            if not is_committed:
                with self._lock:
                    self._spooled_bytes -= size_bytes

    def pending(self) -> list[Path]:
        """Files not merged yet, oldest first."""
        try:
            return sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda p: p.name)
        except OSError as error:
            raise self._unreachable(error) from error

    def size_bytes(self) -> int:
        """Bytes of the files not merged yet."""
        return sum(_size(path) for path in self.pending())

    def drain(self, store: Store) -> int:
        """Merges all pending files into the ledger; returns how many rows of `spans` were added or completed.

        Deliveries are merged in batches that fit memory, and a batch's files are deleted once it is committed. Deliveries that arrive
        meanwhile are merged by the next drain. Raises `StoreUnreachable` if the store does not answer; nothing is lost then.
        """
        rows_changed = 0
        batch = _Batch(self._read)
        for path in self.pending():
            batch.add(path)
            if batch.is_full:
                rows_changed += self._merge(batch, store)
                batch = _Batch(self._read)
        rows_changed += self._merge(batch, store)
        self.refresh_size()
        return rows_changed

    def refresh_size(self) -> None:
        """Recomputes the size of the spool after a drain, here or by another process."""
        with self._lock:
            self._spooled_bytes = self.size_bytes()

    def _merge(self, batch: _Batch, store: Store) -> int:
        rows_changed = 0
        for kind, frame in batch.frames():
            table, prefer = _TABLES[kind]
            count = store.merge(table, frame, prefer=prefer, note=f"spool: {counted(len(batch.paths), 'file')}")
            rows_changed += count if kind == "spans" else 0
        # Files are deleted only after their rows, or the problems with them, are committed and on disk.
        store.sync()
        for path in batch.damaged:
            (self.folder / "damaged").mkdir(exist_ok=True)
            path.replace(self.folder / "damaged" / path.name)
        for path in batch.paths:
            path.unlink(missing_ok=True)
        if batch.paths:
            sync_folder(self.folder)
        return rows_changed

    def _reserve(self, size_bytes: int) -> None:
        disk.require_room([self.folder], size_bytes)
        with self._lock:
            if self._spooled_bytes + size_bytes > self.limit_bytes:
                self._spooled_bytes = self.size_bytes()  # another process may have drained
            if self._spooled_bytes + size_bytes > self.limit_bytes:
                raise SpoolFull(
                    f"the spool holds {self._spooled_bytes} bytes of at most {self.limit_bytes}",
                    where=str(self.folder),
                    remedy="try again later; is the scheduler running and does the store answer?",
                )
            self._spooled_bytes += size_bytes

    def _commit(self, delivery: _Delivery) -> None:
        """Group commit: writes this delivery together with those queued during the previous sync, with one sync for all."""
        with self._lock:
            self._queue.append(delivery)
            delivery.is_leader, self._has_leader = not self._has_leader, True
        if not delivery.is_leader:
            delivery.wakeup.wait()
        if delivery.is_leader:
            self._write_group()
        if delivery.error is not None:
            raise delivery.error

    def _write_group(self) -> None:
        """Writes all queued deliveries as their leader; makes the first delivery queued meanwhile the next leader."""
        with self._lock:
            size, group = 0, list[_Delivery]()
            while self._queue and (not group or size + self._queue[0].size_bytes <= _GROUP_BYTES):
                group.append(self._queue.pop(0))
                size += group[-1].size_bytes
        # No delivery is acknowledged unless it was written: any other end of the write is an error for all of them.
        error: OSError | None = OSError(errno.EIO, "the write was interrupted")
        try:
            self._write([part for delivery in group for part in delivery.parts])
            error = None
        except OSError as write_error:
            error = write_error
        finally:
            with self._lock:
                self._has_leader = bool(self._queue)
                following = self._queue[0] if self._queue else None
            for delivery in group:
                delivery.error = error
                delivery.is_leader = False
                delivery.wakeup.set()
            if following is not None:
                following.is_leader = True
                following.wakeup.set()

    def _write(self, parts: Sequence[Body]) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._count)}"
        aside = self.folder / f"{name}.part"
        try:
            with open(aside, "wb") as file:
                file.writelines(piece for part in parts for piece in (_header(part), part.content))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.folder / f"{name}{_SUFFIX}")
            sync_folder(self.folder)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _remove_partial_files(self) -> None:
        """Removes temporary files a crash left behind; their deliveries were never acknowledged."""
        before = time.time() - _STALE_SECONDS
        for path in self.folder.glob("*.part"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _unreachable(self, error: OSError) -> StoreUnreachable:
        if disk.is_full(error):
            return disk.disk_full(self.folder)
        return StoreUnreachable(
            error.strerror or str(error), where=str(self.folder), remedy="check that the disk has room and can be written"
        )


class _Batch:
    """Files merged together: their decoded rows, and bodies still to be decoded."""

    def __init__(self, reader: BodyReader | None) -> None:
        self._read = reader
        self.paths: list[Path] = []
        self.damaged: list[Path] = []
        self._frames: dict[str, list[pl.DataFrame]] = {kind: [] for kind in ("problems", "metric_points", "spans")}
        self._bodies: list[Body] = []
        self._body_bytes = 0
        self._rows = 0

    @property
    def is_full(self) -> bool:
        """Whether the batch should be merged before another file is added."""
        return self._rows >= _BATCH_ROWS

    def add(self, path: Path) -> None:
        """Adds one file; of a damaged file, its intact parts."""
        self.paths.append(path)
        whole = True
        for part in _parts(path.read_bytes()):
            if part is None:
                whole = False
            elif part.kind in _TABLES:
                whole = self._add_ipc(part.kind, part.content) and whole
            else:
                content = pa.input_stream(pa.BufferReader(part.content), compression="zstd").read()
                self._bodies.append(Body(part.kind, content))
                self._body_bytes += len(content)
                if self._body_bytes >= _BATCH_BYTES:
                    self._read_bodies()
        if not whole:
            self.damaged.append(path)
            self._add("problems", _problems.to_frame([_damage(path)]))

    def frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """The rows to merge, table by table."""
        self._read_bodies()
        for kind, parts in self._frames.items():
            if parts:
                yield kind, pl.concat(parts)

    def _add_ipc(self, kind: str, content: bytes) -> bool:
        """Adds rows in Arrow IPC format; returns False if they do not fit the table."""
        try:
            self._add(kind, _TABLES[kind][0].conform(pl.read_ipc(io.BytesIO(content))))
        except (pl.exceptions.PolarsError, TableError):
            return False
        return True

    def _add(self, kind: str, frame: pl.DataFrame) -> None:
        if frame.height:
            self._frames[kind].append(frame)
            self._rows += frame.height

    def _read_bodies(self) -> None:
        if not self._bodies:
            return
        if self._read is None:
            raise TypeError("a spool with bodies needs a reader to drain")
        rows, problems = self._read(self._bodies)
        self._add("spans", SPANS.conform(rows))
        self._add("problems", _problems.to_frame(problems))
        self._bodies, self._body_bytes = [], 0


def _encode(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


_MAGIC: Final = b"RC"
_DIGEST_BYTES: Final = 16


def _digest(kind: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES, person=kind[:16]).digest()


def _header(part: Body) -> bytes:
    """The header of a part: magic bytes, kind, length and digest."""
    kind = part.kind.encode("ascii")
    return _MAGIC + bytes([len(kind)]) + kind + len(part.content).to_bytes(8, "big") + _digest(kind, part.content)


def _parts(stored_bytes: bytes) -> Iterator[Body | None]:
    """The intact parts of a file; None once at the end if any part is damaged."""
    offset, is_damaged = 0, not stored_bytes
    while offset < len(stored_bytes):
        kind_end = offset + 3 + stored_bytes[offset + 2] if offset + 3 <= len(stored_bytes) else len(stored_bytes)
        start = kind_end + 8 + _DIGEST_BYTES
        if stored_bytes[offset : offset + 2] != _MAGIC or start > len(stored_bytes):
            is_damaged = True
            break
        kind = stored_bytes[offset + 3 : kind_end]
        end = start + int.from_bytes(stored_bytes[kind_end : kind_end + 8], "big")
        content = stored_bytes[start:end]
        if end > len(stored_bytes) or _digest(kind, content) != stored_bytes[kind_end + 8 : start]:
            is_damaged = True
        else:
            yield Body(kind.decode("ascii", "replace"), content)
        offset = end
    if is_damaged:
        yield None


def _damage(path: Path) -> Problem:
    return Problem(
        source="spool",
        uri=path.name,
        place="file",
        field="",
        reason="a received delivery is damaged on disk and cannot be read",
        remedy="it was moved to spool/damaged; check the disk, and send the telemetry of that time again",
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # drained meanwhile
        return 0
