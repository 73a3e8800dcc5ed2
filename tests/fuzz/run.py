"""Many mutations of sound inputs, seed by seed: what a reader or a door makes of each, and whether that is allowed.

`make fuzz SEED=1 COUNT=20000` prints how many mutations came to what, and each failure with the number that makes it again (`--only`):
an exception that the reader does not know, a mutation that takes longer than some seconds, a line whose neighbours are lost, a bill whose
total is not that of its charges, a prompt that is quoted. It ends with 1 where there is any.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ingest.run import ingest
from ingest.source import RawObject, Reading
from ingest.sources import by_name
from ledger.books import Books
from ledger.errors import RootCostError
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, COST_COLUMNS, SPANS
from tests.fuzz.doors import DOORS, Door
from tests.fuzz.mutations import WHOLE, spoil_line
from tests.fuzz.samples import Sample, samples
from tests.support.amounts import sum_of

MAX_SECONDS = 10.0
"""Of a core, for one mutation."""
HANG_SECONDS = 300
_BOOKED_EVERY = 200
"""Of how many mutations one goes the whole way, between two sound files, into books."""
_NOT_CONTENT = ("line", "raw_id", "__row", "__line", "__word", "rank")


@dataclass
class Outcome:
    """How many mutations came to what, and the failures."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def run(seed: int, numbers: Iterable[int], folder: Path) -> Outcome:
    """Runs these mutations of a seed."""
    outcome = Outcome()
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")
        started_seconds = time.process_time()
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        subjects: tuple[Sample | Door, ...] = (*samples(), *DOORS)
        subject = chance.choice(subjects)
        name = subject.name if isinstance(subject, Door) else f"{subject.source} {subject.name}"
        try:
            if isinstance(subject, Door):
                verdict = subject.answer(chance)
            elif number % _BOOKED_EVERY == 0:
                verdict = _book(chance, subject, folder / str(number))
            else:
                verdict = _read(chance, subject, folder / "sample")
            outcome.counts[verdict] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome.failures.append(f"{seed}/{number} {name}: {type(error).__name__}: {str(error)[:300]} at {_place(error)}")
        seconds = time.process_time() - started_seconds
        if seconds > MAX_SECONDS:
            outcome.failures.append(f"{seed}/{number} {name}: took {seconds:.0f} s of a core")
    faulthandler.cancel_dump_traceback_later()
    return outcome


def _place(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:]))


def _read(chance: random.Random, sample: Sample, path: Path) -> str:
    if sample.has_own_lines and chance.randrange(2):
        return _spoil_one_line(chance, sample, path)
    content = chance.choice(WHOLE)(chance, sample.content)
    try:
        readings = _readings(sample.source, content, path)
    except RootCostError as error:
        if not error.what or not error.remedy:
            raise AssertionError("a refusal without a remedy") from error
        return "file refused"
    problems = [problem for reading in readings for problem in reading.problems]
    assert all(problem.reason and problem.remedy for problem in problems), "a problem without a remedy"
    return "read with problems" if problems else "read"


def _spoil_one_line(chance: random.Random, sample: Sample, path: Path) -> str:
    """One line is spoilt; the rows of all others are read as before."""
    lines = sample.content.splitlines()
    is_table = sample.name.endswith(".csv")
    at = chance.randrange(1 if is_table else 0, len(lines))
    sound_content = b"\n".join((*lines[:at], *lines[at + 1 :])) + b"\n"
    expected_rows = Counter(_rows(_readings(sample.source, sound_content, path)))
    spoilt = spoil_line(chance, lines[at])
    try:
        readings = _readings(sample.source, b"\n".join((*lines[:at], spoilt, *lines[at + 1 :])) + b"\n", path)
    except RootCostError as error:
        raise AssertionError(f"one line cost the file: {error.what}") from error
    lost_rows = expected_rows - Counter(_rows(readings))
    assert not lost_rows, f"one line cost {lost_rows.total()} rows of others"
    return "one line spoilt"


def _readings(source: str, content: bytes, path: Path) -> list[Reading]:
    path.write_bytes(content)
    item = RawObject(uri=path.name, path=path, raw_id="sample", size=len(content))
    return list(by_name(source).read(item, IngestSettings()))


def _rows(readings: Sequence[Reading]) -> Iterator[tuple[object, ...]]:
    for reading in readings:
        frame = reading.frame
        if reading.dimensions is not None and frame.height:
            frame = pl.concat([frame, reading.dimensions[frame["__word"]]], how="horizontal")
        yield from frame.drop(_NOT_CONTENT, strict=False).iter_rows()


def _book(chance: random.Random, sample: Sample, folder: Path) -> str:
    """The spoilt file between two sound ones of another source's name, into books: all is accounted for."""
    files = folder / "files"
    files.mkdir(parents=True)
    suffix = sample.name.rpartition(".")[2]
    (files / f"b.{suffix}").write_bytes(chance.choice(WHOLE)(chance, sample.content))
    (files / f"c.{suffix}").write_bytes(sample.content)
    with Books.open(folder / "home") as books:
        report = ingest(books, sample.source, [str(files / f"*.{suffix}")])
        table = CHARGES if report.kind == "bill" else SPANS
        rows = books.store.scan(table).collect()
        assert report.rows or report.problems, "neither rows nor problems"
        if report.kind == "bill":
            for currency, columns in report.totals.items():
                for column in COST_COLUMNS:
                    ledger_sum = sum_of(rows.filter(pl.col("billing_currency") == currency)[column])
                    rounding = report.rounding.get(currency, {}).get(column, 0)
                    assert ledger_sum + rounding == columns.get(column, 0), (
                        f"{column} in {currency}: {ledger_sum} of {columns.get(column)}"
                    )
    return "booked"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutations; 1 if any of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--only", type=int, help="runs this mutation alone")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.only is None else (options.only,)
    started_seconds = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rootcost-fuzz-") as folder:
        outcome = run(options.seed, numbers, Path(folder))
    print(*outcome.failures, sep="\n", end="\n" if outcome.failures else "")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in outcome.counts.most_common())
    print(
        f"{len(numbers):,} mutations in {time.monotonic() - started_seconds:.0f} s: {counts}; {len(outcome.failures):,} failures"
    )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
