"""Reached from elsewhere: refused until somebody is set up, and then through a real nginx and a real Caddy with the configurations of the documentation."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.errors import SettingsError
from ledger.settings import AccessSettings, ServeSettings, Settings
from ledger.settings_sections import OidcProvider
from rootcost.service import serve
from tests.support.paths import ROOT
from tests.support.people import BROWSER, PASSWORD, add_person, cheap_passwords, log_in
from tests.support.served import Served

NAME = "gateway.example.com"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_somebody_must_be_set_up(tmp_path: Path, host: str) -> None:
    settings = Settings(home=tmp_path, serve=ServeSettings(host=host))
    with Books(settings) as books:
        with pytest.raises(SettingsError, match=r"neither people nor keys are set up.*rootcost users add"):
            serve._check_reach(books)
        create_key(books, "exporter", [Grant("viewer")], actor="cli")
        serve._check_reach(books)
    provider = OidcProvider(name="company", issuer="https://login.example.com", client_id="rootcost")
    with Books(settings.model_copy(update={"home": tmp_path / "b", "access": AccessSettings(providers=[provider])})) as books:
        serve._check_reach(books)
    with Books(settings.model_copy(update={"home": tmp_path / "c", "serve": ServeSettings()})) as books:
        serve._check_reach(books)


def test_all_addresses_are_reached_by_this_machine_at_its_own() -> None:
    assert serve.Addresses("0.0.0.0", 1, 2).api == "http://127.0.0.1:1"
    assert serve.Addresses("::", 1, 2).dashboard == "http://[::1]:2"
    assert serve.Addresses("192.0.2.1", 1, 2).api == "http://192.0.2.1:1"


def test_the_first_start_of_an_older_home_shows_the_link_of_the_first_administrator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = (ROOT / "tests/data/homes").glob("0.1.0/home.tar.xz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    home = next(path.parent for path in tmp_path.rglob("rootcost.db"))
    with Books.open(home) as books:
        service: Any = SimpleNamespace(_books=books, _where=serve.Addresses("127.0.0.1", 8787, None))
        for link_is_shown in (True, False):  # later on a terminal only
            serve._Service._announce_first_admin(service)
            assert ("http://127.0.0.1:8787/setup?token=" in capsys.readouterr().out) == link_is_shown


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def tls_port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """API and dashboard behind nginx or Caddy, as the documentation says; the port of the proxy."""
    if shutil.which(request.param) is None or shutil.which("openssl") is None:
        pytest.skip(f"no {request.param} here")
    folder = tmp_path_factory.mktemp(request.param)
    home, (port, ui_port, proxy_port) = folder / "home", free_ports(3)
    home.mkdir()
    settings = documented("toml", r"\[serve\]\nallowed_hosts")
    (home / "rootcost.toml").write_text(settings.replace("https://gateway.example.com", f"https://{NAME}:{proxy_port}"))
    with cheap_passwords(), Books.open(home) as books:
        add_person(books, "ada", "admin")
    key_options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"]
    subject = ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    request_line = ["openssl", "req", "-x509", *key_options, *subject, "-out", "cert.pem"]
    subprocess.run(request_line, cwd=folder, check=True, capture_output=True)
    service = Served(home, port=port, ui_port=ui_port)
    command = {"nginx": nginx_command, "caddy": caddy_command}[request.param](folder, proxy_port, port, ui_port)
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    proxy = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        service.until_ready()
        yield proxy_port
    finally:
        proxy.terminate()
        proxy.wait(10)
        service.stop()


def documented(kind: str, beginning: str) -> str:
    """A block of docs/access.md."""
    block = re.search(rf"```{kind}\n({beginning}.*?)```", (ROOT / "docs/access.md").read_text(), re.DOTALL)
    assert block is not None
    return block[1]


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def nginx_command(folder: Path, proxy_port: int, port: int, ui_port: int) -> list[str]:
    server = replaced(
        documented("nginx", "server"),
        ("443 ssl", f"127.0.0.1:{proxy_port} ssl"),
        ("/etc/ssl/rootcost.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/rootcost.key", f"{folder}/key.pem"),
        (":8787", f":{port}"),
        (":8501", f":{ui_port}"),
    )
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, proxy_port: int, port: int, ui_port: int) -> list[str]:
    """Without an authority for the certificate, which the test makes itself."""
    site = replaced(
        documented("text", "gateway"),
        ("gateway.example.com {", f"https://{NAME}:{proxy_port} {{\n    bind 127.0.0.1\n    tls cert.pem key.pem"),
        (":8787", f":{port}"),
        (":8501", f":{ui_port}"),
    )
    (folder / "Caddyfile").write_text(f"{{\n    admin off\n    auto_https disable_redirects\n    default_sni {NAME}\n}}\n{site}")
    return ["caddy", "run", "--config", "Caddyfile"]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def browser(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", headers={"Host": f"{NAME}:{port}"}, verify=False, trust_env=False)


@pytest.mark.slow
def test_log_in_through_a_proxy_gives_a_host_cookie_and_lies_change_nothing(tls_port: int) -> None:
    with browser(tls_port) as http:
        first = http.get("/team", headers={"Accept": "text/html"})
        assert first.status_code == 302
        assert first.headers["location"].startswith(
            f"https://{NAME}:{tls_port}/login?return_to=https%3A%2F%2F{NAME}%3A{tls_port}%2Fteam"
        )
        answer = log_in(http, "ada", return_to=f"https://{NAME}:{tls_port}/team")
        assert (answer.status_code, answer.headers["location"]) == (303, f"https://{NAME}:{tls_port}/team")
        cookie = answer.headers["set-cookie"]
        http.cookies.clear()
        assert re.match(r"__Host-rootcost_session=[\w-]{43}; .*; Secure$", cookie)
        token = cookie.partition("=")[2].partition(";")[0]
        own = {"Cookie": f"__Host-rootcost_session={token}"}
        assert http.get("/v1/me", headers=own).json()["name"] == "ada"
        assert http.get("/v1/me", headers={"Cookie": f"rootcost_session={token}"}).status_code == 401
        assert http.get("/v1/me", headers=own | {"X-Forwarded-Host": "evil.example"}).status_code == 200
        assert is_closed(http.get("/v1/me", headers=own | {"Host": "evil.example"}))
        for lie in ("X-Forwarded-User", "Remote-User", "X-Remote-User", "X-Forwarded-For", "Forwarded"):
            assert http.get("/v1/me", headers={lie: "127.0.0.1"}).status_code == 401, lie
            assert http.get("/team", headers={"Accept": "text/html", lie: "ada"}).status_code == 302, lie
        assert http.get("/v1/me", headers={"X-Forwarded-Proto": "http", **own}).json()["name"] == "ada"
        assert (
            http.post(
                "/v1/keys", json={"name": "x", "grants": ["viewer"]}, headers=own | {"Sec-Fetch-Site": "cross-site"}
            ).status_code
            == 403
        )
        challenge = http.post("/mcp", json={}).headers["www-authenticate"]
        assert f'resource_metadata="https://{NAME}:{tls_port}/.well-known/oauth-protected-resource/mcp"' in challenge
        assert http.get("/team", headers=own | {"Accept": "text/html"}).status_code == 200
        form = {"name": "ada", "password": PASSWORD}
        assert is_closed(http.post("/login", data=form, headers=BROWSER | {"Host": "evil.example"}))


def is_closed(answer: httpx.Response) -> bool:
    """Whether it is refused by the API, or by the proxy, which has nothing under that name (Caddy answers with nothing)."""
    return answer.status_code == 421 or (answer.content == b"" and "set-cookie" not in answer.headers)


@pytest.mark.slow
def test_the_websockets_of_the_dashboard_pass_the_proxy(tls_port: int) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def open_socket(origin: str, path: str = "/_stcore/stream", protocol: str = "streamlit") -> Any:
        plain = socket.create_connection(("127.0.0.1", tls_port), timeout=10)
        options: dict[str, Any] = {"sock": plain, "ssl": context, "server_hostname": NAME, "proxy": None}
        protocols = [Subprotocol(protocol)] if protocol else None
        return connect(f"wss://{NAME}:{tls_port}{path}", origin=Origin(origin), subprotocols=protocols, **options)

    with open_socket(f"https://{NAME}:{tls_port}") as websocket:
        assert websocket.subprotocol == "streamlit"
    with pytest.raises(InvalidStatus, match="403"):
        open_socket("https://evil.example")
    with open_socket(f"https://{NAME}:{tls_port}", "/session-watch", "") as websocket:
        assert websocket.recv(timeout=10) == "", "nobody is logged in"
    with pytest.raises(InvalidStatus, match="403"):
        open_socket("https://evil.example", "/session-watch", "")
