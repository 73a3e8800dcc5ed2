"""Files to costs, against DuckDB: one machine, one run, the same Parquet files, the same dollars out.

    python bench/files_to_costs.py --spans 1000000

Prints one JSON line: seconds and peak memory of both, their ratios, and whether they agree to the last cent. Each side runs in a
process of its own, after the other's has ended; the best of `--repeat` runs counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def ours(folder: Path, month: str) -> None:
    """The product's own recipe, from the files to a file of costs."""
    import polars as pl

    from attribution import rollup
    from attribution.pricing import PriceBook
    from attribution.run import conclude
    from ledger import registry, settings
    from ledger.tables import PRICES

    owners = pl.read_csv(folder / "registry.csv").select(
        kind=pl.lit("agent"), name="agent", agent="agent", team="team", account=pl.lit(None, dtype=pl.String), region=pl.lit(None, dtype=pl.String),
        valid_from=pl.datetime(1970, 1, 1, time_zone="UTC"), valid_to=pl.lit(None, dtype=registry.SCHEMA["valid_to"]),
        recorded_at=pl.datetime(1970, 1, 1, time_zone="UTC"),
    )  # fmt: skip
    timeline = registry.timeline(owners.cast(registry.SCHEMA))  # type: ignore[arg-type]
    book = PriceBook(PRICES.empty())
    config = settings.load(folder / "home")
    drawn = rollup.draw_from(pl.scan_parquet(str(folder / "spans-*.parquet")), month, timeline, book, config, rollup_id="bench")
    uses = drawn.usage.with_columns(use=pl.int_range(pl.len(), dtype=pl.Int64))
    drawn.calls.write_parquet(folder / "ours-calls.parquet", compression="snappy")
    drawn.chains.write_parquet(folder / "ours-chains.parquet", compression="snappy")
    del drawn
    done = conclude(
        pl.scan_parquet(folder / "charges.parquet"), uses, timeline, book, config.attribution, run_id="bench", month=month
    )
    done.costs.write_parquet(folder / "ours.parquet", compression="snappy")


def peer(folder: Path) -> None:
    """The same in SQL."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    places = {
        "spans": str(folder / "spans-*.parquet"),
        "charges": str(folder / "charges.parquet"),
        "registry": str(folder / "registry.csv"),
        "out": str(folder / "peer.parquet"),
        "calls": str(folder / "peer-calls.parquet"),
        "chains": str(folder / "peer-chains.parquet"),
    }
    text = (HERE / "files_to_costs.sql").read_text()
    for name, place in sorted(places.items(), reverse=True):
        text = text.replace(f"${name}", f"'{place}'")
    connection.execute(text)


def measured(side: str, folder: Path, month: str) -> tuple[float, float]:
    """Seconds and peak megabytes of one side in a fresh process; imports are not counted, both sides have theirs."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--month", month]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    seconds, megabytes = json.loads(told)
    return seconds, megabytes


def agree(folder: Path) -> dict[str, str | bool]:
    """Whether both sides say the same of every team and agent."""
    import polars as pl

    mine, theirs = pl.read_parquet(folder / "ours.parquet"), pl.read_parquet(folder / "peer.parquet")
    unit = theirs["effective_cost"].cast(pl.Int128)
    total = mine["effective_cost"].sum()
    by_agent = (
        mine.filter(pl.col("cost_class") == "metered")
        .group_by(agent="initiator_agent")
        .agg(pl.col("effective_cost").to_physical().sum())
    )
    other = (
        theirs.with_columns(unit)
        .filter(pl.col("cost_class") == "metered")
        .group_by(agent="initiator")
        .agg(pl.col("effective_cost").sum())
    )
    both = by_agent.join(other, on="agent", how="full", coalesce=True)
    gap = (both["effective_cost"] - both["effective_cost_right"]).abs().max()
    # The order of rows within a pool differs, so the last digits may sit on other rows of the pool.
    return {
        "same_total": mine["effective_cost"].to_physical().sum() == unit.sum(),
        "total": str(total),
        "largest_gap_by_agent_1e-12": str(gap),
    }


def main() -> None:
    """Makes the files, runs both sides, prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--month", default="2026-10")
    parser.add_argument("--side", choices=["ours", "peer"])
    given = parser.parse_args()
    if given.side:
        if given.side == "ours":
            import polars as pl  # noqa: F401

            import attribution.run  # noqa: F401
        else:
            import duckdb  # noqa: F401
        began = time.perf_counter()
        ours(given.folder, given.month) if given.side == "ours" else peer(given.folder)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([time.perf_counter() - began, peak_mb]))
        return
    from rootcost.demo.ledger_tables import generate_ledger

    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if not list(folder.glob("spans-*.parquet")):
            generate_ledger(folder, given.spans)
        runs = {side: [measured(side, folder, given.month) for _ in range(given.repeat)] for side in ("ours", "peer")}
        best = {side: (min(s for s, _ in found), min(m for _, m in found)) for side, found in runs.items()}
        print(
            json.dumps(
                {
                    "spans": given.spans,
                    "seconds": {side: round(b[0], 2) for side, b in best.items()},
                    "peak_mb": {side: round(b[1]) for side, b in best.items()},
                    "time_ratio": round(best["ours"][0] / best["peer"][0], 2),
                    "memory_ratio": round(best["ours"][1] / best["peer"][1], 2),
                    **agree(folder),
                    "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
                }
            )
        )


if __name__ == "__main__":
    main()
