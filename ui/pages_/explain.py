"""Explanation page: the steps behind a chain, call, charge or cell of a report."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from api.client import ApiProblem
from api.models import Basis, Explanation, Granularity, View
from ui import controls, explanations, widgets
from ui.api_requests import Answer, request, try_request
from ui.grid import draw

CELL = ("by", "view", "start", "end", "granularity", "basis", "filter")


def page() -> None:
    """Draws the explanation that the URL asks for, or asks what to explain."""
    st.title("Why it costs that")
    ref = controls.write_in("Explain", "ref", placeholder="id of a chain, a call or a charge")
    if ref:
        show_explanation(request(lambda api: api.explain(ref)))
    elif any(controls.read_all(name) for name in CELL):
        show_explanation(cell())
    else:
        newest()


def newest() -> None:
    """The newest month as a whole, where nothing else is asked for."""
    months = request(lambda api: api.overview(top=1)).value.months
    if not months:
        widgets.nothing_published()
        return
    month = months[-1]
    st.caption("The newest month as a whole. Follow a cost in the cost explorer, or give the id of a chain, a call or a charge.")
    answer = try_request(lambda api: api.explain_cell(by=["team"], start=month, end=controls.next_month(month)))
    if isinstance(answer, ApiProblem) and answer.status == 404:
        widgets.empty_state("Nothing here", "Nothing was spent in the newest month, as far as you see it.")
    elif isinstance(answer, ApiProblem):
        raise answer
    else:
        show_explanation(answer)


def cell() -> Answer[Explanation]:
    """The cell that the URL names, with the parameters of the report."""
    filters: dict[str, list[str]] = {}
    for pair in controls.read_all("filter"):
        name, _, value = pair.partition("=")
        filters.setdefault(name, []).append(value)
    chosen: dict[str, Any] = {
        "start": controls.read("start") or None,
        "end": controls.read("end") or None,
        "filters": dict(filters),
    }
    for name, words in (("view", get_args(View)), ("granularity", get_args(Granularity)), ("basis", get_args(Basis))):
        if controls.read(name) in words:
            chosen[name] = controls.read(name)
    by = [name for name in controls.read("by").split(",") if name]
    return request(lambda api: api.explain_cell(by=by, **chosen))


def show_explanation(answer: Answer[Explanation]) -> None:
    """The figure, then its steps."""
    story = answer.value
    with st.container(horizontal=True, gap="small"):
        widgets.state_badge(story.kind.capitalize(), "cool")
        if story.kind != "cell":
            widgets.state_badge(story.ref, "")
        if story.billed:
            widgets.state_badge(f"Billed {widgets.several_exact(story.billed)}", "good")
        if story.estimated:
            widgets.state_badge(f"Estimated {widgets.several_exact(story.estimated)}", "warn")
    st.metric("Cost", widgets.plain(widgets.several(story.cost)), help=widgets.plain(widgets.several_exact(story.cost)))
    rules = st.toggle("Show rule ids", key="rules")
    controls.go(draw(explanations.explanation_grid(story, answer.address, rules=rules), key="why"), page="explain")


page()
