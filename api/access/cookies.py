"""The cookie of a session. It is the API's, and the dashboard reads it: cookies ignore ports."""

from __future__ import annotations

import re
import secrets
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

SESSION: Final = "rootcost_session"
SECURE_SESSION: Final = f"__Host-{SESSION}"
"""Under https: browsers take a cookie of this name only from the host itself, with Secure and for all paths."""
LOGIN: Final = "rootcost_login"
SECURE_LOGIN: Final = f"__Host-{LOGIN}"
"""What binds a log-in at a provider to the browser that began it; one for all its tabs."""
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def session_cookie(scope: Scope) -> str:
    """What the cookie of the session holds; "" if there is none. Under https only the `__Host-` cookie counts."""
    names = (SECURE_SESSION,) if scope["scheme"] == "https" else (SECURE_SESSION, SESSION)
    return next(filter(None, (cookie(scope, name) for name in names)), "")


def login_secret(scope: Scope) -> str:
    """What the browser has for log-ins at providers; "" if nothing."""
    value = cookie(scope, SECURE_LOGIN if scope["scheme"] == "https" else LOGIN)
    return value if _SECRET.fullmatch(value) else ""


def set_login_secret(scope: Scope, *, seconds: int) -> tuple[str, str]:
    """The secret of the browser, a new one if it has none, and its Set-Cookie header."""
    value = login_secret(scope) or secrets.token_urlsafe(32)
    name = SECURE_LOGIN if scope["scheme"] == "https" else LOGIN
    return value, set_cookie(scope, name, value, seconds=seconds)


def cookie(scope: Scope, name: str) -> str:
    """The value of a cookie of the request; "" if there is none, or if there are two of that name: one may be another server's."""
    values = set()
    for header in Headers(scope=scope).getlist("cookie"):
        for part in header.split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                values.add(value.strip('"'))
    return values.pop() if len(values) == 1 else ""


def set_session(scope: Scope, token: str, *, hours: float) -> str:
    """The Set-Cookie header of a new session; an empty token deletes the cookie."""
    name = SECURE_SESSION if scope["scheme"] == "https" else SESSION
    return set_cookie(scope, name, token, seconds=int(hours * 3600) if token else 0)


def set_cookie(scope: Scope, name: str, value: str, *, seconds: int) -> str:
    """A Set-Cookie header. Scripts cannot read the cookie, and forms of other sites do not send it."""
    secure = "; Secure" if scope["scheme"] == "https" else ""
    return f"{name}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}"
