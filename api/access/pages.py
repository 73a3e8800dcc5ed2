"""The pages of log-in: small HTML without scripts and without requests to anybody else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Final
from urllib.parse import quote, urlsplit

from fastapi.responses import HTMLResponse

from ledger.access.links import LinkRow
from ledger.access.passwords import MAX_CHARACTERS, MIN_CHARACTERS

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#8a9199;--accent:#0b5cad;--on-accent:#fff;--bad:#a3211b}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#14171a;--line:#7d858d;--accent:#7db8f5;--on-accent:#0c1216;--bad:#ff9d94}}
*{box-sizing:border-box}
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
main{max-width:23rem;margin:12vh auto 2rem;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
label{display:block;margin:1rem 0 .25rem}
input,button,.provider{width:100%;min-height:2.75rem;font:inherit;border-radius:.375rem;border:1px solid var(--line);padding:.5rem .75rem}
input{color:inherit;background:transparent}
button,.provider{display:block;margin-top:1.25rem;cursor:pointer;text-align:center;text-decoration:none}
button{color:var(--on-accent);background:var(--accent);border-color:var(--accent)}
.provider{color:inherit}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
a{color:var(--accent)}
.error{color:var(--bad);border-left:4px solid var(--bad);padding-left:.75rem}
"""
_STYLE_HASH: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()


def login_page(
    return_to: str, *, providers: Mapping[str, str], error: str = "", name: str = "", status: int = 200, seconds: int = 0
) -> HTMLResponse:
    """The log-in: providers by name and title, and name and password. `seconds` is how long to wait before the next attempt."""
    links = "".join(
        f'<a class="provider" href="/login/{quote(key)}?return_to={quote(return_to, safe="")}">Log in with {escape(title)}</a>'
        for key, title in providers.items()
    )
    form = _form(
        "/login",
        [
            _field("name", "Name", value=name, autocomplete="username"),
            _field("password", "Password", kind="password", autocomplete="current-password"),
        ],
        "Log in",
        return_to=return_to,
    )
    answer = _page("Log in to RootCost", _error(error) + links + form, status=status, targets=[return_to])
    if seconds:
        answer.headers["Retry-After"] = str(seconds)
    return answer


def logged_in_page(name: str, return_to: str) -> HTMLResponse:
    """For who is logged in already, or wants to log out."""
    body = f'<p>You are logged in as {escape(name)}.</p><a class="provider" href="{escape(return_to)}">Go on</a>'
    return _page("RootCost", body + _form("/logout", [], "Log out"))


def password_page(
    link: LinkRow, token: str, return_to: str, *, error: str = "", name: str = "", status: int = 200
) -> HTMLResponse:
    """A one-time link: it sets a password, and for the first administrator a name; then it leads on to `return_to`."""
    titles = {"first-admin": "Set up the first administrator", "invitation": "Welcome to RootCost", "reset": "Set a new password"}
    is_first = link.purpose == "first-admin"
    head = "" if is_first else f"<p>For {escape(link.name)}.</p>"
    fields = [_field("name", "Name to log in with", value=name, autocomplete="username")] if is_first else []
    hint = f"Password, at least {MIN_CHARACTERS} characters"
    fields.append(_field("password", hint, kind="password", autocomplete="new-password"))
    fields.append(_field("repeated", "The same again", kind="password", autocomplete="new-password"))
    form = _form("/setup", fields, "Set password and log in", token=token)
    return _page(titles[link.purpose], head + _error(error) + form, status=status, targets=[return_to])


def no_roles_page(name: str, sentence: str, return_to: str) -> HTMLResponse:
    """For who is known, and may see nothing yet."""
    body = f"<p>You are logged in as {escape(name)}, and no role is yours.</p><p>{escape(sentence)}</p>"
    return _page(
        "You see nothing yet", f'{body}<a class="provider" href="{escape(return_to)}">Go on</a>' + _form("/logout", [], "Log out")
    )


def message_page(title: str, message: str, *, status: int) -> HTMLResponse:
    """A sentence, and the way to the log-in."""
    return _page(title, f'<p>{escape(message)}</p><a class="provider" href="/login">Log in</a>', status=status)


def problem_type_page(kind: str, title: str, sentences: Sequence[str]) -> HTMLResponse:
    """The page of a type of problem."""
    return _page(title, "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences) + f"<p><code>{escape(kind)}</code></p>")


def _page(title: str, body: str, *, status: int = 200, targets: Sequence[str] = ()) -> HTMLResponse:
    origins = [f" {address.scheme}://{address.netloc}" for address in map(urlsplit, targets) if address.netloc]
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'; "
        # A form's answer leads on to the return address, and browsers hold that to form-action, too.
        f"form-action 'self'{''.join(origins)}"
    )
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return HTMLResponse(document, status, {"Content-Security-Policy": policy, "Cache-Control": "no-store"})


def _form(action: str, fields: Sequence[str], button: str, **hidden_fields: str) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{key}" value="{escape(value)}">' for key, value in hidden_fields.items() if value
    )
    return f'<form method="post" action="{action}">{hidden}{"".join(fields)}<button>{escape(button)}</button></form>'


def _field(key: str, label: str, *, autocomplete: str, kind: str = "text", value: str = "") -> str:
    return (
        f'<label for="{key}">{escape(label)}</label><input id="{key}" name="{key}" type="{kind}" value="{escape(value)}" '
        f'autocomplete="{autocomplete}" autocapitalize="none" maxlength="{MAX_CHARACTERS}" required>'
    )


def _error(text: str) -> str:
    return f'<p class="error" role="alert">{escape(text)}</p>' if text else ""
