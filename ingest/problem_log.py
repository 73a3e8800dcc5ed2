"""The problems of one run, by address, and which exception makes one file a problem and not the run."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import lzma
import traceback
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ingest.problem_counter import MAX_SINGLE_PROBLEMS
from ledger.errors import DiskFull, FormatError, RootCostError, StoreUnreachable, UsageError
from ledger.plurals import counted
from ledger.problems import Problem

log = logging.getLogger("rootcost.ingest")

_MAX_KINDS = 200


class ProblemLog:
    """The problems of a run, and the addresses it read: problems of earlier runs at these addresses are deleted."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.by_uri: dict[str, list[Problem]] = {}
        self.read_uris: set[str] = set()
        self.read_below: set[str] = set()

    def add(self, problem: Problem) -> None:
        """One more problem."""
        self.by_uri.setdefault(problem.uri, []).append(problem)

    def add_all(self, problems: Iterable[Problem]) -> None:
        """Several problems."""
        for problem in problems:
            self.add(problem)

    def problems(self) -> list[Problem]:
        """All problems; of a file with very many, the first ones one by one and the others summed by reason."""
        return [problem for group in self.by_uri.values() for problem in _limited(group)]


UNREADABLE: Final = "unreadable_file"
"""Field of the problem of a file at which a reader failed in a way it does not know: perhaps a defect of the reader."""
_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)
_MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
_DECODING_ERRORS = (
    UnicodeDecodeError,
    json.JSONDecodeError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    EOFError,
)
"""Errors whose message names a place in the bytes and quotes none of them."""
_ROOT = Path(__file__).parents[1]


def concerns_one_file(error: BaseException) -> bool:
    """Whether an error that was raised while one file was read makes that file unreadable, and leaves the others alone.

    A panic of Polars is a `BaseException` and does; an interrupt, a full disk, too many open files and an address that is none end the run.
    """
    if isinstance(error, OSError):
        return error.errno not in _MACHINE_ERRORS
    return not isinstance(error, (*_INTERRUPTS, DiskFull, UsageError))


class UnreadableError(FormatError):
    """A reader failed in a way it does not know. The error's own message may quote the input, so it is left out."""

    def __init__(self, error: BaseException) -> None:
        self.place = _place_of(error)
        super().__init__(
            f"cannot be read: {type(error).__name__} at {self.place}",
            remedy="write it again; if it is whole, report this reason as a defect. All else was read",
        )


def input_error(error: BaseException, uri: str) -> RootCostError:
    """What is wrong with an input at which a reader raised `error`.

    An unknown error goes to the log as well, with the frames and without the message: a defect stays visible, the content does not.
    """
    if isinstance(error, RootCostError):
        return error
    if isinstance(error, _DECODING_ERRORS):
        return FormatError(f"the file cannot be decoded: {str(error)[:200]}", remedy="fetch or export it again")
    if isinstance(error, OSError) and error.strerror:
        return StoreUnreachable(error.strerror, remedy="check that the file can be read, and that the disk has room")
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s while it was read\n%s", uri, type(error).__name__, frames)
    return UnreadableError(error)


def error_problem(source: str, uri: str, error: BaseException) -> Problem:
    """The problem of a file that could not be read."""
    reason = input_error(error, uri)
    field = UNREADABLE if isinstance(reason, UnreadableError) else ""
    return Problem(source, uri, "file", field, reason.what, reason.remedy or "mend the file, and ingest it again")


def _place_of(error: BaseException) -> str:
    """File and line of the last frame of this program that an error passed."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and "site-packages" not in path.relative_to(_ROOT).parts:
            return f"{path.relative_to(_ROOT).as_posix()}:{frame.lineno}"
    return "an unknown place"


def _limited(group: Sequence[Problem]) -> Iterator[Problem]:
    yield from group[:MAX_SINGLE_PROBLEMS]
    sums: dict[tuple[str, str, str, str], int] = {}
    for problem in group[MAX_SINGLE_PROBLEMS:]:
        key = (problem.field, problem.reason, problem.remedy, problem.severity)
        if key not in sums and len(sums) >= _MAX_KINDS:
            key = (
                "",
                "other faults, too many kinds to tell apart",
                "mend the faults listed, and read the file again",
                problem.severity,
            )
        sums[key] = sums.get(key, 0) + problem.rows
    for (name, reason, remedy, severity), rows in sums.items():
        yield Problem(group[0].source, group[0].uri, counted(rows, "more row"), name, reason, remedy, rows, severity)
