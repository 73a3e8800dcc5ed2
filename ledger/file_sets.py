"""Fingerprints of sets of files that stay when files are merged, or written anew without changing a figure.

A file's identity is a hash of its name; that of a merged file is the sum of its originals' identities, which its name carries. The
fingerprint of a set is the sum over its files, so that compaction changes it no more than it changes rows. A file from which a person was
erased carries the name of the one whose place it took.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from typing import Final

_BYTES: Final = 12
_MODULUS: Final = 1 << (8 * _BYTES)
_MERGED: Final = re.compile(rf"-of-([0-9a-f]{{{2 * _BYTES}}})\.")
_REWRITTEN: Final = re.compile(r"part-[0-9a-f-]{36}-as-(.+)")


def fingerprint(names: Iterable[str]) -> str:
    """The fingerprint of the files with these names, in any order.

    >>> fingerprint(["a.parquet", "b.parquet", "c.parquet"]) == fingerprint([merged_name(["c.parquet", "a.parquet"]), "b.parquet"])
    True
    >>> fingerprint(["a.parquet"]) == fingerprint(["b.parquet"]), fingerprint([])
    (False, '000000000000000000000000')
    """
    return f"{sum(map(_identity, names)) % _MODULUS:0{2 * _BYTES}x}"


def merged_name(names: Iterable[str]) -> str:
    """A new name for the file that holds the rows of these files."""
    return f"part-{uuid.uuid4()}-of-{fingerprint(names)}.zstd.parquet"


def rewritten_name(name: str) -> str:
    """A new name for the file that takes the place of this one, and has its identity.

    >>> fingerprint([rewritten_name(rewritten_name("a.parquet"))]) == fingerprint(["a.parquet"])
    True
    """
    return f"part-{uuid.uuid4()}-as-{original_name(name)}"


def original_name(name: str) -> str:
    """The name that a file's identity comes from: its own, or that of the file whose place it took."""
    rewritten_match = _REWRITTEN.fullmatch(name)
    return rewritten_match[1] if rewritten_match else name


def _identity(name: str) -> int:
    name = original_name(name)
    merged_match = _MERGED.search(name)
    return (
        int(merged_match[1], 16) if merged_match else int.from_bytes(hashlib.blake2b(name.encode(), digest_size=_BYTES).digest())
    )
