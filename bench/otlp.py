"""How many spans a second the OTLP receiver takes for good, beside Arize Phoenix's: `python -m bench.otlp`. Prints JSON lines.

Both are started as their users start them and get the same batches of 500 spans over OTLP/HTTP protobuf. What counts: of ours, spans
acknowledged, since they are on disk by then; of Phoenix's, spans in its database, since it acknowledges what it holds in memory. Then
ours is waited for until every span is in the ledger, exactly once. `--soak SECONDS` instead sends at a steady rate and tells memory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 60.0
"""How long Phoenix may take to write what it acknowledged."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[psutil.Process]:
    """A server, once it answers; ended with all it started."""
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment}, cwd=ROOT)
    try:
        until = time.monotonic() + 180
        while time.monotonic() < until and child.poll() is None:
            try:
                httpx.get(url, timeout=2, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        else:
            raise SystemExit(f"{command[0]} did not start: {log.read_text(errors='replace')[-800:]}")
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()


def load(url: str, token: str, *arguments: str) -> dict[str, Any]:
    """What `bench.otlp_load` told."""
    command = [sys.executable, "-m", "bench.otlp_load", url, token, *arguments]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    return told


def spent(server: psutil.Process) -> dict[str, float]:
    """Time of a server, and resident memory of it and what it started."""
    children = server.children(recursive=True)
    return {
        "CPU seconds of the server": round(sum(server.cpu_times()[:2]), 1),
        "MB of the server": server.memory_info().rss >> 20,
        "MB of its reader": sum(child.memory_info().rss for child in children) >> 20,
    }


@contextmanager
def rootcost(folder: Path) -> Iterator[tuple[str, str, psutil.Process, Path]]:
    """Our service over an empty home; `attribute` is rare, as it would measure attribution."""
    home, port = folder / "home", free_port()
    command = [str(Path(sys.executable).parent / "rootcost"), "--home", str(home), "serve", "--no-ui", "--port", str(port)]
    quiet = {"ROOTCOST_SERVE__ATTRIBUTE_SECONDS": "86400"}
    with running(command, f"http://127.0.0.1:{port}/health", folder / "rootcost.log", **quiet) as server:
        yield f"http://127.0.0.1:{port}", (home / "token").read_text().strip(), server, home


def booked(home: Path) -> int:
    """Spans in the ledger."""
    import polars as pl

    from ledger.store import Store
    from ledger.tables import SPANS

    return int(Store(home / "tables").scan(SPANS).select(pl.len()).collect().item())


def until_booked(url: str, home: Path, spans: int) -> float:
    """Seconds until the spool is empty; nothing may be missing then, nor be there twice."""
    began = time.monotonic()
    while httpx.get(f"{url}/v1/freshness", timeout=60, trust_env=False).json()["spool_files"]:
        time.sleep(0.2)
    found = booked(home)
    if found != spans:
        raise SystemExit(f"{spans} spans were acknowledged and {found} are in the ledger")
    return time.monotonic() - began


def measure_ours(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Acknowledged spans a second, and when they were all in the ledger."""
    with rootcost(folder) as (url, token, server, home):
        load(f"{url}/v1/traces", token, "--seconds", "1")
        before = booked_after(url, home)
        began = time.monotonic()
        told = load(f"{url}/v1/traces", token, *arguments)
        until_booked(url, home, before + told["spans"])
        seconds = time.monotonic() - began
        return {"collector": "rootcost", **told, "booked a second": round(told["spans"] / seconds), **spent(server)}


def booked_after(url: str, home: Path) -> int:
    """Spans in the ledger once the spool is empty."""
    while httpx.get(f"{url}/v1/freshness", timeout=60, trust_env=False).json()["spool_files"]:
        time.sleep(0.2)
    return booked(home)


def measure_phoenix(environment: Path, folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Spans a second in its SQLite database."""
    port = free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command = [str(environment / "bin" / "phoenix"), "serve"]
    with running(command, f"http://127.0.0.1:{port}/healthz", folder / "phoenix.log", **settings) as server:
        count = _counter(folder / "phoenix.db")
        load(f"http://127.0.0.1:{port}/v1/traces", "", "--seconds", "1")
        before = _settled(count)
        began = time.monotonic()
        told = load(f"http://127.0.0.1:{port}/v1/traces", "", *arguments)
        acknowledged = time.monotonic() - began
        while count() < before + told["spans"] and time.monotonic() - began < acknowledged + PATIENCE_SECONDS:
            time.sleep(0.2)
        seconds = max(time.monotonic() - began, acknowledged)
        return {
            "collector": "phoenix",
            **told,
            "booked": (kept := count() - before),
            "booked a second": round(kept / seconds),
            **spent(server),
        }


def _counter(database: Path) -> Callable[[], int]:
    def count() -> int:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
            found: int = connection.execute("SELECT count(*) FROM spans").fetchone()[0]
        connection.close()
        return found

    return count


def _settled(count: Callable[[], int]) -> int:
    before = -1
    while (now := count()) != before:
        before = now
        time.sleep(3)
    return before


def phoenix_environment(folder: Path) -> Path:
    """A virtual environment with Phoenix in it, made by the ordinary client of the package registry."""
    environment = folder / "phoenix-env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(environment / "bin" / "pip"), "install", "--quiet", "arize-phoenix"], check=True)
    return environment


def soak(folder: Path, seconds: float, rate: float) -> Iterator[dict[str, Any]]:
    """Memory over a steady load, twelve times on the way."""
    with rootcost(folder) as (url, token, server, home):
        command = [sys.executable, "-m", "bench.otlp_load", f"{url}/v1/traces", token]
        arguments = ["--seconds", str(seconds), "--rate", str(rate)]
        sender = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
        began = time.monotonic()
        while sender.poll() is None:
            time.sleep(seconds / 12)
            waiting = sum(path.stat().st_size for path in (home / "spool").glob("*.spool") if path.exists())
            yield {"seconds": round(time.monotonic() - began), **spent(server), "MB in the spool": waiting >> 20}
        assert sender.stdout is not None
        told = json.loads(sender.stdout.read())
        yield {"soak": told, "seconds until booked": round(until_booked(url, home, told["spans"]), 1)}


def main() -> None:
    """Measures ours, then Phoenix's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--no-phoenix", action="store_true")
    parser.add_argument("--phoenix", type=Path, help="an environment that has arize-phoenix; made if not given")
    parser.add_argument("--soak", type=float, default=0, help="seconds of a steady load instead")
    parser.add_argument("--rate", type=float, default=20_000, help="spans a second of the soak")
    given = parser.parse_args()
    arguments = ["--seconds", str(given.seconds), "--connections", str(given.connections)]
    with tempfile.TemporaryDirectory(prefix="otlp-bench-") as name:
        folder = Path(name)
        if given.soak:
            for told in soak(folder, given.soak, given.rate):
                print(json.dumps(told), flush=True)
            return
        ours = measure_ours(folder, arguments)
        print(json.dumps(ours), flush=True)
        if given.no_phoenix:
            return
        theirs = measure_phoenix(given.phoenix or phoenix_environment(folder), folder, arguments)
        print(json.dumps(theirs), flush=True)
        if theirs["booked a second"]:
            print(json.dumps({"ratio": round(ours["spans a second"] / theirs["booked a second"], 1)}))


if __name__ == "__main__":
    main()
