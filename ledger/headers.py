"""Tables that somebody wrote as CSV: each column is named once, and a field may be as long as a prompt."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable

from ledger.errors import FormatError

MAX_FIELD_BYTES = 64 << 20
csv.field_size_limit(MAX_FIELD_BYTES)  # of the whole process; csv's own limit is 128 KiB, less than a prompt


def require_unique(names: Iterable[str], uri: str) -> None:
    """Raises `FormatError` that names the column which occurs more than once: which of its values holds, nobody can tell.

    >>> require_unique(["agent", "team", "agent"], "agents.csv")
    Traceback (most recent call last):
    ...
    ledger.errors.FormatError: agents.csv: column 'agent' occurs twice — leave one of them, and read the file again
    """
    twice_named = next((name for name, count in Counter(filter(None, names)).items() if count > 1), None)
    if twice_named is not None:
        raise FormatError(f"column {twice_named!r} occurs twice", where=uri, remedy="leave one of them, and read the file again")
