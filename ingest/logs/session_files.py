"""Session files of coding agents: JSON lines that only mean something together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ingest.logs import files
from ingest.logs import rows as log_rows
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage
from ingest.logs.rows import Row
from ingest.source import RawObject, Reading
from ledger.errors import FormatError
from ledger.problems import Problem

PATTERNS = ("*.jsonl", "*.jsonl.gz")
_AGAIN = "copy the session's file again; the lines that are whole were read"


class Gathered(Protocol):
    """The lines of a file, gathered."""

    def add(self, value: object, place: str) -> bool:
        """Takes a line in; whether it is one of this agent's. Raises `FieldError` for one that should count and cannot."""
        ...

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row, and what makes it, which may raise `FieldError`."""
        ...


def readings(item: RawObject, gathered: Gathered, *, source: str, what: str, remedy: str) -> Iterator[Reading]:
    """The rows of a session's file. It is held as a whole, since a message's last line may be its last.

    Raises `FormatError` where no line is one of this agent's.
    """
    problems, rows, known, others = list[Problem](), list[Row](), False, False

    def refused(place: str, fault: FieldError) -> None:
        problems.append(Problem(source, item.uri, place, fault.field, fault.reason, fault.remedy))

    for entry in files.items(item, what=what, again=_AGAIN):
        if isinstance(entry, Damage):
            problems.append(Problem(source, item.uri, *entry))
            continue
        try:
            is_ours = gathered.add(entry.value, entry.place)
        except FieldError as fault:
            is_ours = True
            refused(entry.place, fault)
        known, others = known or is_ours, others or not is_ours
    if others and not known:
        raise FormatError(f"no {what}", where=item.uri, remedy=remedy)
    for place, made in gathered.rows():
        try:
            rows.append(made() | {"raw_id": item.raw_id})
        except FieldError as fault:
            refused(place, fault)
    yield Reading(log_rows.frame(rows), problems)
