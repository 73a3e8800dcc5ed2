"""Fixtures of all tests: empty books in a fresh folder, no settings from outside, no network but loopback.

Libraries are imported where they are used: this file is imported before every single test.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.doctest import DoctestModule

if TYPE_CHECKING:
    from ledger.books import Books

BEGAN_AT = pytest.StashKey[float]()

os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # else every S3 client first asks a link-local address who it is


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of a run that may not take longer than it has: `make test-slow SECONDS=…`."""
    parser.addoption("--seconds", type=float, help="no test is begun later than this; the rest is skipped and counted")
    parser.addoption(
        "--first",
        type=int,
        default=0,
        help="the file to begin with, of those that are selected, so that another run takes others",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Notes when the run began, also for its workers."""
    config.stash[BEGAN_AT] = time.monotonic()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Turns the files round; the tests of a file stay in order."""
    if first := config.getoption("--first", default=0):
        paths = list(dict.fromkeys(item.path for item in items))
        place = {path: (number - first) % len(paths) for number, path in enumerate(paths)}
        items.sort(key=lambda item: place[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what there is no time for."""
    seconds = item.config.getoption("--seconds", default=None)
    if seconds is not None and time.monotonic() - item.config.stash[BEGAN_AT] > seconds:
        pytest.skip("no time was left; `make test-slow` runs all")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Looks for doctests in helpers, not in modules of tests: nobody writes them there, and looking takes a third of the collection."""
    collectors = yield
    return [c for c in collectors if not (isinstance(c, DoctestModule) and file_path.name.startswith("test_"))]


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Loads Hypothesis' profile before a module that uses it is imported. Other modules do not pay for the import."""
    if b"hypothesis" in module_path.read_bytes():
        from hypothesis import HealthCheck, settings

        settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("repeatable")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hypothesis' plugin imports Hypothesis for its summary: it has none to give when no module used Hypothesis."""
    if "hypothesis" not in sys.modules and getattr(session.config.option, "dist", "no") == "no":
        session.config.pluginmanager.unregister(name="hypothesispytest")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own ROOTCOST_ settings and proxies must not change what a test sees."""
    for name in os.environ:
        if name.startswith("ROOTCOST_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_color", "force_color"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Refuses every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (host in ("localhost", "::1", "") or host.startswith("127.")):
            raise PermissionError(f"a test tried to reach {host}; tests talk to loopback only")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A ledger's folder that does not exist yet."""
    return tmp_path / "home"


@pytest.fixture(scope="session")
def _new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger without rows, made once: making one costs as much as many a test."""
    from ledger.books import Books

    path = tmp_path_factory.mktemp("new") / "home"
    Books.open(path).close()
    return path


@pytest.fixture
def books(home: Path, _new_home: Path) -> Iterator[Books]:
    """Empty books."""
    from ledger.books import Books

    shutil.copytree(_new_home, home)
    with Books.open(home) as opened:
        yield opened


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives loopback ports nobody listens on, a different one each time."""
    given: set[int] = set()

    def take() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return take


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser, or a skip that says how to get one."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on this machine: install the package chromium")


@pytest.fixture(scope="session")
def postgres_bin() -> Path:
    """The folder of PostgreSQL's server programs, or a skip that says how to get them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    pytest.skip("no PostgreSQL server on this machine: install the package postgresql")
