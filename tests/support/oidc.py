"""Real providers of OpenID Connect on loopback (oidc-provider-mock), and a browser that goes to them and comes back."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from ledger.settings_sections import OidcProvider

SECRET = "the secret of the client"


@dataclass
class Provider:
    """A provider that runs, what it is told to answer, and what it was asked."""

    url: str
    app: Any
    userinfo: dict[str, Any] = field(default_factory=dict)
    """What userinfo says beside the claims of the token."""
    forms: list[dict[str, str]] = field(default_factory=list)
    """Forms that its token endpoint was sent."""
    secrets: list[str | None] = field(default_factory=list)

    def settings(self, name: str, **changes: Any) -> OidcProvider:
        values: dict[str, Any] = {"name": name, "issuer": self.url, "client_id": "rootcost", "client_secret": SECRET}
        return OidcProvider(**values | changes)

    def set_user(self, subject: str, **claims: Any) -> None:
        """Claims of the token and of userinfo; those of the protocol (aud, exp, …) lie."""
        httpx.put(f"{self.url}/users/{subject}", json=claims, trust_env=False).raise_for_status()

    def log_in(self, address: str, subject: str) -> str:
        """Somebody logs in at the provider; returns the address that it sends the browser back to."""
        answer = httpx.post(address, data={"sub": subject}, trust_env=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def is_proof(self, address: str) -> bool:
        """Whether the last code was redeemed with the secret whose hash the departure named (PKCE)."""
        challenge = parse_qs(urlsplit(address).query)["code_challenge"][0]
        digest = hashlib.sha256(self.forms[-1]["code_verifier"].encode()).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=") == challenge


@contextmanager
def run_provider() -> Iterator[Provider]:
    """A provider in a thread."""
    from threading import Thread

    import flask
    import oidc_provider_mock
    from werkzeug.serving import make_server

    app = oidc_provider_mock.app()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    provider = Provider(f"http://127.0.0.1:{server.server_port}", app)

    def note() -> None:
        if flask.request.path == "/oauth2/token":
            provider.forms.append(dict(flask.request.form))
            provider.secrets.append(flask.request.authorization.password if flask.request.authorization else None)

    def tell_more(response: Any) -> Any:
        if flask.request.path == "/userinfo" and provider.userinfo and response.status_code == 200:
            response.set_data(flask.json.dumps({**response.get_json(), **provider.userinfo}))
        return response

    app.before_request(note)
    app.after_request(tell_more)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
