"""The problems of one run, by address, and what makes an exception a problem of the input."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ingest.problem_counter import MAX_SINGLE_PROBLEMS
from ledger.addresses import masked
from ledger.errors import DiskFull, RootCostError
from ledger.problems import Problem

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
        """All problems, without secrets of addresses; of a file with very many, the first ones one by one and the others summed by reason."""
        return [
            replace(problem, uri=masked(problem.uri), reason=masked(problem.reason))
            for group in self.by_uri.values()
            for problem in _limited(group)
        ]


def is_input_error(error: Exception) -> bool:
    """Whether the bytes caused the error, rather than a bug of ours."""
    if isinstance(error, RootCostError):
        return not isinstance(error, DiskFull)
    if isinstance(error, (UnicodeDecodeError, json.JSONDecodeError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, EOFError)):
        return True
    decoders = (("google.protobuf.message", "DecodeError"), ("pyarrow.lib", "ArrowInvalid"))
    return any(isinstance(error, getattr(sys.modules[module], name)) for module, name in decoders if module in sys.modules)


def error_problem(source: str, uri: str, error: Exception) -> Problem:
    """The problem of a file that could not be read."""
    if isinstance(error, RootCostError):
        return Problem(source, uri, "file", "", error.what, error.remedy or "mend the file, and ingest it again")
    return Problem(source, uri, "file", "", f"the file cannot be decoded: {str(error)[:200]}", "fetch or export it again")


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
        yield Problem(group[0].source, group[0].uri, f"{rows} more rows", name, reason, remedy, rows, severity)
