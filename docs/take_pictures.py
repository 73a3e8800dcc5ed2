"""Takes the dashboard's pictures: runs the demo in a temporary home, serves it, and photographs every page.

    python docs/take_pictures.py [--into docs/images]

Writes `figures.json` next to the pictures: the figures they show, which a test compares with a new run of the demo.
Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from page_figures import PICTURES, manifest_text, page_figures
from playwright.sync_api import Browser, Page, sync_playwright

DARK = ("overview", "chain")
"""Pictures that are also taken in dark colours; their files end in -dark."""
MAX_PIXELS = 1700
"""No picture is higher: a page of many rows is cut there."""
WIDTH = 1440
START_SECONDS = 120
BROWSER = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars")
COMMAND = (sys.executable, "-m", "rootcost.cli")


def main() -> int:
    """Takes every picture; the chain is the dearest that the demo's support-bot started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    browser_path = next((path for name in BROWSER if (path := shutil.which(name))), None)
    if browser_path is None:
        print("no Chromium on this machine: install the package chromium", file=sys.stderr)
        return 1
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # In the working folder, so that the files named on pages have the relative paths of a reader's own demo.
        subprocess.run([*COMMAND, "demo"], check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with serving(Path(folder)) as (api, dashboard), sync_playwright() as play:
            (options.into / "figures.json").write_text(manifest_text(page_figures(api)), encoding="utf-8")
            browser = play.chromium.launch(executable_path=browser_path, args=list(QUIET))
            for name, path in PICTURES.items():
                take(browser, f"{dashboard}/{path}", options.into / f"{name}.png")
                if name in DARK:
                    take(browser, f"{dashboard}/{path}", options.into / f"{name}-dark.png", dark=True)
            browser.close()
    return 0


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """Runs `rootcost serve` in a folder on free ports while the block runs; yields the URLs of API and dashboard."""
    port, ui_port = _free_port(), _free_port()
    line = [*COMMAND, "serve", "--port", str(port), "--ui-port", str(ui_port)]
    environment = {**os.environ, "ROOTCOST_SERVE__GRPC_PORT": "0"}
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
    try:
        dashboard = f"http://127.0.0.1:{ui_port}"
        _wait_for(f"{dashboard}/_stcore/health", process)
        yield f"http://127.0.0.1:{port}", dashboard
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"rootcost serve ended with code {process.returncode}")
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"{url} did not answer within {START_SECONDS} s")


def take(browser: Browser, url: str, path: Path, *, dark: bool = False) -> None:
    """Opens a page and saves what it shows."""
    page = browser.new_page(color_scheme="dark" if dark else "light", device_scale_factor=1.5)
    page.set_viewport_size({"width": WIDTH, "height": 900})
    page.goto(url)
    settle(page)
    if path.stem.removesuffix("-dark") == "chain":
        page.locator(".rc tbody tr.go a").first.click()
        page.wait_for_url("**chain=**")
        settle(page)
    fit(page)
    page.screenshot(path=path)
    page.close()
    print(path)


def settle(page: Page) -> None:
    """Waits until the page has run and its charts are drawn."""
    page.wait_for_selector('[data-testid="stMain"]')
    page.wait_for_function(
        "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'", timeout=60_000
    )
    page.wait_for_timeout(1500)


def fit(page: Page) -> None:
    """Makes the window as high as what it shows: the page scrolls inside itself."""
    inner = page.evaluate("document.querySelector('[data-testid=\"stMainBlockContainer\"]').getBoundingClientRect().height")
    page.set_viewport_size({"width": WIDTH, "height": min(MAX_PIXELS, max(900, int(inner)))})
    page.wait_for_timeout(600)


if __name__ == "__main__":
    sys.exit(main())
