"""Decompression of files by their first bytes: gzip, zstandard and xz, chunk by chunk. Zip is read where tables are."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from ledger.inflate import InflateError, inflate

GZIP, ZSTD, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"
SUFFIXES = (".gz", ".zst", ".xz")
_JOINED_BYTES = 4 << 20
"""Chunks are joined up to this size: those who read it need not fear a million chunks of a byte."""
_CHUNK = 1 << 16
"""Small, since a damaged zstandard stream loses the chunk that is being read."""


class CutOffError(Exception):
    """The compressed stream is truncated or damaged after the chunks that were already read."""


def has_magic(head: bytes) -> bool:
    """Whether a file that begins so is compressed by gzip, zstandard or xz."""
    return head.startswith((GZIP, ZSTD, XZ))


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a compressed file, which may be several streams one after another. Raises `CutOffError` where it is damaged.

    >>> import io
    >>> b"".join(chunks(io.BytesIO(lzma.compress(b"spans") + lzma.compress(b" and logs"))))
    b'spans and logs'
    """
    head = file.read(len(XZ))
    file.seek(-len(head), 1)
    parts, size = list[bytes](), 0
    try:
        for part in _of_gzip(file) if head.startswith(GZIP) else _of_zstd(file) if head.startswith(ZSTD) else _of_xz(file):
            parts.append(part)
            size += len(part)
            if size >= _JOINED_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
    except CutOffError:
        yield b"".join(parts)
        raise
    yield b"".join(parts)


def _of_gzip(file: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from inflate(iter(lambda: file.read(_JOINED_BYTES), b""))
    except InflateError as error:
        raise CutOffError(str(error)) from error


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
