"""Session files of coding agents: JSON lines that are read together, one session a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ingest import policies
from ingest.logs import files
from ingest.logs import rows as log_rows
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage, ItemStream
from ingest.logs.rows import Row
from ingest.logs.unread_usage import UnreadUsage
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.jsonl.xz")
_REMEDY = "copy the session's file again; the lines that are whole were read"


class SessionLines(Protocol):
    """Collects the lines of one file and builds its rows."""

    def add(self, value: object, place: str) -> bool:
        """Adds a line; False for a line of another program. Raises `FieldError` for a line with usage that is invalid."""
        ...

    def rows(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """The place of each row and a function that builds it, which may raise `FieldError`."""
        ...


@dataclass(slots=True)
class SessionFolder:
    """A source that reads the session files of a coding agent. Every file is a batch of its own.

    `agent` is the program's name, `folder` where it keeps its sessions. `session` collects the lines of one file, given its address;
    `items` reads files that are not JSON. `skip` names folders to leave out.
    """

    name: str
    agent: str
    title: str
    folder: str
    session: Callable[[str], SessionLines]
    patterns: tuple[str, ...] = PATTERNS
    items: Callable[[RawObject, str], ItemStream] | None = None
    skip: tuple[str, ...] = ()
    kind: Literal["bill", "log"] = "log"
    access: Access = field(init=False)

    def __post_init__(self) -> None:
        needs = f"the folder that {self.agent} keeps its sessions in, or a copy of it; on S3, {policies.S3_NEEDS}"
        self.access = policies.export_access((self.folder, f"s3://agents/{self.name}/"), needs)

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every file is a batch of its own."""
        description = f"a session of {self.agent}"
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=description, skip=self.skip)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The sessions of one file, and the requests in them. Raises `FormatError` where no line was written by this agent."""
        description = f"session of {self.agent}"
        entries = None if self.items is None else self.items(item, description)
        return readings(
            item,
            self.session(item.uri),
            source=self.name,
            description=description,
            remedy=f"name a folder like {self.folder}",
            entries=entries,
        )


def readings(
    item: RawObject, session: SessionLines, *, source: str, description: str, remedy: str, entries: ItemStream | None = None
) -> Iterator[Reading]:
    """The rows of a session's file. All lines are collected first, because the last line of a message may be the last of the file.

    `entries` are its lines, unless they are the JSON items of the file. Raises `FormatError` where no line was written by this agent.
    """
    unread = UnreadUsage(source, item.uri)
    problems, rows, has_own_lines, has_foreign_lines = list[Problem](), list[Row](), False, False

    def add_problem(place: str, error: FieldError) -> None:
        problems.append(Problem(source, item.uri, place, error.field, error.reason, error.remedy))

    for entry in files.items(item, description=description, remedy=_REMEDY) if entries is None else entries:
        if isinstance(entry, Damage):
            problems.append(Problem(source, item.uri, *entry))
            continue
        unread.add_item(entry.value)
        try:
            is_ours = session.add(entry.value, entry.place)
        except FieldError as error:
            is_ours = True
            add_problem(entry.place, error)
        has_own_lines, has_foreign_lines = has_own_lines or is_ours, has_foreign_lines or not is_ours
    if has_foreign_lines and not has_own_lines:
        raise FormatError(f"no {description}", where=item.uri, remedy=remedy)
    for place, build_row in session.rows():
        try:
            rows.append(build_row() | {"raw_id": item.raw_id})
        except FieldError as error:
            add_problem(place, error)
    yield Reading(log_rows.frame(rows), problems + unread.problems())


def raise_error(error: FieldError) -> Row:
    """The row of a part that is invalid: none, but its problem."""
    raise error
