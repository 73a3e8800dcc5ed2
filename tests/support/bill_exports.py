"""Helpers for tests of bills that consoles export: a file with other text, and what its money comes to by agent."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ingest.run import ingest
from ingest.source import Source
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import COSTS
from tests.support.books_by_hand import span, spans, write
from tests.support.golden import read_all


def export(folder: Path, text: str, name: str = "export.csv") -> Path:
    """A file that holds the text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def missing_column_error(source: Source, sample: Path, header: str, folder: Path) -> FormatError:
    """The error of the sample whose column `header` has another name."""
    header_line, _, body = sample.read_text(encoding="utf-8").partition("\n")
    names = [f"{name}_new" if name == header else name for name in header_line.split(",")]
    with pytest.raises(FormatError) as caught:
        read_all(source, export(folder, ",".join(names) + "\n" + body))
    return caught.value


def call(number: int, agent: str, start: datetime, **columns: Any) -> list[dict[str, Any]]:
    """A call below a span of its agent."""
    return [
        span(number, 1, agent_name=agent, start_time=start),
        span(number, 2, 1, usage_scope="leaf", input_includes_cache=True, start_time=start, **columns),
    ]


def money_by_agent(books: Books, source: str, path: Path, calls: list[dict[str, Any]], owners: str) -> dict[str | None, Decimal]:
    """What each agent pays of an export, beside the calls; None is what nobody pays. Its total is the bill's."""
    report = ingest(books, source, [str(path)])
    assert not [problem for problem in report.problems if problem.severity == "error"], report.problems
    write(books, spans=spans(*calls) if calls else None, owners=owners)
    run = attribute(books)
    costs = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    agent = pl.coalesce("initiator_agent", pl.when(pl.col("initiator_team").is_not_null()).then(pl.col("initiator_team")))
    return dict(costs.group_by(agent.alias("agent")).agg(pl.col("billed_cost").sum()).iter_rows())
