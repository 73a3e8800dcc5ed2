"""One odd file is one problem: the others of its source are read, whatever the reader raises, and no reason quotes the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.bills import csv_reader
from ingest.logs import json_items
from ingest.logs.json_items import Damage
from ingest.problem_counter import ProblemCounter
from ingest.problem_log import UNREADABLE, concerns_one_file
from ingest.run import ingest
from ingest.source import RawObject, Reading
from ingest.sources import by_name
from ingest.sources.otlp import SOURCE as OTLP
from ledger import exchange_rates, registry
from ledger.books import Books
from ledger.errors import FormatError, RootCostError
from ledger.tables import CHARGES, PROBLEMS, SPANS
from tests.support.log_sources import read
from tests.support.paths import DATA

PROMPT = "the patient's name is Ada"
SPAN = json.loads((DATA / "otel_sdk_captures" / "otlp-http-json.json").read_text())


def payload(number: int, **fields: object) -> dict[str, object]:
    """A payload of LiteLLM's callback."""
    return {
        "id": f"call-{number}",
        "litellm_call_id": f"call-{number}",
        "call_type": "acompletion",
        "status": "success",
        "model": "gpt-4o-mini",
        "custom_llm_provider": "openai",
        "startTime": 1790833937.5 + number,
        "endTime": 1790833939.5 + number,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "response_cost": 0.25,
        "messages": [{"role": "user", "content": PROMPT}],
        **fields,
    }


def lines(*items: object) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def panic() -> None:
    """Makes Polars panic as in `survive`'s files: a time that no calendar has, written as text."""
    pl.Series([2**62], dtype=pl.Datetime("ms")).cast(pl.String)


def raising(error: Callable[[], object]) -> Callable[..., Iterator[Reading]]:
    def read(_self: Any, item: RawObject, settings: Any) -> Iterator[Reading]:
        if "odd" in item.uri:
            outcome = error()
            if isinstance(outcome, BaseException):
                raise outcome
        yield from genuine(item, settings)

    genuine = by_name("litellm").read
    return read


ERRORS: dict[str, Callable[[], object]] = {
    "panic": panic,
    "csv": lambda: csv.Error(PROMPT),
    "decimal": lambda: InvalidOperation(PROMPT),
    "key": lambda: KeyError(PROMPT),
    "overflow": lambda: OverflowError(PROMPT),
    "unicode": lambda: "\ud83d".encode(),
    "recursion": lambda: RecursionError(PROMPT),
    "memory": lambda: MemoryError(),
    "polars": lambda: pl.exceptions.ComputeError(PROMPT),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_whatever_a_reader_raises_is_one_problem_and_the_other_files_are_read(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Callable[[], object]
) -> None:
    monkeypatch.setattr(type(by_name("litellm")), "read", raising(error))
    for number, name in enumerate(("a", "b-odd", "c")):
        (tmp_path / f"{name}.jsonl").write_text(lines(payload(number)))
    report = ingest(books, "litellm", [str(tmp_path)])

    assert (report.rows, report.errors, report.files) == (2, 1, 3)
    [problem] = books.store.scan(PROBLEMS).collect().to_dicts()
    assert problem["uri"].endswith("b-odd.jsonl") and problem["field"] == UNREADABLE
    assert "cannot be read: " in problem["reason"] and "test_odd_files.py:" in problem["reason"] and problem["remedy"]
    assert PROMPT not in str(problem) and PROMPT not in caplog.text


def test_interrupts_and_a_full_disk_are_no_fault_of_a_file() -> None:
    assert not any(map(concerns_one_file, (KeyboardInterrupt(), SystemExit(1), OSError(28, "No space left on device"))))
    assert all(map(concerns_one_file, (OSError(5, "Input/output error"), RootCostError("x"), MemoryError())))


def test_half_a_character_a_time_of_no_calendar_and_a_list_cost_their_own_file_or_value_only(
    books: Books, tmp_path: Path
) -> None:
    usage = {
        "bill_payer_account_id": "1", "bill_billing_period_start_date": datetime(2026, 10, 1, tzinfo=UTC),
        "bill_billing_period_end_date": datetime(2026, 11, 1, tzinfo=UTC), "line_item_usage_account_id": "2",
        "line_item_line_item_type": "Usage", "line_item_usage_start_date": datetime(2026, 10, 5, tzinfo=UTC),
        "line_item_usage_end_date": datetime(2026, 10, 6, tzinfo=UTC), "line_item_product_code": "AmazonBedrock",
        "line_item_usage_amount": 1.0, "line_item_currency_code": "USD", "line_item_unblended_cost": 0.25,
    }  # fmt: skip
    frame = pl.DataFrame([usage])
    frame.write_parquet(tmp_path / "a.parquet")
    frame.with_columns(line_item_usage_type=pl.Series([2**62], dtype=pl.Datetime("ms"))).write_parquet(tmp_path / "b.parquet")
    frame.with_columns(bill_payer_account_name=pl.Series([[1, 2]])).write_parquet(tmp_path / "c.parquet")
    frame.with_columns(line_item_unblended_cost=pl.lit(0.5), bill_payer_account_id=pl.lit("9")).write_parquet(
        tmp_path / "z.parquet"
    )
    report = ingest(books, "aws-cur", [str(tmp_path / "*.parquet")])

    assert books.store.scan(CHARGES).collect()["billed_cost"].sort().to_list() == [Decimal("0.25"), Decimal("0.5")]
    reasons = {p.uri.rpartition("/")[2]: p.reason for p in report.problems}
    assert "line_item_usage_type holds a time outside" in reasons["b.parquet"]
    assert "read as billing_account_name holds lists" in reasons["c.parquet"]
    assert reasons.keys() == {"b.parquet", "c.parquet"}


SOUND = lines(payload(1), payload(2), payload(3))
FIRST_LINES = (
    "\0\0\0",
    "?" * 200_000,
    '{"id": "call-9", "prompt',
    '[{"id": "call-9"',
    '"id": "call-9"}',
    "PK\x03\x04\r\r",
    "\x1f",
    '{"id": "call-9", "prompt\nnull\nnull\nnull',
    '"id": "call-9"}\n\n\n\n\n\nnull\n',
)


@pytest.mark.parametrize("first", FIRST_LINES, ids=range(len(FIRST_LINES)))
@pytest.mark.parametrize("source", ["litellm", "bedrock-logs", "claude-code", "vertex", "helicone"])
def test_a_damaged_first_line_loses_only_itself(tmp_path: Path, first: str, source: str) -> None:
    samples = {"litellm": SOUND, "vertex": (DATA / "vertex" / "calls.jsonl").read_text()}
    folders = {"bedrock-logs": "bedrock_logs", "claude-code": "claude_code", "helicone": "helicone"}
    text = samples.get(source) or next(iter(sorted((DATA / folders[source]).glob("*.jsonl")))).read_text()
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    whole = read(by_name(source), path)
    path.write_text(f"{first}\n{text}")
    reading = read(by_name(source), path)
    assert reading.frame.height == whole.frame.height > 0
    assert len(reading.problems) == len(whole.problems) + 1


def test_a_damaged_first_line_of_a_collector_s_file_loses_only_itself(tmp_path: Path) -> None:
    sound = json.dumps(SPAN)
    path = tmp_path / "traces.jsonl"
    for first in FIRST_LINES:
        path.write_text(f"{first}\n{sound}\n")
        reading = read(OTLP, path)
        assert reading.frame.height > 0, first
        assert [p.severity for p in reading.problems if p.field == "request"] == ["error"], first


def test_a_line_without_an_end_is_told_and_its_neighbours_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' + b"x" * 5_000_000 + b'\n{"n": 2}\n'))
    entries = list(json_items.of_file(path, "log"))
    assert [e.value for e in entries if not isinstance(e, Damage)] == [{"n": 1}, {"n": 2}]
    assert [(e.place, "longer than" in e.reason) for e in entries if isinstance(e, Damage)] == [("line 2", True)]
    monkeypatch.setattr(csv_reader, "_MAX_ROW_BYTES", 1000)
    path.write_bytes(gzip.compress(b"x" * 5_000_000))
    with pytest.raises(FormatError, match="the first line is longer than"):
        list(csv_reader.batches(path, lambda _: pytest.fail("no header"), ProblemCounter("focus", "bill")))


def test_a_column_that_occurs_twice_is_refused_by_name(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text((DATA / "cursor" / "sample.csv").read_text().replace("\n", ",Model\n", 1))
    [problem] = ingest(books, "cursor", [str(path)]).problems
    assert "column 'Model' occurs twice" in problem.reason and problem.remedy
    path.write_text("request_id,startTime,spend,spend\n1,2026-10-05T10:00:00,1,2\n")
    [problem] = ingest(books, "litellm", [str(path)]).problems
    assert "column 'spend' occurs twice" in problem.reason
    with pytest.raises(FormatError, match="column 'team' occurs twice"):
        registry.import_text(books, "agent,team,team\na,b,c\n", uri="agents.csv", actor="me")
    with pytest.raises(FormatError, match="column 'rate' occurs twice"):
        exchange_rates.import_text(books, "date,from,to,rate,rate\n", uri="rates.csv", actor="me")


ABSURD: dict[str, object] = {
    "cost beyond any money": 12345678901,
    "cost of 1e400": "1e400",
    "negative": -1,
    "not a number": "NaN",
    "nested": {"a": [1]},
}


def test_one_absurd_value_is_one_rejected_item(books: Books, tmp_path: Path) -> None:
    fields = ("response_cost", "prompt_tokens", "completion_tokens", "startTime")
    values = (*ABSURD.values(), 10**30, "99999-01-01T00:00:00", 1e300, "\ud83d")
    odd = [payload(100 + n, **{field: value}) for n, (field, value) in enumerate((f, v) for f in fields for v in values)]
    (tmp_path / "log.json").write_text(json.dumps([payload(1), *odd, payload(2)]))
    report = ingest(books, "litellm", [str(tmp_path)])
    spans = books.store.scan(SPANS).collect()
    assert {"call-1", "call-2"} <= {*spans["gateway_call_id"], *spans["span_id"]}
    assert report.rows + report.errors >= len(odd) + 2
    assert not any(problem.field == UNREADABLE for problem in report.problems)
    assert PROMPT not in str(report.problems)


def test_an_archive_of_very_many_entries_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(csv_reader.MAX_ARCHIVE_ENTRIES + 1):
            archive.writestr(f"{number}.csv", b"")
    path = tmp_path / "bill.zip"
    path.write_bytes(content.getvalue())
    with pytest.raises(FormatError, match="entries"):
        list(csv_reader.batches(path, lambda _: pytest.fail("no header"), ProblemCounter("focus", "bill")))


PLANTED = "Dear Dr Planted"
"""What stands for a prompt in every field that a sender could put one into by mistake."""


def test_content_in_the_wrong_field_reaches_no_problem(books: Books, tmp_path: Path) -> None:
    sound = payload(1)
    wrong: list[dict[str, object]] = [
        {**sound, name: value} for name in sound for value in (PLANTED, [PLANTED], {"role": PLANTED})
    ]
    (tmp_path / "log.jsonl").write_text(lines(*wrong))
    span = json.dumps(SPAN).replace('"intValue": "', f'"stringValue": "{PLANTED} ')
    (tmp_path / "traces.jsonl").write_text(f"{span}\n{PLANTED}\n")
    reports = [ingest(books, name, [str(tmp_path / file)]) for name, file in (("litellm", "log.jsonl"), ("otlp", "traces.jsonl"))]
    problems = [problem for report in reports for problem in report.problems]
    assert len(problems) > 10, problems
    assert not [problem for problem in problems if "Planted" in str(problem)]
    assert any("text of 15 characters" in problem.reason for problem in problems)
