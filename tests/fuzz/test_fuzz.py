"""A small sample of `make fuzz`: it must fail as it should, and be quiet about what stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.source import RawObject, Reading
from ingest.sources import by_name
from tests.fuzz.run import run


@pytest.mark.slow
def test_mutated_inputs_escape_nowhere_and_cost_no_neighbours(tmp_path: Path) -> None:
    outcome = run(7, range(1, 100), tmp_path)
    assert outcome.failures == []
    assert outcome.counts.total() == 99 and len(outcome.counts) >= 4


@pytest.mark.slow
def test_a_reader_that_fails_or_loses_a_row_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_odd_sizes(source: Any, item: RawObject, settings: Any) -> Iterator[Reading]:
        if item.size % 2:
            raise KeyError("odd")
        yield from genuine(source, item, settings)

    reader = type(by_name("cursor"))
    genuine = reader.read
    monkeypatch.setattr(reader, "read", fail_at_odd_sizes)
    failures = run(7, range(1, 100), tmp_path).failures
    assert failures and all("KeyError" in failure for failure in failures)
