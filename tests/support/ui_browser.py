"""The dashboard's own server over an API, and a browser to look at it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import ui_fake_api as fake
from tests.support.paths import ROOT

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def dashboard_over(api: str, folder: Path) -> Iterator[str]:
    """Address of a dashboard that asks `api`, while the block runs."""
    log, port = folder / "log", fake.take_port()
    variables = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment = {**variables, "ROOTCOST_API_URL": api, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "ui.server", "127.0.0.1", str(port)],
            cwd=ROOT / "ui", env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/_stcore/health", timeout=1).close()
                break
            except OSError:
                assert child.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def browser_at(chromium: str) -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium_browser = play.chromium.launch(executable_path=chromium, args=QUIET)
        yield chromium_browser
        chromium_browser.close()


def settled(page: Any) -> None:
    """Waits until a page is drawn."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)
    page.wait_for_selector(".rc table", timeout=60_000)
