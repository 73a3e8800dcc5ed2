"""One command starts the API, the scheduler and the dashboard; one signal ends them all."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ledger.books import Books
from ledger.spool import Spool
from ledger.tables import SPANS
from tests.support.cli_books import trace, write_files
from tests.support.served import Served

pytestmark = pytest.mark.slow

FreePort = Callable[[], int]


@pytest.fixture
def serve(home: Path, free_port: FreePort) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*, ui: bool = False, **environment: str) -> Served:
        served = Served(home, port=free_port(), ui_port=free_port() if ui else None, environment=environment)
        started.append(served)
        return served.until_ready()

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(timeout=10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rootcost(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootcost.cli", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_api_and_dashboard_come_up_and_go_down_together(serve: Callable[..., Served]) -> None:
    served = serve(ui=True)
    assert served.ui_port is not None
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"
    assert httpx.get(f"{served.url}/ready").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{served.ui_port}/_stcore/health").text == "ok"
    assert f"http://127.0.0.1:{served.ui_port}" in served.said()

    code, seconds = served.stop()

    assert code == 0, served.said()
    assert seconds < 10
    assert not listens(served.port)
    assert not listens(served.ui_port)
    assert "Traceback" not in served.said()


@pytest.mark.slow
def test_a_dashboard_that_dies_is_started_again(serve: Callable[..., Served]) -> None:
    served = serve(ui=True)
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    (child,) = [int(pid) for pid in children if b"ui.server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while "started again" not in served.said() or served.ui_port is None or not listens(served.ui_port):
        assert time.monotonic() < deadline, served.said()
        time.sleep(0.2)
    assert served.stop()[0] == 0


@pytest.mark.slow
def test_the_token_is_printed_once_and_kept_for_its_owner_only(serve: Callable[..., Served], home: Path) -> None:
    first = serve()
    token = first.token()
    assert re.search(rf"Token\s+{re.escape(token)} ", first.said())
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    assert httpx.post(f"{first.url}/v1/litellm", json=[]).status_code == 401
    assert first.stop(signal.SIGINT)[0] == 0

    second = serve()
    assert second.token() == token
    assert token not in second.said()
    assert str(home / "token") in second.said()
    second.stop()


@pytest.mark.parametrize(("option", "other"), [("--port", "--ui-port"), ("--ui-port", "--port")])
def test_a_taken_port_is_named_before_anything_starts(option: str, other: str, home: Path, free_port: FreePort) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = rootcost(home, "serve", option, str(port), other, str(free_port()))
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert option in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not home.exists()


@pytest.mark.slow
def test_two_services_cannot_share_a_home(serve: Callable[..., Served], home: Path, free_port: FreePort) -> None:
    served = serve()
    done = rootcost(home, "serve", "--no-ui", "--port", str(free_port()))
    assert done.returncode == 2
    assert f"already served by process {served.process.pid} on {served.url}" in done.stderr
    served.stop()


def test_after_a_crash_the_next_start_finds_no_lock_and_free_ports(home: Path, serve: Callable[..., Served]) -> None:
    first_service = serve(ui=True)
    assert not [line for line in _environment_of_dashboard(first_service) if line.startswith(b"ROOTCOST_TOKEN")]
    first_service.process.kill()
    first_service.process.wait(timeout=10)
    next_service = Served(home, port=first_service.port, ui_port=first_service.ui_port)
    try:
        next_service.until_ready()
        assert next_service.stop()[0] == 0
    finally:
        next_service.process.kill()


def _environment_of_dashboard(served: Served) -> list[bytes]:
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    (child,) = [pid for pid in children if b"ui.server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return Path(f"/proc/{child}/environ").read_bytes().split(b"\0")


def support_bot_costs(served: Served) -> list[dict[str, str]]:
    rows = httpx.get(
        f"{served.url}/v1/costs", params={"by": "initiator_agent,initiator_team,basis,cost_class"}, timeout=10
    ).json()["rows"]
    return [row for row in rows if row["initiator_agent"] == "support-bot"]


def test_a_call_appears_under_its_agent_within_seconds(serve: Callable[..., Served], home: Path, tmp_path: Path) -> None:
    files = write_files(tmp_path / "input")
    assert rootcost(home, "agents", "import", str(files / "agents.csv")).returncode == 0
    served = serve()
    began = time.monotonic()
    sent = httpx.post(
        f"{served.url}/v1/traces",
        content=(files / "traces.json").read_bytes(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {served.token()}"},
    )
    assert (sent.status_code, sent.json()) == (200, {})
    while not (rows := support_bot_costs(served)):
        assert time.monotonic() - began < 30, served.said()
        time.sleep(0.2)
    # 6 000 input tokens of Claude Sonnet 4.6 at 3 dollars a million.
    assert [(row["initiator_team"], row["basis"], row["cost_class"], row["cost"]) for row in rows] == [
        ("Care", "estimated", "metered", "0.018")
    ]
    assert time.monotonic() - began < 15
    assert served.stop()[0] == 0


@pytest.mark.slow
def test_what_was_received_is_booked_before_it_stops(serve: Callable[..., Served], home: Path) -> None:
    served = serve(ROOTCOST_SERVE__DRAIN_SECONDS="3600", ROOTCOST_SERVE__ATTRIBUTE_SECONDS="3600")
    time.sleep(1)  # the first, immediate round is over
    sent = httpx.post(f"{served.url}/v1/traces", json=trace(), headers={"Authorization": f"Bearer {served.token()}"})
    assert sent.status_code == 200
    porch = Spool(home / "spool")
    assert porch.pending()
    assert served.stop()[0] == 0
    assert not porch.pending()
    with Books.open(home) as books:
        assert books.store.scan(SPANS).collect().height == 6
