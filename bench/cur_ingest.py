"""A CUR 2.0 month into the ledger: rows a second and peak memory, beside DuckDB writing the same columns of the same files.

    python bench/cur_ingest.py --rows 10000000

The load is an export with its manifest, all columns and nested maps (`bench/cur_load.py`), read by the product's own path. The peer
only projects: it casts money to DECIMAL(38,12), spells tags as JSON, hashes an id, writes Parquet, and sums the four costs. It
checks no row, keeps no digit beyond twelve places and replaces no slice: it is the floor of what reading and writing cost.
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

from bench.memory import peak_mb

_SAME = {
    "invoice_id": "bill_invoice_id",
    "invoice_issuer_name": "bill_invoicing_entity",
    "publisher_name": "bill_billing_entity",
    "billing_account_id": "bill_payer_account_id",
    "billing_account_name": "bill_payer_account_name",
    "billing_currency": "line_item_currency_code",
    "charge_period_start": "line_item_usage_start_date",
    "charge_period_end": "line_item_usage_end_date",
    "charge_description": "line_item_line_item_description",
    "line_item_type": "line_item_line_item_type",
    "sub_account_id": "line_item_usage_account_id",
    "sub_account_name": "line_item_usage_account_name",
    "product_code": "line_item_product_code",
    "sku_meter": "line_item_usage_type",
    "operation": "line_item_operation",
    "resource_id": "line_item_resource_id",
    "principal": "line_item_iam_principal",
    "sku_id": "product_sku",
    "sku_price_id": "pricing_rate_code",
    "pricing_unit": "pricing_unit",
    "region_id": "product_region_code",
    "commitment_discount_id": "savings_plan_savings_plan_a_r_n",
}
_COSTS = {
    "billed_cost": "line_item_net_unblended_cost",
    "effective_cost": (
        "CASE line_item_line_item_type WHEN 'SavingsPlanCoveredUsage' THEN savings_plan_savings_plan_effective_cost"
        " WHEN 'DiscountedUsage' THEN reservation_effective_cost WHEN 'SavingsPlanNegation' THEN 0"
        " ELSE line_item_net_unblended_cost END"
    ),
    "list_cost": "CASE WHEN pricing_public_on_demand_cost <> 0 THEN pricing_public_on_demand_cost ELSE line_item_unblended_cost END",
    "contracted_cost": "CASE line_item_line_item_type WHEN 'SavingsPlanNegation' THEN 0 ELSE line_item_net_unblended_cost END",
}


def ours(folder: Path) -> None:
    """The product's own ingestion."""
    from ingest.run import ingest
    from ledger.books import Books

    with Books.open(folder / "home") as books:
        report = ingest(books, "aws-cur", [str(folder / "cur" / "org")])
    if report.errors:
        raise SystemExit(f"{report.errors} rows were refused")


def peer(folder: Path) -> None:
    """The same columns by SQL."""
    import duckdb

    files = str(folder / "cur" / "org" / "data" / "*" / "*.parquet")
    money = ", ".join(f"({sql})::DECIMAL(38,12) AS {name}" for name, sql in _COSTS.items())
    same = ", ".join(
        f"nullif({theirs}, '') AS {ours}" if "date" not in theirs else f"{theirs} AS {ours}" for ours, theirs in _SAME.items()
    )
    duckdb.execute(f"""COPY (
        SELECT {same}, {money}, line_item_usage_amount::DECIMAL(38,12) AS quantity,
               pricing_public_on_demand_rate::DECIMAL(38,18) AS list_unit_price,
               line_item_unblended_rate::DECIMAL(38,18) AS contracted_unit_price, product['product_name'] AS service_name,
               to_json(map_concat(resource_tags, tags, cost_category))::VARCHAR AS tags,
               hash(line_item_usage_type, line_item_resource_id, line_item_usage_start_date, line_item_unblended_cost) AS charge_id
        FROM read_parquet('{files}')) TO '{folder / "peer.parquet"}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)""")
    duckdb.execute(f"SELECT {', '.join(f'sum({name})' for name in _COSTS)} FROM '{folder / 'peer.parquet'}'").fetchall()


def main() -> None:
    """Makes the files, runs both sides in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", choices=["make", "ours", "peer"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        _one_side(given.side, given.folder, given.rows)
        return
    with tempfile.TemporaryDirectory() as made:
        found = {}
        for side in ("make", "ours", "peer"):
            command = [sys.executable, __file__, "--side", side, "--folder", made, "--rows", str(given.rows)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            seconds, cpu_seconds, peak_mb = json.loads(said)
            found[side] = {
                "rows_per_second": round(given.rows / seconds),
                "cpu_seconds_per_million": round(cpu_seconds / given.rows * 1e6, 2),
                "peak_mb": round(peak_mb),
            }
    ratio = round(found["ours"]["rows_per_second"] / found["peer"]["rows_per_second"], 3)
    print(json.dumps({"cur_rows": given.rows, **found, "speed_ratio": ratio}))


def _one_side(side: str, folder: Path, rows: int) -> None:
    import duckdb  # noqa: F401

    import ingest.run  # noqa: F401
    from bench.cur_load import export

    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    if side == "make":
        export(folder, rows)
    else:
        (ours if side == "ours" else peer)(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([time.perf_counter() - began, cpu_seconds, peak_mb()]))


if __name__ == "__main__":
    main()
