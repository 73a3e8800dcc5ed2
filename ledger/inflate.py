"""Undoes gzip and zlib in time linear in the bytes and in bounded memory, whatever the number of members and their ratio."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

MAX_CHUNK_BYTES: Final = 1 << 20
_FED_BYTES: Final = 16 << 10
"""Bytes given to zlib at once: what is left of them at the end of a member is copied, so that this bounds the cost of a member."""
ENDS_EARLY: Final = "compressed bytes end too early"


class InflateError(Exception):
    """The bytes are damaged, end too early, or are more members than accepted; what came before was given out."""


def inflate(blocks: Iterable[bytes], *, wbits: int = 31, max_members: int | None = None) -> Iterator[bytes]:
    """The content of gzip members one after another, in chunks of at most `MAX_CHUNK_BYTES`; zeros between members are padding.

    `wbits` is zlib's: 31 for gzip, 47 for gzip or zlib, -15 for neither's header. Raises `InflateError` after the last chunk that is sound.

    >>> import gzip
    >>> b"".join(inflate([gzip.compress(b"spans") + bytes(3), gzip.compress(b" and logs")]))
    b'spans and logs'
    """
    try:
        yield from _parts(blocks, wbits, max_members)
    except zlib.error as error:
        raise InflateError(f"damaged compression: {error}") from error


def _parts(blocks: Iterable[bytes], wbits: int, max_members: int | None) -> Iterator[bytes]:
    decompressor, members = None, 0
    for block in blocks:
        view, position = memoryview(block), 0
        while position < len(view):
            fed = view[position : position + _FED_BYTES]
            if decompressor is None:
                padding = len(fed) - len(bytes(fed).lstrip(b"\0")) if members else 0
                if padding:
                    position += padding
                    continue
                members += 1
                if max_members is not None and members > max_members:
                    raise InflateError(f"more than {max_members} compressed members")
                decompressor = zlib.decompressobj(wbits)
            yield from _fed(decompressor, fed)
            position += len(fed) - len(decompressor.unused_data)
            if decompressor.eof:
                decompressor = None
    if decompressor is not None:
        raise InflateError(ENDS_EARLY)


def _fed(decompressor: zlib._Decompress, fed: memoryview) -> Iterator[bytes]:
    remainder: bytes | memoryview = fed
    while True:
        part = decompressor.decompress(remainder, MAX_CHUNK_BYTES)
        if part:
            yield part
        remainder = decompressor.unconsumed_tail
        if decompressor.eof or not remainder:
            return
