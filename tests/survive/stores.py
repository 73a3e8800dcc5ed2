"""Where the ledgers that are killed keep their tables and their database: on this machine, on S3, in PostgreSQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tests.support.postgres_server import binaries as binaries
from tests.support.postgres_server import fresh_database, postgres_server

NewHome = Callable[[int], None]
"""Makes an empty store for the home of that number: from now on settings of this process and its forks name it."""

SHORT_RETENTION = {"ROOTCOST_MAINTENANCE__RETENTION_MINUTES": "0.0001"}
"""What nobody needs is removed while the work goes on, as in months of service."""


@contextmanager
def local() -> Iterator[NewHome]:
    """Tables and database in the home."""
    with _environment(SHORT_RETENTION):
        yield lambda _number: None


@contextmanager
def bucket() -> Iterator[NewHome]:
    """Tables in a bucket of a moto server, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ROOTCOST_STORE__OPTIONS": json.dumps(options),
        "ROOTCOST_STORE__URI": "s3://ledger/books",
    }

    def new_home(number: int) -> None:
        _post(f"{endpoint}/moto-api/reset", seconds=30)
        request = urllib.request.Request(f"{endpoint}/ledger-{number}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        os.environ["ROOTCOST_STORE__URI"] = f"s3://ledger-{number}/books"

    try:
        with _environment(SHORT_RETENTION | settings):
            yield new_home
    finally:
        server.kill()
        server.wait()


@contextmanager
def postgres() -> Iterator[NewHome]:
    """The database in a PostgreSQL server of our own."""
    with postgres_server() as url, _environment(SHORT_RETENTION | {"ROOTCOST_STORE__DATABASE_URL": url}):
        names: list[str] = []

        def new_home(number: int) -> None:
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
            with engine.connect() as connection:
                for name in names:
                    connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            names[:] = [f"home_{number}"]
            os.environ["ROOTCOST_STORE__DATABASE_URL"] = fresh_database(url, names[0])

        yield new_home


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _post(address: str, *, seconds: float) -> None:
    """Posts nothing, and waits for a server that is starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(address, data=b"", method="POST"), timeout=10).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
