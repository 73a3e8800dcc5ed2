"""A PostgreSQL server of our own, on loopback, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


def binaries() -> Path | None:
    """Where PostgreSQL's server programs are."""
    program = shutil.which("initdb")
    places = [Path(program).resolve().parent] if program else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


def faked_clock() -> dict[str, str]:
    """What a process started with an environment of its own needs to see the clock that the tests see (`make test-calendar`)."""
    return {name: value for name, value in os.environ.items() if name == "LD_PRELOAD" or name.startswith("FAKETIME")}


@dataclass(frozen=True)
class Server:
    """A running server: its URL, and a way to stop it and to start it again."""

    url: str
    run: Callable[[str], None]

    def stop(self) -> None:
        """Ends it as a crash would."""
        self.run("stop")

    def start(self) -> None:
        """Starts it again, with the same data and port."""
        self.run("start")


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a fresh server; skips the test where PostgreSQL is not installed."""
    with running_server() as server:
        yield server.url


@contextmanager
def running_server() -> Iterator[Server]:
    """A fresh server; skips the test where PostgreSQL is not installed."""
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server on this machine: install the package postgresql to run these")
    # The server refuses to run as root; the package's own user may, in a folder it can reach.
    cluster = Path(tempfile.mkdtemp(prefix="rootcost-postgres-"))
    user_options: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(cluster, "postgres")
        user_options = {"user": "postgres", "group": "postgres", "extra_groups": []}
    run_options: dict[str, Any] = {
        "check": True,
        "capture_output": True,
        "env": {"PATH": os.environ["PATH"], "LC_ALL": "C", **faked_clock()},
        "cwd": cluster,
        **user_options,
    }
    subprocess.run([folder / "initdb", "-D", cluster / "data", "-A", "trust", "-U", "rootcost", "-E", "UTF8"], **run_options)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    control: list[str | Path] = [folder / "pg_ctl", "-D", cluster / "data", "-w", "-l", cluster / "log"]
    options = {
        "start": ["-o", f"-p {port} -h 127.0.0.1 -k {cluster} -c fsync=off"],
        "stop": ["-m", "immediate"],
    }

    def run(action: str) -> None:
        subprocess.run([*control, *options[action], action], **run_options)

    server = Server(f"postgresql+psycopg://rootcost@127.0.0.1:{port}/postgres", run)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(cluster)


def fresh_database(url: str, name: str) -> str:
    """Another, empty database on the same server."""
    _administer(url, f"CREATE DATABASE {name}")
    return _url_of(url, name)


def copied_database(url: str, name: str) -> str:
    """A copy of a database that nobody is connected to, in place of an earlier one of that name."""
    server_url = _url_of(url, "postgres")
    _administer(server_url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE {sa.make_url(url).database}")
    return _url_of(url, name)


def _administer(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def _url_of(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)
