"""Durable before said, and what is done about commits that a power cut took away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from attribution.run import attribute
from ledger import durability, table_log
from ledger.books import Books
from ledger.db import Audit, Checkpoint, Published
from ledger.periods import now
from ledger.spool import Spool
from ledger.tables import BALANCE, COSTS, PROBLEMS, SPANS
from tests.attribution.test_worked_example import OWNERS, chains
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write
from tests.support.power_cut import PowerCut


@pytest.fixture
def disk() -> Iterator[PowerCut]:
    """Notes what is synced; the rest is lost when the power goes."""
    with PowerCut() as power:
        yield power


def costs(books: Books) -> list[tuple[object, ...]]:
    frame = books.store.scan(COSTS).group_by("cost_class", "initiator_team").agg(pl.col("effective_cost").sum())
    return sorted(frame.collect().rows(), key=str)


def statements(books: Books) -> tuple[int, int]:
    """How many months are published, how many checkpoints there are."""
    with books.database.session() as session:
        return len(session.scalars(sa.select(Published)).all()), len(session.scalars(sa.select(Checkpoint)).all())


def newest(home: Path, table: str, back: int = 0) -> Path:
    folder = home / "tables" / table
    return table_log.commit_path(folder, table_log.versions(folder)[-1 - back])


def data_file(home: Path, table: str) -> Path:
    folder = home / "tables" / table
    version = next(v for v in reversed(table_log.versions(folder)) if table_log.read_commit(folder, v).files)
    return folder / table_log.read_commit(folder, version).files[0].path


# ---- durable before said ------------------------------------------------------------------------------------------------


def test_a_published_month_survives_a_power_cut(home: Path, disk: PowerCut) -> None:
    with Books.open(home) as books:
        write(books, spans=chains(), charges=charges(charge("0.030000000000", tokens_k="10.0")), owners=OWNERS)
        attribute(books)
        expected_costs = costs(books)
        disk.cut(home)
    with Books.open(home) as books:
        assert not books.repairs
        assert statements(books) == (1, 0)
        assert costs(books) == expected_costs


def test_deliveries_leave_the_spool_when_their_rows_are_on_disk(home: Path, disk: PowerCut) -> None:
    with Books.open(home) as books:
        spool = Spool(home / "spool")
        spool.append(chains())
        spool.drain(books.store)
        assert not spool.pending()
        disk.cut(home)
    with Books.open(home) as books:
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 6


@pytest.mark.clock
def test_a_checkpoint_moves_when_its_rows_are_on_disk(home: Path, disk: PowerCut) -> None:
    with Books.open(home) as books:
        books.store.merge(SPANS, chains(), prefer="rank")
        with books.database.session() as session:
            session.add(Checkpoint(source="litellm", key="s3://logs/", value="2026-10-31", at=now()))
        disk.cut(home)
    with Books.open(home) as books:
        assert statements(books) == (0, 1)
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 6


def test_rows_that_a_killed_process_wrote_are_synced_by_the_one_that_finds_them(home: Path, disk: PowerCut) -> None:
    with Books.open(home) as books:
        books.store.merge(SPANS, chains(), prefer="rank")
    # As if the first process had been killed before it synced.
    disk.forget(home)
    (home / "tables/spans/_checksums.jsonl").unlink()
    with Books.open(home) as books:
        assert books.store.merge(SPANS, chains(), prefer="rank") == 0
    disk.cut(home)
    with Books.open(home) as books:
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 6


@pytest.mark.clock
def test_what_was_not_said_may_be_lost_and_costs_nothing_else(home: Path, disk: PowerCut) -> None:
    with Books.open(home) as books:
        books.store.append(SPANS, chains())
        books.store.sync()
        with books.database.session() as session:
            session.add(Checkpoint(source="litellm", key="s3://logs/", value="2026-10-31", at=now()))
        books.store.append(SPANS, spans(span(3, 7, input_tokens=5, **SONNET)))
        disk.cut(home)
        empty(table_log.commit_path(home / "tables/spans", 1))  # its name was on disk, its content was not
        books.store._table_sync._names.clear()
    with Books.open(home) as books:
        assert "nothing that was acknowledged is lost" in books.repairs[0].remedy
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 6
        assert statements(books) == (0, 1)
        assert books.store.append(SPANS, spans(span(3, 7, input_tokens=5, **SONNET))) == 1
    with Books.open(home) as books:
        assert not books.repairs
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 7


# ---- a damaged end is rolled back ---------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [empty, cut_off, Path.unlink])
@pytest.mark.parametrize("file", [newest, data_file])
def test_a_month_whose_costs_are_damaged_is_computed_again(
    copied_home: Path, harm: Callable[[Path], None], file: Callable[[Path, str], Path]
) -> None:
    harm(file(copied_home, "costs"))
    with Books.open(copied_home) as books:
        (repair,) = books.repairs
        assert (repair.uri, repair.source) == ("tables/costs", "store")
        assert repair.remedy == "2026-10 is no longer published: run rootcost attribute, which computes it again"
        assert statements(books)[0] == 0
        assert books.store.scan(PROBLEMS, {"source": ["store"]}).collect()["remedy"].to_list() == [repair.remedy]
        with books.database.session() as session:
            assert session.scalars(sa.select(Audit.action).where(Audit.actor == "repair")).all() == ["roll back"]
        assert attribute(books).published
        assert [row[:2] for row in costs(books)] == [("metered", "Care"), ("metered", "Dev"), ("unallocated", None)]
        assert books.store.scan(BALANCE).select(pl.col("difference").sum()).collect().item() == 0


def test_usage_that_is_lost_is_built_again(copied_home: Path) -> None:
    empty(newest(copied_home, "usage_hourly"))
    empty(newest(copied_home, "calls"))
    with Books.open(copied_home) as books:
        assert {repair.uri for repair in books.repairs} == {"tables/usage_hourly", "tables/calls"}
        assert attribute(books).spans_read == 6
        assert [row[:2] for row in costs(books)] == [("metered", "Care"), ("metered", "Dev"), ("unallocated", None)]


@pytest.mark.clock
def test_sources_whose_rows_are_lost_are_read_again(copied_home: Path) -> None:
    with Books.open(copied_home) as books:
        books.store.append(SPANS, spans(span(3, 7, input_tokens=5, **SONNET)))
        with books.database.session() as session:
            session.add(Checkpoint(source="litellm", key="s3://logs/", value="2026-10-31", at=now()))
    empty(newest(copied_home, "spans"))
    with Books.open(copied_home) as books:
        assert "the sources litellm are read again from their beginning by their next run" in books.repairs[0].remedy
        assert statements(books) == (1, 0)
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 6


def test_several_damaged_commits_go_back_to_the_last_whole_one(copied_home: Path) -> None:
    with Books.open(copied_home) as books:
        for number in (7, 8, 9):
            books.store.append(SPANS, spans(span(3, number, input_tokens=5, **SONNET)))
    for back in (0, 1):
        empty(newest(copied_home, "spans", back))
    with Books.open(copied_home) as books:
        assert "rolled back to version 1" in books.repairs[0].reason
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 7


def test_a_table_without_a_whole_commit_is_empty_again(copied_home: Path) -> None:
    empty(newest(copied_home, "spans"))
    with Books.open(copied_home) as books:
        assert "the table had no whole commit and is empty now" in books.repairs[0].reason
        assert books.store.version(SPANS) is None
        assert books.store.merge(SPANS, chains(), prefer="rank") == 6


def test_a_cut_off_checkpoint_is_passed_over(home: Path) -> None:
    with Books.open(home) as books:
        for number in range(3):
            books.store.append(SPANS, spans(span(3, number, input_tokens=5, **SONNET)))
        delta = books.store.delta(SPANS)
        assert delta is not None
        delta.create_checkpoint()
    (checkpoint,) = (home / "tables/spans/_delta_log").glob("*.checkpoint.parquet")
    cut_off(checkpoint)
    with Books.open(home) as books:
        assert not books.repairs
        assert books.store.scan(SPANS).select(pl.len()).collect().item() == 3


def test_a_home_without_checksums_is_repaired_too(copied_home: Path) -> None:
    for file in (copied_home / "tables").glob("*/_checksums.jsonl"):
        file.unlink()
    for table in ("costs", "balance", "calls", "usage_hourly", "rates", "lots"):
        empty(newest(copied_home, table))
    with Books.open(copied_home) as books:
        assert len(books.repairs) == 6
        assert attribute(books).published
        assert [row[:2] for row in costs(books)] == [("metered", "Care"), ("metered", "Dev"), ("unallocated", None)]


def test_a_torn_last_line_of_the_checksums_is_written_again(home: Path) -> None:
    folder = home / "tables/spans"
    with Books.open(home) as books:
        books.store.append(SPANS, spans(span(3, 1, input_tokens=5, **SONNET)))
        books.store.sync()
        cut_off(folder / durability.CHECKSUMS)
        assert durability.sealed_version(folder) is None
        books.store.append(SPANS, spans(span(3, 2, input_tokens=5, **SONNET)))
    assert durability.sealed_version(folder) == 1
    checksums = durability.read_checksums(folder)
    assert checksums.damaged_lines == (1,)
    assert len([path for path in checksums.files if path.endswith(".parquet")]) == 2
