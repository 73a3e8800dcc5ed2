"""The store: atomic slices, idempotent merges, and folders with awkward names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ledger.errors import TableError
from ledger.store import Store
from ledger.tables import CHARGES, COSTS, SPANS
from tests.support.books_by_hand import charge, charges, span, spans


def test_a_home_with_a_space_and_an_umlaut(tmp_path: Path) -> None:
    store = Store(tmp_path / "Jane Döe's books" / "tables")
    store.replace(
        CHARGES, charges(charge("1", scope="my bill (final).csv")), {"scope": "my bill (final).csv", "billing_month": "2026-10"}
    )
    assert store.scan(CHARGES, {"scope": ["my bill (final).csv"]}).collect().height == 1
    store.merge(SPANS, spans(span(1, 1)), prefer="rank")
    assert store.scan(SPANS, {"date": ["2026-10-05"]}).collect().height == 1


def test_merge_keeps_the_fuller_delivery_whatever_comes_first(tmp_path: Path) -> None:
    poor, rich = spans(span(1, 1, name="chat")), spans(span(1, 1, name="chat", agent_name="bot"))
    results = []
    for number, order in enumerate(((poor, rich), (rich, poor), (pl.concat([poor, rich]), poor))):
        store = Store(tmp_path / str(number))
        for delivery in order:
            store.merge(SPANS, delivery, prefer="rank")
        results.append(store.scan(SPANS).collect())
    assert [r["agent_name"].to_list() for r in results] == [["bot"]] * 3
    assert results[0].equals(results[1])


def test_merge_of_what_is_known_commits_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.merge(SPANS, spans(*(span(1, n) for n in range(1, 9))), prefer="rank")
    before = store.version(SPANS)
    assert store.merge(SPANS, spans(*(span(1, n) for n in (3, 8, 1))), prefer="rank") == 0
    assert store.version(SPANS) == before


def test_replace_touches_its_slice_only_and_old_versions_stay_readable(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for month in ("2026-09", "2026-10"):
        store.replace(CHARGES, charges(charge("1", billing_month=month)), {"scope": "by-hand", "billing_month": month})
    before = store.version(CHARGES)
    other = store.fingerprint(CHARGES, {"billing_month": ["2026-09"]})
    store.replace(CHARGES, charges(charge("2"), charge("3")), {"scope": "by-hand", "billing_month": "2026-10"})
    assert store.scan(CHARGES).collect().height == 3
    assert store.scan(CHARGES, version=before).collect().height == 2
    assert store.fingerprint(CHARGES, {"billing_month": ["2026-09"]}) == other


def test_a_table_refuses_floats_for_money_unknown_columns_and_missing_values() -> None:
    with pytest.raises(TableError, match="floating point"):
        COSTS.conform(COSTS.empty().with_columns(pl.lit(1.0).alias("effective_cost")))
    with pytest.raises(TableError, match="unknown columns"):
        COSTS.conform(COSTS.empty().with_columns(mystery=pl.lit(1)))
    with pytest.raises(TableError, match="hold nulls"):
        CHARGES.conform(charges(charge("1")).with_columns(provider_name=pl.lit(None, dtype=pl.String)))


def test_a_table_from_before_a_column_is_read_and_grows_it(tmp_path: Path) -> None:
    """An upgrade brings a column: old rows say nothing in it, new ones do, and a late delivery of an old row is still the same row."""
    store = Store(tmp_path / "tables")
    old = spans(span(1, 1)).drop("phase", "attempt")
    old.write_delta(store.uri(SPANS), delta_write_options={"partition_by": list(SPANS.partition_by)})
    assert store.scan(SPANS).collect()["phase"].to_list() == [None]
    assert store.merge(SPANS, spans(span(1, 1)), prefer="rank") == 0
    assert store.merge(SPANS, spans(span(1, 2, phase="overhead")), prefer="rank") == 1
    assert store.scan(SPANS).collect().sort("span_key")["phase"].to_list() == [None, "overhead"]
