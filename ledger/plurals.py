"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, in the singular for one.

    >>> counted(1, "file"), counted(2000, "span"), counted(2, "other", "others"), counted(0, "row")
    ('1 file', '2,000 spans', '2 others', '0 rows')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
