"""The porch: what receivers accepted, safe on disk before the sender hears "thank you", and not yet in the ledger.

Deliveries that arrive together are written as one file, aside, synced once, then renamed: each is there whole or not at all. In it
every part carries the digest of its bytes. `drain` merges what lies there and deletes it afterwards; a crash in between makes it
merge again, which changes nothing (CA-3). A part whose bytes are not what its digest says is told of as a problem, its
neighbours are booked, and the file is moved to ``damaged/``.

Parts are rows (of `spans`, `problems`, `metric_points`), or bodies as a receiver kept them, which `read` makes rows of at `drain`.
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

from ledger import problems as _problems
from ledger.errors import SpoolFull, StoreUnreachable, TableError
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import METRIC_POINTS, PROBLEMS, SPANS, Table

DEFAULT_LIMIT_BYTES: Final = 1 << 30
"""Most bytes that may wait. At that size a night's outage of the store still fits."""

_GROUP_BYTES: Final = 8 << 20
"""Deliveries are written together up to here."""
_BATCH_ROWS: Final = 100_000
_BATCH_BYTES: Final = 32 << 20
"""Bodies read together, and rows merged together: as many as memory holds easily."""
_STALE_SECONDS: Final = 3600
_TABLES: Final[dict[str, tuple[Table, str]]] = {
    "spans": (SPANS, "rank"),
    "problems": (PROBLEMS, "seen_at"),
    "metric_points": (METRIC_POINTS, "quantity"),
}
_SUFFIX: Final = ".spool"


class Body(NamedTuple):
    """Bytes that are read at `drain`; `kind` tells the reader what they are."""

    kind: str
    content: bytes


class BodyReader(Protocol):
    """Makes rows of `spans` of bodies, and says what was wrong in them. Pure."""

    def __call__(self, bodies: Sequence[Body], /) -> tuple[pl.DataFrame, Sequence[Problem]]:
        """The rows of all these bodies."""
        ...


@dataclass(slots=True)
class _Delivery:
    """A delivery on its way to disk. Its thread either waits until it is `done`, or is told to `lead`: to write for all that wait."""

    parts: list[Body]
    size_bytes: int
    wakeup: threading.Event = field(default_factory=threading.Event)
    is_leader: bool = False
    error: OSError | None = None


class Spool:
    """A folder of deliveries. Any number of threads append; one drains."""

    def __init__(self, folder: Path | str, *, limit_bytes: int = DEFAULT_LIMIT_BYTES, reader: BodyReader | None = None) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self._read = reader
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._queue: list[_Delivery] = []
        self._has_leader = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
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
        """Writes a delivery down; when this returns it survives a power cut.

        `rows` fit the `spans` table, `points` the `metric_points` table. Raises `SpoolFull` if it would exceed the limit,
        `StoreUnreachable` if the disk refuses.
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
        """Files that wait, oldest first."""
        try:
            return sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda p: p.name)
        except OSError as error:
            raise self._unreachable(error) from error

    def size_bytes(self) -> int:
        """Bytes that wait."""
        return sum(_size(path) for path in self.pending())

    def drain(self, store: Store) -> int:
        """Moves everything that waits into the ledger; returns how many rows of `spans` that added or filled up.

        Deliveries are merged together, in batches that fit memory, and each batch is deleted once it is in. Those that arrive
        meanwhile wait for the next time. Where the store does not answer, `StoreUnreachable` passes and nothing is lost.
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
        """Counts again what waits, after it was drained here or by another process."""
        with self._lock:
            self._spooled_bytes = self.size_bytes()

    def _merge(self, batch: _Batch, store: Store) -> int:
        rows_changed = 0
        for kind, frame in batch.frames():
            table, prefer = _TABLES[kind]
            count = store.merge(table, frame, prefer=prefer, note=f"spool: {len(batch.paths)} files")
            rows_changed += count if kind == "spans" else 0
        # Only now that the ledger holds them (or says why not) may the files go.
        for path in batch.damaged:
            (self.folder / "damaged").mkdir(exist_ok=True)
            path.replace(self.folder / "damaged" / path.name)
        for path in batch.paths:
            path.unlink(missing_ok=True)
        if batch.paths:
            _sync_folder(self.folder)
        return rows_changed

    def _reserve(self, size_bytes: int) -> None:
        with self._lock:
            if self._spooled_bytes + size_bytes > self.limit_bytes:
                self._spooled_bytes = self.size_bytes()  # another process may have drained
            if self._spooled_bytes + size_bytes > self.limit_bytes:
                raise SpoolFull(
                    f"{self._spooled_bytes} bytes wait and {self.limit_bytes} are allowed",
                    where=str(self.folder),
                    remedy="try again later; is the scheduler running and does the store answer?",
                )
            self._spooled_bytes += size_bytes

    def _commit(self, delivery: _Delivery) -> None:
        """Writes this delivery, and with it those that came while the last file was being synced: one sync thanks them all."""
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
        """The first of those that wait writes for all; the first of those that came meanwhile is told to lead next."""
        with self._lock:
            size, group = 0, list[_Delivery]()
            while self._queue and (not group or size + self._queue[0].size_bytes <= _GROUP_BYTES):
                group.append(self._queue.pop(0))
                size += group[-1].size_bytes
        # Nobody is thanked unless it was written: whatever else ends the writing is a fault to all of them.
        fault: OSError | None = OSError(errno.EIO, "the writing was broken off")
        try:
            self._write([part for waiting in group for part in waiting.parts])
            fault = None
        except OSError as told:
            fault = told
        finally:
            with self._lock:
                self._has_leader = bool(self._queue)
                following = self._queue[0] if self._queue else None
            for waiting in group:
                waiting.error = fault
                waiting.is_leader = False
                waiting.wakeup.set()
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
            _sync_folder(self.folder)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _remove_partial_files(self) -> None:
        """Removes what a crash left half-written; nobody was thanked for it."""
        before = time.time() - _STALE_SECONDS
        for path in self.folder.glob("*.part"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _unreachable(self, error: OSError) -> StoreUnreachable:
        return StoreUnreachable(
            error.strerror or str(error), where=str(self.folder), remedy="check that the disk has room and can be written"
        )


class _Batch:
    """Files that are merged together: their rows so far, and bodies still to be read."""

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
        """Whether it should be merged before more is added."""
        return self._rows >= _BATCH_ROWS

    def add(self, path: Path) -> None:
        """Adds one file; of a damaged one its whole parts."""
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
        """What is to be merged, table by table."""
        self._read_bodies()
        for kind, parts in self._frames.items():
            if parts:
                yield kind, pl.concat(parts)

    def _add_ipc(self, kind: str, content: bytes) -> bool:
        """Adds rows; false if they are none of this table."""
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
            raise TypeError("a spool that holds bodies is drained with a reader")
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
    """What stands before a part: a mark, its kind, how long it is, its digest."""
    kind = part.kind.encode("ascii")
    return _MAGIC + bytes([len(kind)]) + kind + len(part.content).to_bytes(8, "big") + _digest(kind, part.content)


def _parts(stored_bytes: bytes) -> Iterator[Body | None]:
    """The whole parts of a file; None once at the end if there were others."""
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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
