"""The dashboard's server: Streamlit behind guards of our own.

    python -m ui.server HOST PORT      with ROOTCOST_API_URL, and ROOTCOST_ALLOWED_HOSTS for names beside loopback

Options of Streamlit are set here, in code: its command line and its STREAMLIT_* variables are not read by an app of this kind.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

import streamlit as st
import uvicorn
from starlette.middleware import Middleware
from streamlit import config

from ui.addresses import LOOPBACK
from ui.guards import Guards, Sessions, session_picture

SCRIPT = Path(__file__).parent / "app.py"
OPTIONS = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "viewer",
    "global.developmentMode": False,
    # Entries that were kept over a log-in are given to fields that have a default.
    "global.disableWidgetStateDuplicationWarning": True,
    "runner.magicEnabled": False,
    "server.enableAgentApi": False,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
}
REFUSED = "server.trustedUserHeaders"
"""It would take a header of the request for who somebody is; people log in at the API."""


class UnsafeOptionError(Exception):
    """An option of Streamlit that this dashboard does not start with."""


def configure() -> None:
    """Sets the options; raises `UnsafeOptionError` for one that is refused."""
    config.get_config_options()
    if config.get_option(REFUSED):
        raise UnsafeOptionError(f"{REFUSED} is set in a config.toml of Streamlit: take it out; people log in at RootCost's API")
    for name, value in OPTIONS.items():
        config.set_option(name, value)


def inline_script_hashes() -> list[str]:
    """Hashes of the inline scripts in Streamlit's page, as a Content-Security-Policy has them, from the installed file."""
    page = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    return [f"'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]


def create_app(api_url: str, *, hosts: Collection[str] = ()) -> Any:
    """The dashboard as an ASGI app."""
    from starlette.routing import Route

    configure()
    sessions = Sessions(api_url)
    guards = Middleware(Guards, sessions=sessions, hosts=frozenset({*LOOPBACK, *hosts}), script_hashes=inline_script_hashes())
    return st.App(SCRIPT, middleware=[guards], routes=[Route("/session-picture/{name}", session_picture(sessions))])


def main(host: str, port: int) -> None:
    """Serves until a signal comes."""
    hosts = [name for name in os.environ.get("ROOTCOST_ALLOWED_HOSTS", "").split(",") if name]
    try:
        app = create_app(os.environ["ROOTCOST_API_URL"], hosts=hosts)
    except UnsafeOptionError as error:
        sys.exit(f"rootcost: {error}")
    # Headers of a proxy are not believed: nothing here depends on the address of a client.
    uvicorn.run(
        app, host=host, port=port, ws="websockets-sansio", log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=1,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
