"""Slices drawn by a Dask cluster: a real scheduler, two worker processes, tables on S3. Same dollars; nothing shown by halves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer

from attribution.run import attribute
from attribution.usage.build import BuildContext, Task, TaskResult
from attribution.usage.dask_executor import DaskExecutor
from ledger.books import Books
from ledger.db import Published
from ledger.errors import UsageError
from ledger.settings import StoreSettings
from ledger.tables import CALLS, CHAINS, COSTS, USAGE_HOURLY
from tests.attribution.usage.test_partitions import OWNERS, fleet, sliced, the_bill
from tests.support.books_by_hand import spans, write
from tests.support.paths import ROOT

ENV = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """An S3 of our own, and how to reach it."""
    before = dict(os.environ)
    os.environ.update(ENV)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="ledger")
    yield {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    server.stop()
    os.environ.clear()
    os.environ.update(before)


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "dask"), *command],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **ENV, "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "30s"},
    )  # fmt: skip


def told(process: subprocess.Popen[str], pattern: str) -> str:
    """The first thing a process says that fits; it must say it within a minute."""
    assert process.stderr is not None
    until = time.monotonic() + 60
    while time.monotonic() < until:
        line = process.stderr.readline()
        if found := re.search(pattern, line):
            return found[1] if found.groups() else found[0]
        assert process.poll() is None, line
    raise AssertionError(f"never said {pattern}")


class Fleet:
    """A scheduler and its workers, each a process."""

    def __init__(self) -> None:
        self.scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = told(self.scheduler, r"Scheduler at:\s+(tcp://\S+)")
        self.workers = [
            start(
                "worker",
                self.address,
                "--host",
                "127.0.0.1",
                "--nthreads",
                "1",
                "--no-dashboard",
                "--no-nanny",
                "--memory-limit",
                "0",
            )
            for _ in range(2)
        ]
        for worker in self.workers:
            told(worker, "Registered to")

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process.poll() is None:
                process.terminate()
        for process in (*self.workers, self.scheduler):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
            assert process.stderr is not None
            process.stderr.close()


@pytest.fixture
def machines() -> Iterator[Fleet]:
    """Two workers."""
    fleet_ = Fleet()
    yield fleet_
    fleet_.end()


def on_s3(home: Path, options: dict[str, str], name: str) -> Books:
    """Books in `home` with their tables on S3, a month of two dozen traces in them."""
    with Books.open(home) as made:
        store = StoreSettings(uri=f"s3://ledger/{name}", options=options)
        books = Books(made.settings.model_copy(update={"store": store}))
    write(sliced(books, 10), spans=spans(*fleet(4, traces=24)), charges=the_bill(), owners=OWNERS)
    return books


def conclusions(books: Books) -> list[pl.DataFrame]:
    """Everything drawn and concluded, without the names of runs."""
    tables = [(table, "rollup_id") for table in (USAGE_HOURLY, CALLS, CHAINS)] + [(COSTS, "run_id")]
    return [books.store.scan(table).drop(run).collect().sort(pl.all().exclude(pl.List(pl.String))) for table, run in tables]


class Watched:
    """A cluster that lets the test act after the first task has finished."""

    def __init__(self, cluster: DaskExecutor, then: Any) -> None:
        self.cluster, self.then = cluster, then

    def run(self, context: BuildContext, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        assert len(tasks) > 3
        for number, result in enumerate(self.cluster.run(context, tasks)):
            yield result
            if number == 0:
                self.then()


@pytest.mark.slow
def test_a_cluster_comes_to_the_same_and_a_killed_worker_changes_nothing(
    tmp_path: Path, s3: dict[str, str], machines: Fleet
) -> None:
    """Drawn here, drawn on two workers, and drawn while one of them is killed: the same rows, every one."""
    outcome = []
    with on_s3(tmp_path / "here", s3, "here") as here:
        attribute(here, ["2026-10"])
        outcome.append(conclusions(here))
    with DaskExecutor(machines.address) as cluster, on_s3(tmp_path / "there", s3, "there") as there:
        report = attribute(there, ["2026-10"], executor=cluster)
        assert report.spans_read > 20
        outcome.append(conclusions(there))
    with DaskExecutor(machines.address) as cluster, on_s3(tmp_path / "torn", s3, "torn") as torn:
        attribute(torn, ["2026-10"], executor=Watched(cluster, machines.workers[0].kill))
        assert machines.workers[0].wait(20) == -signal.SIGKILL
        outcome.append(conclusions(torn))
    for other in outcome[1:]:
        assert [a.equals(b) for a, b in zip(outcome[0], other, strict=True)] == [True] * 4


DRIVER = """
    import sys, time
    from pathlib import Path
    from attribution.usage.dask_executor import DaskExecutor
    from attribution.run import attribute
    from ledger.books import Books
    from tests.attribution.usage.test_dask_executor import Watched, sliced
    from ledger.settings import StoreSettings
    home, address, uri, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3], dict(p.split("=", 1) for p in sys.argv[4:])
    with Books.open(home) as made:
        books = sliced(Books(made.settings.model_copy(update={"store": StoreSettings(uri=uri, options=options)})), 10)
    def wait():
        print("first slice is there", flush=True)
        time.sleep(120)
    with DaskExecutor(address) as cluster:
        attribute(books, ["2026-10"], executor=Watched(cluster, wait))
"""


@pytest.mark.slow
def test_a_killed_driver_publishes_nothing(tmp_path: Path, s3: dict[str, str], machines: Fleet) -> None:
    """The driver is killed with finished tasks: no reader sees any of it, and the next run does it all."""
    with on_s3(tmp_path / "home", s3, "orphan") as books:
        options = [f"{k}={v}" for k, v in s3.items()]
        driver = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path / "home"), machines.address, "s3://ledger/orphan", *options],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert driver.stdout is not None
        assert driver.stdout.readline() == "first slice is there\n"
        driver.kill()
        driver.wait(20)
        driver.stdout.close()
        with books.database.session() as session:
            assert session.scalars(sa.select(Published)).all() == []
        assert [books.store.scan(t).collect().height for t in (CALLS, CHAINS, USAGE_HOURLY, COSTS)] == [0, 0, 0, 0]
        with DaskExecutor(machines.address) as cluster:
            assert attribute(books, ["2026-10"], executor=cluster).published


@pytest.mark.slow
def test_no_scheduler_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskExecutor("tcp://127.0.0.1:9")
