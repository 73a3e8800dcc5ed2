"""The dashboard's entry: ``streamlit run ui/app.py`` with ROOTCOST_API_URL saying where the API listens.

It shows answers of the API only. Every selection is in the URL, and every figure shows the GET request that returns it.
"""

from __future__ import annotations

import streamlit as st

from api.client import ApiProblem
from ui import api_requests, labels, theme, widgets

TITLES = {
    "": "Overview",
    "explorer": "Cost explorer",
    "chains": "Chains",
    "explain": "Why it costs that",
    "balance": "Balance",
    "budgets": "Budgets",
    "sources": "Sources and problems",
}


def main() -> None:
    """Renders the frame, then the page that the URL names."""
    from ui.controls import PAGES

    st.set_page_config(page_title="RootCost", page_icon=str(theme.ICON), layout="wide", initial_sidebar_state="auto")
    st.logo(str(theme.LOGO), size="large", icon_image=str(theme.ICON))
    page = st.navigation(
        [st.Page(file, title=TITLES[path], url_path=path or None, default=not path) for path, file in PAGES.items()],
        position="sidebar",
    )
    try:
        page.run()
    except ApiProblem as problem:
        widgets.show_problem(problem)
    side()


def side() -> None:
    """Below the menu: how fresh the figures are."""
    with st.sidebar:
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
