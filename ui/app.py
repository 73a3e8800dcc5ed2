"""The dashboard's entry: ``streamlit run ui/app.py`` with ROOTCOST_API_URL saying where the API listens.

It shows answers of the API only. Every selection is in the URL, and every figure shows the GET request that returns it.
"""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import Page as StreamlitPage

from api.client import ApiProblem
from api.models import Me
from ui import api_requests, labels, people, theme, widgets

TITLES = {
    "": "Overview",
    "explorer": "Cost explorer",
    "chains": "Chains",
    "explain": "Why it costs that",
    "compare": "Compare",
    "anomalies": "Anomalies",
    "balance": "Balance",
    "periods": "Periods",
    "budgets": "Budgets",
    "alerts": "Alerts",
    "sources": "Sources and problems",
}


def main() -> None:
    """Renders the frame, then the page that the URL names."""
    from ui.controls import PAGES

    st.set_page_config(page_title="RootCost", page_icon=str(theme.ICON), layout="wide", initial_sidebar_state="auto")
    st.logo(str(theme.LOGO), size="large", icon_image=str(theme.ICON))
    answer = people.who()
    me = None if isinstance(answer, ApiProblem) else answer
    is_admitted = people.admit(answer)
    menu = {path: _page(path, file, is_open=people.may_open(me, path)) for path, file in PAGES.items()}
    page = st.navigation(list(menu.values()), position="sidebar" if is_admitted else "hidden")
    if people.is_watched(answer):
        # Before the page: a fragment is known by its place, which must be the same whether the page is drawn or not.
        people.watch()
    if is_admitted:
        show(page, me)


def show(page: StreamlitPage, me: Me | None) -> None:
    """The page that the URL names, for who looks at it."""
    path = page.url_path
    try:
        if people.may_open(me, path):
            people.show_part(me)
            page.run()
        else:
            people.show_closed(TITLES[path])
    except ApiProblem as problem:
        if not people.is_login_needed(problem):
            widgets.show_problem(problem)
    side(me)


def _page(path: str, file: str, *, is_open: bool) -> StreamlitPage:
    return st.Page(
        file, title=TITLES[path], url_path=path or None, default=not path, visibility="visible" if is_open else "hidden"
    )


def side(me: Me | None) -> None:
    """Below the menu: who is logged in, and how fresh the figures are."""
    with st.sidebar:
        people.show_who(me)
        fresh = api_requests.try_request(lambda api: api.freshness())
        if isinstance(fresh, ApiProblem):
            st.caption("API: no answer" if fresh.status == 0 else "API: not ready")
            return
        for warning in fresh.value.warnings:
            st.error(widgets.plain(warning))
        published_at = fresh.value.published_at
        if published_at is None:
            st.caption("Nothing published yet")
            return
        seconds = int((fresh.value.now - published_at).total_seconds())
        newest = [
            f"{one.source} ({'bill' if one.kind == 'charges' else 'log'}): {labels.age(one.age_seconds)}"
            for one in fresh.value.sources
        ]
        lines = [f"Figures published {labels.age(seconds)}", *(["Newest facts", *newest] if newest else [])]
        st.caption("  \n".join(widgets.plain(line) for line in lines), help=labels.when(published_at))


main()
