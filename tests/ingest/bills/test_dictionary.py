"""What lines repeat is worked on once: nothing of a bill may depend on it, least of all the ids."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bills import dictionary, float_money, month, month_files, reader
from ingest.run import ingest
from ledger import money
from ledger.books import Books
from ledger.tables import CHARGES
from tests.support.cur_exports import line, parquet

LINES = [
    line(0.1 * n, line_item_resource_id=f"i-{n % 7}", resource_tags={"user_team": f"t{n % 3}", "user_env": "prod"})
    for n in range(40)
] + [line(8.0, "Tax")] * 5


def booked(home: Path, *files: bytes) -> pl.DataFrame:
    """Charges of one folder-less ingestion each, under one dataset."""
    home.mkdir()
    names = []
    for number, content in enumerate(files):
        names.append(home / f"{number}.parquet")
        names[-1].write_bytes(content)
    with Books.open(home / "books") as books:
        assert not ingest(books, "aws-cur", [str(name) for name in names], scope="one").errors
        return books.store.scan(CHARGES).collect()


def shape(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("raw_id", "line").sort("charge_id")


@pytest.mark.slow
def test_ids_depend_on_what_a_row_says_and_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = booked(tmp_path / "whole", parquet(*LINES))
    assert whole["charge_id"].n_unique() == 45
    assert min(i for i in whole["charge_id"] if "-" in i).endswith("-2"), "the tax is there five times"

    shuffled = [LINES[n * 7 % 45] for n in range(45)]
    other = [dict(reversed(entry.items())) for entry in shuffled]
    assert shape(booked(tmp_path / "shuffled", parquet(*other))).equals(shape(whole))
    assert shape(booked(tmp_path / "lists", parquet(*LINES, lists=True))).equals(shape(whole))
    monkeypatch.setattr(reader, "_PARQUET_ROWS", 4)
    monkeypatch.setattr(month, "_MAX_BUFFERED_ROWS", 9)
    monkeypatch.setattr(month_files, "_FILE_ROWS", 20)
    assert shape(booked(tmp_path / "parts", parquet(*LINES))).equals(shape(whole))
    assert shape(booked(tmp_path / "files", parquet(*LINES[:20]), parquet(*LINES[20:43]), parquet(*LINES[43:]))).equals(
        shape(whole)
    )


def test_rows_that_come_again_in_another_file_are_numbered_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month, "_MAX_BUFFERED_ROWS", 2)
    tax, fee = line(8.0, "Tax"), line(1.0, "Fee")
    ids = booked(tmp_path / "b", parquet(tax, tax, fee), parquet(tax, fee, fee), parquet(tax))["charge_id"].sort().to_list()
    plain = sorted({name.split("-")[0] for name in ids})
    assert ids == sorted([*plain, *(f"{p}-{n}" for p in plain for n in (2, 3)), next(i for i in ids if i.endswith("-4"))])


def test_numbers_in_text_and_in_doubles_are_the_same_charge(tmp_path: Path) -> None:
    table = pq.read_table(pa.BufferReader(parquet(*LINES)))
    at = table.schema.get_field_index("line_item_unblended_cost")
    text = pl.Series(pl.from_arrow(table.column(at))).cast(pl.String).to_arrow()
    out = pa.BufferOutputStream()
    pq.write_table(table.set_column(at, "line_item_unblended_cost", text), out, row_group_size=10)
    assert shape(booked(tmp_path / "text", out.getvalue().to_pybytes())).equals(
        shape(booked(tmp_path / "doubles", parquet(*LINES)))
    )


def test_maps_and_text_too_various_for_their_dictionary_are_read_whole(tmp_path: Path) -> None:
    many = [line(1.0, line_item_resource_id=f"i-{n}", resource_tags={"user_job": f"job {n}"}) for n in range(3000)]
    out = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(parquet(*many))), out, dictionary_pagesize_limit=1000, row_group_size=2000)
    kept = booked(tmp_path / "home", out.getvalue().to_pybytes()).sort("line")
    assert kept["resource_id"].to_list() == [f"i-{n}" for n in range(3000)]
    assert kept["tags"].to_list() == [f'{{"user_job":"job {n}"}}' for n in range(3000)]


@given(st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.decimals(-(10**6), 10**6, places=9).map(float)))
def test_a_double_is_the_money_its_shortest_text_is(amounts: list[float | None]) -> None:
    column = pl.Series("cost", amounts, dtype=pl.Float64)
    kept, written = float_money.as_money(column)
    text = column.cast(pl.String).to_frame()
    expected = text.select(money.parse(pl.col("cost")))["cost"]
    assert kept.equals(expected, null_equal=True)
    beyond = text.select(money.beyond_twelve_places(pl.col("cost")))["cost"]
    none = pl.Series("cost", [None] * len(amounts), dtype=pl.String)
    lost = money.rounding_loss(none if written is None else written, kept)
    assert lost == money.rounding_loss(beyond, expected)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"))),
        max_size=30,
    )
)
def test_each_line_gets_its_own_words_back(told: list[tuple[str | None, dict[str, str] | None]]) -> None:
    name = pa.array([n for n, _ in told], pa.string())
    tags = pa.array([None if t is None else list(t.items()) for _, t in told], pa.map_(pa.string(), pa.string()))
    own = pl.DataFrame({"at": range(len(told))}, schema={"at": pl.Int64})
    lines = dictionary.encode({"name": name, "tags": tags}, own)
    assert lines.expand(pl.col("name")).to_list() == name.to_pylist()
    found = lines.dimensions["tags"].gather(lines.rows["__word"]).to_arrow().to_pylist()
    assert [None if t is None else dict(t) for t in found] == [t for _, t in told]
    assert lines.dimensions.height == len({(n, None if t is None else tuple(sorted(t.items()))) for n, t in told})


def test_a_word_no_line_says_any_more_may_be_faulty(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "cur.parquet"
    path.write_bytes(parquet(line(1.0), line(2.0, line_item_currency_code=None)))
    report = ingest(books, "aws-cur", [str(path)])
    assert [(p.place, p.reason) for p in report.problems] == [("row 2", "the currency is missing")]
    assert books.store.scan(CHARGES).collect()["billed_cost"].to_list() == [Decimal(1)]
