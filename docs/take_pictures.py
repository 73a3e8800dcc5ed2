"""Takes the dashboard's pictures from a running product.

    python docs/take_pictures.py http://127.0.0.1:8501 [--dark] [--into docs/images]

Needs Chromium and playwright. Nothing is drawn by hand: start `rootcost demo` and `rootcost serve` first.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PICTURES = {
    "overview": "",
    "explorer": "explorer?by=team&granularity=day",
    "chains": "chains",
    "chain": "chains?agent=support-bot",
    "balance": "balance",
    "budgets": "budgets",
    "sources": "sources",
}
MOST_PIXELS = 1700
"""No picture is higher: a page of many rows is cut there."""
BROWSER = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars")


def settle(page: Page) -> None:
    """Waits until the page has run and its charts are drawn."""
    page.wait_for_selector('[data-testid="stMain"]')
    page.wait_for_function(
        "() => document.querySelector('[data-testid=\"stApp\"]')?.dataset.testScriptState === 'notRunning'", timeout=30_000
    )
    page.wait_for_timeout(900)


def fit(page: Page, width: int, height: int) -> None:
    """Makes the window as high as what it shows: the page scrolls inside itself."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(300)
    inner = page.evaluate("document.querySelector('[data-testid=\"stMainBlockContainer\"]').getBoundingClientRect().height")
    page.set_viewport_size({"width": width, "height": min(MOST_PIXELS, max(height, int(inner)))})
    page.wait_for_timeout(600)


def main() -> int:
    """Takes every picture; the chain is the dearest that the demo's support-bot started."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8501")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--dark", action="store_true", help="in dark colours; the files end in -dark")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    parser.add_argument("--width", type=int, default=1440)
    options = parser.parse_args()
    browser_path = next((executable for name in BROWSER if (executable := shutil.which(name))), None)
    if browser_path is None:
        print("no Chromium on this machine: install the package chromium", file=sys.stderr)
        return 1
    options.into.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=list(QUIET))
        page = browser.new_page(color_scheme="dark" if options.dark else "light", device_scale_factor=1.5)
        for name, path in PICTURES.items():
            if options.only and name not in options.only:
                continue
            page.set_viewport_size({"width": options.width, "height": 900})
            page.goto(f"{options.url.rstrip('/')}/{path}")
            settle(page)
            if name == "chain":
                page.locator(".rc tbody tr.go a").first.click()
                page.wait_for_url("**chain=**")
                settle(page)
            shoot(page, name, options)
        browser.close()
    return 0


def shoot(page: Page, name: str, options: argparse.Namespace) -> None:
    """Saves what is on the screen."""
    fit(page, options.width, 900)
    path = options.into / f"{name}{'-dark' if options.dark else ''}.png"
    page.screenshot(path=path)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
