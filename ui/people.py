"""Who is logged in: told beside the menu, asked again every second, and what happens when nobody is any more.

A tab whose session has ended is covered, not emptied: what is being typed stays, and after a log-in in another tab it can be saved.
"""

from __future__ import annotations

from hashlib import sha256

import streamlit as st

from api.client import ApiProblem
from api.models import Me
from ui import api_requests, identity, renewals, widgets

LOGIN_NEEDED = "/problems/login-needed"
WHOLE_PAGES = {"balance": "books:read", "periods": "books:read", "sources": "sources:read"}
"""Pages made of what is no team's, and the permission that each needs over the whole."""
TEAM_PAGES = {"anomalies": "budgets:read", "budgets": "budgets:read", "alerts": "budgets:read"}
_PRINCIPAL, _LOGGED_IN, _DRAWN, _PICTURE, _ENTRIES = "principal", "logged-in", "page-drawn", "session-picture", "entries-kept"
_SETS_BUDGETS = "sets-budgets"
_CLOSES_MONTHS = "closes-months"
_OWN_KEYS = {
    _PRINCIPAL,
    _LOGGED_IN,
    _SETS_BUDGETS,
    _CLOSES_MONTHS,
    _DRAWN,
    _PICTURE,
    _ENTRIES,
    identity.RENEWED,
    identity.SCOPE,
    identity.SEES_WHOLE,
}


def who() -> Me | ApiProblem:
    """Who looks at this tab. Notes what it may see, which is part of the keys of the cache from then on."""
    answer = api_requests.ask_who()
    scope = "" if isinstance(answer, ApiProblem) else sha256(answer.model_dump_json().encode()).hexdigest()
    st.session_state[identity.SCOPE] = scope
    return answer


def is_login_needed(answer: object) -> bool:
    """Whether people are set up and nobody is logged in."""
    return isinstance(answer, ApiProblem) and answer.type == LOGIN_NEEDED


def is_logged_in() -> bool:
    """Whether the page is drawn for a person, so that changes are his and need no token."""
    return bool(st.session_state.get(_LOGGED_IN))


def may_set_budgets() -> bool:
    """Whether the page is drawn for somebody whose budgets would be taken. Without people set up a token may make it so."""
    return bool(st.session_state.get(_SETS_BUDGETS, True))


def may_close_months() -> bool:
    """Whether the page is drawn for somebody who may close months. Without people set up a token may make it so."""
    return bool(st.session_state.get(_CLOSES_MONTHS, True))


def may_open(me: Me | None, path: str) -> bool:
    """Whether a page shows anything to somebody. Without people set up, and while nothing answers, every page is there."""
    if me is None:
        return True
    if path in WHOLE_PAGES:
        return me.permissions.get(WHOLE_PAGES[path]) == "whole"
    return TEAM_PAGES.get(path, "costs:read") in me.permissions


def is_watched(answer: Me | ApiProblem) -> bool:
    """Whether the tab asks on and on who looks at it: where people are set up."""
    return is_login_needed(answer) or (not isinstance(answer, ApiProblem) and answer.kind != "machine")


def admit(answer: Me | ApiProblem) -> bool:
    """Whether the page may be drawn for who looks at the tab now."""
    if is_login_needed(answer):
        _keep_entries()
        st.session_state[_DRAWN] = False
        return False
    principal = "" if isinstance(answer, ApiProblem) else answer.principal
    if principal and st.session_state.get(_PRINCIPAL, principal) != principal:
        _start_anew(principal)
        return False
    if principal:
        st.session_state[_PRINCIPAL] = principal
    st.session_state[_DRAWN] = True
    st.session_state[_LOGGED_IN] = not isinstance(answer, ApiProblem) and answer.kind == "user"
    st.session_state[identity.SEES_WHOLE] = isinstance(answer, ApiProblem) or answer.scope == "whole"
    st.session_state[_SETS_BUDGETS] = (
        isinstance(answer, ApiProblem) or answer.kind == "machine" or "budgets:write" in answer.permissions
    )
    st.session_state[_CLOSES_MONTHS] = (
        isinstance(answer, ApiProblem) or answer.kind == "machine" or answer.permissions.get("periods:close") == "whole"
    )
    for key, entry in st.session_state.pop(_ENTRIES, {}).items():
        st.session_state.setdefault(key, entry)
    return True


def _keep_entries() -> None:
    """Keeps what was filled in: Streamlit forgets it with a run that does not draw its field."""
    entries = {
        key: value
        for key, value in st.session_state.items()
        if key not in _OWN_KEYS and isinstance(value, (str, int, float)) and not isinstance(value, bool)
    }
    st.session_state[_ENTRIES] = {**st.session_state.get(_ENTRIES, {}), **entries}


def _start_anew(principal: str) -> None:
    """Another person has logged in: nothing that the one before has filled in or chosen is his. One run without the page empties the browser."""
    session = st.session_state.get(identity.RENEWED)
    st.session_state.clear()
    st.session_state.update({identity.RENEWED: session, _PRINCIPAL: principal, _DRAWN: False})


@st.fragment(run_every=1.0)
def watch() -> None:
    """Asks every second who looks at the tab; covers it when nobody may, and draws it again for who does."""
    drawn_for = st.session_state.get(identity.SCOPE)
    cookie = renewals.take(st.session_state.pop(_PICTURE, ""))
    if cookie:
        identity.renew(cookie)
    answer = who()
    if is_login_needed(answer):
        st.session_state[identity.SCOPE] = drawn_for
        _cover()
    elif not st.session_state.get(_DRAWN) or st.session_state[identity.SCOPE] not in (drawn_for, ""):
        st.rerun()


def _cover() -> None:
    """Hides the page; the words are those of `session_watch.js`, which has covered it before and shows them as long as this is there."""
    name = renewals.new_name()
    st.session_state[_PICTURE] = name
    st.html(
        "<style>[data-testid=stApp]{visibility:hidden}</style>"
        f"<div class='rc-cover'><img src='{renewals.PATH}{name}' alt='' width='1' height='1'></div>"
    )


def show_who(me: Me | None) -> None:
    """Name, role and scope of who is logged in, with a way to log out."""
    if me is None or me.kind != "user":
        return
    scope = "everything" if me.scope == "whole" else ", ".join(me.scope) or "nothing"
    st.caption(f"{widgets.plain(me.name)}  \n{widgets.plain(me.role)} · {widgets.plain(scope)}")
    st.button("Log out", key="log-out", on_click=_log_out)


def _log_out() -> None:
    try:
        api_requests.log_out()
    except ApiProblem as problem:
        widgets.show_problem(problem)


def show_part(me: Me | None) -> None:
    """Says that totals are of one's own teams, where they are."""
    if me is not None and me.scope != "whole":
        st.caption(f"Your part: {widgets.plain(', '.join(me.scope) or 'nothing')}. Totals are of your part.")


def show_closed(title: str) -> None:
    """In place of a page that somebody may not open."""
    st.title(title)
    widgets.empty_state("This page needs a role over the whole ledger", "Ask an administrator for one, or choose another page.")
