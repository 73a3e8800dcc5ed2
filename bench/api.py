"""The API as people and agents use it: answers, 304s, an agent's question, and a million rows stream_file. Prints one JSON line each.

    python -m bench.api [--scale 10] [--users 20] [--seconds 20] [--rows 1000000] [--home FOLDER]

A demo company of that scale is served on loopback by `rootcost serve` without the dashboard. Users with a key each ask for the overview, cost
tables and chains, with a quarter of a second between their requests, as a page does. "New answers" are asked for by users who have the same
rows, each time with a filter that was not used before. The peer, in the same run, is `GET /health`, which reads nothing: what is more than it is
ours. `cpu_ms` is the processor time of the service for an answer, whoever else uses the machine. A home is made in FOLDER, and found there again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from os import sysconf
from pathlib import Path

import httpx
import numpy as np
import polars as pl

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.tables import CHAINS
from tests.support.served import Served, serving

PAGES = (
    "/v1/overview", "/v1/costs?by=team", "/v1/costs?by=team,model&granularity=day", "/v1/chains?limit=50", "/v1/costs?by=agent&view=executor",
    "/v1/balance", "/v1/budgets", "/v1/anomalies",
)  # fmt: skip
THINKING_SECONDS = 0.25


def percentiles(seconds: list[float]) -> dict[str, float | int]:
    """Milliseconds at p50, p95 and p99, and how many there were."""
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99]).round(1)
    return {"requests": len(seconds), "p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99)}


def time_answers(ask: Callable[[int], httpx.Response], count: int) -> list[float]:
    """Seconds of each answer; all must be answers."""
    seconds = []
    for number in range(count):
        started_at = time.perf_counter()
        answer = ask(number)
        seconds.append(time.perf_counter() - started_at)
        if answer.status_code not in (200, 304):
            raise SystemExit(f"{answer.status_code}: {answer.text[:300]}")
    return seconds


def use_at_once(service: Served, keys: list[str], seconds: float) -> list[float]:
    """Answers to all users at once."""
    results: list[float] = []

    def use(key: str, first: int) -> None:
        ends_at = time.monotonic() + seconds
        with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            number = first
            while time.monotonic() < ends_at:
                page = PAGES[number % len(PAGES)]
                results.extend(time_answers(lambda _, page=page: client.get(page), 1))  # type: ignore[misc]
                number += 1
                time.sleep(THINKING_SECONDS)

    threads = [threading.Thread(target=use, args=(key, number)) for number, key in enumerate(keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def processor_seconds(service: Served) -> float:
    """Processor time of the service until now."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")


def measure(service: Served, name: str, answers: Callable[[], list[float]]) -> None:
    """Prints percentiles of answers, and the processor time of one."""
    before = processor_seconds(service)
    seconds = answers()
    cpu_ms = (processor_seconds(service) - before) * 1000 / len(seconds)
    print(json.dumps({name: percentiles(seconds) | {"cpu_ms": round(cpu_ms, 1)}}), flush=True)


_NUMBERS = count()


def new_answer(client: httpx.Client, number: int) -> httpx.Response:
    """An answer that nobody was given before: beside a class of cost that occurs, its filter names one that does not."""
    page = ("/v1/costs?by=team", "/v1/costs?by=team,model&granularity=day", "/v1/costs?by=agent&view=executor")[number % 3]
    return client.get(f"{page}&filter=cost_class=metered&filter=cost_class=none-{next(_NUMBERS)}")


def not_modified(client: httpx.Client, count: int) -> list[float]:
    """Answers that say that nothing has changed."""
    tags = {page: client.get(page).headers["ETag"] for page in PAGES}
    return time_answers(
        lambda n: client.get(PAGES[n % len(PAGES)], headers={"If-None-Match": tags[PAGES[n % len(PAGES)]]}), count
    )


def agent_question(client: httpx.Client, count: int) -> list[float]:
    """`what_is_left` over MCP."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "what_is_left", "arguments": {}}}
    headers = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
    return time_answers(lambda _: client.post("/mcp", json=body, headers=headers), count)


def resident_mb(process: int) -> float:
    """Memory of a process and its children, in MB."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [tuple(map(int, line.split())) for line in listing]
    family = {process}
    for pid, parent, _ in rows:
        if parent in family:
            family.add(pid)
    return sum(rss for pid, _, rss in rows if pid in family) / 1024


def stream_file(service: Served, address: str) -> dict[str, float]:
    """A long file: seconds to the first byte and to the last, megabytes, and how much memory grew meanwhile."""
    memory_mb, peak_mb, is_over = resident_mb(service.process.pid), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak_mb
        while not is_over.wait(0.05):
            peak_mb = max(peak_mb, resident_mb(service.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started_at, first_byte, size = time.perf_counter(), 0.0, 0
    with httpx.stream("GET", f"{service.url}{address}", timeout=300) as answer:
        for chunk in answer.iter_bytes():
            first_byte = first_byte or time.perf_counter() - started_at
            size += len(chunk)
    total = time.perf_counter() - started_at
    is_over.set()
    watcher.join()
    return {
        "first_byte_s": round(first_byte, 3),
        "seconds": round(total, 2),
        "mb": round(size / 1e6, 1),
        "memory_grew_mb": round(peak_mb - memory_mb, 1),
    }


def many_chains(books: Books, rows: int) -> Iterator[pl.DataFrame]:
    """Chains of the newest month, multiplied to as many rows, under names of their own."""
    chains = books.store.scan(CHAINS).collect()
    for start in range(0, rows, 100_000):
        numbers = pl.int_range(start, min(start + 100_000, rows), eager=True)
        frame = chains[(numbers % chains.height).to_list()]
        yield frame.with_columns(chain_id=pl.format("{}-{}", pl.col("chain_id"), numbers))


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=10)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rows", type=int, default=1_000_000, help="0: no files")
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        home = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        if not home.exists():
            demo = [sys.executable, "-m", "rootcost.cli", "--home", str(home), "demo", "--scale", str(options.scale)]
            subprocess.run(demo, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Books.open(home) as books:
            keys = [create_key(books, f"user-{n}", [Grant("admin")], actor="bench")[1] for n in range(options.users)]
        with serving(home) as service:
            with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {keys[0]}"}, timeout=60) as client:
                time_answers(lambda n: client.get(PAGES[n % len(PAGES)]), 2 * len(PAGES))
                measure(service, "alone", lambda: time_answers(lambda n: client.get(PAGES[n % len(PAGES)]), 200))
                measure(service, "alone, new answers", lambda: time_answers(lambda n: new_answer(client, n), 60))
                measure(service, "not modified", lambda: not_modified(client, 400))
                measure(service, "what_is_left", lambda: agent_question(client, 300))
                measure(service, "peer, health", lambda: time_answers(lambda _: client.get("/health"), 400))
            measure(service, f"{options.users} users", lambda: use_at_once(service, keys, options.seconds))
        if not options.rows:
            return
        with Books.open(home) as books:
            for frame in many_chains(books, options.rows):
                books.store.append(CHAINS, frame)
        for file_format in ("csv", "arrow", "parquet"):
            with serving(home) as service:
                figures = stream_file(service, f"/v1/chains?format={file_format}")
                print(json.dumps({f"{options.rows} chains as {file_format}": figures}), flush=True)


if __name__ == "__main__":
    main()
