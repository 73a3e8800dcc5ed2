"""Who looks at a tab: the API's session cookie, which the browser sends to every port of a host name, so to the dashboard too.

The dashboard reads nothing from the cookie; it sends it on to the API. It is held for the tab, never printed, and never part of a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import streamlit as st

COOKIES = ("__Host-rootcost_session", "rootcost_session")
"""Names of the session cookie, by rank: a browser takes the first from a server with TLS only."""
RENEWED = "renewed-session"
"""Key of the session that a tab was renewed with."""
SCOPE = "scope"
"""Key of a digest of what the tab's identity may see."""

SEES_WHOLE = "sees-whole"
"""Key of whether the page is drawn for somebody who sees the whole ledger."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The credentials that requests of one tab carry."""

    cookie: str = field(repr=False)
    """As in a Cookie header; "" where nobody is logged in."""
    scope: str = ""
    """Digest of what it may see: who may see less is not answered from before."""

    @property
    def key(self) -> str:
        """Stands for the identity in keys of caches.

        >>> Identity("rootcost_session=a").key == Identity("rootcost_session=b").key
        False
        """
        return sha256(f"{self.scope}\n{self.cookie}".encode()).hexdigest()


def session_cookie(cookies: Mapping[str, str]) -> str:
    """The session cookie among others, as a Cookie header has it.

    >>> session_cookie({"_ga": "1", "rootcost_session": "abc"}), session_cookie({"_ga": "1"}), session_cookie({COOKIES[1]: "a; b=c"})
    ('rootcost_session=abc', '', '')
    """
    for name in COOKIES:
        value = cookies.get(name, "")
        if value and value.isascii() and not set(value) & set(' ;,"\\\r\n\t'):
            return f"{name}={value}"
    return ""


def of_tab() -> Identity:
    """The identity of the tab that is drawn: the session it was opened with, or the one it was renewed with."""
    cookie = st.session_state.get(RENEWED) or session_cookie(st.context.cookies)
    return Identity(str(cookie), str(st.session_state.get(SCOPE, "")))


def renew(cookie: str) -> None:
    """Takes another session for this tab, after a log-in in another one."""
    st.session_state[RENEWED] = cookie


def sees_whole() -> bool:
    """Whether the page is drawn for somebody who sees the whole ledger, and so may be told how it is filled. Without people set up everybody is."""
    return bool(st.session_state.get(SEES_WHOLE, True))
