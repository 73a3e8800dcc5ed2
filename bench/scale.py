"""A big fleet's month, from the ledger's tables to published costs, against DuckDB on the same tables in the same run.

    python bench/scale.py --spans 10000000                  # full pass, a late day, a restated bill; ratios to DuckDB
    python bench/scale.py --spans 100000000 --no-peer       # ours alone

Prints one JSON line a step. Every step runs in a process of its own, one after the other. The peer (`scale.sql`) reads the very files of
the Delta tables and writes what ours writes: costs, and the calls and chains that the pages stand on; `costs_only` leaves those two out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.memory import peak_mb

HERE = Path(__file__).parent
MONTH = "2026-10"
LATE_DAY = "2026-10-14"


def prepare(folder: Path, spans: int) -> None:
    """Makes the load: a home with spans, charges and owners, and one day's spans set aside."""
    import polars as pl

    from ledger import registry, staging
    from ledger.books import Books
    from ledger.tables import CHARGES, SPANS
    from rootcost.demo.ledger_tables import generate_ledger

    made = generate_ledger(folder / "made", spans, month=MONTH)
    with Books.open(folder / "home") as books:
        registry.import_csv(books, made.registry)
        books.store.replace(CHARGES, pl.read_parquet(made.charges), {"billing_month": MONTH, "scope": "bench"})
        staged = []
        for path in made.spans:
            staged += staging.stage(books.store, SPANS, pl.read_parquet(path))
            path.unlink()
        staging.commit(books.store, SPANS, staged)


def forget(folder: Path) -> None:
    """Lets go of everything drawn and concluded, so that the next pass starts from the facts."""
    import sqlalchemy as sa

    from ledger.books import Books
    from ledger.db import Drawing, Published, Rollup

    with Books.open(folder / "home") as books:
        for table in ("calls", "chains", "usage_hourly", "costs", "rates", "balance", "lots"):
            shutil.rmtree(Path(books.store.root) / table, ignore_errors=True)
        shutil.rmtree(folder / "home" / "cache", ignore_errors=True)
        with books.database.session() as session:
            for row in (Drawing, Published, Rollup):
                session.execute(sa.delete(row))


def ours(folder: Path, *, spans_away: bool = False) -> dict[str, object]:
    """One attribution run, as `rootcost attribute` makes it; with `spans_away` no file of a span can be read meanwhile."""
    from attribution.run import attribute
    from ledger.books import Books

    # The files go once the books are open: whoever opens books repairs tables whose files are missing.
    with Books.open(folder / "home") as books, without_spans(folder) if spans_away else contextlib.nullcontext():
        began = time.perf_counter()
        report = attribute(books, [MONTH])
        seconds = time.perf_counter() - began
        assert report.published
        assert report.balance["difference"].abs().sum() == 0
        return {"seconds": seconds, "spans_read": report.spans_read}


def peer(folder: Path, *, costs_only: bool) -> dict[str, object]:
    """The same in SQL, over the same files."""
    import duckdb

    from ledger.books import Books
    from ledger.tables import CHARGES, SPANS

    with Books.open(folder / "home") as books:
        files = {table.name: books.store.delta(table).file_uris() for table in (SPANS, CHARGES)}  # type: ignore[union-attr]
    text = (HERE / "scale.sql").read_text()
    kept, skipping = [], False
    for line in text.splitlines():
        skipping = line.startswith("-- pages") or (skipping and not line.startswith("-- costs"))
        if not (costs_only and skipping):
            kept.append(line)
    text = "\n".join(kept)
    places = {
        "spans": str(files["spans"]),
        "charges": str(files["charges"]),
        "registry": f"'{folder / 'made' / 'registry.csv'}'",
        "out": f"'{folder / 'peer.parquet'}'",
        "calls": f"'{folder / 'peer-calls.parquet'}'",
        "chains": f"'{folder / 'peer-chains.parquet'}'",
    }
    for name, place in sorted(places.items(), reverse=True):
        text = text.replace(f"${name}", place)
    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    began = time.perf_counter()
    connection.execute(text)
    return {"seconds": time.perf_counter() - began}


def agree(folder: Path) -> dict[str, object]:
    """Whether both sides say the same of every agent; the order within a pool differs, so the last digits may sit elsewhere in it."""
    import polars as pl
    import sqlalchemy as sa

    from ledger.books import Books
    from ledger.db import Published
    from ledger.tables import COSTS

    with Books.open(folder / "home") as books, books.database.session() as session:
        run = session.scalars(sa.select(Published)).one().run_id
        mine = books.store.scan(COSTS, {"run_id": [run]}).collect()
    theirs = pl.read_parquet(folder / "peer.parquet").with_columns(pl.col("effective_cost").cast(pl.Int128))
    by_agent = mine.group_by(agent="initiator_agent").agg(pl.col("effective_cost").to_physical().sum())
    other = theirs.group_by(agent="initiator").agg(pl.col("effective_cost").sum())
    both = by_agent.join(other, on="agent", how="full", coalesce=True, nulls_equal=True)
    return {
        "agree": mine["effective_cost"].to_physical().sum() == theirs["effective_cost"].sum(),
        "largest_gap_by_agent_1e-12": str((both["effective_cost"] - both["effective_cost_right"]).abs().max()),
        "cost_rows": [mine.height, theirs.height],
    }


@contextlib.contextmanager
def without_spans(folder: Path) -> Iterator[None]:
    """Takes the span files away: who wants to read one fails."""
    held, away = folder / "home" / "tables" / "spans", folder / "spans-away"
    away.mkdir()
    moved = [path for path in held.iterdir() if path.name.startswith("date=")]
    for path in moved:
        path.rename(away / path.name)
    try:
        yield
    finally:
        for path in moved:
            (away / path.name).rename(path)
        away.rmdir()


def restate(folder: Path) -> None:
    """The bill again, 1 % dearer."""
    import polars as pl

    from ledger.books import Books
    from ledger.tables import CHARGES, COST_COLUMNS

    with Books.open(folder / "home") as books:
        bill = books.store.scan(CHARGES).collect()
        dearer = bill.with_columns(
            (pl.col(c) + (pl.col(c) * pl.lit("0.01").str.to_decimal(scale=2)).cast(pl.Decimal(38, 12))) for c in COST_COLUMNS
        )
        books.store.replace(CHARGES, dearer, {"billing_month": MONTH, "scope": "bench"})


def hold_back(folder: Path, *, back: bool) -> None:
    """Takes one day's spans out of the table, or puts them in."""
    import polars as pl

    from ledger.books import Books
    from ledger.tables import SPANS

    held = folder / "late.parquet"
    with Books.open(folder / "home") as books:
        if back:
            books.store.append(SPANS, pl.read_parquet(held))
            held.unlink()
        else:
            books.store.scan(SPANS, {"date": [LATE_DAY]}).collect().write_parquet(held)
            books.store.replace(SPANS, SPANS.empty(), {"date": LATE_DAY})


def measured(folder: Path, step: str) -> dict[str, object]:
    """What one step took in a fresh process: seconds as it tells them, peak megabytes; imports are not counted, both sides have theirs."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_step(step: str, folder: Path) -> None:
    """One step, in this process."""
    import ledger  # noqa: F401 - before polars: it says how that is to keep memory

    importlib.import_module("polars")
    before = 0.0
    if step.startswith("ours"):
        import attribution.run  # noqa: F401

        before = _cpu()
        told = ours(folder, spans_away=step == "ours-without-spans")
    elif step.startswith("peer"):
        import duckdb  # noqa: F401

        before = _cpu()
        told = peer(folder, costs_only=step == "peer-costs")
    elif step == "agree":
        told = agree(folder)
    elif step == "prepare":
        raise SystemExit("prepare needs --spans")
    else:
        {
            "forget": forget,
            "restate": restate,
            "hold": lambda f: hold_back(f, back=False),
            "late": lambda f: hold_back(f, back=True),
        }[step](folder)
        told = {}
    used = resource.getrusage(resource.RUSAGE_SELF)
    told |= {"cpu_seconds": round(used.ru_utime + used.ru_stime - before, 2), "peak_mb": round(peak_mb())}
    print(json.dumps(told))


def best(folder: Path, step: str, repeat: int, *, fresh: bool = False) -> dict[str, object]:
    """The fastest of several."""
    found = []
    for _ in range(repeat):
        if fresh:
            measured(folder, "forget")
        found.append(measured(folder, step))
    return min(found, key=lambda told: float(str(told["seconds"])))


def main() -> None:
    """Makes the load and takes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the load here, and take it from here if it is there")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--step")
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.folder)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if not (folder / "home").exists():
            prepare(folder, given.spans)
        whole = best(folder, "ours", given.repeat, fresh=True)
        line = {"spans": given.spans, "ours": whole}
        if not given.no_peer:
            for name in ("peer", "peer-costs"):
                other = best(folder, name, given.repeat)
                line[name] = other
                line[f"time_ratio_{name}"] = round(float(str(whole["seconds"])) / float(str(other["seconds"])), 2)
                line[f"memory_ratio_{name}"] = round(int(str(whole["peak_mb"])) / int(str(other["peak_mb"])), 2)
            line |= measured(folder, "agree")
        print(json.dumps(line), flush=True)
        measured(folder, "restate")
        print(json.dumps({"restated month, span files taken away": measured(folder, "ours-without-spans")}), flush=True)
        measured(folder, "hold")
        measured(folder, "ours")
        measured(folder, "late")
        late = measured(folder, "ours")
        assert late["spans_read"], "the late day was not noticed"
        share = round(float(str(late["seconds"])) / float(str(whole["seconds"])), 3)
        print(json.dumps({"late day": late, "share_of_full_time": share}), flush=True)


if __name__ == "__main__":
    main()
