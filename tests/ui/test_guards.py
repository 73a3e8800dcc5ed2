"""What stands before the dashboard: host names, headers, closed paths, options that are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from streamlit import config

from ui import server
from ui.guards import Guards, Sessions


class NobodyNeeded(Sessions):
    """An API without people."""

    async def is_login_needed(self, cookie: str) -> bool:
        await asyncio.sleep(0)
        return False


@pytest.fixture(scope="module")
def client() -> TestClient:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("page")(scope, receive, send)

    guards = Guards(page, sessions=NobodyNeeded("http://127.0.0.1:1"), hosts={"127.0.0.1"}, script_hashes=["'sha256-x'"])
    return TestClient(guards, base_url="http://127.0.0.1:8501")


def test_other_host_names_are_refused_on_http_and_websocket(client: TestClient) -> None:
    assert client.get("/").text == "page"
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_stcore/stream", headers={"Host": "evil.example"}):
        pass


def test_every_answer_has_a_policy(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe-eval" not in policy
    assert "script-src 'self' 'sha256-x' blob:" in policy
    assert "connect-src 'self' ws://127.0.0.1:8501 wss://127.0.0.1:8501" in policy


@pytest.mark.parametrize("path", ["/_stcore/agent/mcp", "/_stcore/agent/interact", "/_stcore/metrics", "/auth/login"])
def test_what_streamlit_serves_beside_the_pages_is_closed(client: TestClient, path: str) -> None:
    assert client.post(path).status_code == 404


def test_headers_of_a_proxy_are_never_taken_for_who_somebody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    options = config.get_option
    monkeypatch.setattr(config, "get_option", lambda name: {"X-User": "name"} if name == server.REFUSED else options(name))
    with pytest.raises(server.UnsafeOptionError, match="trustedUserHeaders"):
        server.configure()


def test_the_inline_script_of_the_installed_page_is_hashed() -> None:
    assert len(server.inline_script_hashes()) == 1
