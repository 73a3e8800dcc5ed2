"""Sessions that a tab is renewed with, after a log-in in another tab.

A tab's socket keeps the cookie it was opened with. While the tab waits for a log-in it draws a picture whose name nobody else knows; the
browser fetches it with the cookie of now, and so the tab learns of the new session without a reload, which would lose what was typed.
"""

from __future__ import annotations

import secrets
from threading import Lock

PATH = "/session-picture/"
PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
_MOST = 2000

_lock = Lock()
_cookies: dict[str, str] = {}


def new_name() -> str:
    """The name of a picture, which is waited for from now on."""
    name = secrets.token_urlsafe(24)
    with _lock:
        while len(_cookies) >= _MOST:
            del _cookies[next(iter(_cookies))]
        _cookies[name] = ""
    return name


def put(name: str, cookie: str) -> None:
    """Notes the session that a picture was fetched with. One that nobody waits for is not noted."""
    with _lock:
        if name in _cookies:
            _cookies[name] = cookie


def take(name: str) -> str:
    """The session that a picture was fetched with, once; "" if it was not, or without one.

    >>> name = new_name()
    >>> put(name, "rootcost_session=a")
    >>> take(name), take(name), put("guessed", "rootcost_session=b"), take("guessed")
    ('rootcost_session=a', '', None, '')
    """
    with _lock:
        return _cookies.pop(name, "")
