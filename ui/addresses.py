"""Where the API is, for the dashboard and for browsers."""

from __future__ import annotations

import os

import httpx

DEFAULT_URL = "http://127.0.0.1:8787"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def api_url() -> str:
    """Where the API listens: `ROOTCOST_API_URL`, or the port of `rootcost serve`."""
    return (os.environ.get("ROOTCOST_API_URL") or DEFAULT_URL).rstrip("/")


def public_address(address: str, *, api: str, host: str) -> str:
    """A URL of the API as browsers reach it: at `ROOTCOST_PUBLIC_API_URL`, or under the host name they know the dashboard by.

    Their session cookie is sent to that name, on every port.

    >>> public_address("http://127.0.0.1:8787/v1/costs?by=team", api="http://127.0.0.1:8787", host="localhost")
    'http://localhost:8787/v1/costs?by=team'
    """
    if public_url := os.environ.get("ROOTCOST_PUBLIC_API_URL"):
        return public_url.rstrip("/") + address.removeprefix(api)
    url = httpx.URL(address)
    return str(url.copy_with(host=host)) if host and address and url.host in LOOPBACK else address
