"""By what JSON lines are told from one document: a damaged first line must lose only itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ingest.logs.json_fields import parse_json

SHOWN_LINES = 4
"""Lines that are not empty by which JSON lines are told from a document and from a table."""
_SPACE = re.compile(r"[\s]*")


def filled_lines(content: bytes, *, with_tail: bool = False) -> Iterator[bytes]:
    r"""The lines that are not empty and have an end; with the one without an end, if asked for.

    >>> list(filled_lines(b"a\n \n\nb\nc")), list(filled_lines(b"a\n \nc", with_tail=True))
    ([b'a', b'b'], [b'a', b'c'])
    """
    at = 0
    while (line_break := content.find(b"\n", at)) >= 0:
        line = content[at:line_break]
        if line and not line.isspace():
            yield line
        at = line_break + 1
    if with_tail and content[at:].strip():
        yield content[at:]


def is_complete(line: bytes) -> bool:
    """Whether a line is JSON by itself."""
    try:
        parse_json(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return False
    return True


def are_lines(first: bytes, following: Sequence[bytes]) -> bool:
    """Whether a file that begins so holds an object a line. A damaged first line is told by the objects that follow it.

    >>> are_lines(b'{"a": 1}', []), are_lines(b'{"a": 1, "b', [b'{"a": 2}']), are_lines(b'?"a": 1}', [b'{"a": 2}', b'{"a": 3'])
    (True, True, True)
    >>> are_lines(b'{"a": 1, "b', [b"null"]), are_lines(b"PK", [b"null", b"null", b"null"]), are_lines(b"{", [b'"a":', b"null"])
    (True, True, False)
    >>> are_lines(b"[", [b'{"a": 1}', b"]"]), are_lines(b"{", [b'"a": {}', b"}"]), are_lines(b"request_id,startTime", [b"1,2"])
    (False, False, False)
    """
    text = first.strip().removeprefix(b"\xef\xbb\xbf")
    if text == b"null" or (text[:1] == b"{" and is_complete(text)):
        return True
    # A bracket of its own is that of an indented document. An array that is whole is a document.
    if text in (b"[", b"{") or (text[:1] == b"[" and is_complete(text)):
        return False
    if text[:1] == b"{" and following and following[0].lstrip()[:1] == b"{":
        return True
    if any(line.lstrip()[:1] == b"{" and is_complete(line.strip()) for line in following):
        return True
    has_end_of_document = any(line.lstrip()[:1] in (b"]", b"}") for line in following)
    return not has_end_of_document and any(line.strip() == b"null" for line in following)


def next_whole_line(text: str, at: int) -> int | None:
    """Where the first of the next lines begins that is an object or null by itself; None if none of a few is."""
    for _ in range(SHOWN_LINES):
        line_break = text.find("\n", at)
        if line_break < 0:
            return None
        at = line_break + 1
        end = text.find("\n", at)
        line = text[at : end if end >= 0 else None].strip()
        if line == "null" or (line[:1] == "{" and is_complete(line.encode("utf-8", "surrogateescape"))):
            return skip_space(text, at)
    return None


def skip_space(text: str, at: int) -> int:
    """The position behind the white space at a position."""
    match = _SPACE.match(text, at)
    return match.end() if match else at
