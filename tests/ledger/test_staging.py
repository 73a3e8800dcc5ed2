"""Files of tables: what they leave out, and what every reader makes of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from ledger import staging
from ledger.store import Store
from ledger.tables import CHAINS
from tests.support.books_by_hand import at

NAMES = pl.Enum(["zeta", "alpha", "omega"])
ROWS = CHAINS.conform(
    pl.DataFrame(
        {
            "rollup_id": ["r"] * 3,
            "month": ["2026-10"] * 3,
            "chain_id": ["t:1", "t:2", "t:3"],
            "method": ["path"] * 3,
            "start_time": [at(9), at(10), at(11)],
            "initiator_agent": pl.Series(["zeta", None, "alpha"], dtype=NAMES),
            "spans": [1, 2, 3],
            "calls": [1, 1, 1],
            "trace_ids": [["t"]] * 3,
        }
    )
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    staging.commit(store, CHAINS, staging.stage(store, CHAINS, ROWS))
    return store


def test_a_file_has_no_columns_without_a_value(store: Store) -> None:
    (file,) = store.files(CHAINS)
    schema = pq.read_schema(file.address)
    assert set(schema.names) == {"chain_id", "start_time", "initiator_agent", "method", "spans", "calls", "trace_ids"}
    scanned_rows = staging.scan(CHAINS, [file.address], storage_options=None).collect()
    assert scanned_rows.schema == {name: dtype for name, dtype in CHAINS.schema.items() if name not in CHAINS.partition_by}
    assert scanned_rows["root_name"].to_list() == [None] * 3


def test_encoded_text_is_text_to_every_reader(store: Store) -> None:
    agents = ["zeta", None, "alpha"]
    rows = store.scan(CHAINS).collect()
    assert rows.schema == CHAINS.schema
    assert rows.select("initiator_agent", "method").to_dict(as_series=False) == {
        "initiator_agent": agents,
        "method": ["path"] * 3,
    }
    assert store.scan(CHAINS).filter(pl.col("initiator_agent") == "alpha").collect()["chain_id"].to_list() == ["t:3"]
    (file,) = store.files(CHAINS)
    assert pl.read_parquet(file.address, hive_partitioning=False)["initiator_agent"].to_list() == agents
    delta = store.delta(CHAINS)
    assert delta is not None
    assert delta.to_pyarrow_table()["initiator_agent"].to_pylist() == agents
    # Readers skip row groups by these bounds: they are those of the words, not of the codes.
    metadata = pq.read_metadata(file.address)
    statistics = metadata.row_group(0).column(pq.read_schema(file.address).names.index("initiator_agent")).statistics
    assert statistics is None or not statistics.has_min_max or (statistics.min, statistics.max) == ("alpha", "zeta")


def test_the_log_bounds_times_also_of_columns_left_out(store: Store) -> None:
    delta = store.delta(CHAINS)
    assert delta is not None
    actions = pl.DataFrame(delta.get_add_actions(flatten=True))
    assert actions["null_count.end_time"].to_list() == [3]
    assert actions["num_records"].to_list() == [3]
