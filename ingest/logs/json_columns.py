"""JSON lines as columns: the lines that fit a schema, parsed by Arrow many at a time, and the positions of all others.

A bill of a million lines repeats one shape. Where every line has it, no Python object is made for a field. A line that Arrow cannot
parse, or that has another type in a field, is for the caller's reader of single rows, which knows what to say of it. What Arrow takes
is what `json.loads` takes: the same text, and numbers with every digit, as decimals. Fields outside the schema are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

Positions = np.ndarray[Any, np.dtype[np.int64]]

NUMBER: Final = pa.decimal256(70, 40)
"""A number in a schema: 30 digits before the point and 40 behind it, as a JSON number or as text."""
TEXT: Final = pa.string()
_BLOCK: Final = 1 << 20


class ParsedLines(NamedTuple):
    """The rows of lines that fit the schema, the positions of these lines, and those of the others."""

    table: pa.Table
    fitting: Positions
    remainder: Positions


def record(**fields: pa.DataType) -> pa.DataType:
    """A nested record in a schema."""
    return pa.struct(list(fields.items()))


def parse(lines: Sequence[bytes | None], schema: pa.Schema, *, few: int = 32) -> ParsedLines:
    """The lines as columns of `schema`, null where a line has no such field.

    Lines are halved until all of a part fit; of `few` lines among which one does not fit, all are left to the caller.

    >>> lines = [b'{"sku": "a", "cost": 0.1}', b'{"cost": "1e-7", "x": [1]}', b'{"sku": 7}', b'{"sku": "b"']
    >>> parsed = parse(lines, pa.schema([("sku", TEXT), ("cost", NUMBER)]), few=1)
    >>> parsed.table["sku"].to_pylist(), [float(n) for n in parsed.table["cost"].to_pylist()]
    (['a', None], [0.1, 1e-07])
    >>> parsed.fitting.tolist(), parsed.remainder.tolist()
    ([0, 1], [2, 3])
    """
    # A line that starts and ends with braces cannot go on in the next one, so that as many rows as lines is one row a line.
    # To Arrow a carriage return ends a line too, and a line that is null ends the process.
    texts = [line.strip() if line else b"" for line in lines]
    objects = [i for i, text in enumerate(texts) if text[:1] == b"{" and text[-1:] == b"}" and b"\r" not in text]
    tables, fitting = list[pa.Table](), list[list[int]]()
    pending = [objects]
    while pending:
        part = pending.pop()
        table = _table([texts[i] for i in part], schema) if part else None
        if table is not None:
            tables.append(table)
            fitting.append(part)
        elif len(part) > few:
            pending += [part[len(part) // 2 :], part[: len(part) // 2]]
    positions = np.array([i for part in fitting for i in part], np.int64)
    remainder = np.setdiff1d(np.arange(len(lines)), positions, assume_unique=True)
    return ParsedLines(pa.concat_tables([schema.empty_table(), *tables]).combine_chunks(), positions, remainder)


def _table(lines: Sequence[bytes], schema: pa.Schema) -> pa.Table | None:
    """One row for each line, or None where some line does not fit."""
    content = b"\n".join(lines)
    try:
        if not content.isascii():
            content.decode()
        table = pj.read_json(
            pa.BufferReader(content),
            read_options=pj.ReadOptions(block_size=max(_BLOCK, 1 + max(map(len, lines))), use_threads=len(content) > _BLOCK),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return table if table.num_rows == len(lines) else None
