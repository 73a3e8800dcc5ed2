"""Files compressed by zstandard and xz are read wherever gzip is, and damage costs only what comes after it. (CA-7)"""

from __future__ import annotations

import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from ingest import compression
from ingest.logs import json_items
from ingest.logs.json_items import Damage
from ingest.sources.codex import SOURCE as CODEX
from ingest.sources.otlp import SOURCE as OTLP
from tests.support.log_sources import read, rows
from tests.support.paths import DATA

CASES = DATA / "cases"
LINES = b"".join(json.dumps({"n": n, "text": f"{n * 7919:x}" * 20}).encode() + b"\n" for n in range(5000))


def zstd(content: bytes) -> bytes:
    stream: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return stream


@pytest.mark.parametrize("compress", [zstd, lzma.compress], ids=["zstd", "xz"])
def test_several_streams_one_after_another_are_one_file(compress: object) -> None:
    assert callable(compress)
    body = compress(LINES[:1000]) + compress(LINES[1000:])
    assert b"".join(compression.chunks(io.BytesIO(body))) == LINES


@pytest.mark.parametrize("compress", [zstd, lzma.compress], ids=["zstd", "xz"])
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_a_cut_file_is_told_and_what_came_before_is_read(tmp_path: Path, compress: object, keep: float) -> None:
    assert callable(compress)
    body = compress(LINES)
    path = tmp_path / "cut.jsonl"
    path.write_bytes(body[: int(len(body) * keep)])
    entries = list(json_items.of_file(path, "cut"))
    damages = [e for e in entries if isinstance(e, Damage)]
    assert any("the compressed stream is cut off or damaged here" in d.reason for d in damages)
    numbers = [e.value["n"] for e in entries if not isinstance(e, Damage) and isinstance(e.value, dict)]
    assert numbers == list(range(len(numbers)))


def test_a_compressed_session_is_a_session() -> None:
    [path] = (CASES / "codex" / "compressed").glob("*.zst")
    answers = [row for row in rows(CODEX, path) if row["usage_scope"] == "leaf"]
    assert len(answers) == 4
    assert {row["conversation_id"] for row in answers} == {"0199a1b2-0000-7000-8000-0000000000bb"}


@pytest.mark.parametrize("compress", [zstd, lzma.compress], ids=["zstd", "xz"])
def test_a_compressed_export_of_spans_is_read(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    content = (CASES / "counts-adk" / "adk-python-2.13.json").read_bytes()
    path = tmp_path / "spans.json"
    path.write_bytes(compress(content))
    reading = read(OTLP, path)
    assert (reading.frame.height, reading.problems) == (2, [])
    lines = b"".join(content.replace(b"0000001f", b"%08x" % n).replace(b"\n", b"") + b"\n" for n in range(500))
    path.write_bytes(compress(lines)[:-200])
    cut = read(OTLP, path)
    assert 0 < cut.frame.height < 1000
    assert any("compress" in p.reason for p in cut.problems)
