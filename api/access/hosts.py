"""Host names that requests may address, proxies that are believed, and addresses of our own to return to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Self
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from ledger.settings import ServeSettings
from ledger.settings_sections import is_loopback

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDING = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via")
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 — they are no names to be reached by
MAX_RETURN_CHARACTERS = 2000
_HOST: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?")


def host_name(host: str) -> str:
    """The name in a Host header, without its port; "" for what is no name and port: links are made with it.

    >>> host_name("localhost:8787"), host_name("[::1]:8787"), host_name("127.0.0.1"), host_name("127.0.0.1:80@evil.example")
    ('localhost', '::1', '127.0.0.1', '')
    """
    match = _HOST.fullmatch(host.lower())
    return (match["address"] or match["name"]) if match else ""


@dataclass(frozen=True, slots=True)
class Site:
    """Where API and dashboard are reached, and which proxies are believed."""

    hosts: frozenset[str]
    proxies: tuple[IPv4Network | IPv6Network, ...]
    port: int
    ui_port: int | None
    on_loopback: bool

    @classmethod
    def of(cls, settings: ServeSettings, *, port: int | None = None, ui_port: int | None = None, ui: bool = True) -> Self:
        """The site by the settings; ports of the command line come first."""
        own_host = {settings.host.lower()} - _ANY_ADDRESS
        return cls(
            hosts=LOOPBACK | own_host | {host.lower() for host in settings.allowed_hosts},
            proxies=tuple(ip_network(proxy) for proxy in settings.trusted_proxies),
            port=port or settings.port,
            ui_port=(ui_port or settings.ui_port) if ui else None,
            on_loopback=is_loopback(settings.host),
        )

    def trusts(self, address: str) -> bool:
        """Whether it is the address of a trusted proxy."""
        try:
            return any(ip_address(address) in proxy for proxy in self.proxies)
        except ValueError:
            return False

    def return_address(self, text: str, scope: Scope) -> str:
        """The address to go to after log-in: the given one if it is of this API or its dashboard, else the dashboard."""
        return text if self._is_own(text, scope) else self.dashboard(scope)

    def dashboard(self, scope: Scope) -> str:
        """Address of the dashboard as the browser reaches it: behind a proxy the root of the same host."""
        if scope["state"].get("is_forwarded") or self.ui_port is None:
            return "/" if self.ui_port is not None else "/v1/me"
        host = host_name(Headers(scope=scope).get("host", ""))
        return f"{scope['scheme']}://{f'[{host}]' if ':' in host else host}:{self.ui_port}/"

    def _is_own(self, text: str, scope: Scope) -> bool:
        if not text or len(text) > MAX_RETURN_CHARACTERS or not text.isprintable() or "\\" in text or " " in text:
            return False
        try:
            address = urlsplit(text)
            host, port = (address.hostname or "").lower(), address.port
        except ValueError:
            return False
        if not address.scheme and not address.netloc:
            return text.startswith("/") and not text.startswith("//")
        if address.scheme not in ("http", "https") or "@" in address.netloc or not host:
            return False
        request_host = host_name(Headers(scope=scope).get("host", ""))
        is_known_host = host == request_host or (host in self.hosts and (host in LOOPBACK) <= (request_host in LOOPBACK))
        return is_known_host and port in {None, self.port, self.ui_port, _request_port(scope)}


def origin_of(scope: Scope) -> str:
    """The origin that a request addresses: scheme and Host."""
    return f"{scope['scheme']}://{Headers(scope=scope).get('host', '').lower()}"


def apply_forwarding(scope: Scope, site: Site) -> None:
    """Takes scheme, host and client from the headers of a trusted proxy; those of others change nothing.

    ``state["is_forwarded"]`` is whether a trusted proxy sent it, ``state["has_forwarding"]`` whether anybody says that it was forwarded.
    """
    headers = Headers(scope=scope)
    client = (scope.get("client") or ("", 0))[0]
    state = scope.setdefault("state", {})
    state["has_forwarding"] = any(name in headers for name in _FORWARDING)
    state["is_forwarded"] = site.trusts(client)
    if not state["is_forwarded"]:
        return
    scheme = _last(headers.getlist("x-forwarded-proto")).lower()
    if scheme in ("http", "https"):
        scope["scheme"] = scheme
    if host := _last(headers.getlist("x-forwarded-host")):
        scope["headers"] = list(scope["headers"])
        MutableHeaders(scope=scope)["host"] = host
    addresses = [part.strip() for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    # From the right: what a client wrote itself stands to the left of what the proxies added.
    sender = next((address for address in reversed(addresses) if not site.trusts(address)), client)
    scope["client"] = (_address(sender) or client, 0)


def _last(values: list[str]) -> str:
    return values[-1].rpartition(",")[2].strip() if values else ""


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _request_port(scope: Scope) -> int | None:
    try:
        return urlsplit(origin_of(scope)).port
    except ValueError:
        return None
