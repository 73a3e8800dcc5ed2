"""What goes wrong with bytes on their way: flipped, cut, doubled and foreign bytes, and values that make no sense where they stand."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

NONSENSE: tuple[object, ...] = (
    *(None, True, -1, 0, 10**30, 2**63, -(2**63), 1.5, 1e300, float("nan"), float("inf"), "", "x" * 5000, "\ud800", "NaN", "-5"),
    *("1e400", "1E-999999999", "9" * 5000, "99999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    *([], {}, [[]], {"a": {"b": 1}}, [None, 1, "x"], {"value": 7}, {"intValue": "1e9"}, {"doubleValue": "x"}),
)
TOKENS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"'",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b";",
        b"\x1a",
        b"\x1b[2J",
    ),
    *(
        b"1e400",
        b"-1",
        b"NaN",
        b"Infinity",
        b"9" * 40,
        b"99999-01-01",
        b"\\ud83d",
        b"null",
        b"=1+1",
        b"[" * 3000,
        b"\xc3\x28",
        b"\x1f\x8b",
    ),
)
"""Without the line break and the quote, which may join what follows to what is meant."""


def damage(chance: random.Random, content: bytes) -> bytes:
    """The bytes with one to four things wrong, within their line."""
    spoilt = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randrange(len(spoilt) + 1)
        end = min(len(spoilt), start + chance.choice((0, 1, 1, 2, 8, 40)))
        kind = chance.randrange(5)
        if kind == 0:
            spoilt[start:end] = b""
        elif kind == 1:
            spoilt[start:end] = spoilt[start:end] * 2
        elif kind == 2:
            spoilt[start:end] = bytes(_letter(chance) for _ in range(end - start))
        else:
            spoilt[start:end] = chance.choice(TOKENS)
    return bytes(spoilt).replace(b"\n", b" ")


def _letter(chance: random.Random) -> int:
    return chance.choice([n for n in (chance.randrange(256), chance.randrange(256), 120) if n not in b'\n"'])


def nonsense(chance: random.Random, document: Any) -> Any:
    """The document with values that make no sense in one to three of its places, or with a place gone or named otherwise."""
    spoilt = {"": copy.deepcopy(document)}
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(spoilt))
        *path, last = chance.choice(places)
        parent: Any = spoilt
        for step in path:
            parent = parent[step]
        kind = chance.randrange(8)
        if kind == 0 and isinstance(parent, dict) and last:
            del parent[last]
        elif kind == 1 and isinstance(parent, dict) and last:
            parent[chance.choice(("", "\ud800", "data", "usage", "id"))] = parent.pop(last)
        else:
            parent[last] = copy.deepcopy(chance.choice(NONSENSE))
    return spoilt.get("")


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    for step, inner in children:
        yield (*path, step)
        yield from _places(inner, (*path, step))


def spoil_line(chance: random.Random, line: bytes) -> bytes:
    """A line of a log or a table, spoilt: as bytes, or as the document that it is."""
    if chance.randrange(2) and line.lstrip()[:1] == b"{":
        try:
            return json.dumps(nonsense(chance, json.loads(line))).encode()
        except ValueError:
            pass
    return damage(chance, line)


def _spoil_cell(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    separator = chance.choice((b",", b":", b";", b"\t"))
    cells = lines[at].split(separator)
    cells[chance.randrange(len(cells))] = chance.choice(
        (str(chance.choice(NONSENSE)).encode("utf-8", "replace"), b'"', b"", b"\0")
    )
    lines[at] = separator.join(cells)
    return b"\n".join(lines)


def _repeat_column(chance: random.Random, content: bytes) -> bytes:
    header, _, remainder = content.partition(b"\n")
    names = header.split(b",")
    names[chance.randrange(len(names))] = chance.choice(names)
    return b",".join(names) + b"\n" + remainder


def _spoil_document(chance: random.Random, content: bytes) -> bytes:
    try:
        return json.dumps(nonsense(chance, json.loads(content))).encode()
    except ValueError:
        lines = content.split(b"\n")
        at = chance.randrange(len(lines))
        lines[at] = spoil_line(chance, lines[at])
        return b"\n".join(lines)


def _flip(chance: random.Random, content: bytes) -> bytes:
    spoilt = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 30))):
        if spoilt:
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    return bytes(spoilt)


WHOLE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    damage,
    _flip,
    _flip,
    _spoil_cell,
    _spoil_document,
    _spoil_document,
    _repeat_column,
    lambda chance, content: content[: chance.randrange(len(content) + 1)],
    lambda chance, content: content[chance.randrange(len(content) + 1) :],
    lambda chance, content: (
        content[: chance.randrange(len(content) + 1)] + chance.choice((b"\n", b"\r\n", b'"', b"\0")) + content
    ),
    lambda chance, content: chance.choice((*TOKENS, b"x" * 200_000)) + b"\n" + content,
    lambda chance, content: gzip.compress(content, 1)[: chance.randrange(20, len(content) + 60)],
    lambda chance, content: _flip(chance, gzip.compress(content, 1)),
    lambda chance, content: gzip.compress(b"", 1) * chance.randrange(300) + gzip.compress(content, 1),
    lambda chance, content: content.decode("utf-8", "replace").encode(
        chance.choice(("utf-16", "utf-16-le", "latin-1", "utf-8-sig")), "replace"
    ),
)
"""What can happen to a whole file or body."""
