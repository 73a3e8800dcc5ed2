"""Usage that a record states and no reader reads: a finding, never silence. (CA-7)

Readers look fields up by name, so that a field of a newer version, or of a provider nobody expected, is passed over. Here the fields of
usage-like objects are compared with the list of those that are read, or left out for a reason: `usage_fields.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from ingest.problem_counter import described
from ledger.plurals import counted
from ledger.problems import Problem

MAX_PATHS = 20
"""Field paths that are reported one by one for each file; the others are counted as one."""
_MAX_DEPTH, _MAX_OBJECTS, _MAX_TEXT = 6, 200, 80
_USAGE_NAMES = frozenset(
    {
        *(
            "usage",
            "usage_object",
            "usage_metadata",
            "usageMetadata",
            "usageDetails",
            "usage_details",
            "token_usage",
            "tokenUsage",
        ),
        *("last_token_usage", "tokens", "token_counts"),
    }
)
"""Names of objects that hold usage."""
_CONTENT = frozenset(
    {
        *(
            "messages",
            "content",
            "contents",
            "choices",
            "candidates",
            "prompt",
            "instructions",
            "parts",
            "text",
            "tools",
            "arguments",
        ),
        *("input", "requestBody", "request_body", "system", "toolUseResult"),
    }
)
"""Names of objects that hold prompts and answers: they are not looked into."""


@lru_cache(maxsize=64)
def known_paths(source: str) -> frozenset[str]:
    """The paths of usage that a source reads or leaves out for a reason."""
    with (Path(__file__).parent / "usage_fields.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return frozenset(row["path"] for row in rows if row["sources"] == "*" or source in row["sources"].split(";"))


class UnreadUsage:
    """Counts the unread fields of the usage-like objects of one file.

    >>> unread = UnreadUsage("litellm", "log.jsonl")
    >>> unread.add({"prompt_tokens": 9, "server_tool_use": {"code_runs": 2}, "text_tokens": 0})
    >>> [(p.field, p.reason.partition(";")[0]) for p in unread.problems()]
    [('usage.server_tool_use.code_runs', 'unread_usage: 1 record states usage that is not read, such as 2')]
    """

    def __init__(self, source: str, uri: str, *, paths: Collection[str] | None = None) -> None:
        self._source, self._uri = source, uri
        self._known = known_paths(source) if paths is None else paths
        self._paths: dict[tuple[str, str], list[str | int]] = {}
        self._other_records = 0

    def add_item(self, item: object) -> None:
        """Looks for usage-like objects in an item of a log, outside prompts and answers."""
        for usage in _usage_objects(item):
            self.add(usage)

    def add(self, usage: Mapping[str, object], emitter: str = "") -> None:
        """Looks at the fields of one usage object."""
        for path, value in field_paths(usage):
            if path not in self._known:
                self.add_field(f"usage.{path}", value, emitter)

    def knows(self, usage: Mapping[str, object]) -> bool:
        """Whether every field of a usage object that states something is read, or left out for a reason."""
        return all(path in self._known or not states_usage(value) for path, value in field_paths(usage))

    def add_field(self, path: str, value: object, emitter: str = "") -> None:
        """Counts an unread field, unless it states nothing."""
        if not states_usage(value):
            return
        entry = self._paths.get((emitter, path))
        if entry is not None:
            entry[1] = int(entry[1]) + 1
        elif len(self._paths) < MAX_PATHS:
            self._paths[emitter, path] = [described(value), 1]
        else:
            self._other_records += 1

    def add_fields(self, fields: Mapping[str, object], emitter: str = "") -> None:
        """Counts unread fields by their paths."""
        for path, value in fields.items():
            self.add_field(path, value, emitter)

    def problems(self) -> list[Problem]:
        """One problem for each emitter and field path, with the number of records and an example."""
        remedy = "compare the field with the provider's price list; if it is billed, report the sample, so that it is read"
        problem_list = [
            Problem(
                self._source,
                self._uri,
                emitter or self._source,
                path,
                f"unread_usage: {count} {'record states' if count == 1 else 'records state'} usage that is not read, such as {example}; "
                "it bears no cost",
                remedy,
                rows=int(count),
                severity="warning",
            )
            for (emitter, path), (example, count) in self._paths.items()
        ]
        if self._other_records:
            reason = f"unread_usage: further fields, beyond {MAX_PATHS} in one file, in {counted(self._other_records, 'place')}"
            other = (self._source, self._uri, self._source, "usage", reason, remedy)
            problem_list.append(Problem(*other, rows=self._other_records, severity="warning"))
        return problem_list


def states_usage(value: object) -> bool:
    """Whether a value states something: a number that is not 0, or a short text.

    >>> [states_usage(value) for value in (3, "0", "0.0", "fast", "", None, True)]
    [True, False, False, True, False, False, False]
    """
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, (int, float, Decimal)):
        return value != 0
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and bool(value.strip("0.") or "")


def _usage_objects(item: object) -> Iterator[Mapping[str, object]]:
    level, object_count = [item], 0
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for part in level:
            object_count += 1
            if object_count > _MAX_OBJECTS:
                return
            if isinstance(part, Mapping):
                for name, value in part.items():
                    if name in _USAGE_NAMES and isinstance(value, Mapping):
                        yield value
                    elif isinstance(value, (Mapping, list)) and name not in _CONTENT:
                        inner.append(value)
            elif isinstance(part, list):
                inner += part[:_MAX_OBJECTS]
        level = inner


def field_paths(usage: Mapping[str, object], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """The paths of the values in a usage object; those of lists end in ``[]``."""
    for name, value in usage.items():
        path = f"{prefix}{name}"[:_MAX_TEXT]
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from field_paths(value, f"{path}.", depth + 1)
        elif isinstance(value, list) and depth < _MAX_DEPTH:
            for entry in value[:_MAX_OBJECTS]:
                yield from field_paths(entry, f"{path}[].", depth + 1) if isinstance(entry, Mapping) else [(f"{path}[]", entry)]
        else:
            yield path, value
