"""The door to the world, and the recipe behind it: what is fetched, kept, released, refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import problem_log, run
from ingest.bills import csv_reader, month, month_files
from ingest.fetch import WorldFetcher
from ingest.problem_log import UNREADABLE
from ingest.run import ingest
from ingest.source import Batch, Fetcher, RawObject, Reading
from ingest.sources import by_name, discover
from ledger import problems, store
from ledger.books import Books
from ledger.errors import FormatError, ObjectMissingError, RootCostError, StoreUnreachable, UsageError
from ledger.problems import Problem
from ledger.settings import IngestSettings, Settings
from ledger.tables import CHARGES, IMPORT_TOTALS, PROBLEMS, RAW_FILES, SPANS
from tests.support.paths import DATA

SAMPLE = DATA / "focus_sample" / "focus_sample_1000.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", "deep/c.csv.gz", ".hidden"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path / "in"


@pytest.fixture
def fetcher(home: Path) -> WorldFetcher:
    return WorldFetcher(Settings(home=home))


def test_files_folders_and_globs_are_listed_in_name_order(fetcher: WorldFetcher, folder: Path) -> None:
    def names(uri: str) -> list[str]:
        return [Path(entry.uri).relative_to(folder).as_posix() for entry in fetcher.list(uri)]

    assert names(str(folder)) == ["a.csv", "b.csv", "deep/c.csv.gz"]
    assert names(f"{folder}/*.csv") == ["a.csv", "b.csv"]
    assert names(f"{folder}/**/*.gz") == ["deep/c.csv.gz"]
    assert names(f"{folder}/b.csv") == ["b.csv"]


@pytest.mark.parametrize("uri", ["nothing", "nothing/*.csv", "empty"])
def test_what_is_not_there_is_said(fetcher: WorldFetcher, tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ObjectMissingError):
        fetcher.list(str(tmp_path / uri))
    with pytest.raises(ObjectMissingError):
        fetcher.get(str(tmp_path / uri))


def test_a_local_file_is_read_where_it_lies_and_known_by_its_bytes(fetcher: WorldFetcher, folder: Path) -> None:
    item = fetcher.get(str(folder / "a.csv"))
    assert (item.path, item.size, item.raw_id) == (folder / "a.csv", 5, hashlib.sha256(b"a.csv").hexdigest())
    fetcher.release(item)
    fetcher.close()
    assert item.path.exists()


def test_names_with_spaces_and_signs_are_only_names(tmp_path: Path) -> None:
    (tmp_path / "our bills").mkdir()
    path = tmp_path / "our bills" / "Rechnung März #1 (100%) 'neu'.csv"
    path.write_bytes(SAMPLE.read_bytes())
    with Books.open(tmp_path / "the books") as books:
        for _ in range(2):
            assert ingest(books, "focus", [str(path)]).errors == 0
        kept = books.store.scan(CHARGES, {"scope": [path.name]}).collect()
        assert kept.height == 1000 and kept["billed_cost"].sum() == Decimal("20.52022672899")


def test_sources_are_found_without_importing_them_and_unknown_ones_are_refused() -> None:
    assert {"focus", "aws-cur", "litellm", "otlp"} <= set(discover())
    assert by_name("aws-cur").name == "aws-cur"
    with pytest.raises(UsageError, match="focus"):
        by_name("cur")


class Told:
    """A log source that reads a number of spans from each file."""

    name = "told"
    kind: Literal["bill", "log"] = "log"
    title = "Told"
    patterns = ("*",)

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        for entry in fetcher.list(uri):
            yield Batch(scope="told", objects=(fetcher.get(entry.uri),))

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        for number in item.path.read_text().split():
            if not number.isdigit():
                raise FormatError(f"{number} is no number", where=item.uri)
            start = datetime(2026, 10, 5, 1, tzinfo=UTC)
            span = {
                "date": date(2026, 10, 5),
                "channel": "told",
                "trace_key": 1,
                "span_key": int(number),
                "start_time": start,
                "rank": 1,
            }
            yield Reading(pl.DataFrame([span]))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "by_name", lambda _: Told())


@pytest.mark.usefixtures("told")
def test_logs_are_merged_and_delivering_again_changes_nothing(books: Books, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 2 3")
    (tmp_path / "b").write_text("3 4")
    first = ingest(books, "told", [str(tmp_path / "a"), str(tmp_path / "b")])
    again = ingest(books, "told", [str(tmp_path / "b"), str(tmp_path / "a")])

    assert (first.files, first.rows, first.rows_changed, first.months) == (2, 5, 4, ["2026-10"])
    assert (again.rows_changed, again.already_known) == (0, 2)
    assert sorted(books.store.scan(SPANS).collect()["span_key"]) == [1, 2, 3, 4]
    assert books.store.scan(RAW_FILES).collect().height == 2


@pytest.mark.usefixtures("told")
def test_what_a_broken_log_held_before_it_broke_is_kept(books: Books, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 2 x 3")
    (tmp_path / "b").write_text("4")
    report = ingest(books, "told", [str(tmp_path / "a"), str(tmp_path / "b")])

    assert [p.reason for p in report.problems] == ["x is no number"]
    assert sorted(books.store.scan(SPANS).collect()["span_key"]) == [1, 2, 4]
    (tmp_path / "a").write_text("1 2 3")
    assert ingest(books, "told", [str(tmp_path / "a")]).problems == []
    assert books.store.scan(PROBLEMS).collect().height == 0


@pytest.mark.usefixtures("told")
def test_fetched_logs_are_deleted_when_read(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []
    with WorldFetcher(Settings(home=home), source="told", keep=False) as fetcher:
        path = fetcher._folder / "payload"
        path.write_bytes(b"a prompt")
        fetcher.release(RawObject("s3://b/payload", path, "id", 8))
        left.append(path.exists())
        (fetcher._folder / "other").write_bytes(b"another")
    assert left == [False] and not fetcher._folder.exists() and not (home / "raw").exists()


def test_a_mistake_of_ours_is_told_as_one_and_books_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Iterator[Reading]:
        columns: dict[str, Reading] = {}
        yield columns["a column we forgot"]

    monkeypatch.setattr(type(by_name("focus")), "read", broken)
    [problem] = ingest(books, "focus", [str(SAMPLE)]).problems
    assert (problem.field, problem.severity) == (UNREADABLE, "error")
    assert (
        problem.reason.startswith("cannot be read: KeyError at tests/ingest/test_fetch.py:") and "as a defect" in problem.remedy
    )
    assert "forgot" not in problem.reason
    assert books.store.version(CHARGES) is None


@pytest.mark.slow
def test_a_writer_that_stops_half_way_leaves_the_month_as_it_was(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bill.csv"
    path.write_bytes(SAMPLE.read_bytes())
    ingest(books, "focus", [str(path)])
    before = books.store.scan(CHARGES).collect()
    monkeypatch.setattr(month, "_MAX_BUFFERED_ROWS", 100)
    monkeypatch.setattr(csv_reader, "_BLOCK", 64 << 10)
    monkeypatch.setattr(csv_reader, "_CHUNK", 64 << 10)
    monkeypatch.setattr(month_files, "_FILE_ROWS", 200)
    placed = store.place_file
    moved: list[str] = []

    def stops(written: Path, root: str, place: str, options: Mapping[str, str]) -> None:
        if len(moved) == 2:
            raise OSError("no space left on device")
        moved.append(place)
        placed(written, root, place, options)

    monkeypatch.setattr(store, "place_file", stops)
    path.write_bytes(SAMPLE.read_bytes().replace(b"Atlas Nimbus", b"Atlas"))
    with pytest.raises(RootCostError, match="the disk is full"):
        ingest(books, "focus", [str(path)])
    assert books.store.scan(CHARGES).collect().equals(before)


@pytest.mark.slow
def test_a_month_too_large_for_memory_is_booked_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def booked(home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
        with Books.open(home) as books:
            ingest(books, "focus", [str(SAMPLE)])
            assert ingest(books, "focus", [str(SAMPLE)]).rows_changed == 0
            totals = books.store.scan(IMPORT_TOTALS).collect()
            return books.store.scan(CHARGES).collect().sort("line"), totals.sort(totals.columns)

    whole = booked(tmp_path / "one")
    monkeypatch.setattr(month, "_MAX_BUFFERED_ROWS", 150)
    monkeypatch.setattr(csv_reader, "_BLOCK", 64 << 10)
    monkeypatch.setattr(csv_reader, "_CHUNK", 64 << 10)
    parts = booked(tmp_path / "many")
    assert parts[0].equals(whole[0]) and parts[1].equals(whole[1])


def test_problems_beyond_a_thousand_are_summed_by_reason() -> None:
    told = [Problem("s", "f", f"line {i}", "x", "is wrong", "mend it") for i in range(1500)]
    capped = list(problem_log._limited(told))
    assert len(capped) == 1001 and sum(p.rows for p in capped) == 1500
    assert capped[-1].place == "500 more rows"


def test_renewing_problems_touches_only_what_was_read(books: Books) -> None:
    def told() -> list[str]:
        return sorted(books.store.scan(PROBLEMS).collect()["uri"])

    for source, uri in (("focus", "/x/a"), ("focus", "/x/b"), ("focus", "/xy/a"), ("otlp", "/x/a")):
        problems.renew(books.store, source, [uri], [Problem(source, uri, "line 1", "f", "r", "m")])
    problems.renew(books.store, "focus", ["/x/a"], [])
    assert told() == ["/x/a", "/x/b", "/xy/a"]
    problems.renew(books.store, "focus", [], [], folders=["/x"])
    assert told() == ["/x/a", "/xy/a"]
    version = books.store.version(PROBLEMS)
    problems.renew(books.store, "otlp", ["/x/a"], [Problem("otlp", "/x/a", "line 1", "f", "r", "m")])
    assert books.store.version(PROBLEMS) == version, "the same problem again is no news"


HEAD = b"\n".join(SAMPLE.read_bytes().split(b"\n")[:30]) + b"\n"
FRAGMENTS = st.one_of(
    st.binary(max_size=20), st.sampled_from([b'"', b"\n", b",", b"\0", b"\xff", b'""', b"\r", b'"\n"', b"NULL", b"1e999", b"-"])
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, len(HEAD)), st.integers(0, 40), FRAGMENTS), min_size=1, max_size=4))
def test_no_damage_to_a_file_is_more_than_a_problem(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int, bytes]]
) -> None:
    text = HEAD
    for at, gone, put in damage:
        text = text[:at] + put + text[at + gone :]
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(text)
    read, told = 0, 0
    try:
        for reading in by_name("focus").read(RawObject(str(path), path, "id", len(text)), IngestSettings()):
            read += reading.frame.height
            told += len(reading.problems)
            assert reading.frame["billed_cost"].null_count() == 0
    except FormatError:
        return
    assert read <= text.count(b"\n") + 1


def test_a_link_that_leads_out_of_a_folder_is_told_and_not_read(books: Books, tmp_path: Path) -> None:
    folder, target = tmp_path / "bills", tmp_path / "outside.csv"
    folder.mkdir()
    target.write_bytes(SAMPLE.read_bytes())
    (folder / "inner.csv").write_bytes(SAMPLE.read_bytes())
    (folder / "link.csv").symlink_to(target)
    (folder / "within.csv").symlink_to(folder / "inner.csv")
    for address in (str(folder), str(folder / "*.csv")):
        fetcher = WorldFetcher(books.settings)
        assert [Path(entry.uri).name for entry in fetcher.list(address)] == ["inner.csv", "within.csv"]
        assert fetcher.links_left_out == {str(folder / "link.csv"): str(target)}
    (problem,) = [p for p in ingest(books, "focus", [str(folder)]).problems if p.uri.endswith("link.csv")]
    assert "leads out of the folder" in problem.reason
    assert "ingest.follow_links" in problem.remedy
    ingest_settings = books.settings.ingest.model_copy(update={"follow_links": True})
    followed_fetcher = WorldFetcher(books.settings.model_copy(update={"ingest": ingest_settings}))
    assert len(followed_fetcher.list(str(folder))) == 3


def test_a_secret_in_an_address_is_in_no_problem_and_no_error(books: Books) -> None:
    report = ingest(books, "focus", ["https://h.invalid/bill.csv?apikey=s3cr3t"])
    stored_problems = books.store.scan(PROBLEMS).collect()
    assert report.problems
    assert "s3cr3t" not in f"{report.problems} {stored_problems.rows()}"
    assert "s3cr3t" not in str(StoreUnreachable("no answer from https://me:s3cr3t@h/v1", where="https://h?code=s3cr3t"))
