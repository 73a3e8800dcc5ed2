"""Parsers of received telemetry: the same code that reads files reads request bodies.

The API stores request bodies without knowing formats; ingestion parses formats without a network. This module connects them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import polars as pl

from api.receivers import ReceivedBatch, Signal
from ingest.problem_log import concerns_one_file, error_problem, input_error
from ingest.source import Reading
from ingest.sources import otlp
from ingest.sources.litellm import source
from ingest.time_bounds import TimeBounds
from ledger.errors import RootCostError, StoreUnreachable
from ledger.periods import now
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.spool import Body, Spool
from ledger.store import Store
from ledger.tables import SPANS

PAYLOADS = "/v1/litellm"
"""File name of problems in received LiteLLM payloads; those of OTLP have ``/v1/traces`` and the like."""
_TRACES = "/v1/traces"
OTLP_TRACES = "otlp-traces"
"""The kind of body that `Parsers` lets in and `TraceReader` reads."""


class Parsers:
    """Turns request bodies into rows: an `api.receivers.Receivers`."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings

    def otlp(self, signal: Signal, body: bytes, content_type: str) -> ReceivedBatch:
        """An OTLP export; raises `FormatError` where nothing in it is one.

        Traces in protobuf are checked, stripped, and read when they are booked; all else is rare and read at once.
        """
        uri = f"/v1/{signal}"
        with _refused(uri):
            return self._read_otlp(signal, body, content_type, uri)

    def _read_otlp(self, signal: Signal, body: bytes, content_type: str, uri: str) -> ReceivedBatch:
        raw_id = otlp.received_id(body)
        if signal == "metrics":
            points = otlp.read_metrics(body, raw_id=raw_id, uri=uri, content_type=content_type)
            return ReceivedBatch(problems=points.problems, rejected=otlp.rejected(points), points=points.frame)
        if signal == "traces" and content_type != "application/json":
            admission = otlp.redact_export(body, uri=uri, settings=self._settings, bounds=self._bounds())
            bodies = (Body(OTLP_TRACES, admission.content),) if admission.spans else ()
            return ReceivedBatch(problems=admission.problems, rejected=admission.rejected, bodies=bodies, count=admission.spans)
        decode = otlp.decode_events if signal == "logs" else otlp.decode_request
        reading = otlp.read_export(decode(body, content_type), raw_id=raw_id, uri=uri, settings=self._settings)
        return self._received(reading, "otlp", uri)

    def litellm(self, body: bytes) -> ReceivedBatch:
        """Payloads of LiteLLM's generic callback; a bad item is a problem, and its neighbours are kept."""
        with _refused(PAYLOADS):
            reading = source.read_body(body, raw_id=otlp.received_id(body), uri=PAYLOADS, settings=self._settings)
            return self._received(reading, "litellm", PAYLOADS)

    def _bounds(self) -> TimeBounds:
        return TimeBounds.at(now(), self._settings)

    def _received(self, reading: Reading, source_name: str, uri: str) -> ReceivedBatch:
        frame, far_problems = self._bounds().split(reading.frame, source_name, uri)
        problems = (*reading.problems, *far_problems)
        return ReceivedBatch(frame, problems, sum(p.rows for p in problems if p.severity == "error"))


@contextmanager
def _refused(uri: str) -> Iterator[None]:
    """Refuses a body at which the reader fails, whatever it raises: a sender repeats what is answered with 5xx, and for ever."""
    try:
        yield
    except BaseException as error:
        if not concerns_one_file(error):
            raise
        raise input_error(error, uri) from error


class TraceReader:
    """Parses the trace bodies that `Parsers` accepted: a `ledger.spool.BodyReader`."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings

    def __call__(self, bodies: Sequence[Body]) -> tuple[pl.DataFrame, Sequence[Problem]]:
        """The spans of all these bodies."""
        try:
            return self._read(bodies)
        except BaseException as error:
            if not concerns_one_file(error):
                raise
        # One at a time, so that a body at which the reader fails keeps no other one waiting in the spool.
        frames, problems = [SPANS.empty()], list[Problem]()
        for body in bodies:
            try:
                rows, more = self._read([body])
            except BaseException as error:
                if not concerns_one_file(error):
                    raise
                problems.append(error_problem("otlp", _TRACES, error))
            else:
                frames.append(SPANS.conform(rows))
                problems += more
        return pl.concat(frames), problems

    def _read(self, bodies: Sequence[Body]) -> tuple[pl.DataFrame, Sequence[Problem]]:
        reading = otlp.read_bodies((body.content for body in bodies), uri=_TRACES, settings=self._settings)
        return reading.frame, reading.problems


class SpoolingReceiver(Spool):
    """The spool of a service. Large backlogs are read by a separate process, so that requests are still answered quickly."""

    AT_HAND_BYTES = 256 << 10
    """Backlogs up to this size are read in this process."""

    def __init__(self, folder: Path, settings: IngestSettings) -> None:
        super().__init__(folder, reader=TraceReader(settings))
        self._settings = settings
        self._reader: tuple[BaseProcess, Connection] | None = None

    def drain(self, store: Store) -> int:
        """As `Spool.drain`; one thread at a time."""
        if self.size_bytes() <= self.AT_HAND_BYTES:
            self.close()
            return super().drain(store)
        return self._drained_by_reader(store)

    def close(self) -> None:
        """Stops the reading process, if there is one."""
        if self._reader is not None:
            process, pipe = self._reader
            self._reader = None
            pipe.close()  # the reader stops when its pipe closes, also if this process is killed
            process.join(1)
            if process.is_alive():
                process.terminate()  # in the middle of a batch: rows that are not stored yet are still in the spool
                process.join(1)

    def _drained_by_reader(self, store: Store) -> int:
        if self._reader is None:
            context = multiprocessing.get_context("spawn")
            parent_end, child_end = context.Pipe()
            process = context.Process(
                target=_reader, args=(child_end, self.folder, self._settings), daemon=True, name="spool reader"
            )
            process.start()
            child_end.close()
            self._reader = process, parent_end
        pipe = self._reader[1]
        try:
            pipe.send(store)
            result: int | RootCostError = pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise StoreUnreachable(
                "the process that reads the spool has ended",
                where=str(self.folder),
                remedy="it is started again; is memory short?",
            ) from error
        self.refresh_size()
        if isinstance(result, RootCostError):
            raise result
        return result


def _reader(pipe: Connection, folder: Path, settings: IngestSettings) -> None:
    """The reading process: drains whenever it is handed a store, until its pipe is closed."""
    import signal

    from rootcost.service.child import end_with_parent

    end_with_parent()  # also in the middle of a batch: the next service drains, and one process writes at a time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this process
    spool = Spool(folder, reader=TraceReader(settings))
    while True:
        try:
            store: Store = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(spool.drain(store))
        except RootCostError as error:
            pipe.send(error)
