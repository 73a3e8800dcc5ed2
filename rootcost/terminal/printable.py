"""What comes from data never steers a terminal: control characters are shown, not sent.

Names, errors and log lines hold what senders wrote, which may be escape sequences (colours, titles, links, keys to press) or marks that
reverse the order of characters. Everything that commands print passes here: `console.out`, `console.say`, `TerminalConsole`, and the log.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from ledger.addresses import masked

_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
"""C0 without tab and line feed, delete, C1, line separators, and the marks of direction."""


def printable(text: str) -> str:
    r"""The text with each control character as its picture, or as a replacement character; each stays one character.

    >>> printable("\x1b[31mred\x1b[0m\ttab"), printable("a\u202eb\x9b")
    ('␛[31mred␛[0m\ttab', 'a�b�')
    """
    return _UNPRINTABLE.sub(_picture, text)


def printable_json(text: str) -> str:
    r"""JSON with each control character escaped: another text, the same value.

    >>> import json
    >>> printable_json('"a\u202eb\x9b"'), json.loads(printable_json('"\x7f"'))
    ('"a\\u202eb\\u009b"', '\x7f')
    """
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


class PrintableFormatter(logging.Formatter):
    """Log lines that can be looked at in a terminal, without the secrets of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, printable and without secrets."""
        return masked(printable(super().format(record)))
