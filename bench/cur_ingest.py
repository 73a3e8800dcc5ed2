"""A CUR 2.0 month into the ledger: rows a second and peak memory, beside DuckDB writing the same columns of the same file.

    python bench/cur_ingest.py --rows 1000000

The peer only projects, casts money to DECIMAL(38,12) and sorts nothing; it keeps no totals, checks no row and replaces no slice. It is
the floor of what reading and writing these bytes costs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make(path: Path, rows: int) -> None:
    """An hourly export of Bedrock usage: 40 usage types, 50 accounts, tags as a map."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    start = np.datetime64("2026-10-01T00:00:00", "us") + rng.integers(0, 744, rows).astype("timedelta64[h]")
    quantity = rng.integers(1, 10**6, rows) / 1000
    rate = rng.choice([0.003, 0.015, 0.0003, 0.00375], rows)
    types = [
        f"USE1-{m}-{d}"
        for m in ("Claude4.6Sonnet", "Claude4.5Haiku", "NovaPro", "NovaLite")
        for d in ("input-tokens", "output-tokens")
    ]
    keys, teams = pa.array(["user_team"] * rows), pa.array([f"team-{n}" for n in rng.integers(0, 30, rows)])
    text = {
        "bill_payer_account_id": ["999900001111"] * rows,
        "bill_billing_entity": ["AWS"] * rows,
        "bill_bill_type": ["Anniversary"] * rows,
        "line_item_usage_account_id": [f"{n:012d}" for n in rng.integers(0, 50, rows)],
        "line_item_line_item_type": ["Usage"] * rows,
        "line_item_product_code": ["AmazonBedrock"] * rows,
        "line_item_usage_type": [types[n] for n in rng.integers(0, len(types), rows)],
        "line_item_currency_code": ["USD"] * rows,
        "line_item_resource_id": [
            f"arn:aws:bedrock:us-east-1:1:application-inference-profile/{n}" for n in rng.integers(0, 200, rows)
        ],
        "product_region_code": ["us-east-1"] * rows,
        "pricing_unit": ["1K tokens"] * rows,
    }
    table = pa.table(
        {
            **{k: pa.array(v) for k, v in text.items()},
            "bill_billing_period_start_date": pa.array([np.datetime64("2026-10-01", "us")] * rows),
            "bill_billing_period_end_date": pa.array([np.datetime64("2026-11-01", "us")] * rows),
            "line_item_usage_start_date": pa.array(start),
            "line_item_usage_end_date": pa.array(start + np.timedelta64(1, "h")),
            "line_item_usage_amount": pa.array(quantity),
            "line_item_unblended_cost": pa.array(np.round(quantity * rate, 9)),
            "pricing_public_on_demand_cost": pa.array(np.round(quantity * rate * 1.1, 9)),
            "resource_tags": pa.MapArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), keys, teams),
        }
    )
    pq.write_table(table, path, row_group_size=200_000)


def ours(folder: Path) -> None:
    """The product's own ingestion."""
    from ingest.run import ingest
    from ledger.books import Books

    with Books.open(folder / "home") as books:
        ingest(books, "aws-cur", [str(folder / "cur.parquet")])


def peer(folder: Path) -> None:
    """The same columns by SQL."""
    import duckdb

    duckdb.execute(f"""COPY (
        SELECT * EXCLUDE (line_item_usage_amount, line_item_unblended_cost, pricing_public_on_demand_cost, resource_tags),
               line_item_usage_amount::DECIMAL(38,12) AS quantity, line_item_unblended_cost::DECIMAL(38,12) AS billed,
               line_item_unblended_cost::DECIMAL(38,12) AS effective, pricing_public_on_demand_cost::DECIMAL(38,12) AS list,
               to_json(resource_tags)::VARCHAR AS tags, sha256(concat(line_item_usage_type, line_item_usage_start_date)) AS id
        FROM read_parquet('{folder / "cur.parquet"}')) TO '{folder / "peer.parquet"}' (FORMAT parquet, COMPRESSION zstd)""")


def main() -> None:
    """Makes the file, runs both sides in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", choices=["ours", "peer"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        import duckdb  # noqa: F401

        import ingest.run  # noqa: F401

        began = time.perf_counter()
        (ours if given.side == "ours" else peer)(given.folder)
        print(json.dumps([time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make(folder / "cur.parquet", given.rows)
        out = {}
        for side in ("ours", "peer"):
            command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
            seconds, peak = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            out[side] = {"rows_per_second": round(given.rows / seconds), "peak_mb": round(peak)}
        print(
            json.dumps(
                {
                    "cur_rows": given.rows,
                    **out,
                    "speed_ratio": round(out["ours"]["rows_per_second"] / out["peer"]["rows_per_second"], 3),
                }
            )
        )


if __name__ == "__main__":
    main()
