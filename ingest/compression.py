"""Decompression of files by their first bytes: zstandard and xz, chunk by chunk. Gzip and zip are read where they need their own repairs."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

ZSTD, XZ = b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"
SUFFIXES = (".gz", ".zst", ".xz")
_CHUNK = 1 << 16
"""Small, since a damaged zstandard stream loses the chunk that is being read."""


class CutOffError(Exception):
    """The compressed stream is truncated or damaged after the chunks that were already read."""


def has_magic(head: bytes) -> bool:
    """Whether a file that begins so is compressed by zstandard or xz."""
    return head.startswith((ZSTD, XZ))


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a zstandard or xz file, which may be several streams one after another. Raises `CutOffError` where it is damaged.

    >>> import io
    >>> b"".join(chunks(io.BytesIO(lzma.compress(b"spans") + lzma.compress(b" and logs"))))
    b'spans and logs'
    """
    head = file.read(len(XZ))
    file.seek(-len(head), 1)
    yield from _of_zstd(file) if head.startswith(ZSTD) else _of_xz(file)


def _of_zstd(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with pa.input_stream(pa.PythonFile(file, mode="r"), compression="zstd") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise CutOffError from error


def _of_xz(file: IO[bytes]) -> Iterator[bytes]:
    decompressor = lzma.LZMADecompressor()
    try:
        while block := decompressor.unused_data or file.read(_CHUNK):
            if decompressor.eof:
                if not (block := block.lstrip(b"\0")):
                    break
                decompressor = lzma.LZMADecompressor()
            yield decompressor.decompress(block, _CHUNK)
            while not decompressor.eof and not decompressor.needs_input:
                yield decompressor.decompress(b"", _CHUNK)
    except lzma.LZMAError as error:
        raise CutOffError from error
    if not decompressor.eof:
        raise CutOffError
