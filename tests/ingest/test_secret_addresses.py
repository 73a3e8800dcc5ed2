"""A secret in an address is used to fetch, and is nowhere afterwards: in no table, no row of the database, no file, no message."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import ingest.run
from ingest.run import ingest as run_ingest
from ingest.source import Batch, Fetcher, RawObject
from ingest.sources.otlp import Otlp
from ledger.books import Books
from ledger.errors import SourceError
from ledger.problems import Problem
from ledger.tables import RAW_FILES, SPANS, TABLES
from tests.ingest.test_odd_files import SPAN

PLANTED = "PlantedSecret7"
ADDRESSES = [
    f"https://collector.example/traces?apikey={PLANTED}",
    f"https://collector.example/traces?page=1&code={PLANTED}",
    f"https://collector.example/traces?auth={PLANTED}",
    f"https://{PLANTED}@collector.example/traces",
    f"https://me:{PLANTED}@collector.example/traces",
    f"https://bucket.example/t?X-Amz-Credential=a&X-Amz-Signature={PLANTED}&X-Amz-Expires=9",
    f"https://account.blob.example/c?sv=2024&sig={PLANTED}",
    f"https://storage.example/b/o?X-Goog-Signature={PLANTED}",
]


class Collector(Otlp):
    """Traces behind an address with a secret, which the source needs; the last address does not answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.plan_calls: list[tuple[str, str | None]] = []

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """One object whose address repeats the one that was given."""
        self.plan_calls.append((uri, fetcher.checkpoint(uri)))
        if uri == ADDRESSES[-1]:
            raise SourceError(f"{uri} does not answer", where=uri, remedy=f"is {uri} right?")
        item = RawObject(f"{uri}#1", self._path, raw_id="ab" * 32, size=self._path.stat().st_size)
        problem = Problem(self.name, item.uri, "line 1", "field", f"{uri} is odd", "remedy", severity="warning")
        yield Batch(scope=uri, objects=(item,), problems=(problem,), checkpoints={uri: "2026-10-05"})


def test_a_secret_of_an_address_is_nowhere(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(SPAN))
    source = Collector(path)
    monkeypatch.setattr(ingest.run, "by_name", lambda _: source)
    caplog.set_level(logging.DEBUG)
    reports = [run_ingest(books, "otlp", ADDRESSES) for _ in range(2)]

    assert [checkpoint for _, checkpoint in source.plan_calls[-len(ADDRESSES) :]] == ["2026-10-05"] * (len(ADDRESSES) - 1) + [
        None
    ]
    assert {uri for uri, _ in source.plan_calls} == set(ADDRESSES)  # the source itself has the secret
    assert books.store.scan(SPANS).collect().height == 3
    uris = set(books.store.scan(RAW_FILES).collect()["uri"])
    assert "https://account.blob.example/c?sv=2024&sig=…#1" in uris
    outputs = [str(reports), caplog.text, *(str(books.store.scan(table).collect().to_dicts()) for table in TABLES.values())]
    assert not [text[text.index(PLANTED) - 90 :][:150] for text in outputs if PLANTED in text]
    books.close()
    assert not [path for path in books.home.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]
